"""A network that returns some of its outputs, by name, and computes what they need.

The names are those of `reparamkit.runners.base.named_outputs`. What is returned is a dict, so that each kept
output has the name that it had.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, OutputKind
from torch.utils import _pytree as pytree

from reparamkit.errors import UnusableInput
from reparamkit.runners.base import named_leaves
from reparamkit.support.inputs import tensor_leaves
from reparamkit.support.isolation import call_untouched


def output_names(model: nn.Module | ExportedProgram, args: Any, kwargs: Mapping[str, Any]) -> list[str]:
    """What a network calls its outputs; a module runs once on the example."""
    if isinstance(model, ExportedProgram):
        return list(_places(model))
    return [name for name, _ in named_leaves(call_untouched(model, args, dict(kwargs)))]


def named_arguments(model: nn.Module | ExportedProgram, args: Any, kwargs: Mapping[str, Any]) -> list[str]:
    """What a network calls the tensors of its inputs; those given by place as its forward calls them."""
    leaves = tensor_leaves(tuple(args), dict(kwargs))
    if isinstance(model, ExportedProgram):
        return [name for name, _ in leaves]
    try:
        parameters = list(inspect.signature(model.forward).parameters)
    except (TypeError, ValueError):
        return [name for name, _ in leaves]
    own = {str(place): name for place, name in enumerate(parameters)}
    return [own.get(name, name) for name, _ in leaves]


def keeping(model: nn.Module | ExportedProgram, names: Sequence[str]) -> nn.Module | ExportedProgram:
    """The network without its other outputs; the one that was given stays as it was, and weights are shared.

    Raises:
        UnusableInput: it is TorchScript, which has no class to derive from.
    """
    if isinstance(model, ExportedProgram):
        return _pruned(model, names)
    if isinstance(model, torch.jit.ScriptModule):
        raise UnusableInput(
            "outputs of a TorchScript network cannot be left out: give the network that it was made of, or "
            "convert it to a .pt2 first (reparamkit fold FILE -o net.pt2)"
        )
    kind = type(model)
    settled = "forward" in vars(model) or model._forward_hooks or isinstance(model, fx.GraphModule)
    if settled:  # its class does not say what it computes
        return _around(model, names)
    try:
        kept = kind.__new__(_kept_class(kind, tuple(names)))
    except Exception:  # a class that wants to be asked before others derive from it
        return _around(model, names)
    vars(kept).update(vars(model))
    return kept


def _kept_class(kind: type[nn.Module], names: tuple[str, ...]) -> type[nn.Module]:
    forward = kind.forward

    @functools.wraps(forward)
    def kept(self: nn.Module, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return _some(forward(self, *args, **kwargs), names)

    meta: Any = type(kind)
    derived: type[nn.Module] = meta(kind.__name__, (kind,), {"forward": kept, "__module__": kind.__module__})
    return derived


class _Around(nn.Module):
    """A network inside, of whose outputs some are returned."""

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.network, self.names = network, tuple(names)
        self.training = network.training

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return _some(self.network(*args, **kwargs), self.names)


def _around(network: nn.Module, names: Sequence[str]) -> nn.Module:
    """A network around another one, whose arguments are called as that one's are."""

    def forward(self: _Around, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return _Around.forward(self, *args, **kwargs)

    parameters = inspect.signature(network.forward).parameters.values()
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    forward.__signature__ = inspect.Signature([own, *parameters])  # type: ignore[attr-defined]
    kind: Any = type(type(network).__name__, (_Around,), {"forward": forward})
    around: nn.Module = kind(network, names)
    return around


def _some(value: Any, names: Sequence[str]) -> dict[str, Any]:
    leaves = dict(named_leaves(value))
    return {name: leaves[name] for name in names}


def _places(program: ExportedProgram) -> dict[str, int]:
    """Name of an output -> its place among what the user gets."""
    specs = [each for each in program.graph_signature.output_specs if each.kind is OutputKind.USER_OUTPUT]
    spec = program.call_spec.out_spec
    assert spec is not None
    value = pytree.tree_unflatten(
        [
            None if isinstance(each.arg, ConstantArgument) and each.arg.value is None else place
            for place, each in enumerate(specs)
        ],
        spec,
    )
    return dict(named_leaves(value))


def _pruned(program: ExportedProgram, names: Sequence[str]) -> ExportedProgram:
    """The program with these outputs alone, without what only the others needed."""
    places = _places(program)
    memo: dict[int, Any] = {}
    for held in (program.state_dict, program.constants):
        memo |= {id(value): value for value in held.values()}
    pruned = copy.deepcopy(program, memo)
    signature = pruned.graph_signature
    node = pruned.graph.output_node()
    results, specs = list(node.args[0]), list(signature.output_specs)
    own = [place for place, spec in enumerate(specs) if spec.kind is OutputKind.USER_OUTPUT]
    chosen = {own[places[name]] for name in names}
    stay = [place for place in range(len(specs)) if place in chosen or place not in own]
    node.args = (tuple(results[place] for place in stay),)
    signature.output_specs[:] = [specs[place] for place in stay]
    spec = pytree.tree_structure(dict.fromkeys(names, 0))
    for entry in pruned.module_call_graph:
        if entry.fqn == "" and entry.signature is not None:
            entry.signature.outputs[:] = [specs[place].arg for place in stay if place in chosen]
            entry.signature.out_spec = spec
    pruned.graph.eliminate_dead_code()
    pruned.graph_module.recompile()
    pruned.validate()  # type: ignore[no-untyped-call]
    return pruned
