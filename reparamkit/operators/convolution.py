"""Convolutions with zero padding.

    y[o, i] = b[o] + Σ_c,t K[o, c, t] · x[c, s·i - p + δ·t]

`padding="same"` pads δ·(k - 1) in all, the odd one on the far side (as torch does).
"""

from __future__ import annotations

from reparamkit.algebra import AffineMap, geometry
from reparamkit.operators.base import Affine, Call, Meaning, Term, reader
from reparamkit.operators.transposed import conv_transpose


@reader("aten.conv1d.default", "aten.conv2d.default", "aten.conv3d.default", "aten.convolution.default")
def conv(call: Call) -> Meaning:
    """Integer padding, the same on both sides."""
    if call.get("transposed", False):
        return conv_transpose(call)
    dims = len(call.constant("weight", "weight").shape) - 2
    padding = call.ints("padding", dims, 0)
    return _conv(call, padding, padding)


@reader("aten.conv1d.padding", "aten.conv2d.padding", "aten.conv3d.padding")
def conv_with_named_padding(call: Call) -> Meaning:
    """`padding="same"` or `"valid"`."""
    window = call.constant("weight", "weight").shape[2:]
    if call.get("padding", "valid") == "valid":
        zeros = (0,) * len(window)
        return _conv(call, zeros, zeros)
    dilation = call.ints("dilation", len(window), 1)
    total = [d * (w - 1) for d, w in zip(dilation, window, strict=True)]
    near = tuple(t // 2 for t in total)
    return _conv(call, near, tuple(t - n for t, n in zip(total, near, strict=True)))


def _conv(call: Call, near: tuple[int, ...], far: tuple[int, ...]) -> Affine:
    value = call.value("input")
    weight, bias = call.constant("weight", "weight"), call.optional("bias", "bias")
    dims = len(weight.shape) - 2
    groups = call.get("groups", 1)
    structure = geometry.convolution(
        inputs=weight.shape[1] * groups,
        outputs=weight.shape[0],
        groups=groups,
        window=tuple(weight.shape[2:]),
        stride=call.ints("stride", dims, 1),
        dilation=call.ints("dilation", dims, 1),
        near=near,
        far=far,
        has_bias=bias is not None,
    )
    return Affine(
        (Term(value, structure, lambda: AffineMap(structure, weight.load(), bias.load() if bias else None)),)
    )
