"""What each output of a candidate may be off by: the formula of `reparamkit.compare.float64.reference`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from reparamkit.compare.channels import ChannelBudgets, Channels, by_place
from reparamkit.compare.float64.run import Run
from reparamkit.compare.inputs.probes import NORMAL
from reparamkit.compare.metrics import relative
from reparamkit.compare.noise import PerAxis

FACTOR = 4.0
"""The 4 in the formula."""
ENOUGH_ELEMENTS = 64
"""The number of elements from which a group has a scale and a noise of its own."""


class Budgets:
    """Budgets per output and group of probes, for the output as a whole and for each of its channels.

    `floor` is the few ulp in the formula, `eps` a unit in the last place. `moved` says for some outputs how
    far their channels move, as shares of the output's scale, when weights and inputs are off by a few ulp
    (see `reparamkit.compare.channels`).
    """

    def __init__(
        self, records: Sequence[Run], floor: float, eps: float, moved: dict[int, PerAxis] | None = None
    ) -> None:
        self.floor = floor
        self._eps = eps
        self._records = records
        self._moved = moved or {}
        self._noise: dict[tuple[int, str], float] = {}
        self._scale: dict[tuple[int, str], float] = {}
        self._finite: dict[tuple[int, str], int] = {}
        self._channels: dict[int, ChannelBudgets] = {}
        for record in records:
            for place, truth in enumerate(record.truths):
                key = (place, record.probe.group)
                self._noise[key] = max(self._noise.get(key, 0.0), truth.noise)
                self._scale[key] = max(self._scale.get(key, 0.0), truth.scale)
                self._finite[key] = self._finite.get(key, 0) + truth.finite

    def scale(self, place: int, group: str) -> float:
        """S of the output at this place, in its own units."""
        own = self._scale.get((place, group), 0.0)
        if self._finite.get((place, group), 0) < ENOUGH_ELEMENTS:
            return max(own, self._scale.get((place, NORMAL), 0.0))
        return own

    def noise(self, place: int, group: str) -> float:
        """E0 of the output at this place, relative to `scale`."""
        scale = self.scale(place, group)
        normal = relative(self._noise.get((place, NORMAL), 0.0), self._scale.get((place, NORMAL), 0.0))
        own = relative(self._noise.get((place, group), 0.0), scale)
        return max(own, normal if math.isfinite(normal) else 0.0)

    def budget(self, place: int, group: str) -> float:
        """What E1 may be."""
        return FACTOR * self.noise(place, group) + self.floor

    def channels(self, place: int, group: str) -> tuple[Channels, ...]:
        """What the channels of the output at this place may be off by, along each axis."""
        if place not in self._channels:
            truths = by_place(self._records, place)
            scales = {name: self.scale(place, name) for name, _ in truths}
            self._channels[place] = ChannelBudgets(
                truths, scales, self.floor, self._eps, self._moved.get(place, ())
            )
        return self._channels[place].of(group)

    def for_both(self) -> Budgets:
        """What two runs may be off by from each other, each of which may be off by its budget."""
        records = [
            replace(
                record, truths=tuple(truth.with_noise(truth.rounding.times(2)) for truth in record.truths)
            )
            for record in self._records
        ]
        return Budgets(records, 2 * self.floor, self._eps, self._moved)

    def growth(self, place: int, group: str) -> float:
        """How many times larger the output is in a group than on normal values; 1 where it is not larger."""
        normal = self._scale.get((place, NORMAL), 0.0)
        ratio = self.scale(place, group) / normal if normal > 0 else 1.0
        return max(1.0, ratio) if math.isfinite(ratio) else 1.0
