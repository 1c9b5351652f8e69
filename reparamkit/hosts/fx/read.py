"""The captured graph as a graph of values, and its operators run on tensors.

Another host graph than torch.fx needs another file like this one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from reparamkit.capture.program import Program
from reparamkit.engine import laws
from reparamkit.engine.graph import Alternative, Definition, Node, ValueGraph
from reparamkit.engine.rising import Rise
from reparamkit.hosts.fx.calls import bundle_of, call_grouped, operands, place_of, readers, shown_nodes
from reparamkit.hosts.fx.constants import Constants, hint
from reparamkit.hosts.fx.read_calls import CallReader, operator_name, signature
from reparamkit.operators import (
    Affine,
    Call,
    Meaning,
    NotAffine,
    Opaque,
    Rescaled,
    Term,
    Value,
    painters,
    pictures,
    products,
    properties,
    read,
)

aten = torch.ops.aten


@dataclass(frozen=True)
class RisenClaim:
    """`maps`, in a row, are gone; `path` computes on other numbers, and `value` what the last map did."""

    maps: tuple[fx.Node, ...]
    path: tuple[fx.Node, ...]
    value: fx.Node


@dataclass(frozen=True)
class Risen:
    """A rise (`reparamkit.engine.rising`) in terms of the program's nodes."""

    root: fx.Node
    rise: Rise
    claims: tuple[RisenClaim, ...]
    captured_only: bool
    """It was shown at the captured size only."""


class FxHost:
    """`graph` holds every tensor of the program that depends on the input; a `call` is a node of torch.fx."""

    def __init__(self, program: Program, risen: Sequence[Risen] = ()) -> None:
        self.program = program
        self.risen = tuple(risen)
        self._rise_of = {each.root: each.rise for each in risen}
        self._gone = {node for each in risen for claim in each.claims for node in claim.maps}
        self.constants = Constants(program)
        self.graph = ValueGraph(lambda node: len(list(readers(self.fx_node(node.id)))))
        self.nodes = self.graph.nodes
        self._ids: dict[fx.Node, int] = {}
        self._pictures: dict[int, pictures.Picture] = {}
        self._calls = CallReader(program, self.constants, self._known)
        self.kept: dict[fx.Node, str] = {}
        """Maps behind cuts that did not become part of the layer above, and why."""
        raw = any(properties.reads_strides(str(n.target)) for n in program.graph.nodes)
        for node in program.graph.nodes:
            if node.op in ("placeholder", "get_attr", "call_function") and node not in self.constants:
                self._add(node, raw_strides=raw)
        self._connect()

    def id_of(self, node: fx.Node) -> int | None:
        """The value that an fx node makes."""
        return self._ids.get(node)

    def in_terms_of_nodes(self, rise: Rise, captured_only: bool) -> Risen:
        """A rise that was found here, for the next reading of the same program."""
        claims = tuple(
            RisenClaim(
                tuple(self.fx_node(i) for i in claim.maps),
                tuple(self.fx_node(i) for i in claim.path),
                self.fx_node(claim.value),
            )
            for claim in rise.claims
        )
        return Risen(self.fx_node(rise.root), rise, claims, captured_only)

    def fx_node(self, index: int) -> fx.Node:
        """The fx node of a value of the network, or of the one that a synthetic value is there for."""
        node = self.graph.owner(index)
        call = (node if node.call is not None else self.nodes[node.operands[0].id]).call
        assert isinstance(call, fx.Node)
        return call

    def user_node(self, index: int) -> fx.Node:
        """The node of the network that the user knows this one by."""
        call = self.nodes[index].call
        return call if isinstance(call, fx.Node) else self.fx_node(index)

    def reads(self, index: int) -> list[int]:
        """The values that a value is made of."""
        node = self.nodes[index]
        if node.is_map_alone:
            return [value.id for value in node.operands]
        own = (self._ids[n] for n in operands(node.call) if n in self._ids)
        return [node.operand_for.get(index, index) for index in own]

    def run(
        self,
        index: int,
        value: Callable[[int], Tensor],
        constant: Callable[[fx.Node], Any],
        shape: Sequence[int] | None = None,
    ) -> Tensor:
        """The operator of a value, on its operands and the constants; with a `shape`, at another size."""
        node = self.nodes[index]
        call = node.call
        assert isinstance(call, fx.Node)

        def argument(n: fx.Node) -> Any:
            known = self._ids.get(n)
            if known is not None:
                return value(node.operand_for.get(known, known))
            return constant(n) if n in self.constants else _recorded(n)

        items = bundle_of(call)
        called = call if items is None else items
        given = self.arguments(node, called)
        args, kwargs = fx.map_arg(given if shape is None else self._resized(called, *given, shape), argument)
        result: Any = call_grouped(called.target, args, kwargs)
        return result if items is None else result[place_of(call)]  # type: ignore[no-any-return]

    def constant(self, name: fx.Node) -> Any:
        """A constant, in float64 if it is a floating one."""
        return self.constants.float64(name)

    def is_constant(self, name: object) -> bool:
        """Whether it is a node that does not depend on the input."""
        return isinstance(name, fx.Node) and name in self.constants

    def is_trained(self, index: int) -> bool:
        """Whether training changes all parameters that the operator of a value reads."""
        call, program = self.user_node(index), self.program
        read = [str(n.target) for n in call.all_input_nodes if n.op == "get_attr"]
        return all(name in program.state and program.state[name].requires_grad for name in read)

    def remains(self, call: fx.Node) -> bool:
        """Whether the value of a call is there whatever is folded, for more than its size."""
        index = self.id_of(call)
        if index is None or index in self._passed:
            return False
        node = self.nodes[index]
        shown = any(user.op == "output" for user in call.users)
        return shown or node.meaning is None or self._is_operand(node)

    def ends_at_fixed_place(self, index: int) -> bool:
        """Whether the operator is a crop that ends at a place counted from the front."""
        call = self.user_node(index)
        if call.target is aten.narrow.default:
            return True
        if call.target is not aten.slice.Tensor:
            return False
        end = call.kwargs.get("end", call.args[3] if len(call.args) > 3 else None)
        return isinstance(end, int) and 0 <= end < sys.maxsize

    def arguments(self, node: Node, call: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a value's operator, but for those that it does without."""
        if not node.without:
            return call.args, call.kwargs
        assert isinstance(call.target, OpOverload)
        names = [a.name for a in call.target._schema.arguments]
        args = tuple(None if n in node.without else a for n, a in zip(names, call.args, strict=False))
        return args, {n: None if n in node.without else a for n, a in call.kwargs.items()}

    def _resized(
        self, call: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any], shape: Sequence[int]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments for a result of this shape: what is written for the captured sizes is replaced."""
        assert isinstance(call.target, OpOverload)
        given = dict(zip(signature(call.target)[0], args, strict=False)) | kwargs
        name = next((name for name in ("size", "shape", "sizes", "src") if name in given), None)
        if name is None:
            return args, kwargs
        new: Any = list(shape)
        if name == "sizes":
            first = given["dim"] % (len(shape) - len(given["sizes"]) + 1)
            new = new[first : first + len(given["sizes"])]
        elif name == "src":
            new = given["src"]
            while call.target is aten.copy.default and new.target is aten.expand.default:
                new = new.args[0]  # a copy repeats by itself
        given[name] = new
        return tuple(given.values())[: len(args)], {k: given[k] for k in kwargs}

    def _add(self, node: fx.Node, *, raw_strides: bool) -> None:
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            return
        if node in self._gone:  # what it did is done further up
            self._ids[node] = next(self._ids[n] for n in node.all_input_nodes if n in self._ids)
            return
        if node.op != "call_function":
            where = "it is an input of the network" if node.op == "placeholder" else "it changes at run time"
            self._append(node, value, None).reason = where
            return
        painted, covers = None, frozenset[int]()
        try:
            if raw_strides:
                raise NotAffine("the network reads raw strides, which folding would change")
            call = self._calls.call(node, self._value(node, value))
            painted = painters.picture(call, self._pictures)
            meaning, covers = self._meaning(node, call, painted)
        except NotAffine as reason:
            refused = self._append(node, value, None)
            refused.reason, refused.notable = str(reason), reason.notable
            self._paint(refused, painted)
            return
        definition = Definition(node.name, operator_name(node), node, self._value(node, value), meaning)
        alternatives = self._alternatives(definition)
        if isinstance(meaning, Rescaled):
            meaning = Opaque(meaning.value, meaning.behind is not None, meaning.takes)
        defined = self._append(node, value, meaning)
        defined.alternatives = alternatives
        defined.recomputed_elements = self._recomputed_elements(node)
        defined.covers = covers
        self._paint(defined, painted)
        if node in self._rise_of:
            rise = self._rise_of[node]
            map_of_it = Affine((Term(defined.value, rise.structure, rise.numbers),))
            definition = replace(definition, operator=rise.operator, meaning=map_of_it)
            alternatives = self._alternatives(definition)
            risen = self.graph.add(node.name, rise.operator, None, self._value(node, value), map_of_it)
            risen.alternatives = alternatives
            self._ids[node] = risen.id

    def _known(self, node: fx.Node) -> Value | None:
        index = self._ids.get(node)
        return None if index is None else self.nodes[index].value

    def _value(self, node: fx.Node, value: Tensor) -> Value:
        return self._calls.value(len(self.nodes), node, value)

    def _alternatives(self, definition: Definition) -> tuple[Alternative, ...]:
        return tuple(other for law in laws.LAWS for other in law(self.graph, definition))

    def _append(self, node: fx.Node, value: Tensor, meaning: Meaning | None) -> Node:
        added = self.graph.add(node.name, operator_name(node), node, self._value(node, value), meaning)
        self._ids[node] = added.id
        places = products.OPERANDS.get(added.operator)
        if places is not None and not products.adds(added.operator, node.kwargs):
            given = [a for each in node.args for a in (each if isinstance(each, list | tuple) else [each])]
            factors = [self._ids.get(n) for n in given[places[0] :]]  # type: ignore[arg-type]
            left, right = factors if len(factors) == 2 else (None, None)
            added.product = None if left is None or right is None else (left, right)
        return added

    def _paint(self, node: Node, painted: pictures.Picture | None) -> None:
        if painted is not None:
            self._pictures[node.id] = replace(painted, touched=painted.touched | {node.id})

    def _spelt(
        self, node: fx.Node, painted: pictures.Picture | None
    ) -> tuple[Meaning, frozenset[int]] | None:
        """What a picture means, and the values that it does without."""
        spelt = None if painted is None else pictures.spelt(painted)
        if painted is None or spelt is None:
            return None
        meaning, read = spelt
        covers = painted.touched - read
        calls = [
            node,
            *(
                self.nodes[c].call
                for c in covers
                if not properties.reads_only_the_shape(self.nodes[c].operator)
            ),
        ]
        above = {self._ids[n] for call in calls for n in operands(call) if n in self._ids}
        return (meaning, covers) if above <= covers | read else None

    def _meaning(
        self, node: fx.Node, call: Call, painted: pictures.Picture | None
    ) -> tuple[Meaning, frozenset[int]]:
        """What a call means, and the values that this does without."""
        operands = _operands(call)
        if any(0 in value.shape for value in (call.result, *operands)):
            raise NotAffine("it computes nothing: a tensor has no elements", notable=False)
        meaning, refusal = _read(call)
        spelt = None if isinstance(meaning, Affine) else self._spelt(node, painted)
        covers: frozenset[int] = frozenset()
        if spelt is not None and (spelt[1] or meaning is None):
            meaning, covers = spelt
        if meaning is None:
            assert refusal is not None
            raise refusal
        for operand in operands:
            if not call.result.dtype.is_floating_point:
                raise NotAffine(f"it computes {_name(call.result.dtype)}", notable=False)
            if operand.dtype != call.result.dtype and not properties.looks_up(call.target):
                raise NotAffine(f"it turns {_name(operand.dtype)} into {_name(call.result.dtype)}")
        return meaning, covers

    def _recomputed_elements(self, node: fx.Node) -> int:
        return sum(self.constants.recomputed_elements(n) for n in node.all_input_nodes if n in self.constants)

    def _connect(self) -> None:
        for source, index in self._ids.items():
            node = self.nodes[index]
            for user in readers(source):
                if user in self._gone:
                    continue
                known = self._ids.get(user)
                if known is None:
                    node.escapes = True
                else:
                    node.users.append(known)
            if node.is_map_alone:
                self.nodes[node.operands[0].id].users.append(index)
        for source in shown_nodes(self.program.graph):
            if source in self._ids:
                self.nodes[self._ids[source]].shown = True
        self._passed = self._passed_over()
        for node in self.nodes:
            node.forced = node.escapes or self._is_operand(node)

    def _is_operand(self, node: Node) -> bool:
        """Whether an operator reads it that stays as it is."""
        return any(self.nodes[user].meaning is None and user not in self._passed for user in node.users)

    def _passed_over(self) -> set[int]:
        """The values that only values read which do without them."""
        passed: set[int] = set()
        for node in self.nodes:
            for index in sorted(node.covers, reverse=True):
                within = node.covers & passed | {node.id}
                if not self.nodes[index].escapes and within.issuperset(self.nodes[index].users):
                    passed.add(index)
        return passed


def _read(call: Call) -> tuple[Meaning | None, NotAffine | None]:
    """What a call means by itself, or why that is not known."""
    try:
        return read(call), None
    except NotAffine as refusal:
        return None, refusal


def _recorded(node: fx.Node) -> Any:
    """A size as captured, or whatever else is no tensor."""
    size = node.meta["val"]
    return hint(size) if isinstance(size, torch.SymInt) else size


def _operands(call: Call) -> list[Value]:
    values: list[Value] = []
    for argument in call.arguments.values():
        each = argument if isinstance(argument, list) else [argument]
        values += [a for a in each if isinstance(a, Value)]
    return values


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
