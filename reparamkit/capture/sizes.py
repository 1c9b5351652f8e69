"""The sizes that a captured network was captured for, checked where it is called.

torch.export settles branches and shapes by assumptions on the sizes of the inputs, which its own modules
check when they run. What is made from the graph has to check them too: otherwise a size that the capture
ruled out gets an answer, and a wrong one.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

Place = tuple[int, int]
"""Flat tensor index and axis."""

_ARITHMETIC = (
    ast.Expression,
    ast.BoolOp,
    ast.And,
    ast.Or,
    ast.UnaryOp,
    ast.Not,
    ast.USub,
    ast.BinOp,
    ast.Add,
    ast.Sub,
    ast.Mult,
    ast.FloorDiv,
    ast.Mod,
    ast.Pow,
    ast.Compare,
    ast.Eq,
    ast.NotEq,
    ast.Lt,
    ast.LtE,
    ast.Gt,
    ast.GtE,
    ast.Name,
    ast.Load,
    ast.Constant,
)


class SizeGuards(nn.Module):
    """Takes the network's input tensors and raises `ValueError` if their sizes break an assumption.

    `places` are the sizes that the assumptions speak of, called n0, n1, …; `assumptions` are expressions in
    these names.
    """

    _is_impure = True  # so that fx keeps the call, whose result nobody reads

    def __init__(self, places: Sequence[Place], names: Sequence[str], assumptions: Sequence[str]) -> None:
        super().__init__()
        self.places, self.names, self.assumptions = tuple(places), tuple(names), tuple(assumptions)
        self._check = _compiled(self.assumptions, len(self.places))

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_check"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._check = _compiled(self.assumptions, len(self.places))

    def forward(self, *inputs: Tensor) -> None:
        """Any shapes; nothing is computed."""
        sizes = [inputs[index].shape[axis] for index, axis in self.places]
        try:
            answers = self._check(*sizes)
        except ZeroDivisionError:  # an assumption divides by something that has no length at these sizes
            answers = tuple(self.holds([text], sizes) for text in self.assumptions)
        for i, holds in enumerate(answers):
            if not holds:
                raise ValueError(self._complaint(i, sizes))

    def holds(self, texts: Sequence[str], sizes: Sequence[int]) -> bool:
        """Whether these assumptions, some of its own, hold for the sizes of `places`."""
        try:
            return all(_compiled(tuple(texts), len(sizes))(*sizes))
        except ZeroDivisionError:
            return False

    def without(self, texts: Sequence[str]) -> SizeGuards:
        """The same without some of its assumptions."""
        return SizeGuards(self.places, self.names, [t for t in self.assumptions if t not in texts])

    def _complaint(self, broken: int, sizes: Sequence[int]) -> str:
        text = self.assumptions[broken]
        for i in reversed(range(len(sizes))):
            text = text.replace(f"n{i}", self.names[i])
        given = ", ".join(f"{name} {size}" for name, size in zip(self.names, sizes, strict=True))
        return (
            f"the network was captured for other sizes: it assumes {text}, and was given {given}; "
            "fold it again with such an input as the example"
        )


def size_guards(exported: ExportedProgram, inputs: Sequence[fx.Node]) -> SizeGuards:
    """The assumptions of an exported program on the sizes of its tensors, `inputs` in call order."""
    tensors = [n for n in inputs if isinstance(n.meta.get("val"), Tensor)]
    found = _Assumptions(tensors)
    limits: dict[str, Any] = {str(k): v for k, v in exported.range_constraints.items()}
    for index, node in enumerate(tensors):
        for axis, size in enumerate(node.meta["val"].shape):
            expression = size.node.expr if isinstance(size, torch.SymInt) else size
            if isinstance(expression, int) or expression.is_number:
                found.add(f"{found.size((index, axis))} == {int(expression)}")
                continue
            bound = limits.get(str(expression))
            if bound is not None and bound.lower > 2:  # 2 only says that it was not a constant
                found.add(f"{found.size((index, axis))} >= {int(bound.lower)}")
            if bound is not None and bound.upper.is_Integer:
                found.add(f"{found.size((index, axis))} <= {int(bound.upper)}")
    tree = _argument_tree(exported)
    for guard in getattr(exported, "_guards_code", ()):
        found.add_guard(guard, tree)
    return SizeGuards(found.places, found.names, found.texts)


class _Assumptions:
    def __init__(self, tensors: Sequence[fx.Node]) -> None:
        self.places: list[Place] = []
        self.names: list[str] = []
        self.texts: list[str] = []
        self._tensors = tensors

    def size(self, place: Place) -> str:
        """The name of a size in the expressions."""
        if place not in self.places:
            self.places.append(place)
            self.names.append(f"{self._tensors[place[0]].name}.shape[{place[1]}]")
        return f"n{self.places.index(place)}"

    def add(self, text: str) -> None:
        """Assume an expression, once."""
        if text not in self.texts:
            self.texts.append(text)

    def add_guard(self, guard: str, tree: dict[str, Any]) -> None:
        """Assume what torch.export wrote down, if it speaks of sizes and whole numbers alone."""
        try:
            body = _Sizes(self, tree).visit(ast.parse(guard, mode="eval"))
        except (KeyError, IndexError, TypeError, SyntaxError):
            return
        if all(isinstance(node, _ARITHMETIC) for node in ast.walk(body)):
            self.add(ast.unparse(body))


class _Sizes(ast.NodeTransformer):
    """Replaces `L['x'].size()[2]` by the name of that size."""

    def __init__(self, found: _Assumptions, tree: dict[str, Any]) -> None:
        self._found, self._tree = found, tree

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        call, axis = node.value, node.slice
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "size":
            index = self._resolved(call.func.value)
            if isinstance(index, int) and isinstance(axis, ast.Constant) and isinstance(axis.value, int):
                return ast.Name(self._found.size((index, axis.value)), ast.Load())
        return node

    def _resolved(self, node: ast.AST) -> Any:
        if isinstance(node, ast.Name) and node.id == "L":
            return self._tree
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            return self._resolved(node.value)[node.slice.value]
        raise KeyError(ast.dump(node))


def _argument_tree(exported: ExportedProgram) -> dict[str, Any]:
    """Argument name -> its structure, with flat tensor indices for tensors."""
    if exported.example_inputs is None:
        return {}
    index = -1

    def of(leaf: Any) -> Any:
        nonlocal index
        if not isinstance(leaf, Tensor):
            return None
        index += 1
        return index

    args, kwargs = exported.example_inputs
    values = [pytree.tree_map(of, a) for a in args] + [pytree.tree_map(of, v) for v in kwargs.values()]
    signature = exported.module_call_graph[0].signature
    names = list(signature.forward_arg_names or []) if signature is not None else []
    return dict(zip(names, values, strict=False))


def _compiled(assumptions: tuple[str, ...], count: int) -> Callable[..., tuple[Any, ...]]:
    """One function of all sizes for all assumptions, which are arithmetic and nothing else."""
    for text in assumptions:
        if not all(isinstance(node, _ARITHMETIC) for node in ast.walk(ast.parse(text, mode="eval"))):
            raise ValueError(f"not an assumption on sizes: {text}")
    names = ", ".join(f"n{i}" for i in range(count))
    values = "".join(f"({text})," for text in assumptions)
    namespace: dict[str, Any] = {"__builtins__": {}}
    exec(f"def check({names}):\n    return ({values})", namespace)
    check: Callable[..., tuple[Any, ...]] = namespace["check"]
    return check
