"""Maps per channel on a piece of a layer's output rise to the layer.

    linear ─▶ reshape ─▶ unbind ─▶ (· s)             (D ∘ linear) ─▶ reshape ─▶ unbind

A layer's output may be cut into pieces (q, k and v), one of which is then scaled. D scales and shifts the
channels that end up in that piece and leaves the others as they are, so that every piece can be cut from the
changed output. Which channels those are is found by sending their numbers through the operators in between,
all of which only move values. A constant factor of a product of matrices is one of its left operand:

    s · (q kᵀ) = (s·q) kᵀ

What is written down above the layer is then folded, and proven, like any other map behind it.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from reparamkit.capture.program import Program
from reparamkit.folding.captured import Changes
from reparamkit.folding.constants import Constants

aten = torch.ops.aten

_LAYERS = frozenset(
    (
        *(aten.linear.default, aten.conv1d.default, aten.conv2d.default, aten.conv3d.default),
        aten.batch_norm.default,  # which folds, with what is behind it, into a layer further up
    )
)
_CUTS = frozenset(
    (
        *(aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default, aten.unbind.int),
        *(aten.select.int, aten.slice.Tensor),
    )
)
_MOVES = _CUTS | {
    *(aten.reshape.default, aten.view.default, aten._unsafe_view.default, aten.flatten.using_ints),
    *(aten.unflatten.int, aten.permute.default, aten.transpose.int, aten.t.default, aten.unsqueeze.default),
    *(aten.squeeze.dims, aten.contiguous.default, aten.clone.default),
}
_FACTORS = frozenset((aten.mul.Tensor, aten.div.Tensor))
_MAPS = _FACTORS | {aten.add.Tensor, aten.sub.Tensor, aten.batch_norm.default}
_PRODUCTS = frozenset((aten.matmul.default, aten.bmm.default))
_WRITERS = ("aten.as_strided", "aten.sym_stride", "aten.sym_storage_offset", "aten.set_")
_CLOSE = 1e-10

Values = dict[fx.Node, Any]


@dataclass(frozen=True)
class _Target:
    """The map `node` acts on what `reader` reads as `value`; `between` are the values that lead to it."""

    node: fx.Node
    operand: fx.Node
    reader: fx.Node
    value: fx.Node
    root: fx.Node
    between: tuple[fx.Node, ...]


class _Kept(Exception):
    """The map stays where it is."""


def hoist(program: Program) -> Changes:
    """Rewrite the program's graph; what cannot rise, or would fold where it is, is left alone."""
    nodes, changes = list(program.graph.nodes), Changes()
    if program.writes or any(str(n.target).startswith(_WRITERS) for n in nodes):
        return changes
    if not any(n.target in _CUTS or n.target in _PRODUCTS for n in nodes):
        return changes
    hoisting = _Hoisting(program)
    for node in nodes:
        if node.target in _MAPS:
            try:
                found = hoisting.find(node)
            except (_Kept, RuntimeError, ValueError, TypeError, IndexError):
                continue  # operators that do not run on the channels' numbers stay as they are
            hoisting.rewrite(*found)
            changes.moves(found[0].between)
            changes.twins[found[0].operand] = node
    return changes


class _Hoisting:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.constants = Constants(program)
        self._raised: set[fx.Node] = set()

    def find(self, node: fx.Node) -> tuple[_Target, Tensor, Tensor]:
        """Where a map can rise to, and its factor and offset there; raises where it cannot."""
        target = self._target(node)
        shape = _shape(target.root)
        axis = len(shape) - 1 if self._layer(target.root).target is aten.linear.default else 1
        sides = (-1, *(1,) * (len(shape) - 1 - axis))
        numbers = torch.arange(shape[axis]).view(sides).expand(shape)
        where = self._spread(target.root, numbers.contiguous())
        mine = where[target.value]
        self._require_alone(target, where, mine)
        scale, shift = self._effect(target, mine)
        factor, offset = torch.ones(shape[axis]).double(), torch.zeros(shape[axis]).double()
        factor[mine.flatten()] = scale.flatten()
        offset[mine.flatten()] = shift.flatten()
        if not torch.equal(factor[mine], scale) or not torch.equal(offset[mine], shift):
            raise _Kept("it differs within a channel")
        factor, offset = factor.view(sides), offset.view(sides)
        self._check(target, factor, offset)
        return target, factor, offset

    def _target(self, node: fx.Node) -> _Target:
        operand, others = node.args[0], node.all_input_nodes[1:]
        if not isinstance(operand, fx.Node) or operand in self.constants or node.kwargs:
            raise _Kept("its operand is not the first")
        if any(n not in self.constants for n in others) or any(u.op == "output" for u in node.users):
            raise _Kept("it is more than a map")
        if not _runs(node):
            raise _Kept("its statistics are those of the batch")
        if operand.meta["val"].dtype != node.meta["val"].dtype or _shape(operand) != _shape(node):
            raise _Kept("it changes more than the numbers")
        path, top = _up(operand)
        reader, value, between = node, operand, list(path)
        if top.target in _PRODUCTS:
            self._number(node)
            if any(len(n.users) > 1 for n in (operand, *path)) or len(top.users) > 1:
                raise _Kept("the product has another reader")
            reader, value = top, top.args[0]  # type: ignore[assignment]
            if list(top.args).count(value) > 1 or not isinstance(value, fx.Node):
                raise _Kept("both operands are the same")
            between.append(top)
            path, top = _up(value)
            between += path
        elif not any(n.target in _CUTS for n in path):
            raise _Kept("nothing is cut: it can rise or sink by itself")
        layer = self._layer(top)
        if any(n.target in _CUTS and not _cuts_fixed_length(n) for n in path):
            raise _Kept("it is cut along an axis whose length varies")
        weights = layer.all_input_nodes[1:]
        if layer.target not in _LAYERS or not _runs(layer) or any(n not in self.constants for n in weights):
            raise _Kept("no layer is above it")
        if "conv" in str(layer.target) and layer.meta["val"].ndim != weights[0].meta["val"].ndim:
            raise _Kept("the layer has no batch")
        if top.meta["val"].dtype != node.meta["val"].dtype:
            raise _Kept("the layer computes in another type")
        return _Target(node, operand, reader, value, top, tuple(between))

    def _layer(self, node: fx.Node) -> fx.Node:
        while node in self._raised:
            node = node.args[0]  # type: ignore[assignment]
        return node

    def _number(self, node: fx.Node) -> None:
        other = node.args[1]
        single = isinstance(other, int | float) or (
            isinstance(other, fx.Node) and other.meta["val"].numel() == 1 and other.meta["val"].ndim == 0
        )
        if node.target not in _FACTORS or not single:
            raise _Kept("only a constant factor passes a product of matrices")

    def _spread(self, root: fx.Node, numbers: Tensor) -> Values:
        """What every value that is made of the root by moving alone holds, if the root holds `numbers`."""
        found: Values = {root: numbers}
        pending = [root]
        while pending:
            for user in pending.pop().users:
                if _moves(user) and user not in found:
                    found[user] = _run(user, found)
                    pending.append(user)
        return found

    def _require_alone(self, target: _Target, where: Values, mine: Tensor) -> None:
        """Nothing else may read a channel of the piece."""
        own = torch.zeros(int(max(n.max() for n in where.values() if isinstance(n, Tensor))) + 1).bool()
        own[mine.flatten()] = True
        for value, numbers in where.items():
            for user in value.users:
                if user in where or (user is target.reader and value is target.value):
                    continue
                if not isinstance(numbers, Tensor) or bool(own[numbers.flatten()].any()):
                    raise _Kept("another operator reads its channels")

    def _effect(self, target: _Target, like: Tensor) -> tuple[Tensor, Tensor]:
        """a and b of y = a·x + b, elementwise."""
        if target.reader is not target.node:
            like = torch.empty(())
        zero = self._applied(target, torch.zeros(like.shape).double())
        one = self._applied(target, torch.ones(like.shape).double())
        shape = _shape(target.value)
        return (one - zero).expand(shape), zero.expand(shape)

    def _applied(self, target: _Target, value: Tensor) -> Tensor:
        result: Tensor = _run(target.node, {target.operand: value}, self.constants)
        return result

    def _check(self, target: _Target, factor: Tensor, offset: Tensor) -> None:
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randn(_shape(target.root), generator=generator, dtype=torch.float64)
        before = self._spread(target.root, drawn)[target.value]
        after = self._spread(target.root, drawn * factor + offset)[target.value]
        expected = self._applied(target, before)
        if not float((after - expected).abs().max()) <= _CLOSE * float(expected.abs().max()):
            raise _Kept("the check in float64 failed")

    def rewrite(self, target: _Target, factor: Tensor, offset: Tensor) -> None:
        """Write the map down behind the layer, and take it out where it was."""
        graph, root = self.program.graph, target.root
        made, current = [], root
        for function, numbers, neutral in (
            (aten.mul.Tensor, factor, 1.0),
            (aten.add.Tensor, offset, 0.0),
        ):
            if bool((numbers == neutral).all()):
                continue
            with graph.inserting_after(current):
                constant = self._constant(root, numbers)
            with graph.inserting_after(constant):
                current = graph.call_function(function, (current, constant))
            current.meta = dict(root.meta)
            made.append(current)
        if made:
            root.replace_all_uses_with(current, delete_user_cb=lambda user: user is not made[0])
        self._raised.update(made)
        target.node.replace_all_uses_with(target.operand)
        graph.erase_node(target.node)

    def _constant(self, root: fx.Node, numbers: Tensor) -> fx.Node:
        state = self.program.state
        name = next(n for i in range(len(state) + 1) if (n := f"reparam_constant_{i}") not in state)
        value = root.meta["val"]
        self.program.state[name] = numbers.to(value.device)
        self.program.added[name] = value.dtype
        node = self.program.graph.get_attr(name)
        node.meta["val"] = self.program.state[name]
        return node


def _runs(node: fx.Node) -> bool:
    """Whether a batch norm, if it is one, keeps running statistics and uses them."""
    return node.target is not aten.batch_norm.default or not (node.args[5] or node.args[3] is None)


def _up(value: fx.Node) -> tuple[list[fx.Node], fx.Node]:
    """The operators above a value that only move values, and the value above them."""
    path = []
    while _moves(value):
        path.append(value)
        value = value.args[0]  # type: ignore[assignment]
    return path, value


def _moves(node: fx.Node) -> bool:
    if node.target is operator.getitem:
        return isinstance(node.args[0], fx.Node) and node.args[0].target in _CUTS
    return node.target in _MOVES


def _cuts_fixed_length(cut: fx.Node) -> bool:
    """Whether the axis that is cut has one length."""
    whole, names = cut.args[0], [a.name for a in cut.target._schema.arguments]  # type: ignore[union-attr]
    given = dict(zip(names, cut.args, strict=False)) | dict(cut.kwargs)
    assert isinstance(whole, fx.Node)
    return isinstance(whole.meta["val"].shape[given.get("dim", 0)], int)


def _run(node: fx.Node, values: Values, constants: Constants | None = None) -> Any:
    def value(n: fx.Node) -> Any:
        if n in values:
            return values[n]
        if constants is not None and n in constants:
            return constants.float64(n)
        size = n.meta["val"]
        if isinstance(size, Tensor):
            raise _Kept("it reads another tensor")
        return int(size.node.hint) if isinstance(size, torch.SymInt) else size

    args, kwargs = fx.map_arg((node.args, node.kwargs), value)
    return node.target(*args, **kwargs)  # type: ignore[operator]


def _shape(node: fx.Node) -> tuple[int, ...]:
    sizes: Iterable[Any] = node.meta["val"].shape
    return tuple(size if isinstance(size, int) else int(size.node.hint) for size in sizes)
