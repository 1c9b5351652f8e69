"""Probes: inputs that expose mistakes.

Zero-mean matters. With inputs in [0, 1) a broken weight behind a ReLU can go unseen, because the ReLU then
masks its whole channel on every input that is tried; with zero-mean inputs it does not.

A probe is a recipe, not a tensor: it holds the example (which the caller holds anyway), a seed and sizes,
and makes its inputs anew each time, so a set of probes costs no memory and no model can spoil one by writing
into its inputs.

- `example`: the caller's own values; `data`: more of them.
- `normal`: independent normal values with zero mean and the example's root mean square (1 where
  that is 0 or beyond [1/256, 256]). Drawn several times, also at other sizes where axes are free.
- `large`: the same, 32 times larger: saturations and clamps are reached.
- `impulses`: zero but for single values at the corners and in the centre: borders and biases show.

A fold, which is proven piece by piece already, is compared on these. Where two networks come from anywhere
(`thorough_probes`) there are more: `tiny` values, `constant` ones, a `checkerboard` and each impulse by
itself (`reparamkit.compare.inputs.patterns` says what each shows), and more kinds of size
(`reparamkit.compare.inputs.sizes`).

Integer tensors keep the example's own values, rolled along the last axis (and repeated at larger sizes): an
invented value may be outside a vocabulary. Booleans stay as they are. An input that was described
(`reparamkit.compare.inputs.input_spec`) is drawn anew within its bounds instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from reparamkit.compare.inputs import patterns
from reparamkit.compare.inputs.input_spec import Kind
from reparamkit.compare.inputs.sizes import (
    DynamicAxes,
    Ranges,
    Sizes,
    example_sizes,
    listed_sizes,
    other_sizes,
    special_sizes,
    thorough_sizes,
)
from reparamkit.support.inputs import Args, Kwargs, map_tensors, tensor_leaves

EXAMPLE, DATA = "example", "data"
NORMAL, LARGE, TINY, IMPULSES = "normal", "large", "tiny", "impulses"
CONSTANT, CHECKERBOARD = "constant", "checkerboard"

GIVEN = frozenset({EXAMPLE, DATA})
"""Groups of values that the caller asked for: the reference has to take them."""
DEGENERATE = frozenset({CONSTANT, CHECKERBOARD})
"""Groups on which the reference may show no rounding error for symmetry alone."""


@dataclass(frozen=True)
class Probe:
    """A recipe for one set of inputs.

    Attributes:
        name: unique among the probes of one comparison.
        group: probes of one group have values of like magnitude, and one budget.
        seed: what the random values come from.
        sizes: the size of each free symbol, where it differs from the example.
        pattern: one of `reparamkit.compare.inputs.patterns`.
        kinds: flat tensor index -> the kind of values that the input has to keep to.
        fixed: the inputs are the values of `args` and `kwargs`, as they are.
    """

    name: str
    group: str
    seed: int
    args: Args = field(repr=False)
    kwargs: Kwargs = field(repr=False)
    dynamic_axes: DynamicAxes = field(default_factory=dict, repr=False)
    sizes: Sizes = field(default_factory=dict)
    pattern: str = patterns.NORMAL
    kinds: Mapping[int, Kind] = field(default_factory=dict, repr=False)
    fixed: bool = False

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
        if self.fixed or self.group == EXAMPLE:
            return _resized(example, shape).clone()
        if index in self.kinds:
            drawn = self.kinds[index].draw(self.pattern, shape, example.dtype, generator)
            return drawn.to(example.device)
        if not (example.is_floating_point() or example.is_complex()):
            resized = _resized(example, shape)
            if example.dtype is torch.bool or resized.ndim == 0 or resized.shape[-1] < 2:
                return resized.clone()
            shift = int(torch.randint(1, resized.shape[-1], (), generator=generator))
            return resized.roll(shift, dims=-1)
        values = patterns.pattern(self.pattern, shape, generator) * _magnitude(example)
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

    def probe(name: str, group: str, sizes: Sizes | None = None, how: str = NORMAL) -> Probe:
        return Probe(name, group, seed, args, kwargs, axes, sizes or {}, how)

    chosen = [probe("example", EXAMPLE)]
    if not tensors:
        return chosen
    chosen += [probe("normal 1", NORMAL), probe("normal 2", NORMAL)]
    if any(tensor.is_floating_point() or tensor.is_complex() for tensor in tensors):
        chosen += [probe("large", LARGE, how=LARGE), probe("impulses", IMPULSES, how=IMPULSES)]
    if axes:
        for name, sizes in other_sizes(example_sizes(tensors, axes), ranges):
            chosen.append(probe(f"{name} ({_in_words(sizes)})", NORMAL, sizes))
    return chosen


def thorough_probes(
    args: Args, kwargs: Kwargs, *, seed: int, kinds: Mapping[int, Kind] | None = None
) -> list[Probe]:
    """The probes at the example's own size for two networks of which nothing is known."""

    def probe(name: str, group: str, how: str = NORMAL) -> Probe:
        return Probe(name, group, seed, args, kwargs, pattern=how, kinds=kinds or {})

    tensors = [tensor for _, tensor in tensor_leaves(args, kwargs)]
    chosen = [probe("example", EXAMPLE)]
    if not tensors:
        return chosen
    chosen += [probe("normal 1", NORMAL), probe("normal 2", NORMAL)]
    if not any(tensor.is_floating_point() or tensor.is_complex() or kinds for tensor in tensors):
        return chosen
    chosen += [probe(how, how, how) for how in (LARGE, TINY)]
    chosen += [probe(how, CONSTANT, how) for how in (patterns.CONSTANT, patterns.NEGATIVE)]
    chosen.append(probe(CHECKERBOARD, CHECKERBOARD, CHECKERBOARD))
    widest = max(tensors, key=lambda tensor: tensor.ndim)
    chosen += [
        probe(how, IMPULSES, how) for how in patterns.impulses(patterns.spatial_axes(list(widest.shape)))
    ]
    return chosen


def size_probes(
    args: Args,
    kwargs: Kwargs,
    *,
    seed: int,
    dynamic_axes: DynamicAxes,
    ranges: Ranges | None = None,
    kinds: Mapping[int, Kind] | None = None,
    listed: Mapping[int, Sequence[tuple[int, ...]]] | None = None,
) -> dict[str, list[Probe]]:
    """Normal probes at other sizes: kind of size -> proposals, best first, of which one is wanted.

    `listed` is flat index of an input -> the only shapes that it may have: each that is proposed is wanted.
    """
    tensors = [tensor for _, tensor in tensor_leaves(args, kwargs)]
    sizes = example_sizes(tensors, dynamic_axes)
    batch = {axes[0] for axes in dynamic_axes.values() if 0 in axes}
    kinds_of_size = thorough_sizes(sizes, batch, ranges)
    tried = [proposals[0] for proposals in kinds_of_size.values()]
    for kind, proposals in special_sizes(sizes, ranges).items():
        if proposals[0] not in tried:
            kinds_of_size[kind] = proposals
    probe = Probe("", "", seed, args, kwargs, dynamic_axes, kinds=kinds or {})
    proposed = at_sizes(probe, kinds_of_size)
    each_listed = at_sizes(probe, {"listed size": listed_sizes(tensors, listed or {}, dynamic_axes)})
    return proposed | {each.name: [each] for each in each_listed["listed size"]}


def at_sizes(probe: Probe, proposed: Mapping[str, Sequence[Sizes]]) -> dict[str, list[Probe]]:
    """Probes like this one at proposed sizes, by the kind of size, which is the name of their group."""
    return {
        kind: [
            replace(probe, name=f"{kind} ({_in_words(sizes)})", group=kind, sizes=sizes)
            for sizes in proposals
        ]
        for kind, proposals in proposed.items()
    }


def _in_words(sizes: Sizes) -> str:
    return ", ".join(f"{symbol}={size}" for symbol, size in sizes.items())


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
