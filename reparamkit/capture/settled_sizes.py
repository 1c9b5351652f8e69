"""Sizes inside a network that its guards settle, although those of the inputs vary.

    1 + (h - 1) // 32 == 3        ⇒        (h - 1) // 32  is  2        ⇒        3 · (1 + (h - 1) // 32)  is  9

A network that adds a table of 3 rows to what is left of h rows takes every h from 65 to 96. The guards refuse
any other, so that a formula for the rows inside is a number wherever the graph runs.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from reparamkit.capture.size_conditions import compiled
from reparamkit.capture.sizes import SizeGuards

Shapes = Sequence[tuple[str, Sequence[int | torch.SymInt]]]


class SettledSizes:
    """Formulas of sizes with what these guards settle put in.

    Args:
        guards: those that are checked wherever the graph runs; None for none.
        shapes: name and sizes of every tensor of the inputs.
    """

    def __init__(self, guards: SizeGuards | None, shapes: Shapes) -> None:
        self._numbers: Mapping[Any, Any] = {} if guards is None else dict(_settled(guards, shapes))

    def of(self, formula: Any) -> Any:
        """The formula, or what it comes to."""
        return formula.xreplace(self._numbers) if self._numbers and formula.args else formula


def _settled(guards: SizeGuards, shapes: Shapes) -> Iterator[tuple[Any, Any]]:
    """The functions of sizes that have one value, each with that; a size of an input itself is none."""
    given = [shapes[index][1][axis] for index, axis in guards.places]
    equalities = [text for text in guards.assumptions if " == " in text]
    if all(isinstance(size, int) for size in given):
        return
    for sides in filter(None, map(_sides, equalities)):
        (size,) = compiled((sides[0],), len(given))(*given)
        if not isinstance(size, torch.SymInt):
            continue
        shift, rest = size.node.expr.as_coeff_Add()
        factor, function = rest.as_coeff_Mul()
        number = (sides[1] - shift) / factor
        if function.is_Function and number.is_Integer:
            yield function, number


def _sides(text: str) -> tuple[str, int] | None:
    """A formula and the number that it is said to be; None for any other condition."""
    match ast.parse(text, mode="eval").body:
        case ast.Compare(formula, [ast.Eq()], [ast.Constant(int(number))]):
            return ast.unparse(formula), number
        case ast.Compare(ast.Constant(int(number)), [ast.Eq()], [formula]):
            return ast.unparse(formula), number
    return None
