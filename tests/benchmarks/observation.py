"""What it adds to `fold` that a network is watched beside its captured graph.

    python -m tests.benchmarks.observation [NAME ...]

folds the smallest network of each of timm's files with hand-written folds at its full size, everything on
(free sizes, proofs, verification), and prints the share of the processor time that `settle_by_observation`
took, the runs in it, and the mean over the families. Wanted: at most 10 % in the mean.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any
from unittest import mock

import torch

import reparamkit as rk
from reparamkit.capture import export, shown, witness
from tests.benchmarks.fold_vs_timm import MODELS, timm

WANTED = 0.10


def measured(name: str) -> tuple[float, float, int]:
    """Seconds of processor time of the whole fold, those under observation, and how often a network ran."""
    model = timm.create_model(name).eval()
    size: Iterable[int] = model.default_cfg["input_size"]
    watching, runs = 0.0, 0
    settle, recorded = shown.settle_by_observation, witness.Witness._recorded

    def timed(*args: Any) -> None:
        nonlocal watching
        started = time.process_time()
        settle(*args)
        watching += time.process_time() - started

    def counted(*args: Any) -> Any:
        nonlocal runs
        runs += 1
        return recorded(*args)

    started = time.process_time()
    with (
        mock.patch.object(export, "settle_by_observation", timed),
        mock.patch.object(witness.Witness, "_recorded", counted),
    ):
        rk.fold(model, torch.randn(1, *size))
    return time.process_time() - started, watching, runs


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    measured(names[0])
    shares = []
    for name in names:
        whole, watching, runs = measured(name)
        shares.append(watching / whole)
        print(f"{name:20} {watching:6.2f} of {whole:6.2f} s  {shares[-1]:5.1%}  {runs} runs", flush=True)
    mean = sum(shares) / len(shares)
    print(f"mean {mean:.1%}, most {max(shares):.1%}, wanted at most {WANTED:.0%}")
    raise SystemExit(mean > WANTED)


if __name__ == "__main__":
    main(sys.argv[1:] or list(MODELS))
