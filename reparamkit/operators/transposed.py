"""Transposed convolutions.

    y[o, j] = b[o] + Σ K[c, o, t] · x[c, i]        over all c, i, t with s·i - p + δ·t = j

The weight is (inputs, outputs // groups, *window): output o is entry o mod (outputs // groups) of the second
axis, in the rows of its own group. With stride 1 the operator is a convolution with the kernel turned around.
"""

from __future__ import annotations

from reparamkit.algebra import AffineMap, affine, geometry
from reparamkit.algebra.transposed import exchanged, transposed
from reparamkit.operators.base import Affine, Call, Meaning, Term, reader


@reader(
    "aten.conv_transpose1d.default",
    "aten.conv_transpose2d.input",
    "aten.conv_transpose3d.input",
)
def conv_transpose(call: Call) -> Meaning:
    """A given `output_size` has become an `output_padding` by now."""
    value = call.value("input")
    weight, bias = call.constant("weight", "weight"), call.optional("bias", "bias")
    dims, groups = len(weight.shape) - 2, call.get("groups", 1)
    scattering = transposed(
        inputs=weight.shape[0],
        outputs=weight.shape[1] * groups,
        groups=groups,
        window=tuple(weight.shape[2:]),
        stride=call.ints("stride", dims, 1),
        dilation=call.ints("dilation", dims, 1),
        padding=call.ints("padding", dims, 0),
        output_padding=call.ints("output_padding", dims, 0),
        has_bias=bias is not None,
    )
    ordinary = all(s == 1 for s in scattering.stride)

    def load() -> AffineMap:
        kernel = exchanged(weight.load(), groups)
        numbers = AffineMap(scattering, kernel, bias.load() if bias else None)
        return affine.gathered(numbers) if ordinary else numbers

    return Affine((Term(value, geometry.gathered(scattering) if ordinary else scattering, load),))
