"""Calls of torch.fx as readers see them: arguments by name, constants and values in place of nodes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from sympy import Mul  # type: ignore[import-untyped]
from torch import Tensor, fx
from torch._ops import OpOverload

from reparamkit.algebra.layout import Monomial
from reparamkit.capture.program import Program
from reparamkit.capture.settled_sizes import SettledSizes
from reparamkit.hosts.fx.calls import bundle_of, place_of
from reparamkit.hosts.fx.constants import Constants, hint
from reparamkit.operators import Call, Constant, NotAffine, Size, Value, zeros


class CallReader:
    """Makes a `Call` of a node; `known` gives the value that a node has in the graph of values, if any."""

    def __init__(
        self, program: Program, constants: Constants, known: Callable[[fx.Node], Value | None]
    ) -> None:
        self._program, self._constants, self._known = program, constants, known
        self._settled = SettledSizes(program.guards, program.shapes)
        self._symbols: dict[object, Monomial] = {}
        self._latest: tuple[Tensor | None, tuple[int, ...], tuple[Size, ...]] = None, (), ()

    def value(self, index: int, node: fx.Node, value: Tensor) -> Value:
        """A tensor of the program as the value of this place."""
        if value is not self._latest[0]:
            shape = tuple([hint(s) for s in value.shape])
            self._latest = value, shape, tuple([self._size(s) for s in value.shape])
        _, shape, sizes = self._latest
        return Value(index, shape, sizes, value.dtype, node.name)

    def _size(self, size: int | torch.SymInt) -> Size:
        if isinstance(size, int):
            return size
        expression = self._formula(size.node.expr)
        if expression.is_number:
            return int(expression)
        if expression not in self._symbols:  # printing one costs more than all else here
            self._symbols[expression] = _monomial(expression)
        return self._symbols[expression]

    def _formula(self, expression: Any) -> Any:
        """A formula of sizes as the guards allow it to be read."""
        return self._settled.of(self._program.general.of(expression))

    def call(self, node: fx.Node, result: Value) -> Call:
        """A call with its arguments by the names of the schema; raises `NotAffine` for no operator."""
        items = bundle_of(node)
        called = node if items is None else items
        if not isinstance(called.target, OpOverload):
            raise NotAffine(f"{called.target} is not an affine operator that reparamkit knows", notable=False)
        names, defaults = signature(called.target)
        given = [*zip(names, called.args, strict=False), *called.kwargs.items()]
        arguments = defaults | {k: self._argument(v) for k, v in given}
        target = str(called.target)
        if items is not None:
            target, arguments["item"] = f"{target}[]", place_of(node)
        for name in ("start", "end"):
            if isinstance(arguments.get(name), fx.Node):
                arguments[name] = self._from_the_end(called, arguments[name], arguments.get("dim"))
        return Call(target, arguments, result)

    def _from_the_end(self, called: fx.Node, bound: fx.Node, axis: Any) -> Any:
        """A place on an axis, as the number of positions from its end; as it is if that varies."""
        whole = called.args[0]  # of a range, too, whose start it is
        place = bound.meta.get("val")
        operand = whole.meta.get("val") if isinstance(whole, fx.Node) else None
        if (
            not isinstance(place, torch.SymInt)
            or not isinstance(operand, Tensor)
            or not isinstance(axis, int)
        ):
            return bound
        size = operand.shape[axis]
        length = size.node.expr if isinstance(size, torch.SymInt) else size
        behind = self._formula(length - place.node.expr)
        if not behind.is_Integer or behind < 0:
            return bound
        return -int(behind) if behind else sys.maxsize

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, fx.Node):
            if argument in self._constants:
                value = argument.meta.get("val")
                if not isinstance(value, Tensor) or not value.is_floating_point():
                    return argument
                if not all(isinstance(s, int) for s in value.shape):
                    return argument  # its size depends on values
                load = partial(self._constants.float64, argument)
                shared = self._constants.is_shared(argument)
                return Constant(tuple(value.shape), load, _is_zero(argument), shared)
            known = self._known(argument)
            return argument if known is None else known
        if isinstance(argument, list | tuple):
            return [self._argument(a) for a in argument]
        return argument


def _is_zero(node: fx.Node) -> bool:
    """Whether a constant was made of zeros."""
    operator = str(node.target)
    if operator not in zeros.FILLED:
        return operator in zeros.ZEROS
    return isinstance(node.args[1], int | float) and node.args[1] == 0


@cache
def signature(target: OpOverload) -> tuple[list[str], dict[str, Any]]:
    """The names of an operator's arguments, and the defaults of those that have one."""
    arguments = target._schema.arguments
    return [a.name for a in arguments], {a.name: a.default_value for a in arguments if a.has_default_value()}


def operator_name(node: fx.Node) -> str:
    """The operator of a call, or of the list that it takes an item of."""
    return str((bundle_of(node) or node).target)


def _monomial(size: Any) -> Monomial:
    """A size that varies, factor by factor; a sum is one factor."""
    number, rest = size.as_coeff_Mul()
    names: list[str] = []
    for base, power in (factor.as_base_exp() for factor in Mul.make_args(rest)):
        whole = power.is_Integer and power > 0
        names += [str(base)] * int(power) if whole else [str(base**power)]
    if not number.is_Integer:
        return Monomial(1, (str(size),))
    return Monomial(int(number), tuple(sorted(names)))
