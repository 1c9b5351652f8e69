"""What the tests of this folder share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reparamkit.cli import app as cli
from tests.cli.running import Result, Run


@pytest.fixture
def _modules_of_this_test(tmp_path: Path) -> Iterator[None]:
    """Another test's `nets.py` is another module: what was imported from the folder goes with it."""
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    _modules_of_this_test: None,
) -> Run:
    """The command line in this process, in an empty current folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["reparamkit", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capfd.readouterr()
        status = end.value.code or 0
        assert isinstance(status, int)
        return Result(status, captured.out, captured.err)

    return call
