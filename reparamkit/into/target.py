"""The target: which of its folded layers follows from which of its own weights, for any numbers in those."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

from reparamkit.algebra import Inexact
from reparamkit.capture.export import capture
from reparamkit.capture.program import Program
from reparamkit.errors import UnusableInput
from reparamkit.hosts.fx.equal_calls import share_equal_calls
from reparamkit.hosts.fx.fold import fold_program
from reparamkit.hosts.fx.planned import planned, realised
from reparamkit.hosts.fx.write import holdable
from reparamkit.support.inputs import Args, Kwargs

_STATISTICS = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}


class State(dict[str, Tensor]):
    """The tensors of a network, some of them with other numbers for now; it remembers what was read."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(tensors)
        self.trial: dict[str, Tensor] = {}
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.read.add(name)
        tensor = self.trial[name] if name in self.trial else super().__getitem__(name)
        return tensor.double() if tensor.is_floating_point() else tensor


@dataclass(frozen=True)
class Norm:
    """A batch norm of the target: the names of its tensors with the numbers that make it the identity."""

    identity: Mapping[str, float]
    fixed: frozenset[str]
    """The running statistics, which are not for the fold to set."""


class Target:
    """A module of the user's, captured with fixed sizes and folded.

    `module` is what it folds to; `value` gives every tensor of that for the numbers that `trial` holds at the
    moment.

    Raises:
        UnusableInput: it does not take the inputs.
        CannotCapture: torch.export cannot turn it into one graph.
    """

    def __init__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        program = capture(module, args, kwargs, dynamic=False)
        self.tensors = program.state
        self.kept = {name for name in program.state if name not in program.non_persistent}
        """The names in the state dict."""
        self._state = State(program.state)
        spare = replace(program.copy(), state=self._state)
        outcome = fold_program(program)
        if not spare.writes:
            share_equal_calls(spare.graph)
        self._host, (plan, _, _, _) = planned(spare)
        self.module: nn.Module = outcome.module
        self.norms = list(_norms(spare))
        self._regions, self._stored = outcome.regions, outcome.stored
        self._names = {holdable(name): name for name in program.state}
        self._forms = {form.node: form for form in plan.folds}
        self._nodes = {node.name: node for node in spare.graph.nodes}

    @property
    def trial(self) -> dict[str, Tensor]:
        """Name of a tensor of the module -> the numbers that stand in for its own, in float64."""
        return self._state.trial

    def value(self, name: str) -> Tensor:
        """A tensor of the folded module, for the numbers on trial, in float64.

        Raises:
            Unsettable: the layer would be another for these numbers.
        """
        path, _, last = name.rpartition(".")
        if path in self._regions:
            node, place = self._regions[path]
            try:
                _, realisation = realised(self._host, self._forms[node])
            except (Inexact, KeyError) as reason:
                raise Unsettable(str(reason)) from reason
            layers = [layer.module for layer in realisation.layers if layer.module is not None]
            tensor = getattr(layers[place], last, None) if place < len(layers) else None
            if not isinstance(tensor, Tensor):
                raise Unsettable("the layer would be another one")
            return tensor.detach()
        if name in self._stored:
            node_of_constant = self._nodes.get(self._stored[name])
            if node_of_constant is None:
                raise Unsettable("it is computed by a call that folding made")
            return self._host.constants.float64(node_of_constant)
        return self._state[self._names[name]].detach().to("cpu")

    def own_name(self, name: str) -> str | None:
        """The target's name for a tensor of the folded module; None where it is none of its own as it is."""
        path = name.rpartition(".")[0]
        return None if path in self._regions or name in self._stored else self._names.get(name)

    @contextmanager
    def watched(self) -> Iterator[set[str]]:
        """Collects the names of the tensors that are read meanwhile."""
        before, self._state.read = self._state.read, set()
        try:
            yield self._state.read
        finally:
            self._state.read = before


class Unsettable(UnusableInput):
    """No numbers in a layer's own weights give what it should hold."""


def _norms(program: Program) -> Iterator[Norm]:
    for node in program.graph.nodes:
        if node.target is not torch.ops.aten.batch_norm.default:
            continue
        names = [a.name for a in node.target._schema.arguments]
        given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
        tensors = {"weight": "weight", "bias": "bias", "running_mean": "mean", "running_var": "var"}
        stored = {
            kind: str(argument.target)
            for kind in tensors
            if isinstance(argument := given.get(kind), fx.Node) and argument.op == "get_attr"
        }
        numbers = _STATISTICS | {"running_var": 1.0 - float(given["eps"])}
        yield Norm(
            {name: numbers[kind] for kind, name in stored.items()},
            frozenset(name for kind, name in stored.items() if kind.startswith("running")),
        )


Evaluate = Callable[[], Tensor]
