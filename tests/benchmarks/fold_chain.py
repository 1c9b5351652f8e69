"""How long the fold pass takes on chains of 1,000, 10,000 and 50,000 nodes; it should be linear in the nodes.

    python tests/benchmarks/fold_chain.py [--nodes 1000 10000 50000]

A chain is conv, batch norm, + x, ReLU, over and over: every block folds into one convolution. The graph is
written down directly, since torch.export itself would take very long for the longest; the time is that of
`fold_program` alone, the float64 proof of every fold included.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import fx

from reparamkit.capture.program import Program
from reparamkit.hosts.fx.fold import fold_program

aten = torch.ops.aten
_CHANNELS = 4


def chain(nodes: int) -> Program:
    """A program of about `nodes` operators on (1, 4, 6, 6)."""
    generator = torch.Generator().manual_seed(0)
    graph = fx.Graph()
    x = torch.zeros(1, _CHANNELS, 6, 6)
    current = graph.placeholder("x")
    current.meta["val"] = x
    state: dict[str, torch.Tensor] = {}
    for block in range(nodes // 4):

        def weight(
            name: str, *shape: int, low: float = -0.4, high: float = 0.4, block: int = block
        ) -> fx.Node:
            key = f"blocks.{block}.{name}"
            state[key] = torch.empty(shape).uniform_(low, high, generator=generator)
            node = graph.create_node("get_attr", key)
            node.meta["val"] = state[key]
            return node

        kernel = weight("conv.weight", _CHANNELS, _CHANNELS, 3, 3)
        norm = [weight("bn.weight", _CHANNELS), weight("bn.bias", _CHANNELS), weight("bn.mean", _CHANNELS)]
        variance = weight("bn.var", _CHANNELS, low=0.5, high=1.5)
        convolved = graph.call_function(aten.conv2d.default, (current, kernel, None, [1, 1], [1, 1]))
        normed = graph.call_function(
            aten.batch_norm.default, (convolved, *norm, variance, False, 0.1, 1e-5, False)
        )
        total = graph.call_function(aten.add.Tensor, (normed, current))
        current = graph.call_function(aten.relu.default, (total,))
        for node in (convolved, normed, total, current):
            node.meta["val"] = x
    graph.output((current,))
    return Program(graph, None, (x,), {}, state=state)  # type: ignore[arg-type]


def main() -> None:
    """Print one line a length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1_000, 10_000, 50_000])
    torch.set_num_threads(1)
    for nodes in parser.parse_args().nodes:
        program = chain(nodes)
        start = time.perf_counter()
        outcome = fold_program(program)
        seconds = time.perf_counter() - start
        print(
            f"{nodes:6d} nodes: {seconds:7.2f} s, {nodes / seconds:7.0f} nodes/s, {len(outcome.folds)} folds",
            flush=True,
        )


if __name__ == "__main__":
    main()
