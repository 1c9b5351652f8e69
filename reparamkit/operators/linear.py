"""Linear layers: maps without spatial axes, on the last axis of the tensor.

y = W x + b        W: (outputs, inputs)
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from reparamkit.algebra import AffineMap, geometry
from reparamkit.operators.base import Affine, Call, Constant, Meaning, NotAffine, Part, Value, reader


@reader("aten.linear.default")
def linear(call: Call) -> Meaning:
    """x Wᵀ + b."""
    weight = call.constant("weight", "weight")
    return _map(call.value("input"), weight, weight.load, call.optional("bias", "bias"), transposed=False)


@reader("aten.matmul.default", "aten.mm.default")
def matmul(call: Call) -> Meaning:
    """x W with a constant matrix W (inputs, outputs) on the right."""
    other = "other" if "other" in call.arguments else "mat2"
    weight = call.constant(other, "right-hand matrix")
    value = call.value("self")
    if len(weight.shape) != 2:
        raise NotAffine("its right-hand side is not a matrix")
    return _map(value, weight, lambda: weight.load().t().contiguous(), None, transposed=True)


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
        (Part(value, structure, lambda: AffineMap(structure, load_weight(), bias.load() if bias else None)),)
    )
