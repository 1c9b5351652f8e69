"""A share of the slow tests besides the others: `--slow-share NUMBER/SHARES`.

Which share a test is in follows from its file and its parameters alone, so that cases which a fixture serves
together stay together. NUMBER counts on from run to run (commits, days): SHARES runs in a row reach every
slow test once.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

import pytest

FAST = "not slow"
"""What pytest is told to select where nobody says otherwise (`addopts` in pyproject.toml)."""


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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    share = config.getoption("slow_share")
    if share is None:
        return
    others = [item for item in items if item.get_closest_marker("slow") and not share.holds(item.nodeid)]
    if others:
        config.hook.pytest_deselected(items=others)
        left_out = set(others)
        items[:] = [item for item in items if item not in left_out]
