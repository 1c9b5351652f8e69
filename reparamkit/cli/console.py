"""Where the command line writes: the report to stdout, complaints to stderr, files."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from reparamkit.errors import UnusableInput
from reparamkit.lower.files import check_writable

if TYPE_CHECKING:
    from rich.console import Console


@contextlib.contextmanager
def report() -> Iterator[Console]:
    """stdout, for the report."""
    console = console_on(sys.stdout)
    try:
        yield console if console.is_terminal else console_on(sys.stdout, width=160)
    except OSError as error:
        _abandon(sys.stdout)
        raise UnusableInput(f"the report cannot be written: {error.strerror or error}") from error


def console_on(stream: TextIO, **options: Any) -> Console:
    """What prints on a stream, without markup; NO_COLOR is heeded."""
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            """Whoever read along has left, which is no failure; rich would end with status 1."""
            self.quiet = True
            _abandon(stream)

    return Plain(file=stream, highlight=False, markup=False, emoji=False, **options)


def _abandon(stream: TextIO) -> None:
    """Let what is still to be written go nowhere: Python would try it once more at exit, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def say(text: str) -> None:
    """A line of what is going on, on stderr."""
    aside(console_on(sys.stderr), text)


def complain(text: str) -> None:
    aside(console_on(sys.stderr), f"reparamkit: {text}")


def aside(console: Console, text: str) -> None:
    """A line beside the report; where it cannot be written, nothing is lost."""
    try:
        console.print(text, soft_wrap=True)
    except OSError:  # the exit status says it too
        _abandon(sys.stderr)


def check_distinct(paths: list[Path]) -> None:
    """Find out whether all outputs can be written, each to a place of its own."""
    seen: set[str] = set()
    for path in paths:
        check_writable(path)
        if os.path.realpath(path) in seen:
            raise UnusableInput(f"{path} is named for two outputs")
        seen.add(os.path.realpath(path))
