"""Norms. Batch norm with running statistics is a scale and a shift per channel:

    a = γ / sqrt(σ² + ε)        y = a·x + (β - a·μ)

Norms by the statistics of their own input are not affine, but end in one:

    y = γ·norm(x) + β
"""

from __future__ import annotations

import torch

from reparamkit.algebra import AffineMap, affine, geometry
from reparamkit.operators.base import (
    Affine,
    Call,
    Meaning,
    NotAffine,
    Part,
    Rescaled,
    reader,
    spatial_axes,
)


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
        shift = (
            mean.load() * -scale if bias is None else torch.addcmul(bias.load(), mean.load(), scale, value=-1)
        )
        return affine.channelwise(scale, shift, dims)

    return Affine((Part(value, geometry.channelwise(channels, dims, has_bias=True), load),))


@reader("aten.layer_norm.default", "aten.rms_norm.default")
def layer_norm(call: Call) -> Meaning:
    """The norm over the last axes; its weight and bias vary along them."""
    if len(call.get("normalized_shape")) != 1:
        raise NotAffine("its weight varies along more than one axis", notable=False)
    return _rescaled(call, dims=0)


@reader("aten.group_norm.default", "aten.instance_norm.default")
def group_norm(call: Call) -> Meaning:
    """The norm over groups of channels, or each channel, of (N, C, *spatial)."""
    if call.target.startswith("aten.instance_norm") and not call.get("use_input_stats", True):
        raise NotAffine("the instance norm uses running statistics", notable=False)
    if call.get("running_mean") is not None:
        raise NotAffine("the instance norm updates running statistics", notable=False)
    return _rescaled(call, dims=spatial_axes(call.value("input")))


def _rescaled(call: Call, *, dims: int) -> Rescaled:
    value = call.value("input")
    weight, bias = call.optional("weight", "weight"), call.optional("bias", "bias")
    given = weight or bias
    if given is None:
        raise NotAffine("it normalises by the statistics of its input", notable=False)

    def load() -> AffineMap:
        shift = None if bias is None else bias.load()
        scale = torch.ones_like(bias.load()) if weight is None and bias is not None else weight.load()  # type: ignore[union-attr]
        return affine.channelwise(scale, shift, dims)

    structure = geometry.channelwise(given.shape[0], dims, has_bias=bias is not None)
    return Rescaled(value, structure, load, ("weight", "bias"))
