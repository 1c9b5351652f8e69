"""Probes: inputs that expose mistakes.

Zero-mean matters. With inputs in [0, 1) a broken weight behind a ReLU can go unseen, because the ReLU then
masks its whole channel on every input that is tried; with zero-mean inputs it does not.

A probe is a recipe, not a tensor: it holds the example (which the caller holds anyway), a seed and sizes,
and makes its inputs anew each time, so a set of probes costs no memory and no model can spoil one by writing
into its inputs.

- `example`: the caller's own values.
- `normal`: independent normal values with zero mean and the example's root mean square (1 where
  that is 0 or beyond [1/256, 256]). Drawn several times, also at other sizes where axes are free.
- `large`: the same, 32 times larger: saturations and clamps are reached.
- `impulses`: zero but for single values at the corners and in the centre: borders and biases show.

Integer tensors keep the example's own values, rolled along the last axis (and repeated at larger sizes): an
invented value may be outside a vocabulary. Booleans stay as they are.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import torch

from reparamkit.inputs import Args, Kwargs, map_tensors, tensor_leaves
from reparamkit.verify.sizes import DynamicAxes, Ranges, Sizes, example_sizes, other_sizes

EXAMPLE, NORMAL, LARGE, IMPULSES = "example", "normal", "large", "impulses"

_LARGE_FACTOR = 32.0
_IMPULSE_FACTOR = 8.0


@dataclass(frozen=True)
class Probe:
    """A recipe for one set of inputs.

    Attributes:
        name: unique among the probes of one comparison.
        group: "example", "normal", "large" or "impulses"; the values of a group are of like magnitude.
        seed: what the random values come from.
        sizes: the size of each free symbol, where it differs from the example.
    """

    name: str
    group: str
    seed: int
    args: Args = field(repr=False)
    kwargs: Kwargs = field(repr=False)
    dynamic_axes: DynamicAxes = field(default_factory=dict, repr=False)
    sizes: Sizes = field(default_factory=dict)

    def inputs(self) -> tuple[Args, Kwargs]:
        """Fresh tensors on the example's devices; the caller may write into them."""

        def make(index: int, tensor: torch.Tensor) -> torch.Tensor:
            shape = list(tensor.shape)
            for axis, symbol in self.dynamic_axes.get(index, {}).items():
                shape[axis] = self.sizes.get(symbol, shape[axis])
            return self._make(index, tensor.detach(), shape)

        return map_tensors(make, self.args, self.kwargs)

    def _make(self, index: int, example: torch.Tensor, shape: list[int]) -> torch.Tensor:
        generator = torch.Generator().manual_seed(_mix(self.seed, self.name, index))
        if self.group == EXAMPLE:
            return _resized(example, shape).clone()
        if not (example.is_floating_point() or example.is_complex()):
            resized = _resized(example, shape)
            if example.dtype is torch.bool or resized.ndim == 0 or resized.shape[-1] < 2:
                return resized.clone()
            shift = int(torch.randint(1, resized.shape[-1], (), generator=generator))
            return resized.roll(shift, dims=-1)
        sigma = _magnitude(example)
        if self.group == IMPULSES:
            values = _impulses(shape, generator) * (_IMPULSE_FACTOR * sigma)
        else:
            values = torch.randn(shape, generator=generator, dtype=torch.float64) * sigma
            if self.group == LARGE:
                values = values * _LARGE_FACTOR
        return values.to(device=example.device, dtype=example.dtype)


def probes(
    args: Args,
    kwargs: Kwargs,
    *,
    seed: int,
    dynamic_axes: DynamicAxes | None = None,
    ranges: Ranges | None = None,
) -> list[Probe]:
    """The probes for an example: its own values, two normal draws, large values, impulses, other sizes.

    Those at other sizes come last, best first. They are proposals: which of them the network takes is for it
    to say, and the caller to try.

    Raises nothing; an example without any tensor gives one probe.
    """
    axes = dynamic_axes or {}
    tensors = [tensor for _, tensor in tensor_leaves(args, kwargs)]

    def probe(name: str, group: str, sizes: Sizes | None = None) -> Probe:
        return Probe(name, group, seed, args, kwargs, axes, sizes or {})

    chosen = [probe("example", EXAMPLE)]
    if not tensors:
        return chosen
    chosen += [probe("normal 1", NORMAL), probe("normal 2", NORMAL)]
    if any(tensor.is_floating_point() or tensor.is_complex() for tensor in tensors):
        chosen += [probe("large", LARGE), probe("impulses", IMPULSES)]
    if axes:
        for name, sizes in other_sizes(example_sizes(tensors, axes), ranges):
            described = ", ".join(f"{symbol}={size}" for symbol, size in sizes.items())
            chosen.append(probe(f"{name} ({described})", NORMAL, sizes))
    return chosen


def another_draw(probe: Probe, number: int) -> Probe:
    """One more normal draw like `probe`, for networks with few outputs."""
    return Probe(f"normal {number}", NORMAL, probe.seed, probe.args, probe.kwargs, probe.dynamic_axes)


def _mix(seed: int, name: str, index: int) -> int:
    # hash() of a text differs from process to process; a probe must not.
    digest = hashlib.sha256(f"{seed}/{name}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def _magnitude(example: torch.Tensor) -> float:
    if example.numel() == 0:
        return 1.0
    rms = float(example.abs().to("cpu", torch.float64).square().mean().sqrt())
    return rms if 1 / 256 <= rms <= 256 else 1.0


def _resized(example: torch.Tensor, shape: list[int]) -> torch.Tensor:
    """The example cut or repeated along each axis to `shape`."""
    for axis, size in enumerate(shape):
        if size != example.shape[axis] and example.shape[axis] > 0:
            places = torch.arange(size, device=example.device) % example.shape[axis]
            example = example.index_select(axis, places)
    return example


def _impulses(shape: list[int], generator: torch.Generator) -> torch.Tensor:
    """Zeros, but for the two outer corners and the centre of the axes after the second (or of the last one),
    where every sample and channel has a random value of its own."""
    values = torch.zeros(shape, dtype=torch.float64)
    if 0 in shape or not shape:
        return values
    kept = 2 if len(shape) > 2 else len(shape) - 1
    for place in (0, 0.5, 1):
        where: tuple[Any, ...] = (..., *(round(place * (size - 1)) for size in shape[kept:]))
        values[where] = torch.randn(shape[:kept], generator=generator, dtype=torch.float64)
    return values
