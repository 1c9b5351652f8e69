"""Progress on stderr: what is being done, which of how many steps it is, and how long each took.

On a terminal one line says what goes on, and each step leaves a line with its time. Elsewhere, and with
`--quiet`, nothing is said; `--verbose` prints all times at the end, wherever stderr leads.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reparamkit.cli.console import aside, console_on
from reparamkit.support.progress import Path, phase, reporting

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Say nothing of what is being done; errors are still said.")
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print how long each step, and each part of it, took.")
]
_SHORT = 0.05
"""Seconds; parts that took less are not listed."""
_MOST_NAMED = 3


class Progress:
    """Hears of phases and shows them.

    Attributes:
        seconds: path of a phase -> how long it took, all of that name together.
    """

    def __init__(self, steps: int, console: Console, status: Status | None) -> None:
        self.seconds: dict[Path, float] = {}
        self._steps, self._console, self._status = steps, console, status
        self._begun = time.perf_counter()
        self._at: list[tuple[Path, str, float]] = []
        self._place = 0
        self._said: contextlib.ExitStack | None = None

    @property
    def total(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self._begun

    def started(self, path: Path, detail: str) -> None:
        """A phase begins."""
        self._place += len(path) == 1
        self.seconds.setdefault(path, 0.0)
        self._at.append((path, detail, time.perf_counter()))

    def finished(self, path: Path, seconds: float) -> None:
        """A phase is over; an outermost one leaves a line behind."""
        self.seconds[path] += seconds
        self._at.pop()
        if len(path) == 1 and self._status is not None:
            aside(self._console, f"{self._number()}{path[0]}  {seconds:.1f} s")

    def say(self, text: str) -> None:
        """Begin a phase that lasts until the next is said."""
        self.finish()
        self._said = contextlib.ExitStack()
        self._said.enter_context(phase(text))

    def finish(self) -> None:
        """End the phase that was said last."""
        if self._said is not None:
            self._said.close()
            self._said = None

    def as_dict(self) -> dict[str, Any]:
        """Seconds by phase, parts behind what they are parts of, for a JSON report."""
        phases = {" / ".join(path): round(seconds, 3) for path, seconds in self.seconds.items()}
        return {"total": round(self.total, 3), "phases": phases}

    def table(self) -> list[str]:
        """All times in lines, parts indented."""
        told = [
            (path, seconds) for path, seconds in self.seconds.items() if seconds >= _SHORT or len(path) == 1
        ]
        rows = [(f"{'  ' * len(path)}{path[-1]}", seconds) for path, seconds in told]
        wide = max((len(name) for name, _ in rows), default=0)
        return [f"{self.total:.1f} s in all", *(f"{name:{wide}}  {seconds:7.2f} s" for name, seconds in rows)]

    def closing(self) -> str:
        """The total in one line, and what most of it was."""
        outer = {path[0]: seconds for path, seconds in self.seconds.items() if len(path) == 1}
        longest = sorted(outer.items(), key=lambda entry: -entry[1])[:_MOST_NAMED]
        named = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in longest if seconds > self.total / 10)
        return f"{self.total:.1f} s in all{f': {named}' if named else ''}"

    def __rich__(self) -> Any:
        from rich.text import Text

        if not self._at:
            return Text("…")
        outer, inner = self._at[0], self._at[-1]
        words = [f"{self._number()}{outer[0][0]}", *inner[0][1:]]
        line = ": ".join([" ".join(words[:1]), *words[1:]]) + (f" {inner[1]}" if inner[1] else "")
        return Text(f"{line} … {time.perf_counter() - outer[2]:.0f} s", no_wrap=True, overflow="ellipsis")

    def _number(self) -> str:
        return f"{self._place}/{max(self._steps, self._place)} " if self._steps else ""


@contextlib.contextmanager
def progress(steps: int = 0, *, quiet: bool = False, verbose: bool = False) -> Iterator[Progress]:
    """Show the phases of what is done inside on stderr.

    Args:
        steps: how many outermost ones there will be; 0 where nobody knows.
        quiet, verbose: as the options of that name.
    """
    console = console_on(sys.stderr)  # this very stream: others are silenced meanwhile
    with contextlib.ExitStack() as stack:
        status = None
        if console.is_terminal and not console.is_dumb_terminal and not quiet:
            status = stack.enter_context(console.status(""))
        shown = Progress(steps, console, status)
        if status is not None:
            status.update(shown)
        with reporting(shown):
            try:
                yield shown
            finally:
                shown.finish()
    if verbose:
        for line in shown.table():
            aside(console, line)
    elif status is not None:
        aside(console, shown.closing())
