"""Medians, quartiles and ratios of calls that take turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest

from reparamkit.benchmark.timing import Timing, interleaved, ratio


def _sleeping(seconds: float, log: list[float]) -> Callable[[], None]:
    def call() -> None:
        log.append(seconds)
        time.sleep(seconds)

    return call


def test_calls_take_turns_and_each_round_starts_with_another() -> None:
    log: list[float] = []
    timings = interleaved({"a": _sleeping(0.002, log), "b": _sleeping(0.004, log)}, warmup=1, rounds=4)
    assert [len(timing.seconds) for timing in timings.values()] == [4, 4]
    rounds = [log[i : i + 2] for i in range(4, len(log), 2)]  # behind the calls that count the others
    assert rounds == [[0.002, 0.004], [0.004, 0.002], [0.002, 0.004], [0.004, 0.002], [0.002, 0.004]]
    assert timings["a"].median >= 0.002
    assert timings["b"].median >= 0.004


def test_short_calls_are_timed_several_at_once() -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1

    interleaved({"a": call}, warmup=0, rounds=3)
    assert calls >= 2 + 3 * 10


def test_quartiles() -> None:
    timing = Timing(tuple(float(n) for n in range(1, 10)))
    assert timing.median == 5.0
    assert timing.quartiles == (3.0, 7.0)
    assert Timing((2.0,)).quartiles == (2.0, 2.0)


def test_a_ratio_is_that_of_the_rounds_and_not_of_the_medians() -> None:
    """A machine that slows down in the middle slows both."""
    slow = [1.0] * 10 + [5.0] * 10
    one, other = Timing(tuple(2 * s for s in slow)), Timing(tuple(slow))
    result = ratio(one, other)
    assert (result.median, result.low, result.high) == (2.0, 2.0, 2.0)


def test_the_interval_holds_the_median_and_narrows_with_more_rounds() -> None:
    def noisy(count: int) -> tuple[Timing, Timing]:
        one = tuple(1.0 + 0.1 * ((7 * i) % 11) / 11 for i in range(count))
        other = tuple(1.0 + 0.1 * ((5 * i) % 13) / 13 for i in range(count))
        return Timing(one), Timing(other)

    few, many = ratio(*noisy(10)), ratio(*noisy(400))
    for result in (few, many):
        assert result.low <= result.median <= result.high
    assert many.high - many.low < few.high - few.low


def test_the_interval_is_where_the_median_of_other_samples_lies() -> None:
    """Against an independent way: the order statistics of a binomial (a sign test's interval)."""
    values = [1.0 + ((37 * i) % 101) / 101 for i in range(60)]
    result = ratio(Timing(tuple(values)), Timing((1.0,) * 60))
    ordered = sorted(values)
    assert result.low == pytest.approx(ordered[22], abs=0.08)
    assert result.high == pytest.approx(ordered[37], abs=0.08)
    assert result.median == pytest.approx(statistics.median(values))
