"""What is slow, and a share of it besides the others: `--slow-share NUMBER/SHARES`.

Which share a test is in follows from its file and its parameters alone, so that cases which a fixture serves
together stay together. NUMBER counts on from run to run (commits, days): SHARES runs in a row reach every
slow test once.

A test marked `diagonal` runs over every combination of its parameters in the slow part, and in the fast part
over the diagonal: every value of every parameter once, the shorter lists from their start again. Marked
`diagonal(most)`, so many of these are fast, spread evenly from the first to the last.

`slow.txt` lists single cases that took more than a second and a quarter where a shorter case of the same kind
stays fast, one id of pytest's a line.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest

T = TypeVar("T")
LISTED = frozenset(Path(__file__).with_name("slow.txt").read_text(encoding="utf-8").splitlines())
"""Ids of single cases that are slow."""
FAST = "not slow"
"""What pytest is told to select where nobody says otherwise (`addopts` in pyproject.toml)."""


def few(values: Iterable[T], *fast: T) -> list[Any]:
    """All of these for `parametrize`; but for the ones that are named, they are slow."""
    values = list(values)
    missing = [value for value in fast if value not in values]
    if missing or not fast:
        raise ValueError(f"not among the values: {missing}" if missing else "nothing of it is fast")
    return [
        value
        if value in fast
        else pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
        for value in values
    ]


class Share(NamedTuple):
    """The share `number` modulo `shares` of the slow tests."""

    number: int
    shares: int

    @classmethod
    def parse(cls, text: str) -> Share:
        match = re.fullmatch(r"(\d+)/([1-9]\d*)", text)
        if match is None:
            raise pytest.UsageError(f"--slow-share takes NUMBER/SHARES, such as 3/20, and not {text!r}")
        return cls(int(match[1]) % int(match[2]), int(match[2]))

    def holds(self, test: str) -> bool:
        """Whether the test of this id is in the share."""
        file, _, name = test.partition("::")
        together = file + name[name.index("[") :] if "[" in name else test
        digest = hashlib.sha256(together.encode()).digest()
        return int.from_bytes(digest[:8]) % self.shares == self.number


def on_diagonal(places: Mapping[str, int], sizes: Mapping[str, int], most: int | None = None) -> bool:
    """Whether some number counts to every place: with sizes 3 and 2, (0, 0), (1, 1) and (2, 0)."""
    length = max(sizes.values())
    most = min(most or length, length)
    numbers = {round(i * (length - 1) / max(most - 1, 1)) for i in range(most)}
    return any(all(number % sizes[name] == place for name, place in places.items()) for number in numbers)


def _mark_combinations(items: Iterable[pytest.Item]) -> None:
    """What is off the diagonal of a test's parameters is slow."""
    cases: dict[str, list[tuple[pytest.Item, dict[str, int]]]] = defaultdict(list)
    places: dict[tuple[str, str], dict[tuple[int, ...], int]] = defaultdict(dict)
    for item in items:
        if item.get_closest_marker("diagonal") and isinstance(item, pytest.Function):
            test = item.nodeid.removesuffix(item.name) + item.originalname
            indices = {}
            for names in _lists(item):
                known = places[test, " ".join(names)]
                value = tuple(id(item.callspec.params[name]) for name in names)
                indices[" ".join(names)] = known.setdefault(value, len(known))
            cases[test].append((item, indices))
    for test, together in cases.items():
        sizes = {names: len(places[test, names]) for names in together[0][1]}
        for item, indices in together:
            mark = item.get_closest_marker("diagonal")
            if mark is not None and not on_diagonal(indices, sizes, *mark.args):
                item.add_marker(pytest.mark.slow)


def _lists(item: pytest.Function) -> list[tuple[str, ...]]:
    """The names of a test's parameters, those of one list together; a fixture's are one of their own."""
    lists = []
    for mark in item.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs["argnames"]
        lists.append(tuple(re.findall(r"\w+", names) if isinstance(names, str) else names))
    listed = {name for names in lists for name in names}
    return [*lists, *((name,) for name in item.callspec.params if name not in listed)]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--slow-share",
        type=Share.parse,
        metavar="NUMBER/SHARES",
        help="run one share of the slow tests too; NUMBER counts on from run to run",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("slow_share") is not None and config.option.markexpr == FAST:
        config.option.markexpr = ""


def pytest_report_header(config: pytest.Config) -> str | None:
    share = config.getoption("slow_share")
    return None if share is None else f"slow tests: share {share.number} of {share.shares}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    _mark_combinations(items)
    for item in items:
        if item.nodeid in LISTED:
            item.add_marker(pytest.mark.slow)
    share = config.getoption("slow_share")
    if share is None:
        return
    others = [item for item in items if item.get_closest_marker("slow") and not share.holds(item.nodeid)]
    if others:
        config.hook.pytest_deselected(items=others)
        left_out = set(others)
        items[:] = [item for item in items if item not in left_out]
