"""Calls of an exported graph: their names, their arguments by name, their values."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from reparamkit.hosts.fx.constants import dependencies_first


def shape_of(node: fx.Node) -> tuple[int, ...]:
    value = node.meta.get("val")
    return tuple(map(int, value.shape)) if isinstance(value, Tensor) else ()


def only_checks(node: fx.Node) -> bool:
    """Whether a call computes nothing: it looks at sizes or raises."""
    name = name_of(node.target)
    return not node.users and (name.startswith(("_assert", "sym_constrain")) or name == "_guards_fn")


def name_of(target: Any) -> str:
    if isinstance(target, OpOverload):
        name = str(target._schema.name)
        return name.removeprefix("aten::")
    return str(getattr(target, "__name__", target)) if target is not operator.getitem else "getitem"


def arguments_of(node: fx.Node) -> dict[str, Any]:
    """The arguments of a call by name, with those that were left out."""
    if not isinstance(node.target, OpOverload):
        return {str(i): a for i, a in enumerate(node.args)} | dict(node.kwargs)
    names, defaults = _signature(node.target)
    given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    return {name: given.get(name, defaults.get(name)) for name in names}


@cache
def _signature(target: OpOverload) -> tuple[list[str], dict[str, Any]]:
    arguments = target._schema.arguments
    return [a.name for a in arguments], {a.name: a.default_value for a in arguments if a.has_default_value()}


def evaluation(node: fx.Node, states: Mapping[fx.Node, str]) -> Callable[[Mapping[str, Tensor]], Tensor]:
    order = dependencies_first(node)

    def evaluate(state: Mapping[str, Tensor]) -> Tensor:
        known: dict[fx.Node, Any] = {}
        with torch.no_grad():
            for current in order:
                if current in states:
                    known[current] = state[states[current]].detach()
                    continue
                args, kwargs = fx.map_arg((current.args, current.kwargs), known.__getitem__)
                known[current] = current.target(*args, **kwargs)  # type: ignore[operator]
        value: Tensor = known[node]
        return value

    return evaluate
