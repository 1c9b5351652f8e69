"""How much memory the fold of a large network takes, in multiples of its weights.

    python tests/benchmarks/fold_memory.py [NAME]

folds a reference model (RepLKNet-XL, 335 M parameters) at a small size and prints the largest resident memory
of the process, in all and beyond what the libraries take. Wanted: at most 2.5 times the weights.
"""

from __future__ import annotations

import resource
import sys

import torch

import reparamkit as rk
from reparamkit.capture.export import capture
from reparamkit.hosts.fx.fold import fold_program

WANTED = 2.5
_SIZE = 64


def resident() -> float:
    """The largest resident memory so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "replknet_xl"
    torch.set_num_threads(1)
    warm_up = capture(torch.nn.Conv2d(3, 3, 1).eval(), (torch.randn(1, 3, 8, 8),), dynamic=False)
    fold_program(warm_up)
    libraries = resident()
    model = rk.models.create(name).eval()
    weights = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    program = capture(model, (torch.randn(1, 3, _SIZE, _SIZE),), dynamic=False)
    captured = resident()
    outcome = fold_program(program)
    peak = resident()
    print(f"{name}: {weights / 1e6:.0f} MB of weights, {len(outcome.folds)} folds")
    print(f"captured  {captured / 1e6:6.0f} MB  {captured / weights:.2f} times the weights")
    print(f"folded    {peak / 1e6:6.0f} MB  {peak / weights:.2f} times the weights")
    beyond = (peak - libraries) / weights
    print(f"beyond the libraries' {libraries / 1e6:.0f} MB: {beyond:.2f} times the weights, wanted {WANTED}")
    raise SystemExit(beyond > WANTED)


if __name__ == "__main__":
    main()
