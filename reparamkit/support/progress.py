"""What a long piece of work is doing just now: rooms name their phases, and whoever wants to hears of them.

    with phase("proofs", "3 of 43"):
        ...

Phases inside others are parts of those. Unless somebody listens (`reporting`), nothing happens.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Protocol

Path = tuple[str, ...]
"""The phases that one is a part of, from the outermost on, and itself."""


class Reporter(Protocol):
    """Who hears of phases."""

    def started(self, path: Path, detail: str) -> None:
        """A phase begins; `detail` says which of several alike it is."""

    def finished(self, path: Path, seconds: float) -> None:
        """It is over, be it by an error."""


_reporter: ContextVar[Reporter | None] = ContextVar("reparamkit_reporter", default=None)
_inside: ContextVar[Path] = ContextVar("reparamkit_phases", default=())


@contextlib.contextmanager
def reporting(reporter: Reporter) -> Iterator[None]:
    """Tell somebody of the phases inside, as far as they run in this thread."""
    mine = _reporter.set(reporter)
    outermost = _inside.set(())
    try:
        yield
    finally:
        _inside.reset(outermost)
        _reporter.reset(mine)


@contextlib.contextmanager
def phase(name: str, detail: str = "") -> Iterator[None]:
    """Name what is done inside; `detail` says which of several alike it is."""
    reporter = _reporter.get()
    if reporter is None:
        yield
        return
    path = (*_inside.get(), name)
    outer = _inside.set(path)
    reporter.started(path, detail)
    begun = time.perf_counter()
    try:
        yield
    finally:
        _inside.reset(outer)
        reporter.finished(path, time.perf_counter() - begun)
