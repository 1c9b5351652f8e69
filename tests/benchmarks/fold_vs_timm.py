"""The fold pass, its proofs included, against timm's own `reparameterize_model`.

    python -m tests.benchmarks.fold_vs_timm [--rounds 5]

folds the smallest network of each of timm's thirteen files with hand-written folds (both of byobnet's),
captured at full size beforehand, and has timm fold the same networks, by turns, each round in a process of
its own. Prints the processor time of both in sum, and the ratio of their medians. Wanted: at most 1.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch

from reparamkit.capture.export import capture
from reparamkit.capture.program import Program
from reparamkit.hosts.fx.fold import fold_program
from tests.timm_import import import_timm

timm: Any = import_timm()
WANTED = 1.0
MODELS = (
    *("mobileone_s0", "repvgg_a0", "fastvit_t8", "repvit_m0_9", "repghostnet_050", "ghostnetv3_050"),
    *("levit_128s", "efficientvit_m0", "lcnetv2_small", "tiny_vit_5m_224", "nextvit_small", "shvit_s1"),
    *("iformer_t", "efficientvim_m1"),
)


def captured(model: torch.nn.Module) -> Program:
    size: Iterable[int] = cast(Any, model).default_cfg["input_size"]
    return capture(model, (torch.randn(1, *size),), dynamic=False)


def seconds(work: Callable[[], object]) -> float:
    """The processor time of some work, done in a copy of this process: a fold uses its program up."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        started = time.process_time()
        work()
        os.write(write, repr(time.process_time() - started).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        return float(answer.read())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    models = [timm.create_model(name).eval() for name in MODELS]
    fold_program(captured(models[1]))
    programs = [captured(model) for model in models]
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(seconds(lambda: [fold_program(program) for program in programs]))
        theirs.append(seconds(lambda: [timm.utils.model.reparameterize_model(model) for model in models]))
    for name, found in (("fold pass", ours), ("timm", theirs)):
        print(f"{name:10} {min(found):.2f} to {max(found):.2f} s, median {statistics.median(found):.2f} s")
    ratio = statistics.median(ours) / statistics.median(theirs)
    print(f"ratio {ratio:.2f}, wanted at most {WANTED}")
    raise SystemExit(ratio > WANTED)


if __name__ == "__main__":
    main()
