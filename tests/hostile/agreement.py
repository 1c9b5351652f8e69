"""Whether two answers of a network are the same: structure, types, shapes, and numbers channel by channel.

In float64 the bar is 1e-9 of each channel. In float32 it is 2e-4 of each channel, or eight times the
original's own error there: how far it is from its float64 run, or from itself where weights and inputs are
off by one rounding, which tells the scale of what cancels. Integers and booleans are the same, or wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.hostile.text import Pair


@dataclass(frozen=True)
class Bar:
    """What is allowed, in parts of a channel's largest value and of the whole output's."""

    of_channel: float
    of_whole: float
    of_own_error: float = 8.0
    integers: float = 0.0
    """Part of the elements of an integer output that may differ."""


WIDE = Bar(1e-9, 1e-11)
NARROW = Bar(2e-4, 1e-6)
COARSE = Bar(3e-2, 1e-3, integers=0.05)


def leaves(value: Any) -> tuple[list[Any], str]:
    """Everything in an answer, in order, and the structure around it."""
    if isinstance(value, Pair):
        value, kind = (value.first, value.second), "Pair"
    elif isinstance(value, tuple):
        kind = type(value).__name__ if hasattr(value, "_fields") else "tuple"
    elif isinstance(value, list):
        kind = "list"
    elif isinstance(value, dict):
        kind = f"dict {list(value)}"
        value = list(value.values())
    else:
        return [value], "*"
    parts = [leaves(part) for part in value]
    return [leaf for found, _ in parts for leaf in found], f"{kind}({', '.join(shape for _, shape in parts)})"


def difference(native: Any, exact: Any, answer: Any, bar: Bar, shaken: Sequence[Any] = ()) -> str | None:
    """In what an answer differs from the original's, in words; None if it does not.

    Args:
        native: the original's answer in the precision of the candidate.
        exact: its answer in float64, or None.
        shaken: its answers where weights and inputs are off by one rounding.
    """
    expected, structure = leaves(native)
    found, other = leaves(answer)
    if structure != other:
        return f"structure {other} instead of {structure}"
    others = [matching(expected, each) for each in shaken]
    return leaf_difference(expected, matching(expected, exact), found, bar, others)


def leaf_difference(
    expected: list[Any], exact: list[Any], found: list[Any], bar: Bar, shaken: Sequence[list[Any]] = ()
) -> str | None:
    """The same for answers that are taken apart already."""
    for i, (want, best, got) in enumerate(zip(expected, exact, found, strict=True)):
        if not isinstance(want, Tensor):
            if type(want) is not type(got) or want != got:
                return f"output {i}: {got!r} instead of {want!r}"
            continue
        if not isinstance(got, Tensor):
            return f"output {i}: {type(got).__name__} instead of a tensor"
        told = tensor_difference(want, best, got, bar, [each[i] for each in shaken])
        if told is not None:
            return f"output {i}: {told}"
    return None


def tensor_difference(
    want: Tensor, best: Tensor | None, got: Tensor, bar: Bar, shaken: Sequence[Tensor | None] = ()
) -> str | None:
    if got.dtype != want.dtype:
        return f"type {got.dtype} instead of {want.dtype}"
    if got.shape != want.shape:
        return f"shape {tuple(got.shape)} instead of {tuple(want.shape)}"
    if not want.numel():
        return None
    if not (want.is_floating_point() or want.is_complex()):
        wrong = int((got != want).sum())
        allowed = bar.integers * want.numel()
        return f"{wrong} of {want.numel()} integers differ" if wrong > allowed else None
    if want.is_complex():
        want, got, best = torch.view_as_real(want), torch.view_as_real(got.resolve_conj()), None
        shaken = ()
    want, got = want.detach().double(), got.detach().double()
    finite = want.isfinite()
    if not torch.equal(finite, got.isfinite()) or not _same_special(want[~finite], got[~finite]):
        return "other NaN or infinite elements"
    own = torch.zeros_like(want)
    if best is not None and torch.equal(best.isfinite(), finite):
        own = (best - want).abs().nan_to_num(0)
        target = best
    else:
        target = want
    for other in shaken:
        if other is not None and torch.equal(other.isfinite(), finite):
            own = torch.maximum(own, (other - want).abs().nan_to_num(0))
    error = (got - target).abs().where(finite, torch.zeros_like(want))
    scale, own, error = (
        _by_channel(want.abs().where(finite, torch.zeros_like(want))),
        _by_channel(own),
        _by_channel(error),
    )
    bounds = torch.maximum(bar.of_channel * scale + bar.of_whole * scale.max(), bar.of_own_error * own)
    worst = int((error - bounds).argmax())
    if error[worst] <= bounds[worst]:
        return None
    return f"error {float(error[worst]):.3g} of {float(scale[worst]):.3g}"


def _by_channel(values: Tensor) -> Tensor:
    """The largest element of each channel, which is axis 1 where there is one."""
    if values.ndim < 2:
        return values.reshape(1, -1).amax(1)
    return values.movedim(1, 0).flatten(1).amax(1)


def _same_special(want: Tensor, got: Tensor) -> bool:
    return torch.equal(want.isnan(), got.isnan()) and torch.equal(
        want.nan_to_num(0, 1, -1), got.nan_to_num(0, 1, -1)
    )


def matching(expected: list[Any], exact: Any) -> list[Any]:
    """Another answer of the original leaf by leaf, in float64, with None where it is of another kind."""
    if exact is None:
        return [None] * len(expected)
    found = leaves(exact)[0]
    if len(found) != len(expected):
        return [None] * len(expected)
    return [
        best.double()
        if isinstance(best, Tensor)
        and isinstance(want, Tensor)
        and best.shape == want.shape
        and best.is_floating_point()
        and want.is_floating_point()
        else None
        for want, best in zip(expected, found, strict=True)
    ]
