from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """What a hostile file would write."""
    return tmp_path / "marker"
