"""Mutation testing of the checker.

    python -m tests.compare.mutations.campaign [--seed N] [--count N] [--networks A,B] [--json FILE]

Every mutation whose true effect (float64, on inputs of its own) is beyond the checker's budget has to be
caught; networks that were not mutated have to pass. A mutation is reproduced by its seed, its network and
its number: `--seed 0 --networks repvgg --only torch:17`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from tests.compare.mutations.networks import FULL_COUNT, build, names, shares
from tests.compare.mutations.tables import tables
from tests.compare.mutations.trials import ONNX, TORCH, Pair, Result, Trials

Progress = Callable[["Campaign", str], object]


@dataclass
class Campaign:
    """All that a campaign found."""

    seed: int
    seconds: float = 0.0
    results: list[Result] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)


def campaign(
    seed: int = 0,
    count: int = FULL_COUNT,
    networks: list[str] | None = None,
    progress: Progress = lambda found, text: None,
    only: tuple[str, int] | None = None,
) -> Campaign:
    """Judge `count` mutations of these networks (of all, if none are named) and every network as it is.

    Args:
        progress: is told, after each network, what was found so far and what became of the network.
        only: a candidate and a number: nothing but this mutation of each network.
    """
    found, started = Campaign(seed), time.perf_counter()
    for name, share in shares(count, networks or names()).items():
        since = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            trials = Trials(build(name, seed, Path(folder)), seed)
            if only is not None:
                found.results += trials.results(only[0], 1, only[1])
                continue
            pairs = list(trials.pairs())
            found.pairs += pairs
            for candidate, number in ((TORCH, (share + 1) // 2), (ONNX, share // 2)):
                # Where the network itself fails, that its mutations fail as well says nothing.
                if all(pair.same for pair in pairs if pair.candidate == candidate):
                    found.results += trials.results(candidate, number)
        own = [result for result in found.results if result.network == name]
        found.seconds = time.perf_counter() - started
        missed, seconds = sum(result.missed for result in own), time.perf_counter() - since
        progress(found, f"{name}: {len(own)} mutations, {missed} missed, {seconds:.1f} s")
    return found


def main() -> int:
    """The command line; the exit status is 1 where something was missed or failed for no reason."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=FULL_COUNT)
    parser.add_argument("--networks", type=lambda text: text.split(","), default=None)
    parser.add_argument("--only", type=_candidate_and_number, default=None, metavar="CANDIDATE:NUMBER")
    parser.add_argument("--json", type=Path, default=None)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)

    def progress(found: Campaign, text: str) -> None:
        sys.stderr.write(f"{text}\n")
        if asked.json is not None:
            asked.json.write_text(json.dumps(asdict(found), indent=1))

    found = campaign(asked.seed, asked.count, asked.networks, progress, asked.only)
    sys.stdout.write(tables(found.seed, found.results, found.pairs))
    sys.stdout.write(f"\n{found.seconds:.0f} s\n")
    wrong = [result for result in found.results if result.missed or result.below == "false alarm"]
    return int(bool(wrong) or not all(pair.same for pair in found.pairs))


def _candidate_and_number(text: str) -> tuple[str, int]:
    candidate, _, number = text.partition(":")
    return candidate, int(number)


if __name__ == "__main__":
    sys.exit(main())
