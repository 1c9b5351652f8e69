"""How long calls take, fairly: they take turns, so that what slows the machine down slows all of them.

What a processor does in the first calls (it allocates, it raises its clock) is left out.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: median and mean over the rounds."""

    median: float
    mean: float


def interleaved(
    calls: Mapping[str, Callable[[], object]], *, warmup: int = 20, rounds: int = 100
) -> dict[str, Timing]:
    """Time each call once a round."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(warmup + rounds):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if number >= warmup:
                seconds[name].append(time.perf_counter() - started)
    return {name: Timing(statistics.median(each), statistics.mean(each)) for name, each in seconds.items()}


def network_latency(networks: Mapping[str, nn.Module], image: Tensor) -> dict[str, Timing]:
    """Networks in evaluation mode on the same images (N, 3, S, S), eagerly."""

    def call(network: nn.Module) -> Callable[[], object]:
        return lambda: network(image)

    with torch.inference_mode():
        return interleaved({name: call(network) for name, network in networks.items()})
