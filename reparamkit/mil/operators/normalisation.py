"""Normalisations.

    batch_norm     gamma·(x - mean) / sqrt(variance + epsilon) + beta, for each channel (axis 1), epsilon 1e-5
    instance_norm  the same with mean and variance of each sample's channel over the spatial axes, epsilon
                   1e-5
    layer_norm     the same over `axes` (all), gamma and beta of the shape of these axes, epsilon 1e-5
    l2_norm        x / sqrt(sum of x² over the last three axes + epsilon), epsilon 1e-6
    local_response_norm  x / (k + alpha / size · sum of x² over `size` neighbouring channels)^beta, alpha
                         1e-4,
                   beta 0.75, k 1. Of an even number of neighbours one more lies before the channel, as in
                   PyTorch

Variances are divided by the number of elements. Source: coremltools/converters/mil/mil/ops/defs/iOS15/
normalization.py; from iOS 17 on the parameters may have types of their own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from reparamkit.mil.operators.base import Call, CannotEvaluate, axis_of, operator


@operator("batch_norm", "x mean variance gamma beta epsilon")
def batch_norm(call: Call) -> torch.Tensor:
    return F.batch_norm(
        call.tensor("x"),
        call.tensor("mean"),
        call.tensor("variance"),
        call.optional("gamma"),
        call.optional("beta"),
        eps=call.number("epsilon", 1e-5),
    )


@operator("instance_norm", "x gamma beta epsilon")
def instance_norm(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    if x.dim() < 3:
        raise CannotEvaluate(f"has an input with {x.dim()} axes")
    return _normalised(call, x, list(range(2, x.dim())), (x.shape[1], *[1] * (x.dim() - 2)))


@operator("layer_norm", "x axes gamma beta epsilon")
def layer_norm(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    axes = sorted({axis_of(axis, x.dim()) for axis in call.integers("axes", range(x.dim()))})
    return _normalised(call, x, axes, tuple(size if axis in axes else 1 for axis, size in enumerate(x.shape)))


@operator("l2_norm", "x epsilon")
def l2_norm(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    if x.dim() < 3:
        raise CannotEvaluate(f"has an input with {x.dim()} axes")
    total = x.square().sum((-3, -2, -1), keepdim=True)
    return x / torch.sqrt(total + call.number("epsilon", 1e-6))


@operator("local_response_norm", "x size alpha beta k")
def local_response_norm(call: Call) -> torch.Tensor:
    return F.local_response_norm(
        call.tensor("x"),
        call.integer("size"),
        call.number("alpha", 1e-4),
        call.number("beta", 0.75),
        call.number("k", 1.0),
    )


def _normalised(call: Call, x: torch.Tensor, axes: list[int], shape: tuple[int, ...]) -> torch.Tensor:
    """x with mean 0 and variance 1 over the axes, times gamma plus beta, which get the given shape."""
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    y = (x - mean) * torch.rsqrt(variance + call.number("epsilon", 1e-5))
    gamma, beta = call.optional("gamma"), call.optional("beta")
    if gamma is not None:
        y = y * gamma.reshape(shape)
    return y if beta is None else y + beta.reshape(shape)
