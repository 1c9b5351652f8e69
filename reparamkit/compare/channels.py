"""Scale and rounding noise along every axis of an output, so that a small channel has a budget of its own.

A whole output's budget is relative to its largest channel, and beside one of scale 1e7 a channel of scale 1
could be anything. Which axis holds the channels is written nowhere, so every axis is taken for it whose
length is the same at all sizes that are tried. For the channel c along an axis, in a group g of probes, with
the whole output's scale S_g,

    s_c = S_g · max over groups of (largest |y64| in c) / S                    its scale
    n_c = max of  its own noise in g,
                  S_g · max over groups of like magnitude of (its noise) / S,
                  s_c · median over channels of (noise / scale)                its noise
    allowed_c = max(F · n_c + floor · s_c, 4 · m_c, eps² · S_g)

Extremes of few numbers are small now and then by luck: scale and noise of a channel are pooled over all
probes as shares of the whole, and the noise is held against what is usual among the channels as well. With
n elements per channel, both by luck below 1/F of what they are comes to about (0.8/F)^(2n) (1·3·5···(2n-1)),
which F keeps below 1e-9:

    n    1       2     3    4    5 and more
    F    30000   110   40   20   16

This is wide: it finds a channel that is wrong, not one that lost a bit; the whole output's budget is narrower
where it sees the channel. A channel whose true value is what is left of larger terms can have no rounding
error in the reference for luck alone, and m_c, how far it moves when weights and inputs are off by a few ulp,
is found out only where a channel fails (`reparamkit.compare.float64.second_look`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from reparamkit.compare.float64.run import Run, Truth
from reparamkit.compare.noise import PerAxis, distances, peaks

RESOLUTION = 0.25
"""The share of its scale above which the budget of an output or a channel says nothing."""
_FACTORS = (30000.0, 110.0, 40.0, 20.0, 16.0)
_MOVED_FACTOR = 4.0
_OTHER_MAGNITUDE = frozenset({"large", "tiny"})


@dataclass(frozen=True)
class Channels:
    """What the channels along one axis may be off by.

    Attributes:
        axis: the axis.
        allowed: largest absolute error, per channel.
        scale: s_c.
        judged: where `allowed` is small enough for the channel to be evidence.
    """

    axis: int
    allowed: torch.Tensor
    scale: torch.Tensor
    judged: torch.Tensor


class ChannelBudgets:
    """The budgets of all channels of one output.

    Args:
        truths: that output under each probe, with the group of the probe.
        scales: group -> S_g.
        floor, eps: of the whole output's budget.
        moved: group -> m_c, as far as it was looked at.
    """

    def __init__(
        self,
        truths: Sequence[tuple[str, Truth]],
        scales: dict[str, float],
        floor: float,
        eps: float,
        moved: PerAxis = (),
    ) -> None:
        self._truths = truths
        self._scales = scales
        self._floor, self._eps = floor, eps
        self._moved = moved
        first = truths[0][1]
        self._axes = [
            axis
            for axis, values in enumerate(first.along_noise)
            if values is not None and all(_length(truth, axis) == len(values) for _, truth in truths)
        ]
        self._found: dict[str, tuple[Channels, ...]] = {}

    def of(self, group: str) -> tuple[Channels, ...]:
        """The budgets along each axis on the probes of a group."""
        if group not in self._found:
            whole = self._scales[group]
            self._found[group] = tuple(self._along(axis, group) for axis in self._axes) if whole > 0 else ()
        return self._found[group]

    def _along(self, axis: int, group: str) -> Channels:
        whole = self._scales[group]
        shares, noises, own, count = [], [], [], 0.0
        for name, truth in self._truths:
            noise, scale = truth.along_noise[axis], truth.along_scale[axis]
            if noise is None or scale is None or not self._scales[name] > 0:
                continue
            count += truth.finite / len(noise)
            shares.append(scale / self._scales[name])
            if name not in _OTHER_MAGNITUDE:
                noises.append(noise / self._scales[name])
            if name == group:
                own.append(noise)
        scale = whole * torch.stack(shares).amax(0)
        noise = torch.stack([*own, *(whole * each for each in noises)]).amax(0)
        alive = scale > 0
        if bool(alive.any()):
            noise = torch.maximum(noise, scale * (noise[alive] / scale[alive]).median())
        factor = _FACTORS[min(max(int(count), 1), len(_FACTORS)) - 1]
        least = self._eps**2 * whole
        allowed = (factor * noise + self._floor * scale).clamp_min(least)
        moved = self._moved[axis] if axis < len(self._moved) else None
        if moved is not None:
            allowed = torch.maximum(allowed, _MOVED_FACTOR * whole * moved)
        return Channels(axis, allowed, scale, allowed <= (RESOLUTION * scale).clamp_min(least))


@dataclass(frozen=True)
class ChannelError:
    """The channel that is worst in terms of its budget: where it is, and the largest error in it."""

    axis: int
    channel: int
    index: tuple[int, ...]
    error: float
    scale: float
    allowed: float


def worst_channel(
    values: torch.Tensor, truth: torch.Tensor, channels: Sequence[Channels], share: float = 1.0
) -> ChannelError | None:
    """The channel with the largest error beyond `share` of what it is allowed; None where there is none."""
    if not channels:
        return None
    apart = distances(values, truth)
    along = peaks(apart)
    worst, most = None, 1.0
    for each in channels:
        errors = along[each.axis]
        if errors is None or len(errors) != len(each.allowed):
            continue
        ratios = torch.where(each.judged & (errors > 0), errors / (share * each.allowed), 0.0)
        place = int(ratios.argmax())
        if float(ratios[place]) > most:
            most, worst = float(ratios[place]), (each, place)
    if worst is None:
        return None
    each, place = worst
    inside = apart.select(each.axis, place)
    rest = [int(i) for i in torch.unravel_index(inside.argmax(), inside.shape)] if inside.ndim else []
    index = (*rest[: each.axis], place, *rest[each.axis :])
    return ChannelError(
        each.axis,
        place,
        index,
        float(apart[index]),
        float(each.scale[place]),
        float(each.allowed[place]),
    )


def by_place(records: Sequence[Run], place: int) -> list[tuple[str, Truth]]:
    """One output under each probe, with the probe's group."""
    return [(record.probe.group, record.truths[place]) for record in records]


def _length(truth: Truth, axis: int) -> int:
    values = truth.along_noise[axis] if axis < len(truth.along_noise) else None
    return 0 if values is None else len(values)
