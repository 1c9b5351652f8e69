"""conv and conv_transpose, over one to three spatial axes.

    conv            y[n, o, i] = bias[o] + sum over c, t of weight[o, c, t] · x[n, c, stride·i + dilation·t -
                    before]
    conv_transpose  its adjoint in x: x[n, c, i] · weight[c, o, t] is added to the full result at
                    stride·i + dilation·t, of which what `pad` names is cut off; weight is (in, out / groups,
                    …)

Channels are split into `groups`. With pad_type "same" the transposed result is stride·n long, cut from the
full one as the padding of a convolution of that length says; with `output_shape` it has that shape, and what
the full result does not reach is zero plus bias.
Source: coremltools/converters/mil/mil/ops/defs/iOS15/conv.py; from iOS 17 on weight and bias may have types
of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from reparamkit.mil.operators.base import Call, CannotEvaluate, operator
from reparamkit.mil.operators.windows import extents, padded, paddings, spatial

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@operator("conv", "x weight bias strides pad_type pad dilations groups")
def conv(call: Call) -> torch.Tensor:
    x, weight = call.tensor("x"), call.tensor("weight")
    rank = _rank(x, weight)
    strides, dilations = spatial(call, "strides", rank), spatial(call, "dilations", rank)
    reach = extents(weight.shape[2:], dilations)
    pads = paddings(call, call.text("pad_type", "valid"), x.shape[2:], reach, strides)
    inside = [0] * rank
    if all(before == after for before, after in pads):
        # Most paddings are even; then no copy of the input is needed.
        inside = [before for before, _ in pads]
    else:
        x = padded(x, pads)
    return _CONV[rank](
        x, weight, call.optional("bias"), strides, inside, dilations, call.integer("groups", 1)
    )


@operator("conv_transpose", "x weight bias pad output_shape pad_type strides dilations groups")
def conv_transpose(call: Call) -> torch.Tensor:
    x, weight = call.tensor("x"), call.tensor("weight")
    rank = _rank(x, weight)
    strides, dilations = spatial(call, "strides", rank), spatial(call, "dilations", rank)
    groups = call.integer("groups", 1)
    kind = call.text("pad_type", "valid")
    if kind not in ("valid", "custom", "same"):
        raise CannotEvaluate(f"has the unknown pad_type {kind!r}")
    full = _TRANSPOSED[rank](x, weight, None, strides, 0, 0, groups, dilations)
    reach = extents(weight.shape[2:], dilations)
    sizes = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
    if call.has("output_shape"):
        sizes = call.integers("output_shape")[2:]
        if len(sizes) != rank:
            raise CannotEvaluate("has an output_shape of another rank")
    pads = paddings(call, kind, sizes, reach, strides)
    if kind != "same" and not call.has("output_shape"):
        sizes = [
            length - before - after for length, (before, after) in zip(full.shape[2:], pads, strict=True)
        ]
    y = _window(full, [before for before, _ in pads], sizes)
    bias = call.optional("bias")
    return y if bias is None else y + bias.reshape(-1, *[1] * rank)


def _window(full: torch.Tensor, starts: Sequence[int], sizes: Sequence[int]) -> torch.Tensor:
    edges = [
        (-start, start + size - length)
        for length, start, size in zip(full.shape[2:], starts, sizes, strict=True)
    ]
    return padded(full, edges)


def _rank(x: torch.Tensor, weight: torch.Tensor) -> int:
    rank = x.dim() - 2
    if rank not in _CONV or weight.dim() != x.dim():
        raise CannotEvaluate(f"has an input with {x.dim()} axes and a weight with {weight.dim()}")
    return rank
