"""How long a whole fold takes, in units of the torch.export that it cannot do without.

    python tests/benchmarks/fold_vs_export.py [--model mobileone_s0] [--rounds 3]

Both sides get the same network and the same free axes: batch, height and width. `rk.fold` captures, folds and
proves every region in float64, and leaves the whole-network check out (`verify=False`). The two are timed in
turn, so that a machine which slows down slows both, and each is represented by its median. The ratio of the
processor times stands beside it: on a busy machine it is the steadier one.
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


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """The wall-clock time and the processor time of one call."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def medians(times: list[tuple[float, float]]) -> tuple[float, float]:
    """Of each of the two kinds of time."""
    return statistics.median(t[0] for t in times), statistics.median(t[1] for t in times)


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
        one, other = seconds(export), seconds(fold)
        kind = "warm-up" if number == 0 else f"round {number}"
        print(f"{kind}: export {one[0]:.2f} s, fold {other[0]:.2f} s", flush=True)
        if number:
            exports.append(one)
            folds.append(other)
    alone, whole = medians(exports), medians(folds)
    ratio = whole[0] / alone[0]
    print(f"{options.model} at {'x'.join(map(str, image.shape))}, {torch.get_num_threads()} thread")
    for what, (wall, processor) in (("torch.export.export alone", alone), ("rk.fold, verify=False", whole)):
        print(f"{what + ':':27}{wall:6.2f} s wall, {processor:.2f} s processor (medians of {options.rounds})")
    print(f"ratio: {ratio:.2f} wall, {whole[1] / alone[1]:.2f} processor (at most {LIMIT})")
    raise SystemExit(ratio > LIMIT)


if __name__ == "__main__":
    main()
