"""What a file says of the network that it was made of. No author, no paths, no dates.

Entries under "reparamkit.":

    version         of reparamkit
    torch           the version of torch
    source_sha256   of the network before folding: its operators and its weights
    folds           how many regions became one layer
    before, after   operators of the network before and after folding, as JSON: name -> count
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import fx

from reparamkit.support.version import __version__

PREFIX = "reparamkit."


@dataclass(frozen=True)
class Facts:
    """What is known of the network that a file is made of."""

    source_sha256: str
    folds: int
    before: Mapping[str, int]
    after: Mapping[str, int]


def entries(facts: Facts | None) -> dict[str, str]:
    """What a file says; of an exported program alone, only what wrote it."""
    writers = {f"{PREFIX}version": __version__, f"{PREFIX}torch": torch.__version__}
    if facts is None:
        return writers
    return {
        **writers,
        f"{PREFIX}source_sha256": facts.source_sha256,
        f"{PREFIX}folds": str(facts.folds),
        f"{PREFIX}before": json.dumps(dict(facts.before)),
        f"{PREFIX}after": json.dumps(dict(facts.after)),
    }


def digest(graph: fx.Graph, state: Mapping[str, torch.Tensor]) -> str:
    """A sha256 over the operators of a graph, in order, and the tensors that it holds, by name.

    Neither the names of nodes nor where the code lies go into it.
    """
    sha256 = hashlib.sha256()
    places = {node: f"%{place}" for place, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        arguments = fx.node.map_arg((node.args, node.kwargs), lambda used: _Place(places[used]))
        target = "" if node.op == "placeholder" else str(node.target)
        sha256.update(f"{node.op} {target} {arguments}\n".encode())
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            sha256.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()


class _Place(str):
    """A node by its place in the graph, written without quotes."""

    def __repr__(self) -> str:
        return str(self)
