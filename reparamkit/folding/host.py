"""The captured graph as the plain nodes that the search works on.

This is the only reader of torch.fx in the search: another host graph needs another file like this one.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from sympy import Mul  # type: ignore[import-untyped]
from torch import Tensor, fx
from torch._ops import OpOverload

from reparamkit.algebra import IDENTITY, Geometry, Scalar
from reparamkit.algebra.layout import Monomial
from reparamkit.capture.program import Program
from reparamkit.folding.borders import Borders
from reparamkit.folding.constants import Constants, hint
from reparamkit.folding.forms import Instead, Node
from reparamkit.folding.lifting import lift
from reparamkit.folding.shifts import shifted_side
from reparamkit.folding.sinking import as_move, below, chain_above
from reparamkit.operators import (
    Affine,
    Bordered,
    Call,
    Concat,
    Constant,
    Meaning,
    Move,
    NotAffine,
    Opaque,
    Part,
    Rescaled,
    Size,
    Value,
    read,
)

_RAW_STRIDES = ("aten.as_strided", "aten.sym_stride", "aten.sym_storage_offset", "aten.set_")


@dataclass(frozen=True)
class Lifted:
    """A map per channel written down above the operators `covers`, from node `first` on, on `roots`."""

    first: int
    roots: tuple[int, ...]
    covers: tuple[int, ...]


class Host:
    """`nodes[i]` stands for `fx_nodes[i]`: every tensor of the graph that depends on the input."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.constants = Constants(program)
        self.nodes: list[Node] = []
        self.fx_nodes: list[fx.Node] = []
        self._ids: dict[fx.Node, int] = {}
        self.borders = Borders(self.constants)
        self._symbols: dict[object, Monomial] = {}
        self._latest: tuple[Tensor | None, tuple[int, ...], tuple[Size, ...]] = None, (), ()
        self.lifts: dict[int, Lifted] = {}
        """Last operator of a lift -> what was written down for it."""
        self._bundles: dict[tuple[fx.Node, fx.Node], fx.Node] = {}
        self.derived: dict[int, tuple[int, ...]] = {}
        """Operators written down once more on other operands: their own node -> these operands."""
        raw = any(str(n.target).startswith(_RAW_STRIDES) for n in program.graph.nodes)
        for node in list(program.graph.nodes):
            if node.op in ("placeholder", "get_attr", "call_function") and node not in self.constants:
                self._add(node, raw_strides=raw)
        self._connect()

    def id_of(self, node: fx.Node) -> int | None:
        """The plain node that stands for an fx node."""
        return self._ids.get(node)

    def spoken_of(self, index: int) -> fx.Node:
        """The node of the network that the user knows this one by."""
        node = self.nodes[index]
        return self.fx_nodes[index if node.acts_for is None or not node.stand_in else node.acts_for]

    def _add(self, node: fx.Node, *, raw_strides: bool) -> None:
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            return
        if node.op != "call_function":
            where = "it is an input of the network" if node.op == "placeholder" else "it changes at run time"
            self._append(node, value).reason = where
            return
        try:
            if raw_strides:
                raise NotAffine("the network reads raw strides, which folding would change")
            meaning = self._bordered(node) or self._meaning(node, self._value(node, value))
            first, instead = len(self.nodes), None
            if isinstance(meaning, Rescaled):
                meaning, instead = self._bare(node, value, meaning)
            else:
                instead = self._sunk(node, value, meaning) or self._lifted(node, meaning)
                instead = instead or self._unshifted(node, value, meaning)
            written = self.nodes[first:]
            found = self._append(node, value)
            found.meaning, found.instead = meaning, instead
            for other in written:
                other.acts_for = found.id
            found.upkeep = self._upkeep(node)
        except NotAffine as reason:
            found = self._append(node, value)
            found.reason, found.notable = str(reason), reason.notable

    def _bordered(self, node: fx.Node) -> Bordered | None:
        border = self.borders.follow(node)
        if border is None:
            return None
        padding = self.nodes[self._ids[border.pad]].meaning
        if not isinstance(padding, Affine) or not isinstance(padding.parts[0].structure, Geometry):
            return None
        covers = tuple(self._ids[n] for n in border.covers if n in self._ids)
        reads = tuple(self._ids[n] for n in node.all_input_nodes if n in self._ids)
        fill: Constant = self._argument(border.fill)
        return Bordered(padding.parts[0].value, padding.parts[0].structure, fill, covers, reads)

    def _append(self, node: fx.Node, value: Tensor) -> Node:
        called = bundle_of(node) or node
        found = Node(len(self.nodes), node.name, str(called.target), self._value(node, value), None)
        self.nodes.append(found)
        self.fx_nodes.append(node)
        self._ids[node] = found.id
        return found

    def _sunk(self, node: fx.Node, value: Tensor, meaning: Meaning) -> Instead | None:
        """Write the operator down on what lies above the maps per channel on its operand, if any."""
        move = as_move(meaning)
        chain = None if move is None else chain_above(self.nodes, move)
        if move is None or chain is None:
            return None
        if below(chain, move, self._value(node, value), chain.root) is None:
            return None
        operand, root = self.fx_nodes[move.value.id], self.fx_nodes[chain.root.id]
        with self.program.graph.inserting_before(node):
            moved = self._copied(node, operand, root)
        found = self._append(moved, value)
        if isinstance(meaning, Affine):
            found.meaning = replace(meaning, parts=(replace(meaning.parts[0], value=chain.root),))
        else:
            found.meaning = replace(move, value=chain.root)
        self.derived[found.id] = (chain.root.id,)
        part = below(chain, move, found.value, found.value)
        assert part is not None
        return Instead(part, chain.covers)

    def _bare(self, node: fx.Node, value: Tensor, meaning: Rescaled) -> tuple[Opaque, Instead]:
        """Write the operator down without its scale and shift."""
        assert isinstance(node.target, OpOverload)
        names = [a.name for a in node.target._schema.arguments]
        with self.program.graph.inserting_before(node):
            bare = self._copied(node, node, node)
        bare.args = tuple(None if n in meaning.without else a for n, a in zip(names, node.args, strict=False))
        bare.kwargs = {n: None if n in meaning.without else a for n, a in node.kwargs.items()}
        found = self._append(bare, value)
        found.meaning = Opaque(meaning.value)
        self.derived[found.id] = (meaning.value.id,)
        part = Part(found.value, meaning.structure, meaning.load)
        return Opaque(meaning.value, rescales=True), Instead(part, ())

    def _readers(self, index: int) -> int:
        """Readers of a value in the network itself."""
        users = (self._ids.get(user) for user in readers(self.fx_nodes[index]))
        return sum(i is None or self.nodes[i].acts_for is None for i in users)

    def _copied(self, node: fx.Node, old: fx.Node, new: fx.Node) -> fx.Node:
        """The operator again, on another operand; a list that it is an item of is made again, once."""
        items = bundle_of(node)
        if items is not None:
            if (items, new) not in self._bundles:
                with self.program.graph.inserting_before(items):
                    self._bundles[items, new] = self._copied(items, old, new)
            old, new = items, self._bundles[items, new]
        copied = self.program.graph.node_copy(node, lambda n: new if n is old else n)
        copied.meta = dict(node.meta)
        return copied

    def _lifted(self, node: fx.Node, meaning: Meaning) -> Instead | None:
        """Write the operators above a map per channel down once more, below the map."""
        found = lift(self.nodes, meaning)
        if found is None or any(self._readers(i) > 1 for i in (*found.path, *found.skipped)):
            return None
        if len(found.parts) > 1 and any(self._readers(part.value.id) > 1 for part in found.parts):
            return None
        with self.program.graph.inserting_before(node):
            now: dict[int, Node] = {}
            for part in found.parts:
                operand = self.fx_nodes[part.value.id]
                current = self.program.graph.call_function(_stand_in, (operand,))
                current.meta = dict(node.meta) | {"val": operand.meta["val"]}
                risen = self._append(current, operand.meta["val"])
                risen.meaning, risen.stand_in = Affine((part,)), True
                self.derived[risen.id] = (part.value.id,)
                now[part.value.id] = risen
            first = min(risen.id for risen in now.values())
            for step in found.path:
                now[step] = self._written_again(step, now)
        last = now[found.path[-1]]
        roots = tuple(part.value.id for part in found.parts)
        self.lifts[last.id] = Lifted(first, roots, (*found.path, *found.skipped))
        return Instead(Part(last.value, Scalar(identity=True), lambda: IDENTITY), ())

    def _unshifted(self, node: fx.Node, value: Tensor, meaning: Meaning) -> Instead | None:
        """Write a sum down without the constant per channel that was added to one of its sides."""
        found = shifted_side(self.nodes, meaning)
        if found is None or self._readers(found.below.id) > 1:
            return None
        with self.program.graph.inserting_before(node):
            bare = self._copied(node, self.fx_nodes[found.below.id], self.fx_nodes[found.root.id])
        written = self._append(bare, value)
        written.meaning = Affine(found.parts)
        self.derived[written.id] = tuple(part.value.id for part in found.parts)
        return Instead(found.shift(written.value), (found.below.id,))

    def _written_again(self, step: int, now: dict[int, Node]) -> Node:
        """A copy of an operator that reads the newer versions of its operands."""
        above = self.fx_nodes[step]
        newer = {self.fx_nodes[i]: self.fx_nodes[other.id] for i, other in now.items()}
        copied = self.program.graph.node_copy(above, lambda n: newer.get(n, n))
        copied.meta = dict(above.meta)
        moved = self._append(copied, above.meta["val"])
        meaning = self.nodes[step].meaning
        if isinstance(meaning, Concat):
            moved.meaning = replace(meaning, values=tuple(now[v.id].value for v in meaning.values))
        else:
            assert isinstance(meaning, Move)
            moved.meaning = replace(meaning, value=now[meaning.value.id].value)
        return moved

    def _value(self, node: fx.Node, value: Tensor) -> Value:
        if value is not self._latest[0]:
            shape = tuple([hint(s) for s in value.shape])
            self._latest = value, shape, tuple([self._size(s) for s in value.shape])
        _, shape, sizes = self._latest
        return Value(len(self.nodes), shape, sizes, value.dtype, node.name)

    def _size(self, size: int | torch.SymInt) -> Size:
        if isinstance(size, int):
            return size
        expression = self.program.general.of(size.node.expr)
        if expression.is_number:
            return int(expression)
        if expression not in self._symbols:  # printing one costs more than all else here
            self._symbols[expression] = _monomial(expression)
        return self._symbols[expression]

    def _meaning(self, node: fx.Node, result: Value) -> Meaning:
        items = bundle_of(node)
        called = node if items is None else items
        if not isinstance(called.target, OpOverload):
            raise NotAffine(f"{called.target} is not an affine operator that reparamkit knows", notable=False)
        names, defaults = _signature(called.target)
        given = [*zip(names, called.args, strict=False), *called.kwargs.items()]
        arguments = defaults | {k: self._argument(v) for k, v in given}
        target = str(called.target)
        if items is not None:
            target, arguments["item"] = f"{target}[]", _place(node)
        call = Call(target, arguments, result)
        operands = _operands(call)
        if any(0 in value.shape for value in (result, *operands)):
            raise NotAffine("it computes nothing: a tensor has no elements", notable=False)
        meaning = read(call)
        for operand in operands:
            if not result.dtype.is_floating_point:
                raise NotAffine(f"it computes {_name(result.dtype)}", notable=False)
            if operand.dtype != result.dtype:
                raise NotAffine(f"it turns {_name(operand.dtype)} into {_name(result.dtype)}")
        return meaning

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, fx.Node):
            if argument in self.constants:
                value = argument.meta.get("val")
                if not isinstance(value, Tensor) or not value.is_floating_point():
                    return argument
                if not all(isinstance(s, int) for s in value.shape):
                    return argument  # its size depends on values
                return Constant(tuple(value.shape), partial(self.constants.float64, argument))
            known = self._ids.get(argument)
            return argument if known is None else self.nodes[known].value
        if isinstance(argument, list | tuple):
            return [self._argument(a) for a in argument]
        return argument

    def _upkeep(self, node: fx.Node) -> int:
        return sum(self.constants.upkeep(n) for n in node.all_input_nodes if n in self.constants)

    def _connect(self) -> None:
        for node, found in zip(self.fx_nodes, self.nodes, strict=True):
            for user in readers(node):
                known = self._ids.get(user)
                if known is not None and self.nodes[known].acts_for is not None:
                    continue  # what is written down again is no reader of its own
                if known is None:
                    found.forced = True
                elif self.nodes[known].meaning is None:
                    found.forced = True
                    found.users.append(known)
                else:
                    found.users.append(known)


def bundle_of(node: fx.Node) -> fx.Node | None:
    """The operator that makes a list of tensors, if the node is one of them."""
    if node.target is not operator.getitem or not isinstance(node.args[0], fx.Node):
        return None
    return node.args[0] if isinstance(node.args[0].target, OpOverload) else None


def _place(item: fx.Node) -> int:
    """Where in its list the item stands, counted from the front."""
    bundle, place = item.args
    assert isinstance(bundle, fx.Node)
    if not isinstance(place, int):
        raise NotAffine("its place varies", notable=False)
    return place % len(bundle.meta["val"])


def readers(node: fx.Node) -> Iterator[fx.Node]:
    """What reads a value; of a list that is made of it, what takes an item of that."""
    for user in node.users:
        if user.users and all(bundle_of(item) is user for item in user.users):
            yield from user.users
        else:
            yield user


@cache
def _signature(target: OpOverload) -> tuple[list[str], dict[str, Any]]:
    """The names of an operator's arguments, and the defaults of those that have one."""
    arguments = target._schema.arguments
    return [a.name for a in arguments], {a.name: a.default_value for a in arguments if a.has_default_value()}


def _stand_in(value: Tensor) -> Tensor:
    """Marks the place of a map that exists inside folds only."""
    raise AssertionError("a stand-in was left in the graph")


def _operands(call: Call) -> list[Value]:
    found: list[Value] = []
    for argument in call.arguments.values():
        found += [a for a in (argument if isinstance(argument, list) else [argument]) if isinstance(a, Value)]
    return found


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


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
