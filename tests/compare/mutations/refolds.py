"""Mistakes made before folding: another eps in a batch norm, a branch that was forgotten.

The changed original is folded anew, so these cost as much as a fold; a network makes a few, and its torch and
ONNX mutations share them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _NormBase

import reparamkit
from reparamkit.capture.export import capture
from reparamkit.hosts.fx.fold import fold_program
from reparamkit.support.isolation import random_state_kept
from tests.compare.mutations.layers import aten
from tests.compare.mutations.mutations import Mutation
from tests.compare.mutations.networks import Network

_OTHER_EPS = (0.0, 1e-6, 1e-4, 1e-3)


@dataclass(frozen=True)
class Refold:
    """The fold of a changed original: what was changed, and the result in float32 and in float64."""

    kind: str
    where: str
    single: fx.GraphModule
    double: fx.GraphModule

    def mutation(self) -> Mutation:
        """It as a mutation of the fold, of which it needs nothing."""

        @contextmanager
        def apply(module: fx.GraphModule) -> Iterator[nn.Module]:
            is_double = any(values.dtype is torch.float64 for values in module.parameters())
            yield self.double if is_double else self.single

        return Mutation(self.kind, self.where, apply)


def refolds(network: Network, random: Random) -> Iterator[Refold]:
    """Up to `network.refolds` of them, by turns with another eps and with a branch left out."""
    made: list[Refold] = []
    kinds = [_eps_ignored, _branch_left_out]
    random.shuffle(kinds)
    for number in range(3 * network.refolds):
        found = kinds[number % 2](network, random)
        if found is not None and found.where not in {other.where for other in made}:
            made.append(found)
            yield found
        if len(made) == network.refolds:
            return


def _eps_ignored(network: Network, random: Random) -> Refold | None:
    changed = copy.deepcopy(network.original)
    norms = {name: part for name, part in changed.named_modules() if isinstance(part, _NormBase)}
    if not norms:
        return None
    chosen = list(norms) if random.random() < 0.5 else [random.choice(list(norms))]
    eps = random.choice([value for value in _OTHER_EPS if value != norms[chosen[0]].eps])
    for name in chosen:
        norms[name].eps = eps
    where = f"eps {eps:g} in {'all norms' if len(chosen) > 1 else chosen[0]}"
    folded = reparamkit.fold(changed, network.example, verify=False).module
    return _made("eps ignored", where, folded)


@random_state_kept()
def _branch_left_out(network: Network, random: Random) -> Refold | None:
    """One operand of one sum is missing; the rest of its branch goes with it."""
    program = capture(network.original, network.example)
    sums = [
        node
        for node in program.graph.nodes
        if node.target is aten.add.Tensor
        and all(isinstance(operand, fx.Node) for operand in node.args[:2])
        and len({str(operand.meta["val"].shape) for operand in node.args[:2]}) == 1
    ]
    if not sums:
        return None
    node = random.choice(sums)
    side = random.randrange(2)
    node.replace_all_uses_with(node.args[side])
    program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    where = f"operand {1 - side} of {node.name}"
    return _made("branch left out", where, fold_program(program).module)


def _made(kind: str, where: str, folded: nn.Module) -> Refold:
    assert isinstance(folded, fx.GraphModule)
    return Refold(kind, where, folded, copy.deepcopy(folded).double())
