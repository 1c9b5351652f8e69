"""The examples in `docs/` run as they stand, each page alone; what is written from sources is fresh."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli_page import PAGE, cli_page

WITHOUT_EXAMPLES = {"architecture", "cli"}
PAGES = sorted(
    page for page in (Path(__file__).parents[1] / "docs").glob("*.md") if page.stem not in WITHOUT_EXAMPLES
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_run(page: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    assert blocks
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join(blocks)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_page_on_the_command_line_is_what_the_help_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == cli_page(), "stale: make docs"
