"""Proof of one fold: the original operators against the layers that replace them, both in float64.

The inputs are zero-mean normals of a few small sizes, odd and even, large enough that every tap of the kernel
meets data and small enough that the border matters, and as small as the maps allow. Right and
wrong are ten orders of magnitude apart here, so the bar of 1e-10 relative guesses nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from reparamkit.algebra import AffineMap
from reparamkit.engine.form import Form, Terms
from reparamkit.engine.graph import Node
from reparamkit.engine.host import Host
from reparamkit.engine.layers import Realisation, largest
from reparamkit.engine.plan import interior
from reparamkit.engine.proof_sizes import Trial, resized, trials
from reparamkit.engine.relative_error import BAR, relative_error
from reparamkit.engine.rising import Rise
from reparamkit.operators import Affine, Move, Work, properties

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


@dataclass(frozen=True)
class Proof:
    """`error` is the largest one relative to the output's scale; `captured_only`: no other size was tried."""

    error: float
    captured_only: bool


def prove(host: Host, form: Form, terms: Terms, realisation: Realisation) -> Proof:
    """Hold the layers against the original; raises `Unproven` where they differ by more than the bar."""
    normals = Normals(form.node)
    inside = interior(host.graph.nodes, form)
    worst, compared, others = 0.0, 0, 0
    axes = _channel_axes(host, form, terms)
    sources = [s for s in terms if s not in inside]
    beside = _read_beside(host, inside, sources)
    sources += sorted(beside)
    derived = [s for s in sources if beside and _pads(host.graph.nodes[s])]
    inputs, synthetic = _made_of(host, sources, derived)
    steps = (*synthetic, *inside)
    env: Env = {}
    for trial in trials(host, form, inside, terms, inputs, synthetic):
        if trial.last_resort and compared:
            break
        with torch.no_grad():
            try:
                constants: Env = {n: v for n, v in env.items() if host.is_constant(n)}
                env = {i: normals(trial.shapes[i]) for i in inputs}
                env |= _places(host, terms, env)
                env |= constants
                _computed(host, steps, env, trial)
                expected = env[inside[-1]]
            except _DOES_NOT_RUN as error:
                if trial.captured:
                    raise Unproven(f"the original operators do not run in float64: {error}") from error
                continue
            try:
                folded = realisation.run(env)
            except _DOES_NOT_RUN as error:
                raise CheckFailed(
                    f"the folded layer does not run where the original does: {error}"
                ) from error
        if folded.shape != expected.shape:
            raise CheckFailed(f"output shape {list(folded.shape)} instead of {list(expected.shape)}")
        if expected.numel() == 0:
            continue
        off = relative_error(expected, folded, axes, partial(_rough, host, steps, inputs, env, trial))
        if not off <= BAR:  # so that NaN fails
            raise CheckFailed(f"the float64 check failed: relative error {off:.1e}, allowed {BAR:.0e}")
        worst = max(worst, off)
        compared += 1
        others += not trial.captured
    if compared == 0:
        raise Unproven("no size was found at which the original operators run")
    return Proof(worst, others == 0)


def prove_rise(host: Host, rise: Rise) -> bool:
    """Maps behind a cut against the same maps above it; raises `Unproven`.

    What else reads the pieces has to get the same as before. Returns whether that was shown at the captured
    size only.
    """
    nodes = host.graph.nodes
    steps = sorted({i for path in (*(c.path for c in rise.claims), *rise.leaves) for i in path})
    factors = {operand for i in steps if nodes[i].product is not None for operand in host.reads(i)}
    inputs = sorted({rise.root, *(factors - {*steps})})
    channels = nodes[rise.root].value.ndim - 1 - rise.structure.dims
    normals, others = Normals(rise.root), 0
    for trial in resized(host, inputs, steps, [(rise.root, channels)]):
        before: Env = {i: normals(trial.shapes[i]) for i in inputs}
        with torch.no_grad():
            try:
                differing = _differing(host, rise, before, steps, trial)
            except _DOES_NOT_RUN as error:
                if trial.captured:
                    raise Unproven(f"the original operators do not run in float64: {error}") from error
                continue
        if differing:
            raise CheckFailed("the float64 check failed: the map does not pass the operators above it")
        others += not trial.captured
    return others == 0


def _differing(host: Host, rise: Rise, before: Env, steps: Sequence[int], trial: Trial) -> bool:
    """Whether a reader of the root, or of what is made of it, gets something else than before."""
    sides = (-1, *(1,) * rise.structure.dims)
    after = before | {rise.root: before[rise.root] * rise.scale.view(sides) + rise.shift.view(sides)}
    for env in (before, after):
        _computed(host, steps, env, trial)
    for claim in rise.claims:
        expected = before[claim.value]
        for index in claim.maps:
            expected = _run(host, index, {host.reads(index)[0]: expected}, None)
        if not _close(expected, after[claim.value]):
            return True
    return not all(_close(before[i], after[i]) for i in ((rise.root, *leaf)[-1] for leaf in rise.leaves))


def _close(expected: Tensor, moved: Tensor) -> bool:
    if expected.shape != moved.shape:
        return False
    return not expected.numel() or float((expected - moved).abs().max()) <= BAR * largest(expected)


def _channel_axes(host: Host, form: Form, terms: Terms) -> set[int]:
    """The axes of the result along which its maps tell channels apart; all but the first for a move."""
    ndim = len(host.graph.nodes[form.node].value.shape)
    if form.is_identity:
        return set(range(1, ndim))
    return {ndim - 1 - m.structure.dims for m in terms.values() if isinstance(m, AffineMap)}


def _rough(host: Host, steps: Sequence[int], given: Sequence[int], env: Env, trial: Trial) -> Tensor:
    """The original operators on the same inputs and constants in float32; NaN where they do not run."""
    kept = {key: v for key, v in env.items() if key in given or host.is_constant(key)}
    lower = {
        key: v.float() if isinstance(v, Tensor) and v.is_floating_point() else v for key, v in kept.items()
    }
    try:
        _computed(host, steps, lower, trial)
    except _DOES_NOT_RUN:
        return torch.full_like(env[steps[-1]], math.nan)
    return lower[steps[-1]]


def _made_of(host: Host, sources: Iterable[int], derived: Collection[int]) -> tuple[list[int], list[int]]:
    """The values of the network that sources are, or are made of, and those that are made of these.

    The latter are the synthetic ones and the `derived`.
    """
    values: set[int] = set()
    synthetic: set[int] = set()
    pending = list(sources)
    while pending:
        source = pending.pop()
        if not host.graph.nodes[source].synthetic and source not in derived:
            values.add(source)
        elif source not in synthetic:
            synthetic.add(source)
            pending.extend(host.reads(source))
    return sorted(values), sorted(synthetic)


def _places(host: Host, terms: Terms, env: Env) -> Env:
    """Integers that look up in tables, in place of normal numbers: each within its own tables."""
    tables = [(s, m.structure.inputs) for s, m in terms.items() if isinstance(m, AffineMap)]
    integers = [(s, rows) for s, rows in tables if not host.graph.nodes[s].value.dtype.is_floating_point]
    return {s: torch.arange(env[s].numel()).view(env[s].shape) % rows for s, rows in integers if s in env}


def _read_beside(host: Host, inside: Sequence[int], sources: Sequence[int]) -> set[int]:
    """What the region reads beside its sources: a shape alone, or what a source holds in its middle."""
    read = {value.id for i in inside for value in host.graph.nodes[i].operands}
    return read.difference(inside, sources, _made_of(host, sources, ())[0])


def _pads(node: Node) -> bool:
    """Whether it holds what it pads in its middle, so that the two cannot be drawn apart."""
    return isinstance(node.meaning, Move) and node.meaning.pads is not None


def _computed(host: Host, steps: Iterable[int], env: Env, trial: Trial) -> None:
    """Run operators on what is in `env`, and leave their results there."""
    for index in steps:
        if index in env:
            continue
        env[index] = _run(host, index, env, trial.shape(index, env))
        expected = trial.shape(index, env)
        if expected is not None and env[index].shape != expected:
            raise ValueError(f"it gives {list(env[index].shape)} where {list(expected)} were to be")


def _run(host: Host, index: int, env: Env, shape: Sequence[int] | None) -> Tensor:
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

    return host.run(index, value, constant, shape)


def _changes_no_shape(node: Node) -> bool:
    """Whether it gives its operand as it is, because that has the size which the operator is written for."""
    if not isinstance(node.meaning, Affine) or node.meaning.work is not Work.COPY or node.covers:
        return False
    return properties.holds_sizes(node.operator)


def _applied(node: Node, x: Tensor) -> Tensor:
    assert isinstance(node.meaning, Affine)
    numbers = node.meaning.terms[0].load()
    assert isinstance(numbers, AffineMap)
    per_channel = (-1, *(1,) * numbers.structure.dims)
    x = x * numbers.kernel.reshape(per_channel).to(x.dtype)
    return x if numbers.bias is None else x + numbers.bias.reshape(per_channel).to(x.dtype)
