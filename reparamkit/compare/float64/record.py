"""Run the reference once per probe, and keep what every later comparison needs: its outputs and its noise.

Three ways to know what the reference's rounding noise is, in order of preference:

1. The reference runs in float64. That run is the truth, and the noise is what the reference's own run
   differs from it by.
2. The reference *is* float64. Its run is the truth; its noise is that of a float32 copy, times
   eps(float64) / eps(float32), because rounding errors grow through a network in proportion to eps.
3. It cannot run in float64. Its own run is the truth, and the noise is estimated
   (`reparamkit.runners.jitter`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import torch
from torch import nn

from reparamkit.compare.float64.oracle import Twin
from reparamkit.compare.float64.run import Run, Truth
from reparamkit.compare.inputs.probes import DEGENERATE, GIVEN, Probe
from reparamkit.compare.measure import as_real, magnitude
from reparamkit.compare.noise import Noise, noise_between, scale_along
from reparamkit.compare.randomness import drawn_outputs
from reparamkit.errors import UnusableInput
from reparamkit.runners.base import Jitterable, NamedTensors, Runner, named_outputs
from reparamkit.runners.jitter import jitter_parameters, jittered_inputs
from reparamkit.support.inputs import Args, Kwargs, tensor_leaves
from reparamkit.support.progress import phase
from reparamkit.support.text import first_line

_JITTERED_RUNS = 2
_NoiseOf = Callable[[Probe, NamedTensors], tuple[NamedTensors, list[Noise]]]
"""What is right on a probe, and how far off each of the reference's own outputs is."""


class Rejected(Exception):
    """The reference does not take this probe; the text says why."""


class Recorder:
    """Runs the reference. It holds copies of the module, so it should not outlive the recording.

    Attributes:
        oracle: "float64" or "float32", once the example was recorded.
        notes: what was found out on the way.
        drawn: outputs that are random, where it was asked to look (`watch`).
    """

    def __init__(
        self,
        runner: Runner,
        module: nn.Module | None,
        precision: torch.dtype,
        seed: int,
        *,
        watch: bool = False,
    ) -> None:
        self.oracle = "float64"
        self.notes: list[str] = []
        self.drawn: list[str] = []
        self._watch = watch
        self._runner = runner
        self._module = module
        self._precision = precision
        self._seed = seed
        self._names: list[str] | None = None
        self._noise: _NoiseOf | None = None

    def record(self, probe: Probe) -> Run:
        """As `_recorded`, which says what is raised."""
        with phase("reference", f"on {probe.name!r}"):
            return self._recorded(probe)

    def _recorded(self, probe: Probe) -> Run:
        """Run the reference, and whatever tells its noise, on one probe.

        Raises:
            Rejected: the reference raised, or overflowed on values that the caller did not ask for, or
                returned other outputs than on the first probe.
        """
        started = time.perf_counter()
        try:
            own = self._runner.run(*probe.inputs())
        except UnusableInput:
            raise
        except Exception as error:
            raise Rejected(first_line(error)) from error
        if self._watch:
            self._watch = False
            with contextlib.suppress(Exception):
                self.drawn = drawn_outputs(self._runner, probe, own)
        names = [name for name, _ in own]
        if self._names is None:
            self._names = names
        elif names != self._names:
            raise Rejected(
                f"which outputs there are depends on the input: {listed(names)} here, "
                f"{listed(self._names)} on the first one"
            )
        if self._noise is None:
            self._noise = self._choose_noise(probe, own)
        try:
            exact, noise = self._noise(probe, own)
        except Exception as error:
            raise Rejected(f"in float64: {first_line(error)}") from error
        if probe.group in DEGENERATE:
            noise = [a.joined(b) for a, b in zip(noise, self._restless(probe, own), strict=True)]
        truths = tuple(map(self._truth, [probe] * len(own), own, exact, noise))
        return Run(probe, truths, time.perf_counter() - started)

    def _restless(self, probe: Probe, own: NamedTensors) -> list[Noise]:
        """How far the outputs move when the inputs do by a few ulp.

        On a constant input whole sums cancel, so that the reference may show no rounding error where a
        normalisation would make one of any other order of summation large.
        """
        try:
            return _distances(self._runner.run(*jittered_inputs(*probe.inputs(), self._seed)), own)
        except Exception:
            return [Noise()] * len(own)

    def _truth(
        self, probe: Probe, own: tuple[str, torch.Tensor], exact: tuple[str, torch.Tensor], noise: Noise
    ) -> Truth:
        name, run = own[0], as_real(own[1])
        values = as_real(exact[1])
        if not run.is_floating_point():
            differs = run != values
            undecided = differs if bool(differs.any()) else None
            return Truth(name, run, own[1].dtype, 0.0, 0.0, run.numel(), undecided)
        overflow = ~run.isfinite() & values.isfinite()
        if probe.group not in GIVEN and bool(overflow.any()):
            raise Rejected(f"its output {name!r} overflows {own[1].dtype}")
        finite = run.isfinite() & values.isfinite()
        values = torch.where(finite, values.double(), run.double())
        along = scale_along(values), noise.along
        if own[1].is_complex():  # the pair of real and imaginary part is no axis
            along = along[0][:-1], along[1][:-1]
        return Truth(
            name,
            values,
            own[1].dtype,
            noise.whole,
            magnitude(values),
            int(finite.sum()),
            along_scale=along[0],
            along_noise=along[1],
        )

    def _choose_noise(self, probe: Probe, own: NamedTensors) -> _NoiseOf:
        if self._precision is torch.float64:
            return self._scaled_noise(probe)
        why = "the reference is not a PyTorch module"
        if self._module is not None:
            try:
                twin = Twin(self._module, torch.float64)
                first = [_against_float64(twin, probe, own)]
            except Exception as error:
                why = first_line(error)
            else:
                return lambda probe, own: first.pop() if first else _against_float64(twin, probe, own)
        self.oracle = "float32"
        self.notes.append(
            f"the reference does not run in float64 ({why}); the candidate was compared with the reference's "
            f"own run, and the rounding noise estimated from runs with weights and inputs off by a few ulp"
        )
        return self._estimated_noise()

    def _scaled_noise(self, probe: Probe) -> _NoiseOf:
        ratio = torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps
        twin: Twin | None = None
        try:
            if self._module is not None:
                twin = Twin(self._module, torch.float32)
                twin.run(*probe.inputs())
        except Exception:
            twin = None
        if twin is None:
            self.notes.append(
                "the reference runs in float64 only, so its rounding noise is taken as the floor"
            )
            return lambda probe, own: (own, _distances(own, own))
        self.notes.append(
            "the reference is float64: its rounding noise was scaled from that of a float32 copy"
        )
        single = twin

        def noise(probe: Probe, own: NamedTensors) -> tuple[NamedTensors, list[Noise]]:
            run = named_outputs(single.run(*probe.inputs()))
            return own, [value.times(ratio) for value in _distances(run, own)]

        return noise

    def _estimated_noise(self) -> _NoiseOf:
        twins: list[Callable[[Args, Kwargs], NamedTensors]] = []
        seed = self._seed  # not `self`: what `noise` holds on to would live in a circle with the recorder
        try:
            for number in range(_JITTERED_RUNS):
                twins.append(self._jittered(self._seed + number))
        except Exception:
            twins = [self._runner.run] * _JITTERED_RUNS

        def noise(probe: Probe, own: NamedTensors) -> tuple[NamedTensors, list[Noise]]:
            worst = [Noise()] * len(own)
            for number in range(_JITTERED_RUNS):
                args, kwargs = jittered_inputs(*probe.inputs(), seed + number)
                run = twins[number](args, kwargs)
                worst = [a.joined(b) for a, b in zip(worst, _distances(run, own), strict=True)]
            return own, worst

        return noise

    def _jittered(self, seed: int) -> Callable[[Args, Kwargs], NamedTensors]:
        """The reference with weights that are off by a few ulp, or as it is where they are out of reach."""
        if self._module is not None:
            twin = Twin(self._module, None)
            jitter_parameters(twin.module, seed)
            return lambda args, kwargs: named_outputs(twin.run(args, kwargs))
        return self._runner.jittered(seed).run if isinstance(self._runner, Jitterable) else self._runner.run


def listed(names: list[str]) -> str:
    """How many outputs there are, and their names."""
    return f"{len(names)} ({', '.join(names)})" if names else "none"


def lowest_precision(module: nn.Module | None, args: Args, kwargs: Kwargs) -> torch.dtype:
    """The least precise floating-point dtype among weights, or inputs if there are none; else float32."""
    tensors = [tensor for _, tensor in tensor_leaves(args, kwargs)]
    if module is not None:
        weights = [*module.parameters(), *module.buffers()]
        # A float64 network that is handed float32 images computes in float64, or not at all.
        tensors = [tensor for tensor in weights if tensor.is_floating_point()] or tensors
    dtypes = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps, default=torch.float32)


def _against_float64(twin: Twin, probe: Probe, own: NamedTensors) -> tuple[NamedTensors, list[Noise]]:
    exact = named_outputs(twin.run(*probe.inputs()))
    if [(name, tensor.shape) for name, tensor in exact] != [(name, tensor.shape) for name, tensor in own]:
        raise ValueError("its outputs have other names or shapes there")
    return exact, _distances(own, exact)


def _distances(run: NamedTensors, truth: NamedTensors) -> list[Noise]:
    """The distance per output over the elements that are finite in both; none for integers."""
    return [
        noise_between(as_real(left), as_real(right)) for (_, left), (_, right) in zip(run, truth, strict=True)
    ]
