"""A network as data flow: which value is computed from which, by what operator.

a + (b + c) = a + b + c where nothing else reads the inner sum: a chain of additions is one sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

_COMMUTATIVE = {"add", "mul", "maximum", "minimum", "logical_and", "logical_or", "eq", "ne"}


@dataclass(eq=False)
class Value:
    """One value of a network.

    Attributes:
        operator: what computes it, without namespace and overload; "input" and "constant" are computed by
            nothing.
        arguments: everything about the call that is no value, comparable.
        operands: the values that it reads, in order; None where a layer does without a weight.
        defaults: for each operand, the number that its absence stands for; None where it cannot be absent.
        where: path of the module that owns the call, "" for the network itself.
        name: the constant's or the input's own name, else the call's.
    """

    operator: str
    arguments: object
    operands: list[Value | None]
    defaults: list[float | None]
    shape: tuple[int, ...]
    dtype: torch.dtype | None
    where: str
    name: str
    readers: int = 0
    constant: Callable[[Mapping[str, Tensor]], Tensor] | None = None
    """For a constant: its value for these tensors of the network's state."""
    reads: tuple[str, ...] = ()
    """For a constant: the names of the state that it is made of; exactly one and no more for a weight."""
    plain: bool = False
    """For a constant: it is a stored tensor as it is."""

    def __str__(self) -> str:
        weights = [o for o in self.operands if o is not None and o.operator == "constant"]
        what = self.operator.strip("_")
        if self.operator == "constant":
            return f"{self.name or 'a constant'} {list(self.shape)}"
        shape = f" {list(weights[0].shape)}" if weights else ""
        return f"{what}{shape}{f' in {self.where}' if self.where else ''}"


@dataclass
class Flow:
    """A network's values, each behind those that it reads, and its results."""

    values: list[Value] = field(default_factory=list)
    results: list[Value | object] = field(default_factory=list)


def flatten_sums(flow: Flow) -> None:
    """Additions of additions that nothing else reads become one sum."""
    for value in flow.values:
        if not _is_sum(value):
            continue
        terms: list[Value | None] = []
        for operand in value.operands:
            inner = operand is not None and operand.readers == 1 and _is_sum(operand)
            same = operand is not None and (operand.shape, operand.dtype) == (value.shape, value.dtype)
            terms += operand.operands if operand is not None and inner and same else [operand]
        value.operands = terms
        value.defaults = [None] * len(terms)
        value.arguments = ("sum", len(terms))
    kept: set[int] = set()
    stack = [result for result in flow.results if isinstance(result, Value)]
    while stack:
        value = stack.pop()
        if id(value) not in kept:
            kept.add(id(value))
            stack.extend(operand for operand in value.operands if operand is not None)
    flow.values = [value for value in flow.values if id(value) in kept]


def _is_sum(value: Value) -> bool:
    if value.operator != "add" or len(value.operands) < 2:
        return False
    return value.arguments == (("self", "@"), ("other", "@"), ("alpha", ("int", 1))) or (
        isinstance(value.arguments, tuple) and value.arguments[:1] == ("sum",)
    )


def is_commutative(value: Value) -> bool:
    """Whether the order of its operands does not matter."""
    return value.operator in _COMMUTATIVE and len(value.operands) >= 2
