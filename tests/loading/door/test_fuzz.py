"""Damaged files of every kind: none ends in an error of ours, a crash, a hang, or a read outside."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.loading.door.fuzz import campaign

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify and limits of memory are Linux's")


def _assert_none_wrong(seeds: range, folder: Path) -> None:
    wrong, ends = campaign(seeds, folder)
    assert not wrong, "\n\n".join(wrong)
    # Both what is refused and what is compared was reached, or nothing was tried.
    assert ends["2"] > len(seeds) / 3
    assert ends["0"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [range(20, 40), range(60)], ids=str)
def test_sixty_damaged_files(seeds: range, tmp_path: Path) -> None:
    _assert_none_wrong(seeds, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(10_000, 12_000, 500))
def test_two_thousand_damaged_files(first: int, tmp_path: Path) -> None:
    _assert_none_wrong(range(first, first + 500), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [14, 28, 43, 317, 400, 406, 422, 594, 621, 746, 1063, 2010, 2513])
def test_what_was_found_before(seed: int, tmp_path: Path) -> None:
    """Each of these once ended in a traceback, a crash, or a read outside."""
    wrong, _ = campaign(range(seed, seed + 1), tmp_path)
    assert not wrong, wrong
