"""Products of matrices.

    linear   x · transposed weight + bias, weight (out, in)
    matmul   x · y over the last two axes, the others broadcast as in NumPy; transpose_x and transpose_y swap
             the last two axes of an operand that has two
    einsum   of two operands, by its equation; axes of length 1 broadcast
    scaled_dot_product_attention  softmax(query · transposed key / sqrt(E) + mask) · value, E the length of
                                  query's
             last axis; a boolean mask lets through where it is true

Source: coremltools/converters/mil/mil/ops/defs/iOS15/linear.py and iOS18/transformers.py; from iOS 17 on
constant operands may have types of their own.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from reparamkit.mil.operators.base import Call, operator


@operator("linear", "x weight bias")
def linear(call: Call) -> torch.Tensor:
    return F.linear(call.tensor("x"), call.tensor("weight"), call.optional("bias"))


@operator("matmul", "x y transpose_x transpose_y")
def matmul(call: Call) -> torch.Tensor:
    x, y = call.tensor("x"), call.tensor("y")
    if call.flag("transpose_x", False) and x.dim() > 1:
        x = x.transpose(-1, -2)
    if call.flag("transpose_y", False) and y.dim() > 1:
        y = y.transpose(-1, -2)
    return torch.matmul(x, y)


@operator("einsum", "values equation")
def einsum(call: Call) -> torch.Tensor:
    return torch.einsum(call.text("equation").replace(" ", ""), *call.tensors("values"))


@operator("scaled_dot_product_attention", "query key value attn_mask")
def attention(call: Call) -> torch.Tensor:
    query, key = call.tensor("query"), call.tensor("key")
    scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(query.shape[-1])
    mask = call.optional("attn_mask")
    if mask is not None and mask.dtype is torch.bool:
        scores = scores.masked_fill(~mask, -math.inf)
    elif mask is not None:
        scores = scores + mask
    return torch.matmul(torch.softmax(scores, -1), call.tensor("value"))
