"""RepNets' example: train a small network with branches, fold it, compare accuracy and latency.

    python examples/repnets.py [FOLDER]

No download: the images are scikit-learn's handwritten digits. The same from the command line:
`reparamkit train repnets_toy --data digits --epochs 10 --out FOLDER`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import reparamkit as rk


def main(folder: Path) -> None:
    trained = rk.training.train("repnets_toy", "digits", out=folder, epochs=10, say=print)
    print(f"{sum(p.numel() for p in trained.module.parameters())} parameters as trained")

    result = rk.training.before_and_after(folder)
    before, after = result.validation.rows
    print(f"{sum(p.numel() for p in result.folded.parameters())} parameters folded")
    print(f"accuracy  {before.top1:.4f} as trained, {after.top1:.4f} folded")
    print(f"decisions that differ: {len(after.differing)} of {after.images}")
    milliseconds = [1e3 * timing.median for timing in result.latency]
    print(f"latency   {milliseconds[0]:.3f} ms as trained, {milliseconds[1]:.3f} ms folded")
    print(f"          {result.speedup:.2f} times as fast (one image, eager, interleaved medians)")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary) / "run")
