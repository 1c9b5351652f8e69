"""That blocks and the expanded network compute what was there before, in float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.utils import _pytree as pytree

from reparamkit.compare.float64.oracle import run_float64
from reparamkit.compare.float64.reference import Reference
from reparamkit.errors import NotEquivalent
from reparamkit.support.inputs import Args, Kwargs
from reparamkit.training.expand.block import ExpandedConv

BAR = 1e-10


def prove_block(conv: Any, block: ExpandedConv, shape: Sequence[int], where: str) -> float:
    """Compare a block with its convolution on zero-mean inputs, at sizes up to that of `shape`.

    Returns:
        The largest error, relative to the largest value of the output.

    Raises:
        NotEquivalent: it is above 1e-10.
    """
    before = copy.deepcopy(conv).to("cpu", torch.float64).eval()
    after = copy.deepcopy(block).to("cpu", torch.float64).eval()
    generator, worst = Generator().manual_seed(0), 0.0
    for sizes in _sizes(conv, shape):
        x = torch.randn(sizes, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            try:
                # The class's own: hooks are the network's business.
                expected: Tensor = type(before).forward(before, x)
            except RuntimeError:
                continue  # smaller than the convolution takes
            worst = max(worst, _error(expected, after(x)))
    if not worst <= BAR:
        raise NotEquivalent(
            f"the branches of {where or 'the network'} differ from the convolution by {worst:.1e} of its "
            f"output's scale in float64, where {BAR:.0e} is allowed"
        )
    return worst


def _sizes(conv: Any, shape: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """The size of the example, made smaller where a few windows show as much, and odd and even ones below."""
    geometry = zip(shape[2:], conv.kernel_size, conv.dilation, conv.stride, strict=True)
    cap = [min(size, 2 * d * (k - 1) + 2 * s + 3) for size, k, d, s in geometry]
    batch = min(shape[0], 2)
    for less in (0, 1, 2):
        yield (batch, shape[1], *(max(1, size - less) for size in cap))


def _error(expected: Tensor, value: Tensor) -> float:
    if expected.shape != value.shape:
        return math.inf
    if not expected.numel():
        return 0.0
    return _relative((value - expected).abs(), expected)


def _relative(difference: Tensor, expected: Tensor) -> float:
    scale = float(expected.abs().max())
    largest = float(difference.max())
    return largest / scale if scale > 0 else largest


def prove_network(
    original: nn.Module, expanded: nn.Module, args: Args, kwargs: Kwargs
) -> tuple[float, list[str]]:
    """Compare the float64 runs of two networks in evaluation mode on the example.

    Where the network cannot run in float64, the two are compared in their own precision.

    Returns:
        The largest error of an output, relative to the output's largest value, and notes.

    Raises:
        NotEquivalent: they differ.
    """
    (expected, reason), (values, failed) = (_seeded_run(each, args, kwargs) for each in (original, expanded))
    if reason:
        verdict = Reference(original, args, kwargs).judge(expanded)
        if verdict.differs:
            raise NotEquivalent(f"the expanded network is {verdict.summary()}", verdict)
        told = verdict.untold or "it was compared in its own precision"
        return 0.0, [f"the network does not run in float64 ({reason}), each block does: {told}"]
    if failed:
        raise NotEquivalent(f"the expanded network does not run in float64: {failed}")
    leaves, others = pytree.tree_leaves(expected), pytree.tree_leaves(values)
    if len(leaves) != len(others):
        raise NotEquivalent(f"the expanded network has {len(others)} outputs in place of {len(leaves)}")
    worst = 0.0
    for one, other in zip(leaves, others, strict=True):
        if isinstance(one, Tensor):
            worst = max(worst, _output_error(one, other))
    if not worst <= BAR:
        raise NotEquivalent(
            f"the expanded network differs from the original by {worst:.1e} of the output's scale in "
            f"float64, where {BAR:.0e} is allowed"
        )
    return worst, []


def _output_error(expected: Tensor, value: Any) -> float:
    if not isinstance(value, Tensor) or expected.shape != value.shape:
        return math.inf
    if not expected.is_floating_point() and not expected.is_complex():
        return 0.0 if torch.equal(expected, value) else math.inf
    same = (expected == value) | (expected.isnan() & value.isnan())
    if bool(same.all()):
        return 0.0
    difference = torch.where(same, 0.0, (value - expected).abs())
    finite = torch.where(expected.isfinite(), expected, 0.0)
    worst = _relative(difference, finite)
    return worst if not math.isnan(worst) else math.inf


def _seeded_run(module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Any, str]:
    """The float64 run, with the same random numbers for whoever draws some."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return run_float64(module, args, kwargs)
