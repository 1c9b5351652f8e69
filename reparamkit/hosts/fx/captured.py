"""A captured graph as it was before anything was folded, and what was changed in it on purpose."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from reparamkit.capture.program import Program

aten = torch.ops.aten


@dataclass(frozen=True)
class Step:
    """One node as it was captured, whatever becomes of it."""

    node: fx.Node
    op: str
    target: Any
    args: Any
    kwargs: Any
    inputs: list[fx.Node]
    dtype: torch.dtype | None


class Captured:
    """The graph of a program as it is now. Later edits of the graph do not reach it."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.steps = [_step(node) for node in program.graph.nodes]
        self.index = {step.node: i for i, step in enumerate(self.steps)}
        self.guards: list[torch.nn.Module] = []
        """What has to be called before anything is computed."""
        if program.guards is not None and program.guards.assumptions:
            self.guards.append(program.guards)
        self.guards += [each for each in (program.constant_arguments, program.layout) if each is not None]

    @property
    def tensors(self) -> list[fx.Node]:
        """The inputs that are tensors."""
        return [step.node for step in self.steps if step.op == "placeholder" and step.dtype is not None]


@dataclass
class Changes:
    """`twins`: new values, with the captured ones that they equal. `moved`: nodes that compute others.

    `computed` are new values that hold what captured constants are, to the last bit.
    """

    twins: dict[fx.Node, fx.Node] = field(default_factory=dict)
    moved: set[fx.Node] = field(default_factory=set)
    computed: set[fx.Node] = field(default_factory=set)

    def moves(self, nodes: Iterable[fx.Node]) -> None:
        """These compute something else than captured, and than before if they stood for another value."""
        for node in nodes:
            self.moved.add(node)
            self.twins.pop(node, None)

    def equals(self, new: fx.Node, old: fx.Node) -> None:
        """`new` has taken the place of `old`; what `old` itself stood for, `new` stands for now."""
        if new is old:
            return
        if old in self.twins:
            self.twins[new] = self.twins[old]
        elif old not in self.moved:
            self.twins[new] = old

    def holds(self, new: fx.Node, old: fx.Node) -> None:
        """`new` is a stored tensor with the value of the constant `old`."""
        self.computed.add(new)
        self.twins[new] = old


def writes(target: Any) -> bool:
    """Whether an operator stands for what the network writes into its buffers or inputs."""
    return target is aten.copy_.default


def _step(node: fx.Node) -> Step:
    value = node.meta.get("val")
    dtype = value.dtype if isinstance(value, Tensor) else None
    return Step(node, node.op, node.target, node.args, node.kwargs, node.all_input_nodes, dtype)
