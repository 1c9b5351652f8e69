"""How long calls take, fairly: they take turns, so that what slows the machine down slows all of them.

What a processor does in the first calls (it allocates, it raises its clock) is left out. A ratio of two calls
is the median over the rounds of the ratio within a round; how far it is to be trusted, the bootstrap says
(Efron, 1979): the median over rounds drawn anew with replacement, between its 2.5th and 97.5th percentile.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

_RESAMPLED = 1000
_SHORTEST = 2e-3  # seconds of one sample: what takes less is called several times in a row
_MOST_IN_A_ROW = 50


@dataclass(frozen=True)
class Timing:
    """`seconds` of one call, one number for every round."""

    seconds: tuple[float, ...]

    @cached_property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    @cached_property
    def mean(self) -> float:
        """Seconds."""
        return statistics.mean(self.seconds)

    @cached_property
    def quartiles(self) -> tuple[float, float]:
        """A quarter of the rounds took at most the first, a quarter at least the second; seconds."""
        if len(self.seconds) < 2:
            return self.median, self.median
        first, _, third = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return first, third


@dataclass(frozen=True)
class Ratio:
    """How many times as long one call takes as another; `low` to `high` is its 95 % confidence interval."""

    median: float
    low: float
    high: float


def ratio(one: Timing, other: Timing, seed: int = 0) -> Ratio:
    """Of two calls that took turns."""
    rounds = [a / b for a, b in zip(one.seconds, other.seconds, strict=True)]
    drawn = random.Random(seed)
    medians = sorted(statistics.median(drawn.choices(rounds, k=len(rounds))) for _ in range(_RESAMPLED))
    low, high = medians[round(0.025 * (_RESAMPLED - 1))], medians[round(0.975 * (_RESAMPLED - 1))]
    return Ratio(statistics.median(rounds), low, high)


def interleaved(
    calls: Mapping[str, Callable[[], object]], *, warmup: int = 5, rounds: int = 30
) -> dict[str, Timing]:
    """Time each call once a round, each round in another order.

    Args:
        calls: name -> what to time.
        warmup: rounds that do not count.
        rounds: rounds that do.
    """
    in_a_row = {name: _in_a_row(call) for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    names: Sequence[str] = list(calls)
    for number in range(warmup + rounds):
        first = number % max(len(names), 1)
        for name in (*names[first:], *names[:first]):
            call, count = calls[name], in_a_row[name]
            started = time.perf_counter()
            for _ in range(count):
                call()
            elapsed = (time.perf_counter() - started) / count
            if number >= warmup:
                seconds[name].append(elapsed)
    return {name: Timing(tuple(each)) for name, each in seconds.items()}


def _in_a_row(call: Callable[[], object]) -> int:
    """How many calls make a sample that the clock can tell."""
    call()
    started = time.perf_counter()
    call()
    took = time.perf_counter() - started
    return max(1, min(_MOST_IN_A_ROW, round(_SHORTEST / max(took, 1e-9))))
