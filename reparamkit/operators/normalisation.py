"""Batch norm with running statistics, which is a scale and a shift per channel.

    a = γ / sqrt(σ² + ε)        y = a·x + (β - a·μ)

Batch norm that uses the statistics of the batch itself is not affine in its input.
"""

from __future__ import annotations

import torch

from reparamkit.algebra import AffineMap, affine, geometry
from reparamkit.operators.base import Affine, Call, Meaning, NotAffine, Part, reader, spatial_axes


@reader("aten.batch_norm.default")
def batch_norm(call: Call) -> Meaning:
    """(N, C, *spatial) with running mean and variance (C,)."""
    value = call.value("input")
    if call.get("training", False):
        if call.get("running_mean") is None:
            raise NotAffine(
                "the batch norm keeps no running statistics, so it normalises by the statistics of each batch"
            )
        raise NotAffine("the batch norm is in training mode: call model.eval() before folding")
    if call.get("running_mean") is None or call.get("running_var") is None:
        raise NotAffine("the batch norm keeps no running statistics")
    mean = call.constant("running_mean", "running mean")
    var = call.constant("running_var", "running variance")
    weight, bias = call.optional("weight", "weight"), call.optional("bias", "bias")
    eps, dims, channels = float(call.get("eps", 1e-5)), spatial_axes(value), value.shape[1]

    def load() -> AffineMap:
        scale = torch.rsqrt(var.load() + eps)
        if weight is not None:
            scale = scale * weight.load()
        shift = -mean.load() * scale
        if bias is not None:
            shift = shift + bias.load()
        return affine.channelwise(scale, shift, dims)

    return Affine((Part(value, geometry.channelwise(channels, dims, has_bias=True), load),))
