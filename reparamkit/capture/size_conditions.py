"""Conditions on sizes, as torch.export writes them down: read, rewritten, and evaluated.

    L['x'].size()[3] % 32 == 0        becomes        n0 % 32 == 0
    math.trunc(1.5 * torch.sym_float(L['x'].size()[3])) == 18
                                      becomes        trunc(1.5 * sym_float(n0)) == 18

Names stand for sizes, and every operator and function is one of those listed here; nothing else is ever
evaluated.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable
from functools import lru_cache, reduce
from typing import Any

import torch

Place = tuple[int, int]
"""Flat tensor index and axis."""

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "ceil": math.ceil,
    "floor": math.floor,
    "round": round,
    "trunc": math.trunc,
    "sym_float": torch.sym_float,
    "sym_int": torch.sym_int,
    "sym_max": lambda *sizes: reduce(torch.sym_max, sizes),
    "sym_min": lambda *sizes: reduce(torch.sym_min, sizes),
}
"""By the names that they have in the conditions; each takes sizes that are symbols, too."""

_ALIASES = {"int": "sym_int", "float": "sym_float", "max": "sym_max", "min": "sym_min"}

_GRAMMAR = (
    *(ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow),
    *(ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE),
    *(ast.Name, ast.Load, ast.Constant, ast.Call),
)
_SIZE = re.compile(r"n\d+")
_NAMED = re.compile(rf"\b{_SIZE.pattern}\b")


class Unread(Exception):
    """A condition of which more than its sizes is unknown; `places` are those that it speaks of."""

    def __init__(self, places: list[Place] | None) -> None:
        super().__init__()
        self.places = places
        """None if these are not known either."""


def rewritten(text: str, tree: dict[str, Any], name: Callable[[Place], str]) -> str | None:
    """The condition in terms of `name(place)`; None if it does not speak of sizes.

    `tree` is argument name -> its structure, with flat tensor indices for tensors.

    Raises:
        Unread: it speaks of sizes, and of something that cannot be evaluated here.
    """
    try:
        parsed = ast.parse(text, mode="eval")
    except SyntaxError:
        raise Unread(None) from None
    sizes = _Sizes(tree, name)
    body = sizes.visit(parsed)
    if not sizes.places and not sizes.lost:
        return None
    if sizes.lost or not _is_condition(body):
        raise Unread(None if sizes.lost else sizes.places)
    return ast.unparse(body)


def numbers_in(text: str) -> list[int]:
    """The numbers of the sizes n0, n1, … that a condition speaks of, each once."""
    return sorted({int(name[1:]) for name in _NAMED.findall(text)})


def in_torch_s_words(text: str) -> str:
    """A condition with the functions called as they are in those that torch.export writes down."""
    known = {"sym_max": "max", "sym_min": "min", "sym_float": "torch.sym_float", "sym_int": "torch.sym_int"}
    known |= {name: f"math.{name}" for name in ("ceil", "floor", "trunc")}
    return re.sub(r"\b(\w+)(?=\()", lambda name: known.get(name[1], name[1]), text)


def spelt(text: str) -> str | None:
    """A formula of sizes n0, n1, … as torch prints it, in the functions known here; None if it has others."""
    formula = _Sizes({}, lambda place: "").visit(ast.parse(text, mode="eval"))
    return ast.unparse(formula) if _is_condition(formula) else None


@lru_cache(maxsize=4096)
def compiled(conditions: tuple[str, ...], count: int) -> Callable[..., tuple[Any, ...]]:
    """One function of all sizes n0, n1, … for all conditions.

    Raises:
        ValueError: one of them is more than a condition on sizes.
    """
    for text in conditions:
        if not _is_condition(ast.parse(text, mode="eval")):
            raise ValueError(f"not an assumption on sizes: {text}")
    names = ", ".join(f"n{i}" for i in range(count))
    values = "".join(f"({text})," for text in conditions)
    namespace: dict[str, Any] = {"__builtins__": {}, **_FUNCTIONS}
    exec(f"def check({names}):\n    return ({values})", namespace)
    check: Callable[..., tuple[Any, ...]] = namespace["check"]
    return check


def _is_condition(tree: ast.AST) -> bool:
    called = set()
    for node in ast.walk(tree):
        if not isinstance(node, _GRAMMAR):
            return False
        if isinstance(node, ast.Constant) and not isinstance(node.value, int | float):
            return False
        if isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Name) or node.func.id not in _FUNCTIONS or node.keywords:
                return False
            called.add(node.func)
    return all(
        node in called or _SIZE.fullmatch(node.id) for node in ast.walk(tree) if isinstance(node, ast.Name)
    )


class _Sizes(ast.NodeTransformer):
    """Replaces `L['x'].size()[2]` by the name of that size, and `math.ceil` by `ceil`."""

    def __init__(self, tree: dict[str, Any], name: Callable[[Place], str]) -> None:
        self.places: list[Place] = []
        self.lost = False
        self._tree, self._name = tree, name

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        call, axis = node.value, node.slice
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "size":
            try:
                index = self._resolved(call.func.value)
            except (KeyError, IndexError, TypeError, AttributeError):
                index = None
            if isinstance(index, int) and isinstance(axis, ast.Constant) and isinstance(axis.value, int):
                self.places.append((index, axis.value))
                return ast.Name(self._name(self.places[-1]), ast.Load())
            self.lost = True
            return node
        return self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name) and node.value.id in ("math", "torch"):
            return ast.Name(node.attr, ast.Load())
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(_ALIASES.get(node.id, node.id), ast.Load())

    def _resolved(self, node: ast.AST) -> Any:
        if isinstance(node, ast.Name) and node.id == "L":
            return self._tree
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            return self._resolved(node.value)[node.slice.value]
        if isinstance(node, ast.Attribute):
            return getattr(self._resolved(node.value), node.attr)  # a field of a dataclass
        raise KeyError(ast.dump(node))
