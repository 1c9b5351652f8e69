"""One piece of a tensor that is cut along an axis: it lets maps per channel pass, its own channels' part.

A reader of "aten.chunk.default[]" is asked about one item of the list that the operator returns; the item's
number is the argument `item`.
"""

from __future__ import annotations

from reparamkit.operators.base import Call, Meaning, Move, NotAffine, Value, reader


@reader("aten.split.Tensor[]")
def split(call: Call) -> Meaning:
    """Pieces of equal length, the last one shorter."""
    length = call.get("split_size")
    if not isinstance(length, int):
        raise NotAffine("its lengths vary", notable=False)
    return _piece(call, call.get("item") * length)


@reader("aten.split_with_sizes.default[]", "aten.split.sizes[]")
def split_with_sizes(call: Call) -> Meaning:
    """Pieces of the lengths listed."""
    lengths = call.get("split_sizes") or call.get("split_size")
    if not all(isinstance(length, int) for length in lengths):
        raise NotAffine("its lengths vary", notable=False)
    return _piece(call, sum(lengths[: call.get("item")]))


@reader("aten.chunk.default[]")
def chunk(call: Call) -> Meaning:
    """Some number of pieces of equal length, the last one shorter; fewer where there is too little."""
    value = call.value("self")
    axis = value.axis(call.get("dim"))
    length = -(-_length(value, axis) // call.get("chunks"))
    return _piece(call, call.get("item") * length)


@reader("aten.unbind.int[]")
def unbind(call: Call) -> Meaning:
    """One position of an axis, which goes."""
    value = call.value("self")
    gone = value.axis(call.get("dim"))
    index = call.get("item") % _length(value, gone)
    return Move(value, lambda layout: layout.selected(gone, index), cuts=True)


@reader("aten.select.int")
def select(call: Call) -> Meaning:
    """One position of an axis, which goes."""
    value = call.value("self")
    gone = value.axis(call.get("dim"))
    index = call.get("index")
    if not isinstance(index, int):
        raise NotAffine("its place varies", notable=False)
    index %= _length(value, gone)
    return Move(value, lambda layout: layout.selected(gone, index), cuts=True, alone=True)


def _piece(call: Call, first: int) -> Move:
    value = call.value("self")
    axis = value.axis(call.get("dim"))
    _length(value, axis)
    length = call.result.shape[axis]
    return Move(value, lambda layout: layout.cut(axis, first, length), cuts=True)


def _length(value: Value, axis: int) -> int:
    length = value.sizes[axis]
    if not isinstance(length, int):
        raise NotAffine("it cuts an axis whose length varies", notable=False)
    return length
