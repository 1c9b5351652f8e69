"""Sums and differences of values, and +, -, ·, / by constants.

A constant may be one number, or vary along exactly one axis of the tensor, which is then its channel
axis: (C, 1, 1) next to a feature map, (C,) next to the input of a linear layer. A product of two values
is not affine; nor is a sum in which one value is broadcast.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reparamkit.algebra import AffineMap, Inexact, Map, Numbers, Scalar, ScalarMap, affine, geometry
from reparamkit.operators.base import Affine, Call, Constant, Meaning, NotAffine, Term, Value, reader, scalar

Literal = Constant | float


@reader("aten.add.Tensor", "aten.add.Scalar")
def add(call: Call) -> Meaning:
    """self + alpha · other."""
    return _sum(call, _operand(call, "self"), 1.0, _operand(call, "other"), _number(call, "alpha"))


@reader("aten.sub.Tensor", "aten.sub.Scalar")
def sub(call: Call) -> Meaning:
    """self - alpha · other."""
    return _sum(call, _operand(call, "self"), 1.0, _operand(call, "other"), -_number(call, "alpha"))


@reader("aten.rsub.Scalar", "aten.rsub.Tensor")
def rsub(call: Call) -> Meaning:
    """other - alpha · self."""
    return _sum(call, _operand(call, "self"), -_number(call, "alpha"), _operand(call, "other"), 1.0)


@reader("aten.mul.Tensor", "aten.mul.Scalar")
def mul(call: Call) -> Meaning:
    """A value by a constant."""
    left, right = _operand(call, "self"), _operand(call, "other")
    if isinstance(left, Value) and isinstance(right, Value):
        raise NotAffine("it multiplies two values that both depend on the network's input")
    if isinstance(left, Value):
        return _scaled(call, left, right, reciprocal=False)  # type: ignore[arg-type]
    return _scaled(call, right, left, reciprocal=False)  # type: ignore[arg-type]


@reader("aten.div.Tensor", "aten.div.Scalar")
def div(call: Call) -> Meaning:
    """A value by a constant; not a constant by a value."""
    left, right = _operand(call, "self"), _operand(call, "other")
    if isinstance(right, Value):
        raise NotAffine("it divides by a value that depends on the network's input")
    assert isinstance(left, Value)
    return _scaled(call, left, right, reciprocal=True)


@reader("aten.addcmul.default")
def addcmul(call: Call) -> Meaning:
    """self + value · tensor1 · tensor2, where the product is of a value and a constant."""
    added, left, right = (_operand(call, name) for name in ("self", "tensor1", "tensor2"))
    if isinstance(left, Value) == isinstance(right, Value):
        raise NotAffine("it multiplies two values that both depend on the network's input")
    factor, scaled = (right, left) if isinstance(left, Value) else (left, right)
    assert isinstance(scaled, Value)
    product = _one_term(_scaled(call, scaled, factor, reciprocal=False))  # type: ignore[arg-type]
    product = _followed(product, Term(scaled, Scalar(), lambda: ScalarMap(_number(call, "value"))))
    if isinstance(added, Value):
        if added.sizes != call.result.sizes:
            raise NotAffine(f"the sum broadcasts {list(added.sizes)} against {list(call.result.sizes)}")
        return Affine((_term(added, 1.0), product))
    shift = _one_term(_shifted(call, scaled, 1.0, added, 1.0))
    return Affine((_followed(product, shift),))


def _one_term(meaning: Meaning) -> Term:
    assert isinstance(meaning, Affine)
    (term,) = meaning.terms
    return term


def _followed(first: Term, second: Term) -> Term:
    """Two maps of a value, one behind the other, as one."""
    try:
        structure = geometry.compose(second.structure, first.structure)
    except Inexact as reason:
        raise NotAffine(str(reason)) from reason
    return Term(first.value, structure, lambda: affine.compose(second.load(), first.load()))


@reader("aten.neg.default")
def neg(call: Call) -> Meaning:
    """-x."""
    return scalar(call.value("self"), lambda: ScalarMap(-1.0))


def _operand(call: Call, name: str) -> Value | Literal:
    given = call.get(name)
    if isinstance(given, Value | Constant):
        return given
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise NotAffine(f"its operand {name!r} is not a plain number")
    return float(given)


def _number(call: Call, name: str) -> float:
    given = call.get(name, 1)
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise NotAffine(f"its {name!r} is not a plain number")
    return float(given)


def _sum(call: Call, left: Value | Literal, alpha: float, right: Value | Literal, beta: float) -> Meaning:
    if isinstance(left, Value) and isinstance(right, Value):
        if left.sizes != right.sizes:
            raise NotAffine(f"the sum broadcasts {list(left.sizes)} against {list(right.sizes)}")
        return Affine((_term(left, alpha), _term(right, beta)))
    if isinstance(left, Value):
        return _shifted(call, left, alpha, right, beta)  # type: ignore[arg-type]
    assert isinstance(right, Value)
    return _shifted(call, right, beta, left, alpha)


def _term(value: Value, factor: float) -> Term:
    return Term(value, Scalar(identity=factor == 1.0), lambda: ScalarMap(factor))


def _shifted(call: Call, value: Value, alpha: float, shift: Literal, beta: float) -> Meaning:
    if isinstance(shift, float):
        offset = beta * shift
        structure = Scalar(has_bias=offset != 0.0, identity=alpha == 1.0 and offset == 0.0)
        return Affine((Term(value, structure, lambda: ScalarMap(alpha, offset)),))
    if shift.zero and value.sizes == call.result.sizes:
        return Affine((_term(value, alpha),))

    def per_channel(b: Tensor, dims: int) -> AffineMap:
        return affine.channelwise(torch.full_like(b, alpha), beta * b, dims)

    return _broadcast(call, value, shift, lambda b: ScalarMap(alpha, beta * b), per_channel, has_bias=True)


def _scaled(call: Call, value: Value, factor: Literal, *, reciprocal: bool) -> Meaning:
    if call.get("rounding_mode") is not None:
        raise NotAffine("the division rounds")
    if isinstance(factor, float):
        if reciprocal and factor == 0.0:
            raise NotAffine("it divides by zero")
        number = 1.0 / factor if reciprocal else factor
        return Affine((Term(value, Scalar(identity=number == 1.0), lambda: ScalarMap(number)),))

    def per_channel(a: Tensor, dims: int) -> AffineMap:
        return affine.channelwise(1.0 / a if reciprocal else a, None, dims)

    def everywhere(a: float) -> ScalarMap:
        return ScalarMap(1.0 / a if reciprocal else a)

    return _broadcast(call, value, factor, everywhere, per_channel, has_bias=False)


def _broadcast(
    call: Call,
    value: Value,
    constant: Constant,
    everywhere: Callable[[float], ScalarMap],
    per_channel: Callable[[Tensor, int], AffineMap],
    *,
    has_bias: bool,
) -> Meaning:
    """The map of `value` with `constant`, by the axis along which the constant varies."""
    if value.sizes != call.result.sizes:
        raise NotAffine(f"the constant of shape {list(constant.shape)} broadcasts the value")
    aligned = (1,) * (value.ndim - len(constant.shape)) + constant.shape
    varying = [axis for axis, size in enumerate(aligned) if size != 1]
    if len(varying) > 1:
        raise NotAffine(f"the constant of shape {list(constant.shape)} varies along more than one axis")
    structure: Map
    load: Callable[[], Numbers]
    if not varying:
        structure = Scalar(has_bias=has_bias)
        load = lambda: everywhere(float(constant.load()))  # noqa: E731
    else:
        if varying[0] not in (1, value.ndim - 1) or varying[0] == 0 < value.ndim - 1:
            raise NotAffine(
                f"the constant of shape {list(constant.shape)} varies along an axis that is not the channels'"
            )
        dims = value.ndim - 1 - varying[0]
        if dims > 3:
            raise NotAffine("the constant varies along an axis that is followed by more than three others")
        if not isinstance(value.sizes[varying[0]], int):
            raise NotAffine("the constant varies along an axis whose size may vary")
        structure = geometry.channelwise(aligned[varying[0]], dims, has_bias=has_bias)
        load = lambda: per_channel(constant.load().flatten(), dims)  # noqa: E731
    return Affine((Term(value, structure, load),))
