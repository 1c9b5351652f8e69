"""What the readers of a layer ask of it: maps per channel behind a cut, that can be part of the layer.

    D' ∘ P = P ∘ D        s · (q kᵀ) = (s q) kᵀ        s · relu(x) = relu(s · x),  s ≥ 0

    linear ─▶ reshape ─▶ unbind ─▶ (· s)             (D ∘ linear) ─▶ reshape ─▶ unbind

A layer's output may be cut into pieces (q, k and v), one of which is then scaled. The pieces belong
together: either the layer is changed for all of them, or for none. So this is decided before the graph is
built, by an analysis of demand. The layout of the layer's output is carried down through the operators that
move values, to every reader. A map per channel *claims* its channels for its own numbers, every other reader
claims its channels as they are; the claims that agree are granted. D holds the numbers of those, and is the
identity elsewhere. The layer takes D in, or the rise is taken back.

Factors that are not negative also pass what multiplies by them alike, such as ReLU or a pooling by maxima.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reparamkit.algebra import AffineMap, Geometry, Scalar, ScalarMap, Transposed, affine, geometry
from reparamkit.algebra.layout import Layout
from reparamkit.engine.graph import Node
from reparamkit.engine.laws.chains import composed_numbers, composed_structure, per_channel
from reparamkit.operators import Affine, Move, Term, Work, properties

_LONGEST = 16  # maps in a row


@dataclass(frozen=True)
class Claim:
    """`maps`, one behind the other, act on `value`, which the operators `path` make of the layer's output.

    `path` is in the order of the graph and ends in `value`. `piece` is `value`, or the operand of the product
    that `value` is; `layout` says which of the layer's channels it holds. `numbers` are the maps' scale and
    shift at the places of the layout.
    """

    maps: tuple[int, ...]
    path: tuple[int, ...]
    value: int
    piece: int
    layout: Layout
    numbers: Callable[[], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Rise:
    """The map `structure` on the value `root` in place of the maps of `claims`."""

    root: int
    operator: str
    structure: Geometry
    scale: Tensor
    shift: Tensor
    claims: tuple[Claim, ...]
    leaves: tuple[tuple[int, ...], ...]
    """The ways to the values made of the root by moving alone that something else reads as they are."""

    def numbers(self) -> AffineMap:
        """The map's, as they follow from the network's constants now."""
        scale, shift = torch.ones_like(self.scale), torch.zeros_like(self.shift)
        for claim in self.claims:
            _place(claim, scale, shift)
        return affine.channelwise(scale, shift if self.structure.has_bias else None, self.structure.dims)


def _place(claim: Claim, scale: Tensor, shift: Tensor) -> bool:
    """Write what a claim asks of its channels; False if it is not the same within a channel."""
    places, factor, offset = torch.broadcast_tensors(claim.layout.channels(), *claim.numbers())  # type: ignore[no-untyped-call]
    scale[places], shift[places] = factor, offset
    return torch.equal(scale[places], factor) and torch.equal(shift[places], offset)


def rises(nodes: Sequence[Node], barred: frozenset[int]) -> tuple[list[Rise], dict[int, str]]:
    """Which maps can become part of layers further up, and of the other maps behind cuts why they cannot.

    Args:
        nodes: the values of a network as they are.
        barred: values that take no map in.
    """
    axes: list[int | None] = []
    for node in nodes:
        axes.append(_channel_axis(node, axes))
    reasons: dict[int, str] = {}
    granted: list[Rise] = []
    taken: set[int] = set()
    for root in reversed(nodes):
        axis = axes[root.id]
        if axis is None:
            continue
        demand = _Demand(nodes, root, axis)
        demand.follow()
        if not demand.claims:
            continue
        reason = "" if root.id not in barred else "the layer above the cut cannot take it in"
        rise = None if reason else demand.settled(taken, reasons)
        if rise is not None:
            granted.append(rise)
            taken.update(index for claim in rise.claims for index in claim.maps)
            taken.add(root.id)
        elif reason:
            reasons.update({index: reason for claim in demand.claims for index in claim.maps})
    return granted, reasons


def _channel_axis(root: Node, above: Sequence[int | None]) -> int | None:
    """The channels' axis of a layer, or of a sum with one; None for what takes no map in for nothing."""
    if root.synthetic or not isinstance(root.meaning, Affine):
        return None
    terms = root.meaning.terms
    if len(terms) > 1:
        of_layers = (above[term.value.id] for term in terms if isinstance(term.structure, Scalar))
        return next((axis for axis in of_layers if axis is not None), None)
    structure = terms[0].structure
    if not isinstance(structure, Geometry | Transposed) or structure.unit or root.meaning.averages:
        return None
    return root.value.ndim - 1 - structure.dims


class _Demand:
    """The readers of one layer's output."""

    def __init__(self, nodes: Sequence[Node], root: Node, axis: int) -> None:
        self.claims: list[Claim] = []
        self._nodes, self._root, self._axis = nodes, root, axis
        self._kept: list[Layout] = []
        self._leaves: dict[int, tuple[int, ...]] = {}
        self._everything_kept = False

    def follow(self) -> None:
        """Carry the layout down to all readers."""
        whole = Layout.of(self._root.value.sizes, self._axis)
        if whole is None:
            return
        pending: list[tuple[int, Layout, tuple[int, ...], bool]] = [(self._root.id, whole, (), False)]
        assert isinstance(self._root.meaning, Affine)
        of_one_value = len(self._root.meaning.terms) == 1  # all that a sum is made of would have to take them
        behind_relu: set[int] = set()
        """Values that only factors which are not negative may pass to."""
        scattered: set[int] = set()
        """Values of which it is not known where the channels lie: only one factor for all may pass them."""
        while pending:
            index, layout, path, cut = pending.pop()
            if self._nodes[index].escapes:
                self._keep(index, layout, path)
            for user in self._nodes[index].users:
                reader = self._nodes[user]
                if properties.reads_only_the_shape(reader.operator):
                    continue
                if reader.covers:  # it may be spelt with other values than it means
                    self._keep(index, layout, path)
                    continue
                homogeneous = of_one_value and properties.is_homogeneous(reader.operator)
                if homogeneous or index in behind_relu:
                    behind_relu.add(user)
                carried = None
                if index not in scattered:
                    carried = layout.resized(reader.value.sizes) if homogeneous else _carried(reader, layout)
                if carried is None and not cut and _passes(reader) and not _cuts(reader):
                    scattered.add(user)
                    pending.append((user, whole, (*path, user), False))
                    continue
                if carried is not None:
                    pending.append((user, carried, (*path, user), cut or _cuts(reader)))
                    continue
                claim = self._claim(index, reader, layout, path, cut, factor=index in behind_relu)
                if claim is None:
                    self._keep(index, layout, path)
                else:
                    self.claims.append(claim)

    def settled(self, taken: set[int], reasons: dict[int, str]) -> Rise | None:
        """The greatest set of claims that agree, as one map; None if there are none."""
        channels = self._root.value.shape[self._axis]
        kept = torch.zeros(channels, dtype=torch.bool)
        if self._everything_kept:
            kept[:] = True
        for layout in self._kept:
            kept[layout.channels().flatten()] = True
        left = []
        for claim in self.claims:
            if taken.intersection(claim.maps):
                self._refuse(claim, kept, reasons, "another map that it follows moves")
            else:
                left.append(claim)
        while True:
            owner = torch.full((channels,), -1)
            refused: dict[int, str] = {}
            scale, shift = torch.ones(channels).double(), torch.zeros(channels).double()
            for number, claim in enumerate(left):
                mine = claim.layout.channels().flatten()
                if bool(kept[mine].any()) or bool((owner[mine] >= 0).any()):
                    refused[number] = "another operator reads its channels"
                    refused.update({n: refused[number] for n in set(owner[mine].tolist()) if n >= 0})
                    continue
                owner[mine] = number
                if not _place(claim, scale, shift):
                    refused[number] = "it differs within a channel"
            if not refused:
                break
            for number, reason in refused.items():
                self._refuse(left[number], kept, reasons, reason)
            left = [claim for number, claim in enumerate(left) if number not in refused]
        if not left:
            return None
        dims = self._root.value.ndim - 1 - self._axis
        structure = geometry.channelwise(channels, dims, has_bias=bool(shift.any()))
        operator = self._nodes[left[0].maps[0]].operator
        return Rise(
            self._root.id, operator, structure, scale, shift, tuple(left), tuple(self._leaves.values())
        )

    def _refuse(self, claim: Claim, kept: Tensor, reasons: dict[int, str], reason: str) -> None:
        kept[claim.layout.channels().flatten()] = True
        name = self._root.name
        reasons.update(dict.fromkeys(claim.maps, f"it cannot become part of {name!r}: {reason}"))

    def _keep(self, index: int, layout: Layout, path: tuple[int, ...]) -> None:
        self._leaves[index] = path
        if layout.is_told_by_fixed_axes:
            self._kept.append(layout)
        else:
            self._everything_kept = True

    def _claim(
        self, index: int, reader: Node, layout: Layout, path: tuple[int, ...], cut: bool, *, factor: bool
    ) -> Claim | None:
        """What a reader of the value asks of its channels; None if it is that they stay.

        `factor`: it may ask for nothing but factors, none of them negative.
        """
        if not layout.is_told_by_fixed_axes:
            return None
        if reader.product is not None and not factor:
            return self._claim_of_product(index, reader, layout, path)
        if reader.escapes or per_channel(reader.meaning) is None:
            return None
        whole = layout.channel_axis is not None or self._root.value.shape[self._axis] == 1
        if not cut and whole and not factor:  # it rises or sinks by itself, if that pays
            return None
        chain = self._chain(reader, factor)
        if chain[-1].shown:  # it would become a view of the layer's output, as other results may be
            return None
        terms = [term for node in chain if (term := per_channel(node.meaning)) is not None][::-1]
        structure = composed_structure(terms)
        if structure is None or isinstance(structure, Transposed):
            return None
        if factor:
            scale, _ = _spread(terms)
            if structure.has_bias or bool((scale < 0.0).any()) or bool((scale == 1.0).all()):
                return None

        def numbers() -> tuple[Tensor, Tensor]:
            return _spread(terms)

        maps = tuple(node.id for node in chain)
        return Claim(maps, path, index, index, layout, numbers)

    def _claim_of_product(
        self, index: int, product: Node, layout: Layout, path: tuple[int, ...]
    ) -> Claim | None:
        """The constant factor of a product, which is one of its left operand."""
        assert product.product is not None
        left, right = product.product
        if index != left or left == right:
            return None
        more, below = [product.id], product
        while True:
            reader = self._only_reader(below)
            if reader is None:
                return None
            if not isinstance(reader.meaning, Move) or reader.meaning.cuts:
                break
            more.append(reader.id)
            below = reader
        term = None if reader.escapes else per_channel(reader.meaning)
        if term is None or not isinstance(term.structure, Scalar) or term.structure.has_bias:
            return None

        def numbers() -> tuple[Tensor, Tensor]:
            factor = term.load()
            assert isinstance(factor, ScalarMap)
            return _number(factor.alpha), _number(0.0)

        return Claim((reader.id,), (*path, *more), below.id, index, layout, numbers)

    def _chain(self, first: Node, factor: bool) -> list[Node]:
        """The maps one behind the other, of which no other operator reads what lies between."""
        chain = [first]
        while len(chain) < _LONGEST:
            reader = self._only_reader(chain[-1])
            if reader is None or reader.escapes or per_channel(reader.meaning) is None:
                break
            terms = [term for node in (*chain, reader) if (term := per_channel(node.meaning)) is not None]
            structure = composed_structure(terms[::-1])
            if structure is None or (factor and structure.has_bias):
                break
            chain.append(reader)
        return chain

    def _only_reader(self, node: Node) -> Node | None:
        if len(node.users) != 1 or node.escapes or self._nodes[node.users[0]].covers:
            return None
        return self._nodes[node.users[0]]


def _carried(reader: Node, layout: Layout) -> Layout | None:
    """The layout behind a reader that only moves values; None for any other."""
    if isinstance(reader.meaning, Move):
        return reader.meaning.carry(layout) if _passes(reader) else None
    return layout if _passes(reader) else None


def _passes(reader: Node) -> bool:
    if isinstance(reader.meaning, Move):
        return True
    if not isinstance(reader.meaning, Affine) or reader.meaning.work is not Work.COPY:
        return False
    structure = reader.meaning.terms[0].structure
    return isinstance(structure, Scalar) and structure.identity


def _cuts(reader: Node) -> bool:
    return isinstance(reader.meaning, Move) and reader.meaning.cuts


def _spread(terms: Sequence[Term]) -> tuple[Tensor, Tensor]:
    """Scale and shift of a chain of maps, shaped to multiply what it acts on."""
    numbers = composed_numbers(terms)
    if isinstance(numbers, ScalarMap):
        return _number(numbers.alpha), _number(numbers.beta)
    assert isinstance(numbers, AffineMap)
    sides = (-1, *(1,) * numbers.structure.dims)
    scale = numbers.kernel.flatten().view(sides)
    return scale, torch.zeros_like(scale) if numbers.bias is None else numbers.bias.view(sides)


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)
