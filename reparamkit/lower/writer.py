"""How a file of a format comes about: written, read back, run, judged; then it may appear.

A format says how it writes, reads back and counts. With fewer sizes free a file may be right that is not with
all of them, or that the format cannot express: those are tried, best first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from torch import nn
from torch.export import ExportedProgram

from reparamkit.compare.float64.recorded import Recorded
from reparamkit.compare.float64.reference import Reference
from reparamkit.compare.float64.run import Run
from reparamkit.compare.inputs.sizes import DynamicAxes
from reparamkit.compare.profile import EXCHANGEABLE, judge_candidate
from reparamkit.compare.verdict import Equivalence
from reparamkit.errors import CannotCapture, CannotWrite, NotEquivalent
from reparamkit.lower.exported import axis_names
from reparamkit.lower.facts import Facts
from reparamkit.lower.files import Stage
from reparamkit.lower.lowering import Lowering, free_sizes_in
from reparamkit.lower.request import Request
from reparamkit.lower.saved import Saved
from reparamkit.runners.base import RefusesSizes, Runner
from reparamkit.support.output_names import plain_names
from reparamkit.support.progress import phase


@dataclass(frozen=True)
class Work:
    """A network as a format is given it to write.

    Attributes:
        path: where the file is to appear, for messages; it is written elsewhere.
        module: the network; None where there is only its program.
        recorded: what a file has to agree with.
        make_program: exports the network.
        request: how the user wants the file.
        facts: what the file says of the network; None of an exported program alone.
        input_names, output_names, called: names in the file, where they are not the usual ones: one per
            tensor, in order, and symbol -> name of a free axis.
    """

    path: Path
    module: nn.Module | None
    recorded: Reference
    make_program: Callable[[], ExportedProgram]
    request: Request = field(default_factory=Request)
    facts: Facts | None = None
    input_names: Sequence[str] | None = None
    output_names: Sequence[str] | None = None
    called: Mapping[str, str] | None = None

    @cached_property
    def program(self) -> ExportedProgram:
        """The network exported; what a file has to agree with is probed at its free sizes from here on.

        Raises:
            CannotCapture: torch.export refuses.
        """
        with phase("export"):
            program = self.make_program()
        free = free_sizes_in(program, self.axis_names_of(program))
        if free is not None:
            self.recorded.widen(free)
        return program

    @property
    def axis_names(self) -> dict[str, str]:
        """Symbol -> name of a free axis in the file."""
        return self.axis_names_of(self.program)

    def axis_names_of(self, program: ExportedProgram) -> dict[str, str]:
        """Symbol -> name of a free axis of that program in the file."""
        return dict(self.called if self.called is not None else axis_names(program))

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the outputs in the file."""
        return self.output_names or plain_names(self.recorded.output_names)


class Writer(ABC):
    """Writes and judges files of one format."""

    @abstractmethod
    def stage(self, lowering: Lowering, stage: Stage, request: Request, *, refuses_sizes: bool) -> Saved:
        """Write a folded network and judge the file, with as many sizes free as can be.

        Args:
            stage: where it lies until all files of a call have passed.
            refuses_sizes: as in `Format`.

        Raises:
            NotEquivalent: the file does not compute what the original does.
            UnusableInput: it cannot be told whether it does, or written.
        """

    def require(self) -> None:
        """Find out whether the packages for it are installed.

        Raises:
            MissingExtra: one is not.
        """
        return

    def finish(self, path: Path) -> None:
        """Once the file lies in its place."""
        return


class FileWriter(Writer):
    """A format that says how a file is written, read back and counted; all else is the same for every format.

    Attributes:
        exports: what is written is the exported program, with as many sizes free as can be. Otherwise it is
            the module, which refuses the sizes that it was not captured for by itself.
    """

    exports = True

    @abstractmethod
    def write(self, work: Work, target: Path) -> Sequence[str]:
        """Write the network under that path.

        Returns:
            Notes for the user; usually none.

        Raises:
            CannotWrite: the format has no way to express the network.
        """

    @abstractmethod
    def reopen(self, target: Path, work: Work) -> Runner:
        """What runs the file that was written. One that `RefusesSizes` is not judged at sizes it refuses."""

    @abstractmethod
    def count(self, target: Path, work: Work) -> Counter[str]:
        """How many of each operator, or layer, the file holds."""

    def ends(self, lowering: Lowering, axes: DynamicAxes) -> Mapping[str, int]:
        """Symbol of a free axis -> the largest size that a file is made for; by default, there is no end."""
        return {}

    def on_refused(self, probes: Sequence[str]) -> str:
        """What to tell of probes at sizes that the file refuses; nothing where it says so itself."""
        return f"torch.export's own guards refuse these sizes in the file: {', '.join(probes)}"

    def stage(self, lowering: Lowering, stage: Stage, request: Request, *, refuses_sizes: bool) -> Saved:
        """As `Writer.stage`, with fewer sizes free where all of them cannot be."""
        if not self.exports:
            recorded = lowering.network.reference
            work = Work(stage.path, lowering.module, recorded, lambda: lowering.all_free, request)
            return self.staged(work, stage)
        free = lowering.axes(refuses_sizes=refuses_sizes)
        notes = [] if refuses_sizes else lowering.notes_on_sizes
        batch = {index: {0: axes[0]} for index, axes in free.items() if 0 in axes}
        tries = [free, *(fewer for fewer in (batch, {}) if fewer != free)]
        tries = [each for place, each in enumerate(tries) if each not in tries[:place]]
        for number, axes in enumerate(tries, 1):
            recorded = lowering.recorded(axes)

            def program(axes: DynamicAxes = axes) -> ExportedProgram:
                return lowering.export(axes, self.ends(lowering, axes))

            names = request.input_names or None, request.output_names or None
            work = Work(stage.path, lowering.module, recorded, program, request, lowering.facts, *names)
            try:
                saved = self.staged(work, stage)
            except (CannotWrite, CannotCapture, NotEquivalent) as reason:
                if number == len(tries) or not _may_do_with_fewer(reason, recorded):
                    raise
                left = "the batch size alone is free" if tries[number] else "the sizes are the example's"
                notes = [*notes, f"{left}, because with more of them free {reason}"]
                continue
            return replace(saved, notes=(*notes, *saved.notes))
        raise AssertionError("the last try returns or raises")

    def staged(self, work: Work, stage: Stage) -> Saved:
        """Write the network once, and judge the file; errors as for `stage`."""
        stage.clear()
        with phase("write"):
            notes = list(self.write(work, stage.made))
        stage.check_written()
        runner = self.reopen(stage.made, work)
        keep, refused = _taken_by(runner, work.recorded)
        with phase("verify"):
            verdict = judge_candidate(work.recorded, runner, EXCHANGEABLE, keep=keep)
        verdict.require(f"{work.path} was not written: the file is", allow_untold=work.request.allow_untold)
        if refused:
            notes += filter(None, [self.on_refused(refused)])
        return Saved(work.path, verdict, self.count(stage.made, work), tuple(notes))


def _taken_by(runner: Runner, recorded: Recorded) -> tuple[Callable[[Run], bool] | None, list[str]]:
    """Which probes to judge a file by, and the names of those at other sizes that it refuses."""
    if not isinstance(runner, RefusesSizes):
        return None, []
    refused = [
        record.probe.name
        for record in recorded.records
        if record.probe.sizes and not runner.accepts(*record.probe.inputs())
    ]
    return (lambda record: record.probe.name not in refused), refused


def _may_do_with_fewer(reason: Exception, recorded: Recorded) -> bool:
    """Whether a file with fewer free sizes may be right: one that is wrong is so at other sizes only."""
    if not isinstance(reason, NotEquivalent):
        return True
    if not isinstance(reason.equivalence, Equivalence):
        return False
    failed = {entry.probe for entry in reason.equivalence.outputs if not entry.passed}
    failed |= {*reason.equivalence.broken_probes}
    return all(record.probe.sizes for record in recorded.records if record.probe.name in failed)
