"""What a comparison found: numbers, and the sentence that they amount to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from reparamkit.compare.metrics import Metrics, plain
from reparamkit.errors import NotEquivalent, UnusableInput

_TOLD = (
    *("passed", "untold", "reason", "e0", "e1", "floor", "budget", "oracle", "seed", "notes"),
    *("constant_outputs", "set_aside"),
)
_TOLD_OF_OUTPUTS = (
    *("output", "probe", "e0", "e1", "budget", "max_abs", "scale", "index", "reference_value"),
    *("candidate_value", "channel"),
)


@dataclass(frozen=True)
class OutputError:
    """One output under one probe.

    Attributes:
        output: the output's name: "output" for a lone tensor, else its key, index or path ("map.0").
        probe: the name of the input that it was computed from.
        e0: the reference's own rounding error for this output, relative to `scale`; None without an oracle.
        e1: the candidate's largest error relative to `scale`. For integers and booleans it is the share
            of elements that differ.
        budget: what `e1` had to stay under.
        max_abs: the candidate's largest absolute error, in the output's own units.
        scale: the largest magnitude of this output over the probes of the same group, same units.
        index: where `max_abs` was found.
        reference_value: the oracle's value there.
        candidate_value: the candidate's value there.
        metrics: more measures of the same error, where they were asked for.
        failures: the limits that it broke, in words, where limits decide and not the budget.
        judged: whether this place counts for the verdict, or is only reported.
        hint: what the candidate's values look like instead, as the end of a sentence; usually empty.
        channel: axis and index of the channel that `e1`, `budget` and `scale` are those of; None where they
            are the whole output's (see `reparamkit.compare.channels`).
    """

    output: str
    probe: str
    e0: float | None
    e1: float
    max_abs: float
    scale: float
    index: tuple[int, ...]
    reference_value: float
    candidate_value: float
    budget: float = 0.0
    metrics: Metrics | None = None
    failures: tuple[str, ...] | None = None
    judged: bool = True
    hint: str = ""
    channel: tuple[int, int] | None = None

    @property
    def passed(self) -> bool:
        if not self.judged:
            return True
        return self.e1 <= self.budget if self.failures is None else not self.failures

    @property
    def conflict(self) -> bool:
        """One side is NaN or infinite at `index`, and the other is not, or not alike."""
        values = self.reference_value, self.candidate_value
        return self.e1 == math.inf and self.max_abs == math.inf and not all(map(math.isfinite, values))


@dataclass(frozen=True)
class Equivalence:
    """Whether a candidate computes the reference's function, and the numbers behind the answer.

    There are three answers: the same (`passed`), different (`differs`), and it cannot be told (`untold` says
    why).

    `e0`, `e1` and `budget` all belong to one place, the output and probe at which `e1 / budget` is largest,
    so that `passed` is `e1 <= budget` there. `outputs` holds every place. All three are relative to the
    output's scale and have no unit.

    Attributes:
        passed: the candidate is the same function, to within rounding.
        e0: the reference's own error against its float64 run, or None where it cannot run in float64.
        e1: the candidate's error against that same run (against the reference's own run if `e0` is None);
            infinite where the two could not be compared at all (see `reason`).
        floor: the smallest budget, a few units in the last place of the network's precision.
        budget: `4 * e0 + floor`; the formula is derived in `reparamkit.compare.float64.reference`.
        oracle: "float64", or "float32" when the reference's own run had to serve as the oracle.
        outputs: one entry per output and probe.
        seed: reproduces the probes.
        notes: what a reader must know before trusting the verdict.
        reason: why it failed or cannot be told, in words; empty when it passed.
        constant_outputs: outputs that no probe changed; they are no evidence.
        broken_probes: probe -> why nothing could be compared on it: the candidate fails there, or its outputs
            have other names or shapes. Each is a difference.
        untold: why it cannot be told whether the two are the same; empty where it can.
        blind: output -> why it is no evidence.
        set_aside: probe -> why it was not judged: the two agree there in float64, and what differs in the
            network's own precision is rounding that the network blows up.
        seconds: probe -> how long the candidate took on it.
    """

    passed: bool
    e0: float | None
    e1: float
    floor: float
    budget: float
    oracle: str
    outputs: tuple[OutputError, ...]
    seed: int
    notes: tuple[str, ...]
    reason: str = ""
    constant_outputs: tuple[str, ...] = field(default=())
    broken_probes: dict[str, str] = field(default_factory=dict)
    untold: str = ""
    blind: dict[str, str] = field(default_factory=dict)
    set_aside: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict, compare=False)

    @property
    def differs(self) -> bool:
        """It is not the same function."""
        return not self.passed and not self.untold

    def require(self, said: str, *, allow_untold: bool = False) -> None:
        """Raise unless the two are the same.

        Args:
            said: what is wrong then, as the start of a sentence: "net.onnx was not written: the file is".
            allow_untold: pass what cannot be told.

        Raises:
            NotEquivalent: they differ.
            UnusableInput: it cannot be told.
        """
        if self.differs:
            raise NotEquivalent(f"{said} {self.summary()}", self)
        if self.untold and not allow_untold:
            raise UnusableInput(
                f"{said} not known to be right, because it cannot be told whether the two are the same: "
                f"{self.untold}. To have it all the same, allow that (--allow-untold, allow_untold=True)"
            )

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return f"<Equivalence: {self.summary().splitlines()[0]}>"

    def worst(self) -> OutputError | None:
        """The output and probe with the largest error in terms of its budget."""
        return max(self.outputs, key=exceeds, default=None)

    def summary(self) -> str:
        """The verdict in one or two lines."""
        if self.untold:
            return f"cannot tell: {self.untold}"
        if not self.passed:
            return f"not equivalent: {self.reason}"
        oracle = "its float64 run" if self.oracle == "float64" else "its own run"
        against = f"error {self.e1:.1e} of the output's scale against {oracle}"
        own = "" if self.e0 is None else f", the reference's own is {self.e0:.1e}"
        probes = len({entry.probe for entry in self.outputs})
        aside = f", {len(self.set_aside)} of them set aside" if self.set_aside else ""
        counted = f"({probes} probes{aside}, seed {self.seed})"
        line = f"equivalent: {against}{own}, allowed {self.budget:.1e} {counted}"
        aside_too = [note for note in self.notes[1:] if self.set_aside and "were set aside" in note]
        return "\n".join([line, *(f"note: {note}" for note in [*self.notes[:1], *aside_too])])

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON; a number that JSON lacks becomes the text "inf", "-inf" or "nan"."""
        document = {name: plain(getattr(self, name)) for name in _TOLD}
        outputs = [{name: plain(getattr(entry, name)) for name in _TOLD_OF_OUTPUTS} for entry in self.outputs]
        return {**document, "outputs": outputs}


def exceeds(entry: OutputError) -> float:
    """How large the error is in terms of its budget: above 1 it is too large."""
    if not entry.judged:
        return 0.0
    if entry.failures:
        return math.inf
    if entry.failures is not None:
        return min(entry.e1, 1.0)
    if entry.budget > 0:
        return entry.e1 / entry.budget
    return math.inf if entry.e1 > 0 else 0.0
