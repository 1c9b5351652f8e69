"""Proof of one fold: the original operators against the layers that replace them, both in float64.

The inputs are zero-mean normals of a few small sizes, odd and even, large enough that every tap of the kernel
meets data and small enough that the border matters, and as small as the maps allow. Right and
wrong are ten orders of magnitude apart here, so the bar of 1e-10 relative guesses nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from reparamkit.algebra import AffineMap, Geometry, Scalar, Transposed
from reparamkit.engine.forms import Form
from reparamkit.engine.graph import Node
from reparamkit.engine.host import Host
from reparamkit.engine.layers import Realisation, largest
from reparamkit.engine.numbers import Terms
from reparamkit.engine.plan import interior
from reparamkit.engine.relative_error import BAR, relative_error
from reparamkit.engine.rising import Rise
from reparamkit.operators import Affine, Bordered, Move, Zero, properties

_DOES_NOT_RUN = (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError)

Env = dict[Any, Tensor]
"""What values hold, by their places in the graph, and constants, by the host's names."""


class Normals:
    """Normal numbers in float64, different ones on every call.

    Small tensors are windows on one supply that starts at a place of the seed's: drawing them anew for every
    fold takes as long as half the checks do. Not to be written to.
    """

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._next = seed * _PRIME % (_SUPPLY // 2)

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """A tensor of this shape."""
        count = math.prod(shape)
        if self._next + count > _SUPPLY:
            return torch.randn(tuple(shape), generator=self._generator, dtype=torch.float64)
        self._next += count
        return _supply()[self._next - count : self._next].view(tuple(shape))


_SUPPLY, _PRIME = 1 << 18, 7919
_MOST = 1 << 24  # numbers of a table that is tried row by row


@cache
def _supply() -> Tensor:
    return torch.randn(_SUPPLY, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Unproven(Exception):
    """The fold is not the same function as what it replaces, or nothing could be compared."""


class CheckFailed(Unproven):
    """The two were compared and differ: the fold was thought exact and is wrong."""


def prove(host: Host, form: Form, terms: Terms, realisation: Realisation) -> float:
    """The largest error relative to the output's scale; raises `Unproven` where it is above the bar."""
    normals = Normals(form.node)
    inside = interior(host.graph.nodes, form)
    worst, compared = 0.0, 0
    axes = _channel_axes(host, form, terms)
    sources = [s for s in terms if s not in inside]
    beside = _read_beside(host, inside, sources)
    sources += sorted(beside)
    derived = [s for s in sources if beside and _pads(host.graph.nodes[s])]
    given = _drawn(host, sources, derived)
    captured = {s: host.graph.nodes[s].value.shape for s in terms}
    env: Env = {}
    for exact, shapes in _shapes(host, form, inside, terms) if not derived else [(True, captured)]:
        if exact and compared:
            break
        with torch.no_grad():
            try:
                constants: Env = {n: v for n, v in env.items() if host.is_constant(n)}
                env = _inputs(host, given, shapes, normals)
                env |= _places(host, terms, env)
                env |= constants
                _with_synthetic(host, sources, derived, env)
                expected = _original(host, inside, env)
            except _DOES_NOT_RUN as error:
                if exact:
                    raise Unproven(f"the original operators do not run in float64: {error}") from error
                continue
            try:
                found = realisation.run(env)
            except _DOES_NOT_RUN as error:
                raise CheckFailed(
                    f"the folded layer does not run where the original does: {error}"
                ) from error
        if found.shape != expected.shape:
            raise CheckFailed(f"output shape {list(found.shape)} instead of {list(expected.shape)}")
        if expected.numel() == 0:
            continue
        off = relative_error(expected, found, axes, partial(_rough, host, inside, given, env))
        if not off <= BAR:  # so that NaN fails
            raise CheckFailed(f"the float64 check failed: relative error {off:.1e}, allowed {BAR:.0e}")
        worst = max(worst, off)
        compared += 1
    if compared == 0:
        raise Unproven("no size was found at which the original operators run")
    return worst


def prove_rise(host: Host, rise: Rise) -> None:
    """Maps behind a cut against the same maps above it, at the captured size; raises `Unproven`.

    What else reads the pieces has to get the same as before.
    """
    value = host.graph.nodes[rise.root].value
    drawn = Normals(rise.root)(value.shape)
    sides = (-1, *(1,) * rise.structure.dims)
    before: Env = {rise.root: drawn}
    after: Env = {rise.root: drawn * rise.scale.view(sides) + rise.shift.view(sides)}
    pairs: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad():
        try:
            for claim in rise.claims:
                way = claim.path[: claim.path.index(claim.piece) + 1] if claim.piece in claim.path else ()
                expected, moved = (_original(host, (rise.root, *way), env) for env in (before, after))
                for index in claim.maps:
                    expected = host.run(index, lambda _, x=expected: x, host.constant)  # type: ignore[misc]
                pairs.append((expected, moved))
            for leaf in rise.leaves:
                expected, moved = (_original(host, (rise.root, *leaf), env) for env in (before, after))
                pairs.append((expected, moved))
        except _DOES_NOT_RUN as error:
            raise Unproven(f"the original operators do not run in float64: {error}") from error
    for expected, moved in pairs:
        if expected.shape != moved.shape or not float((expected - moved).abs().max()) <= BAR * largest(
            expected
        ):
            raise CheckFailed("the float64 check failed: the map does not pass the operators above it")


def _channel_axes(host: Host, form: Form, terms: Terms) -> set[int]:
    """The axes of the result along which its maps tell channels apart; all but the first for a move."""
    ndim = len(host.graph.nodes[form.node].value.shape)
    if form.is_identity:
        return set(range(1, ndim))
    return {ndim - 1 - m.structure.dims for m in terms.values() if isinstance(m, AffineMap)}


def _rough(host: Host, inside: Sequence[int], given: Sequence[int], env: Env) -> Tensor:
    """The original operators on the same inputs and constants in float32; NaN where they do not run."""
    kept = {key: v for key, v in env.items() if key in given or host.is_constant(key)}
    lower = {
        key: v.float() if isinstance(v, Tensor) and v.is_floating_point() else v for key, v in kept.items()
    }
    try:
        return _original(host, inside, lower)
    except _DOES_NOT_RUN:
        return torch.full_like(env[inside[-1]], math.nan)


def _drawn(host: Host, sources: Iterable[int], derived: Collection[int]) -> list[int]:
    """The values that the sources are, or are made of: an operator written down again reads others."""
    drawn: list[int] = []
    pending = list(sources)
    while pending:
        source = pending.pop()
        if host.graph.nodes[source].synthetic or source in derived:
            pending.extend(host.reads(source))
        elif source not in drawn:
            drawn.append(source)
    return sorted(drawn)


def _inputs(host: Host, drawn: Sequence[int], shapes: dict[int, tuple[int, ...]], normals: Normals) -> Env:
    """Random values for what the sources are, or are made of."""
    return {index: normals(shapes.get(index, host.graph.nodes[index].value.shape)) for index in drawn}


def _places(host: Host, terms: Terms, env: Env) -> Env:
    """Integers that look up in tables, in place of normal numbers: each within its own tables."""
    tables = [(s, m.structure.inputs) for s, m in terms.items() if isinstance(m, AffineMap)]
    integers = [(s, rows) for s, rows in tables if not host.graph.nodes[s].value.dtype.is_floating_point]
    return {s: torch.arange(env[s].numel()).view(env[s].shape) % rows for s, rows in integers}


def _read_beside(host: Host, inside: Sequence[int], sources: Sequence[int]) -> set[int]:
    """What the region reads beside its sources: a shape alone, or what a source holds in its middle."""
    read = {value.id for i in inside for value in host.graph.nodes[i].operands}
    return read.difference(inside, sources, _drawn(host, sources, ()))


def _pads(node: Node) -> bool:
    """Whether it holds what it pads in its middle, so that the two cannot be drawn apart."""
    return isinstance(node.meaning, Move) and node.meaning.pads is not None


def _with_synthetic(host: Host, sources: Iterable[int], derived: Collection[int], env: Env) -> None:
    """Compute the synthetic ones among the sources, and those that they are made of."""

    def made(index: int) -> bool:
        return host.graph.nodes[index].synthetic or index in derived

    pending = [index for index in sources if made(index)]
    needed: set[int] = set()
    while pending:
        index = pending.pop()
        if index not in needed:
            needed.add(index)
            pending.extend(i for i in host.reads(index) if made(i))
    for index in sorted(needed):
        env[index] = _run(host, index, env)


def _original(host: Host, inside: Sequence[int], env: Env) -> Tensor:
    """Run the original operators on what is in `env`, and leave their results there."""
    for index in inside:
        if index not in env:
            env[index] = _run(host, index, env)
    return env[inside[-1]]


def _run(host: Host, index: int, env: Env) -> Tensor:
    node = host.graph.nodes[index]
    if node.is_map_alone:
        return _applied(node, env[node.operands[0].id])
    if _changes_no_shape(node):
        return env[node.operands[0].id]  # the sizes in it are those of the capture

    def constant(n: Any) -> Any:
        if n not in env:
            env[n] = host.constant(n)
        return env[n]

    def value(operand: int) -> Tensor:
        if operand not in env and properties.reads_only_the_shape(node.operator):
            return torch.zeros(host.graph.nodes[operand].value.shape, dtype=torch.float64)
        return env[operand]

    return host.run(index, value, constant)


def _changes_no_shape(node: Node) -> bool:
    """Whether it gives its operand as it is, because that has the size which the operator is written for."""
    if not isinstance(node.meaning, Affine) or node.meaning.moves != "a copy" or node.covers:
        return False
    return properties.holds_sizes(node.operator)


def _applied(node: Node, x: Tensor) -> Tensor:
    assert isinstance(node.meaning, Affine)
    numbers = node.meaning.parts[0].load()
    assert isinstance(numbers, AffineMap)
    per_channel = (-1, *(1,) * numbers.structure.dims)
    x = x * numbers.kernel.reshape(per_channel).to(x.dtype)
    return x if numbers.bias is None else x + numbers.bias.reshape(per_channel).to(x.dtype)


def _shapes(
    host: Host, form: Form, inside: Sequence[int], terms: Terms
) -> Iterator[tuple[bool, dict[int, tuple[int, ...]]]]:
    """Input shapes to try, the last one (marked) as captured, for regions that run at no other size."""
    captured = {s: host.graph.nodes[s].value.shape for s in terms}
    maps = [(s, m.structure) for s, m in terms.items() if isinstance(m, AffineMap)]
    dims = {g.dims for _, g in maps}
    ndim = len(host.graph.nodes[form.node].value.shape)
    if any(
        isinstance(host.graph.nodes[i].meaning, Move | Bordered | Zero)
        or host.graph.nodes[i].covers
        or host.ends_at_fixed_place(i)
        for i in inside
    ):
        yield True, captured  # its sizes may be written into its reshapes
        return
    tables = [(s, g.inputs) for s, g in maps if not host.graph.nodes[s].value.dtype.is_floating_point]
    if tables:  # every row once, if the operators around them run on rows alone
        rows = max(rows for _, rows in tables)
        if len(tables) == len(captured) and rows * host.graph.nodes[form.node].value.shape[-1] <= _MOST:
            yield False, {s: (rows,) for s, _ in tables}
        yield True, captured
        return
    if len(dims) == 1 and len({len(shape) for shape in captured.values()}) == 1:
        (d,) = dims
        looking = sum(not _same_everywhere(host.graph.nodes[i]) for i in inside)
        for batch, (outputs, slack) in zip((2, 1, 1), _lengths(maps, d, looking), strict=False):
            shapes = {}
            for s in terms:
                own = [g for source, g in maps if source == s]
                shape = [min(n, 2 + axis % 2) for axis, n in enumerate(captured[s])]
                shape[ndim - d - 1] = captured[s][ndim - d - 1]
                if ndim > d + 1:
                    shape[0] = batch
                for axis in range(d):
                    shape[ndim - d + axis] = _length_in(own[0] if own else None, axis, outputs[axis], slack)
                shapes[s] = tuple(shape)
            if all(n > 0 for shape in shapes.values() for n in shape):
                yield False, shapes
    elif not dims:
        yield False, {s: (*(min(n, 3) for n in shape[:1]), *shape[1:]) for s, shape in captured.items()}
    yield True, captured


def _same_everywhere(node: Node) -> bool:
    """Whether it does the same at every position, whatever lies around it: one size says all."""
    return isinstance(node.meaning, Affine) and all(
        isinstance(p.structure, Scalar) or (isinstance(p.structure, Geometry) and p.structure.pointwise)
        for p in node.meaning.parts
    )


def _length_in(g: Geometry | Transposed | None, axis: int, length_out: int, slack: bool) -> int:
    if isinstance(g, Geometry):
        return g.length_in(axis, length_out, slack * (g.stride[axis] - 1))
    return length_out if g is None else g.length_in(axis, length_out) or 0


def _lengths(
    maps: Sequence[tuple[int, Geometry | Transposed]], d: int, looking: int
) -> list[tuple[tuple[int, ...], bool]]:
    """Output lengths per axis that all maps have in common, odd and even ones where there are both.

    Where there are two axes or more, odd and even lie on different axes of one size. `looking` operators see
    more than the position that they write. Where none does, that size says all, and where one does that
    skips nothing: what is folded into it does not move its window. Otherwise there is a second size, as
    small as can be. With each size, whether inputs are the shortest or the longest that give it. Transposed
    convolutions of different strides may have no length in common.
    """
    odd, even, one = [], [], []
    for axis in range(d):
        need, period = 1, 1
        for _, g in maps:
            need = max(need, _needed(g, axis))
            period = math.lcm(period, g.stride[axis] if isinstance(g, Transposed) else 1)
        common = [n for n in range(1, need + 2 * period) if all(_gives(g, axis, n) for _, g in maps)]
        large = sorted([n for n in common if n >= need][:2], key=lambda n: n % 2 == 0)
        if len(large) < 2:
            return []
        odd.append(large[0])
        even.append(large[1])
        one.append(common[0])
    mixed = [o if i % 2 == 0 else e for i, (o, e) in enumerate(zip(odd, even, strict=True))]
    if d == 1:
        return [(tuple(mixed), False), (tuple(even), True), (tuple(one), False)][: 3 if looking else 1]
    if not looking or (looking == 1 and all(s == 1 for _, g in maps for s in g.stride)):
        return [(tuple(mixed), False)]
    least = [n if i % 2 == 0 else o for i, (n, o) in enumerate(zip(one, odd, strict=True))]
    return [(tuple(mixed), False), (tuple(least), True)]


def _needed(g: Geometry | Transposed, axis: int) -> int:
    """The shortest output at which every tap meets data."""
    lo, span, extent, stride = g.lo[axis], g.span[axis], g.extent[axis], g.stride[axis]
    if isinstance(g, Transposed):
        inputs = math.ceil((span + max(-lo, 0) + max(lo + span - 1 - extent, 0)) / stride) + 1
        return stride * (inputs - 1) + 1 + extent
    return math.ceil((max(-lo, lo + span - 1, 1) + extent) / stride) + 1


def _gives(g: Geometry | Transposed, axis: int, length: int) -> bool:
    return isinstance(g, Geometry) or g.length_in(axis, length) is not None
