"""The scripts of `examples/` run as they stand, in an empty folder, and print what the page shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.four_ways import PAGE, WAYS, masked, section, sections, transcript
from tests.shell import ROOT

COMMANDS = 3


def test_every_script_is_there_and_short() -> None:
    scripts = {script.stem for script in (ROOT / "examples").glob("*.sh")}
    assert scripts == set(WAYS)
    for name in WAYS:
        text = (ROOT / "examples" / f"{name}.sh").read_text(encoding="utf-8")
        assert 1 <= len(re.findall(r"^reparamkit ", text, re.M)) <= COMMANDS
        assert text.startswith("#!/usr/bin/env bash\n# ")
        assert "set -euo pipefail" in text
    assert list(sections(PAGE.read_text(encoding="utf-8"))) == list(WAYS.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", WAYS)
def test_a_script_prints_what_the_page_shows(name: str, tmp_path: Path) -> None:
    now = section(name, transcript(name, tmp_path))
    shown = sections(PAGE.read_text(encoding="utf-8"))[WAYS[name]]
    assert masked(shown) == masked(now), "stale: python -m tests.four_ways"
