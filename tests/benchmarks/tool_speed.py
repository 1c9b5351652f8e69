"""How long a fold takes with everything on, in units of the static torch.export of the same network.

    python -m tests.benchmarks.tool_speed [--rounds 2] [--only NAME …]

The smallest network of each of timm's thirteen files with hand-written folds (both of byobnet's), at full
size. `rk.fold` captures it with free sizes, folds it with proofs, and compares the whole with the original;
torch's export knows one size. The two take turns; each is represented by the median of its processor times.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

import reparamkit as rk
from reparamkit.support.progress import Path, reporting
from tests.benchmarks.fold_vs_timm import MODELS
from tests.timm_import import import_timm

WANTED = 2.5


@dataclass(frozen=True)
class Speed:
    """Processor seconds of a network: of torch's static export, of a fold, and of the fold's phases."""

    network: str
    export: float
    fold: float
    phases: dict[str, float]

    @property
    def ratio(self) -> float:
        """How many exports the fold takes."""
        return self.fold / self.export


class _Phases:
    """Adds up the processor time of the outermost phases."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._begun = 0.0

    def started(self, path: Path, detail: str) -> None:
        if len(path) == 1:
            self._begun = time.process_time()

    def finished(self, path: Path, seconds: float) -> None:
        if len(path) == 1:
            self.seconds[path[0]] += time.process_time() - self._begun


def seconds(work: Callable[[], object]) -> float:
    """The processor time of one call."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def measured(name: str, rounds: int) -> Speed:
    """One network by turns."""
    model: nn.Module = import_timm().create_model(name).eval()
    rk.models.randomize(model, 0)
    size: Iterable[int] = cast(Any, model).default_cfg["input_size"]
    x = torch.randn(1, *size, generator=torch.Generator().manual_seed(0))

    def export() -> None:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.export(model, (x,), strict=False)

    export()
    exports, folds, phases = [], [], []
    for _ in range(rounds):
        exports.append(seconds(export))
        watch = _Phases()
        with reporting(watch):
            folds.append(seconds(lambda: rk.fold(model, x)))
        phases.append(watch.seconds)
    middle = {phase: statistics.median(each[phase] for each in phases) for phase in phases[0]}
    return Speed(name, statistics.median(exports), statistics.median(folds), middle)


def lines_of(speeds: Sequence[Speed]) -> list[str]:
    """A table in Markdown, and the geometric mean."""
    phases = list(dict.fromkeys(phase for speed in speeds for phase in speed.phases))
    lines = [
        f"| network | static export, s | fold, s | × the export | {' | '.join(f'{p}, s' for p in phases)} |",
        f"|---|{'---:|' * (3 + len(phases))}",
    ]
    for speed in speeds:
        times = " | ".join(f"{speed.phases.get(phase, 0.0):.2f}" for phase in phases)
        lines.append(
            f"| {speed.network} | {speed.export:.2f} | {speed.fold:.2f} | {speed.ratio:.1f} | {times} |"
        )
    mean = statistics.geometric_mean(speed.ratio for speed in speeds)
    return [*lines, "", f"In the geometric mean a fold takes {mean:.1f} static exports (wanted: {WANTED})."]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=MODELS, metavar="NAME")
    options = parser.parse_args()
    torch.set_num_threads(1)
    speeds = []
    for name in options.only:
        speeds.append(measured(name, options.rounds))
        print(f"{name}: {speeds[-1].ratio:.1f}", file=sys.stderr, flush=True)
    print("\n".join(lines_of(speeds)))


if __name__ == "__main__":
    main()
