"""A second look at probes on which a candidate fails: is it wrong there, or is it rounding?

Four times the reference's own rounding error is what a candidate may be off by. Where a network blows
rounding up without showing it in its own run (two tokens that tie go into a top-k, a softmax that is nearly
saturated, a value that is what is left of much larger ones) a right candidate can be off by more. With p the
precision of the two, and all of it on one probe:

- In float64 rounding is 5e8 times finer. Where the candidate and the reference both run in it and agree there
  to within half of the budget, what differs in p is rounding.
- The candidate's weights were rounded to p once more than the reference's, which float64 does not undo. Where
  the reference itself moves by m when its weights are off by up to one unit in the last place, and m is a
  quarter of the budget or more, the two agree to within 2 m.
- A candidate that has no float64 run is held against the reference in p, and what the reference moves by
  there: 4 m.

Before all that the reference runs once more with its long sums, where it has any, added up in another order
(`reparamkit.compare.float64.in_turn`): what it is off by then is its own rounding error as well, and the
budgets go by the larger of the two where nothing but the order differs (`reparamkit.compare.float64.orders`).

Such a probe is no evidence either way, and is set aside. A verdict needs most of the normal draws, of which
more are made where it takes them; where too many are set aside, the candidate is different if it blows
rounding up where the reference does not, and else it cannot be told. Never set aside is what fails by NaN,
infinity, an exception or the type of an output, nor a candidate that computes in a lower precision than the
reference.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from reparamkit.compare.budgets import Budgets
from reparamkit.compare.channels import worst_channel
from reparamkit.compare.float64.in_turn import SumInTurn
from reparamkit.compare.float64.oracle import Twin
from reparamkit.compare.float64.run import Run
from reparamkit.compare.judge import in_order
from reparamkit.compare.measure import as_real, deviation
from reparamkit.compare.metrics import relative
from reparamkit.compare.noise import Noise, PerAxis, noise_between
from reparamkit.runners.base import Jitterable, NamedTensors, Runner, SumsExactly, named_outputs
from reparamkit.runners.jitter import jitter_parameters, jittered_inputs
from reparamkit.runners.torch import TorchRunner

_DRAWS = 3
_SHARE = 0.5
_MOVED, _MOVED_IN_OWN = 2.0, 4.0
_SENSITIVE = 0.25
_LANES = ((1, 1), (8, 8), (4, 4), (16, 16), (8, 1), (4, 1), (16, 1))
"""Of sums and of variances: what vectorised loops have, some of which leave variances to plain ones."""
_HALVES = frozenset({torch.float16, torch.bfloat16})


@runtime_checkable
class RunsInDouble(Protocol):
    """A candidate that can be had running in float64 throughout; None where it cannot."""

    def in_double(self) -> Runner | None: ...


class DoubleRunner(TorchRunner):
    """A private float64 copy of a module; inputs are converted."""

    def __init__(self, runner: TorchRunner) -> None:
        self.name = runner.name
        self.was_training = False
        self._runner, self._copy = runner, Twin(runner.module, None, share=True)
        self._twin = Twin(runner.module, torch.float64)
        self.module = self._twin.module

    def run(self, args: tuple[object, ...], kwargs: dict[str, object]) -> NamedTensors:
        # A module may lose something when it is copied; its float64 run is then another network's.
        _require_same(self._runner.run(args, kwargs), named_outputs(self._copy.run(args, kwargs)))
        return named_outputs(self._twin.run(args, kwargs))


def _require_same(own: NamedTensors, copied: NamedTensors) -> None:
    for (_, left), (_, right) in zip(own, copied, strict=True):
        if left.shape != right.shape or not torch.equal(left.nan_to_num(), right.nan_to_num()):
            raise ValueError("a copy of the network computes something else")


def in_double(runner: Runner) -> Runner | None:
    """The runner's network in float64, or None where it has no such run."""
    if isinstance(runner, RunsInDouble):
        return runner.in_double()
    return DoubleRunner(runner) if isinstance(runner, TorchRunner) else None


class _Lowest(TorchDispatchMode):
    """Notices whether an operator within it gives a half."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.met = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            self.met |= isinstance(value, torch.Tensor) and value.dtype in _HALVES
        return result


@dataclass(frozen=True)
class SecondLook:
    """What a reference has to be run by, to look again. It holds no copy of the network.

    Attributes:
        runner: runs the reference.
        module: the reference, where it is a module.
        precision: of its least precise weights.
        seed: of what is drawn.
    """

    runner: Runner
    module: nn.Module | None
    precision: torch.dtype
    seed: int

    def moved(self, records: Sequence[Run], budgets: Budgets) -> dict[int, PerAxis]:
        """How far the channels of each output move when weights and inputs are off by a few ulp.

        Args:
            records: the probes to try it on, of the example's size.

        Returns:
            Place of an output -> largest movement per axis and channel, as a share of the output's scale.
        """
        largest: dict[int, Noise] = {}
        try:
            for number, run in enumerate(self._jittered(None)):
                for record in records:
                    args, kwargs = jittered_inputs(*record.probe.inputs(), self.seed + number)
                    pairs = zip(run(args, kwargs), self.runner.run(*record.probe.inputs()), strict=True)
                    for place, ((_, left), (_, right)) in enumerate(pairs):
                        scale = budgets.scale(place, record.probe.group)
                        if scale > 0:
                            here = noise_between(as_real(left), as_real(right)).times(1 / scale)
                            largest[place] = largest[place].joined(here) if place in largest else here
        except Exception:
            return {}
        return {place: noise.along for place, noise in largest.items()}

    def in_turn(self, records: Sequence[Run]) -> tuple[list[Run], str]:
        """The records with the rounding error of long sums, where these are added up term by term.

        What is no module has one order of its own, and is held against its sums taken in float64.

        Returns:
            The records, with noise that is as large as it was or larger, and what is to be said of it; ""
            where there are no such sums, or the reference cannot be run so.
        """
        if self.module is None:
            return self._with_exact_sums(records)
        widened, terms = [], 0
        try:
            own = [self.runner.run(*record.probe.inputs()) for record in records[:1]]
            twin = Twin(self.module, None)  # weights of its own: what a copy does to them stays with it
            for record, outputs in zip(records, own, strict=False):
                # What a copy is off by for another reason is no matter of order.
                _require_same(outputs, named_outputs(twin.run(*record.probe.inputs())))
            for record in records:
                args, kwargs = record.probe.inputs()
                with SumInTurn() as mode:
                    outputs = named_outputs(twin.run(args, kwargs))
                widened.append(_joined(record, outputs) if mode.terms else record)
                terms = max(terms, mode.terms)
        except Exception:
            return list(records), ""
        if not terms:
            return list(records), ""
        return widened, (
            f"the reference adds up {terms:,} terms at a time: its rounding error is the larger of that in "
            f"its own order and that of one term after the other"
        )

    def _with_exact_sums(self, records: Sequence[Run]) -> tuple[list[Run], str]:
        exact = self._exact_outputs(records)
        if exact is None:
            return list(records), ""
        widened = [_joined(record, outputs) for record, outputs in zip(records, exact, strict=True)]
        return widened, "the reference's rounding error has that of its own sums in it, against float64"

    def without_order(self, records: Sequence[Run]) -> list[Run]:
        """The records, by the reference with its sums in float64 where it has no other float64 run."""
        exact = None if self.module is not None else self._exact_outputs(records)
        if exact is None:
            return list(records)
        return [_with_values(*pair) for pair in zip(records, exact, strict=True)]

    def in_orders(self) -> Iterator[Callable[[Run], Run]]:
        """What gives a record by the reference in its own precision, for each usual order of its long sums.

        What is no module has one order of its own.
        """
        if self.module is None:
            yield lambda record: _with_values(record, self.runner.run(*record.probe.inputs()))
            return
        twin = Twin(self.module, None)

        def ordered(record: Run, lanes: tuple[int, int]) -> Run:
            args, kwargs = record.probe.inputs()
            with SumInTurn(*lanes):
                return _with_values(record, named_outputs(twin.run(args, kwargs)))

        for lanes in _LANES:
            yield functools.partial(ordered, lanes=lanes)

    def _exact_outputs(self, records: Sequence[Run]) -> list[NamedTensors] | None:
        try:
            exact = self.runner.with_exact_sums() if isinstance(self.runner, SumsExactly) else None
            if exact is None:
                return None
            return [exact.runner.run(*record.probe.inputs()) for record in records]
        except Exception:
            return None

    def excuse(
        self,
        candidate: Runner,
        double: Runner | None,
        record: Run,
        budgets: Budgets,
        *,
        structured: bool,
    ) -> str:
        """Why what the candidate gets wrong on a probe is rounding, in words; empty where it is not.

        Args:
            candidate: the candidate.
            double: the candidate in float64, or None.
            record: the probe and the reference's outputs.
            budgets: what the candidate failed by.
            structured: as in `reparamkit.compare.judge`.
        """

        def ordered(outputs: NamedTensors) -> list[torch.Tensor]:
            return in_order(outputs, record, structured=structured)

        try:
            with _Lowest() as lowest:
                own = ordered(candidate.run(*record.probe.inputs()))
            if lowest.met and self.precision not in _HALVES:
                return ""  # in float64 it would not be the same network
            if any(_conflicts(values, record, place) for place, values in enumerate(own)):
                return ""
            if double is not None and self.module is not None and self.precision is not torch.float64:
                own = ordered(double.run(*record.probe.inputs()))
                return self._rounding(own, record, budgets, torch.float64)
            return self._rounding(own, record, budgets, None)
        except Exception:
            return ""

    def _rounding(
        self, values: list[torch.Tensor], record: Run, budgets: Budgets, dtype: torch.dtype | None
    ) -> str:
        """Whether a candidate's values agree with the reference's, or are off by what that moves by itself.

        Both are in float64, or (None) in the precision of the two.
        """
        group, inputs = record.probe.group, record.probe.inputs
        outputs = self.runner.run(*inputs())
        if self.module is not None:
            copied = Twin(self.module, None, share=True)
            _require_same(outputs, named_outputs(copied.run(*inputs())))
            if dtype is not None:
                outputs = named_outputs(Twin(self.module, dtype).run(*inputs()))
        truth = [tensor for _, tensor in outputs]
        pairs = list(enumerate(zip(values, truth, strict=True)))
        wrong = [place for place, pair in pairs if not _within(*pair, place, group, budgets)]
        if not wrong and dtype is not None:
            off = max((_distance(*pair, place, group, budgets) for place, pair in pairs), default=0.0)
            return f"the two agree in float64, to {off:.1e} of the output's scale"
        factor = _MOVED_IN_OWN if dtype is None else _MOVED
        moved = dict.fromkeys(wrong, 0.0)
        for run in self._jittered(torch.finfo(self.precision).eps, dtype):
            jittered = [tensor for _, tensor in run(*inputs())]
            for place in wrong:
                here = _distance(jittered[place], truth[place], place, group, budgets)
                moved[place] = max(moved[place], here)
            if all(
                moved[place] >= _SENSITIVE * budgets.budget(place, group)
                and _distance(values[place], truth[place], place, group, budgets) <= factor * moved[place]
                for place in wrong
            ):
                most = max(moved.values(), default=0.0)
                return (
                    f"the reference's own outputs move by {most:.1e} there when its weights are off by one "
                    f"unit in the last place"
                )
        return ""

    def _jittered(
        self, size: float | None, dtype: torch.dtype | None = None
    ) -> Iterator[Callable[..., NamedTensors]]:
        """The reference with weights that are a little off, several times."""
        for number in range(_DRAWS):
            seed = self.seed + 100 + number
            if self.module is not None:
                twin = Twin(self.module, dtype)
                jitter_parameters(twin.module, seed, size)
                yield lambda args, kwargs, twin=twin: named_outputs(twin.run(args, kwargs))
            elif isinstance(self.runner, Jitterable):
                yield self.runner.jittered(seed).run
            else:
                yield self.runner.run


def _with_values(record: Run, outputs: NamedTensors) -> Run:
    """The record with these outputs for what is right; integers and booleans stay."""
    truths = [
        replace(truth, values=as_real(values).double()) if values.is_floating_point() else truth
        for truth, (_, values) in zip(record.truths, outputs, strict=True)
    ]
    return replace(record, truths=tuple(truths))


def _joined(record: Run, outputs: NamedTensors) -> Run:
    """The record with what these outputs of the reference are off by in its noise."""
    if [name for name, _ in outputs] != [truth.name for truth in record.truths]:
        return record
    truths = [
        truth.with_noise(truth.rounding.joined(noise_between(as_real(values), truth.values)))
        for (_, values), truth in zip(outputs, record.truths, strict=True)
    ]
    return replace(record, truths=tuple(truths))


def _conflicts(values: torch.Tensor, record: Run, place: int) -> bool:
    """NaN or infinite on one side only, or of another type."""
    if values.dtype is not record.truths[place].dtype:
        return True
    values, truth = as_real(values), record.truths[place].values
    if values.shape != truth.shape or not truth.is_floating_point():
        return False
    return deviation(values, truth).conflict is not None


def _within(values: torch.Tensor, truth: torch.Tensor, place: int, group: str, budgets: Budgets) -> bool:
    """Whether two float64 outputs agree to half of the budget, channel by channel; integers exactly."""
    values, truth = as_real(values), as_real(truth)
    if values.shape != truth.shape:
        return False
    apart = deviation(values, truth)
    if not truth.is_floating_point():
        return not apart.differing
    if apart.conflict is not None:
        return False
    if relative(apart.max_abs, budgets.scale(place, group)) > _SHARE * budgets.budget(place, group):
        return False
    return worst_channel(values, truth, budgets.channels(place, group), _SHARE) is None


def _distance(values: torch.Tensor, truth: torch.Tensor, place: int, group: str, budgets: Budgets) -> float:
    """Of the output's scale; of integers the share that differs, and 1 for outputs of other shapes."""
    values, truth = as_real(values), as_real(truth)
    if values.shape != truth.shape:
        return 1.0
    apart = deviation(values, truth)
    if not truth.is_floating_point():
        return apart.differing / max(truth.numel(), 1)
    return relative(apart.max_abs, budgets.scale(place, group))
