"""How long a whole fold takes, in units of the torch.export that it cannot do without.

    python tests/benchmarks/fold_vs_export.py [--model mobileone_s0] [--rounds 3]

Both sides get the same network and the same free axes: batch, height and width. `rk.fold` captures, folds and
proves every region in float64, and leaves the whole-network check out (`verify=False`). The two are timed in
turn, so that a machine which slows down slows both, and each is represented by its median.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from torch.export import Dim

import reparamkit as rk

LIMIT = 1.5


def seconds(work: Callable[[], object]) -> float:
    """The wall-clock time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Measure, and print both medians and their ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="mobileone_s0", help="a reference model (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds after one warm-up")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    torch.set_num_threads(1)

    model = rk.models.create(options.model)
    rk.models.randomize(model, 0)
    model.eval()
    _, *rest = rk.models.info(options.model).input_shape
    image = torch.randn(2, *rest, generator=torch.Generator().manual_seed(0))
    free = ({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},)

    def export() -> None:
        # as quiet as the fold's own capture: printing is not what is measured
        with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.export.export(model, (image,), dynamic_shapes=free, strict=False)

    def fold() -> None:
        folded = rk.fold(model, image, verify=False)
        if "batch and spatial" not in folded.sizes:
            raise SystemExit(f"not the same job: the fold has {folded.sizes}")

    exports, folds = [], []
    for number in range(options.rounds + 1):
        pair = seconds(export), seconds(fold)
        kind = "warm-up" if number == 0 else f"round {number}"
        print(f"{kind}: export {pair[0]:.2f} s, fold {pair[1]:.2f} s", flush=True)
        if number:
            exports.append(pair[0])
            folds.append(pair[1])
    whole, alone = statistics.median(folds), statistics.median(exports)
    print(f"{options.model} at {'x'.join(map(str, image.shape))}, {torch.get_num_threads()} thread")
    print(f"torch.export.export alone:   {alone:.2f} s (median of {options.rounds})")
    print(f"rk.fold without whole check: {whole:.2f} s (median of {options.rounds})")
    print(f"ratio: {whole / alone:.2f} (at most {LIMIT})")
    raise SystemExit(whole / alone > LIMIT)


if __name__ == "__main__":
    main()
