"""The user's own example, and what is captured in its place.

torch.export takes a size of 1 for a constant, so a batch of one is captured as a batch of two that may vary;
whether the network does the same with both is shown by `reparamkit.capture.witness`. And torch.export can be
wrong itself: what the graph answers to the example is held against what the model does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from reparamkit.capture.program import Program
from reparamkit.support.inputs import Args, Kwargs
from reparamkit.support.isolation import call_untouched
from reparamkit.support.quiet import quiet

_ROUNDING_ULPS = 64
"""Of an output's largest value: kernels may add in another order where memory lies otherwise."""


def two_of_each(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The same example with a batch of two; None unless every tensor has a batch of one."""
    leaves, spec = pytree.tree_flatten((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if not tensors or any(t.ndim == 0 or t.shape[0] != 1 for t in tensors):
        return None
    twice = [torch.cat([x, x]) if isinstance(x, Tensor) else x for x in leaves]
    copies: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_unflatten(twice, spec)
    return copies


def batch_is_free(exported: ExportedProgram) -> bool:
    """Whether the first axis of every input tensor may vary."""
    user = set(exported.graph_signature.user_inputs)
    values = [n.meta.get("val") for n in exported.graph.nodes if n.op == "placeholder" and n.name in user]
    return all(
        isinstance(v.shape[0], torch.SymInt) and not v.shape[0].node.expr.is_number
        for v in values
        if isinstance(v, Tensor)
    )


def differs_on_example(program: Program, model: nn.Module, args: Args, kwargs: Kwargs) -> bool:
    """Whether the captured graph, before anything is folded, answers the example otherwise than the model.

    Both run the same operators in the same precision, so that they are off by next to nothing. A graph that
    writes is not run here, and counts as different; so does one that cannot be run.
    """
    if program.writes:
        return True
    try:
        expected = pytree.tree_leaves(call_untouched(model, args, kwargs))
        with torch.no_grad(), quiet():
            returned = _run(program, pytree.tree_leaves((args, kwargs)))
    except Exception:  # whatever the network raises
        return True
    return len(returned) != len(expected) or not all(map(_alike, returned, expected))


def _run(program: Program, leaves: list[Any]) -> list[Any]:
    inputs = iter(leaves)
    values: dict[fx.Node, Any] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder":
            values[node] = next(inputs)
        elif node.op == "get_attr":
            name = str(node.target)
            values[node] = program.state[name] if name in program.state else program.submodules[name]
        elif node.op == "call_function":
            given, named = fx.map_arg((node.args, node.kwargs), values.__getitem__)
            values[node] = node.target(*given, **named)
        else:
            return pytree.tree_leaves(fx.map_arg(node.args[0], values.__getitem__))
    return []


def _alike(returned: Any, expected: Any) -> bool:
    if not (isinstance(returned, Tensor) and isinstance(expected, Tensor)):
        return bool(returned == expected)
    if returned.shape != expected.shape or returned.dtype != expected.dtype:
        return False
    if not expected.is_floating_point():
        return bool(torch.equal(returned, expected))
    if expected.numel() == 0:
        return True
    difference, scale = (returned - expected).abs().max(), expected.abs().max()
    return bool(difference <= _ROUNDING_ULPS * torch.finfo(expected.dtype).eps * scale)
