"""Linear layers: maps without spatial axes, on the last axis of the tensor; matrices over other axes.

y = W x + b        W: (outputs, inputs)
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from reparamkit.algebra import AffineMap, affine, geometry
from reparamkit.operators import contractions
from reparamkit.operators.base import (
    Affine,
    Call,
    Constant,
    Meaning,
    NotAffine,
    Term,
    Value,
    channel_count,
    reader,
)

_NO_MATRIX = "its equation is not that of one matrix over one axis"
_TWO = "it multiplies two values that both depend on the network's input"


@reader("aten.linear.default")
def linear(call: Call) -> Meaning:
    """x Wᵀ + b."""
    weight = call.constant("weight", "weight")
    return _map(call.value("input"), weight, weight.load, call.optional("bias", "bias"), transposed=False)


@reader("aten.matmul.default", "aten.mm.default", "aten.bmm.default")
def matmul(call: Call) -> Meaning:
    """x W with a constant matrix W (inputs, outputs), or W x with one of (outputs, inputs)."""
    left = call.get("self")
    right = call.get("other") if "other" in call.arguments else call.get("mat2")
    if isinstance(left, Value) and isinstance(right, Constant):
        if _in_groups(right):
            return contractions.product(left, right, constant_first=False)
        weight, rows = _matrix(right, left)
        return _map(left, weight, lambda: rows().t().contiguous(), None, transposed=True)
    if isinstance(left, Constant) and isinstance(right, Value):
        if _in_groups(left):
            return contractions.product(right, left, constant_first=True)
        weight, rows = _matrix(left, right)
        return _along(right, right.ndim - 2, weight.shape[1], weight.shape[0], rows)
    raise NotAffine("its right-hand matrix depends on the network's input")


@reader("aten.baddbmm.default")
def baddbmm(call: Call) -> Meaning:
    """A product of two values, or of matrices that differ from sample to sample, and something added."""
    constant = any(isinstance(call.get(name), Constant) for name in ("batch1", "batch2"))
    raise NotAffine("its matrices differ from sample to sample" if constant else _TWO)


@reader("aten.einsum.default")
def einsum(call: Call) -> Meaning:
    """A value by a constant: a matrix over one axis, or a factor along one."""
    tensors = call.get("tensors")
    values = [t for t in tensors if isinstance(t, Value)]
    constants = [t for t in tensors if isinstance(t, Constant)]
    if len(values) != 1 or len(constants) != 1:
        raise NotAffine(_TWO if len(values) == 2 else "it is no product of a value and a constant")
    (value,), (constant,) = values, constants
    terms, told, result = call.get("equation").replace(" ", "").partition("->")
    first, second = terms.split(",")
    mine, other = (first, second) if tensors[0] is value else (second, first)
    rest = "".join(chr(ord("0") + i) for i in range(value.ndim - len(mine) + 3))
    mine, result = mine.replace("...", rest), result.replace("...", rest)
    if not told or len(mine) != value.ndim or len(other) != len(constant.shape):
        raise NotAffine(_NO_MATRIX)
    shared, new = [x for x in other if x in mine], [x for x in other if x not in mine]
    if len(shared) != 1 or len({*mine}) < len(mine) or len({*other}) < len(other):
        return contractions.by_constant(value, constant, mine, other, result)
    axis = mine.index(shared[0])
    dims, inputs = value.ndim - 1 - axis, value.shape[axis]
    if inputs != constant.shape[other.index(shared[0])]:
        raise NotAffine(_NO_MATRIX)
    if result != mine.replace(shared[0], new[0] if new else shared[0]):
        return contractions.by_constant(value, constant, mine, other, result)
    if not new and axis in (1, value.ndim - 1) and dims <= 3:
        structure = geometry.channelwise(channel_count(value, dims), dims, has_bias=False)
        return Affine((Term(value, structure, lambda: affine.channelwise(constant.load(), None, dims)),))
    if len(new) != 1 or (dims and (value.ndim != dims + 2 or dims > 3)):
        return contractions.by_constant(value, constant, mine, other, result)

    def rows() -> Tensor:
        return constant.load() if other[0] == new[0] else constant.load().t().contiguous()

    return _along(value, axis, inputs, constant.shape[other.index(new[0])], rows)


@reader("aten.addmm.default")
def addmm(call: Call) -> Meaning:
    """b + x W."""
    if call.get("alpha", 1) != 1 or call.get("beta", 1) != 1:
        raise NotAffine("it scales its operands (alpha, beta)")
    weight, bias = call.constant("mat2", "matrix"), call.constant("self", "bias")
    if len(bias.shape) != 1 or bias.shape[0] != weight.shape[1]:
        raise NotAffine("its bias is not a vector over the outputs")
    return _map(call.value("mat1"), weight, lambda: weight.load().t().contiguous(), bias, transposed=True)


def _map(
    value: Value,
    weight: Constant,
    load_weight: Callable[[], Tensor],
    bias: Constant | None,
    *,
    transposed: bool,
) -> Affine:
    if len(weight.shape) != 2:
        raise NotAffine("its weight is not a matrix")
    outputs, inputs = reversed(weight.shape) if transposed else weight.shape
    structure = geometry.pointwise(inputs, outputs, 1, 0, has_bias=bias is not None)
    return Affine(
        (Term(value, structure, lambda: AffineMap(structure, load_weight(), bias.load() if bias else None)),)
    )


def _along(value: Value, axis: int, inputs: int, outputs: int, rows: Callable[[], Tensor]) -> Affine:
    """A matrix (outputs, inputs) over any axis."""
    dims = value.ndim - 1 - axis
    if dims and (value.ndim != dims + 2 or dims > 3):
        raise NotAffine("its matrix acts along an axis that is not the channels'")
    structure = geometry.pointwise(inputs, outputs, 1, dims, has_bias=False)

    def load() -> AffineMap:
        return AffineMap(structure, rows().reshape(outputs, inputs, *structure.window), None)

    return Affine((Term(value, structure, load),))


def _in_groups(constant: Constant) -> bool:
    return any(n != 1 for n in constant.shape[:-2])


def _matrix(constant: Constant, beside: Value) -> tuple[Constant, Callable[[], Tensor]]:
    """A constant matrix, the same for every sample, and its numbers."""
    if len(constant.shape) < 2:
        raise NotAffine("its constant is not a matrix")
    if len(constant.shape) > beside.ndim:
        raise NotAffine("its constant broadcasts the value")
    shape = constant.shape[-2:]
    return Constant(shape, constant.load), lambda: constant.load().reshape(shape)
