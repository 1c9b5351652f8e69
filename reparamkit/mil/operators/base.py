"""What an operator of MIL is to the evaluator: a function from its inputs to its outputs.

Each is registered with the names of the parameters that it knows. An operation that has another one, of a
newer operator set perhaps, is as unknown as an operator without a function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch

from reparamkit.mil.graph import Constant, Operation

Result = torch.Tensor | Sequence[torch.Tensor]


class CannotEvaluate(Exception):
    """An operation cannot be computed: its parameters contradict each other, or are not defined anywhere."""


@dataclass(frozen=True)
class Call:
    """One operation with the values of its inputs.

    Attributes:
        operation: what is computed.
        values: parameter -> values. Floating-point tensors are all in `floating`, the others as declared.
        floating: the type in which floating-point numbers are computed.
        opset: of the program, as in `MilProgram`.
    """

    operation: Operation
    values: Mapping[str, Sequence[Constant]]
    floating: torch.dtype
    opset: int

    def has(self, name: str) -> bool:
        return bool(self.values.get(name))

    def tensors(self, name: str) -> list[torch.Tensor]:
        """All values of a parameter.

        Raises:
            CannotEvaluate: it has none, or one that is no tensor.
        """
        if not self.has(name):
            raise CannotEvaluate(f"has no {name}")
        return [_tensor(value, name) for value in self.values[name]]

    def tensor(self, name: str) -> torch.Tensor:
        """The only value of a parameter; raises as `tensors`, and where there are several."""
        tensors = self.tensors(name)
        if len(tensors) != 1:
            raise CannotEvaluate(f"has {len(tensors)} values for {name}")
        return tensors[0]

    def optional(self, name: str) -> torch.Tensor | None:
        return self.tensor(name) if self.has(name) else None

    def integers(self, name: str, default: Sequence[int] | None = None) -> list[int]:
        """The elements of a tensor of integers.

        Raises:
            CannotEvaluate: there is none and no default, or it holds something else.
        """
        if default is not None and not self.has(name):
            return list(default)
        flat = torch.cat([value.reshape(-1) for value in self.tensors(name)])
        if flat.is_floating_point():
            raise CannotEvaluate(f"has a {name} that is not integer")
        return [int(each) for each in flat.tolist()]

    def integer(self, name: str, default: int | None = None) -> int:
        integers = self.integers(name, None if default is None else [default])
        if len(integers) != 1:
            raise CannotEvaluate(f"has {len(integers)} values for {name}")
        return integers[0]

    def flags(self, name: str, default: Sequence[bool] | None = None) -> list[bool]:
        return [bool(each) for each in self.integers(name, default)]

    def flag(self, name: str, default: bool | None = None) -> bool:
        return bool(self.integer(name, default))

    def number(self, name: str, default: float | None = None) -> float:
        """A scalar setting, such as an epsilon, with exactly the value that the file stores."""
        if default is not None and not self.has(name):
            return default
        tensor = self.tensor(name)
        if tensor.numel() != 1:
            raise CannotEvaluate(f"has {tensor.numel()} values for {name}")
        return float(tensor.detach())

    def text(self, name: str, default: str | None = None) -> str:
        if default is not None and not self.has(name):
            return default
        values = self.values.get(name, ())
        if len(values) != 1 or not isinstance(values[0], str):
            raise CannotEvaluate(f"has no {name}")
        return values[0]


@dataclass(frozen=True)
class Operator:
    """A known operator: its function and the parameters that the function reads."""

    compute: Callable[[Call], Result]
    parameters: frozenset[str]


OPERATORS: dict[str, Operator] = {}

F = TypeVar("F", bound=Callable[[Call], Result])


def operator(kind: str, parameters: str) -> Callable[[F], F]:
    """Register the function for an operator of MIL.

    Args:
        kind: its name.
        parameters: those that it knows, with spaces between them.
    """

    def register(function: F) -> F:
        OPERATORS[kind] = Operator(function, frozenset(parameters.split()))
        return function

    return register


def of_tensors(operands: str, functions: Mapping[str, Callable[..., torch.Tensor]]) -> None:
    """Register operators that are functions of their operands' tensors, in this order.

    Args:
        operands: the parameters, with spaces between them; each has to be given.
        functions: name of an operator -> what it computes of them.
    """
    for kind, function in functions.items():
        operator(kind, operands)(partial(_applied, function, operands.split()))


def axis_of(axis: int, rank: int) -> int:
    """The axis counted from the front.

    Raises:
        CannotEvaluate: there is no such axis.
    """
    if not -rank <= axis < rank:
        raise CannotEvaluate(f"has the axis {axis} where there are {rank}")
    return axis % rank if rank else 0


def _applied(function: Callable[..., torch.Tensor], operands: Sequence[str], call: Call) -> torch.Tensor:
    return function(*map(call.tensor, operands))


def _tensor(value: Constant, name: str) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        raise CannotEvaluate(f"has a text for {name}")
    return value
