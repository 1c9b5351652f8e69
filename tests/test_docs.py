"""The examples in `docs/` run as they stand, each page alone; what is written from sources is fresh."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli_page import PAGE, cli_page

ROOT = Path(__file__).parents[1]
WITHOUT_EXAMPLES = {
    "api",
    "architecture",
    "benchmarks",
    "cli",
    "four_ways",
    "promises",
    "versions",
    "what_folds",
}
"""Pages without Python; recipes are commands."""
PAGES = sorted(page for page in (ROOT / "docs").glob("*.md") if page.stem not in WITHOUT_EXAMPLES)


@pytest.mark.diagonal(1)
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


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    """No link that leads nowhere, no page that the navigation lacks, no parameter that a signature lacks."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PATH": folders}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "api" / "index.html").exists()


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "README.md", "CHANGELOG.md"])
def test_commands_and_paths_are_there(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    paths = {module.replace(".", "/") + ".py" for module in re.findall(r"python -m (tests\.[\w.]*\w)", text)}
    paths |= set(re.findall(r"\b(?:docs|fixtures|tests|reparamkit|examples)/[\w/]+\.(?:py|md|toml)\b", text))
    assert paths
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    targets = set(re.findall(r"`make ([a-z-]+)", text))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.M)] == []
