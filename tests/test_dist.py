"""What is built and published: the version in one place, and everything that belongs into a wheel."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import reparamkit

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_version_stands_in_one_place() -> None:
    assert "version" not in SETTINGS["project"]
    assert SETTINGS["project"]["dynamic"] == ["version"]
    written = re.compile(rf"""version\w*["']?\s*[=:]\s*["']{re.escape(reparamkit.__version__)}["']""")
    files = [file for file in (ROOT / "reparamkit").rglob("*.py") if written.search(file.read_text("utf-8"))]
    assert [file.relative_to(ROOT).as_posix() for file in files] == ["reparamkit/support/version.py"]
    place = SETTINGS["tool"]["setuptools"]["dynamic"]["version"]["attr"]
    assert place == "reparamkit.support.version.__version__"


def test_a_wheel_holds_every_file_of_the_package() -> None:
    """Whatever lies in the package and is no module has to be named, or an installed package lacks it."""
    patterns = SETTINGS["tool"]["setuptools"]["package-data"]["reparamkit"]
    package = ROOT / "reparamkit"
    named = {file for pattern in patterns for file in package.glob(pattern)}
    data = {file for file in package.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")}
    assert data == named
    folders = {file.parent for file in package.rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
