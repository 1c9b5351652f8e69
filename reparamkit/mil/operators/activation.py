"""Activations, element by element.

    relu  max(x, 0)                        relu6  min(max(x, 0), 6)
    leaky_relu  x if x >= 0 else alpha·x   prelu  the same with an alpha for each channel, axis 1
    clamped_relu  min(beta, leaky_relu)    thresholded_relu  x if x >= alpha else 0
    elu  x if x > 0 else alpha·(exp(x) - 1)
    gelu  EXACT x·(1 + erf(x / sqrt 2)) / 2; TANH_APPROXIMATION x·(1 + tanh(sqrt(2 / pi)·(x + 0.044715·x^3)))
          / 2; SIGMOID_APPROXIMATION x·sigmoid(1.702·x)
    sigmoid  1 / (1 + exp(-x))             silu  x·sigmoid(x)
    sigmoid_hard  min(max(alpha·x + beta, 0), 1)
    softplus  log(1 + exp(x))              softplus_parametric  alpha·log(1 + exp(beta·x)), for each channel
    softsign  x / (1 + |x|)                scaled_tanh  alpha·tanh(beta·x)
    linear_activation  alpha·x + beta      softmax  exp(x) / sum of exp(x) along `axis` (-1)

Source: coremltools/converters/mil/mil/ops/defs/iOS15/activation.py; from iOS 17 on alpha and beta may have
types of their own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from reparamkit.mil.operators.base import Call, CannotEvaluate, operator


@operator("relu", "x")
def relu(call: Call) -> torch.Tensor:
    return F.relu(call.tensor("x"))


@operator("relu6", "x")
def relu6(call: Call) -> torch.Tensor:
    return call.tensor("x").clamp(0.0, 6.0)


@operator("leaky_relu", "x alpha")
def leaky_relu(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    return torch.where(x >= 0, x, call.tensor("alpha") * x)


@operator("prelu", "x alpha")
def prelu(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    return torch.where(x > 0, x, _per_channel(call.tensor("alpha"), x) * x)


@operator("clamped_relu", "x alpha beta")
def clamped_relu(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    return torch.minimum(torch.where(x >= 0, x, call.tensor("alpha") * x), call.tensor("beta"))


@operator("thresholded_relu", "x alpha")
def thresholded_relu(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    return torch.where(x >= call.tensor("alpha"), x, torch.zeros_like(x))


@operator("elu", "x alpha")
def elu(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    # The branch that is not taken must not overflow: its gradient would be NaN.
    return torch.where(x > 0, x, call.tensor("alpha") * torch.expm1(x.clamp(max=0.0)))


@operator("gelu", "x mode")
def gelu(call: Call) -> torch.Tensor:
    x, mode = call.tensor("x"), call.text("mode", "EXACT")
    if mode == "EXACT":
        return F.gelu(x)
    if mode == "TANH_APPROXIMATION":
        return F.gelu(x, approximate="tanh")
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    raise CannotEvaluate(f"has the unknown mode {mode!r}")


@operator("sigmoid", "x")
def sigmoid(call: Call) -> torch.Tensor:
    return torch.sigmoid(call.tensor("x"))


@operator("silu", "x")
def silu(call: Call) -> torch.Tensor:
    return F.silu(call.tensor("x"))


@operator("sigmoid_hard", "x alpha beta")
def sigmoid_hard(call: Call) -> torch.Tensor:
    return (call.tensor("alpha") * call.tensor("x") + call.tensor("beta")).clamp(0.0, 1.0)


@operator("softplus", "x")
def softplus(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    return torch.logaddexp(x, torch.zeros_like(x))


@operator("softplus_parametric", "x alpha beta")
def softplus_parametric(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    scaled = _per_channel(call.tensor("beta"), x) * x
    return _per_channel(call.tensor("alpha"), x) * torch.logaddexp(scaled, torch.zeros_like(scaled))


@operator("softsign", "x")
def softsign(call: Call) -> torch.Tensor:
    return F.softsign(call.tensor("x"))


@operator("scaled_tanh", "x alpha beta")
def scaled_tanh(call: Call) -> torch.Tensor:
    return call.tensor("alpha") * torch.tanh(call.tensor("beta") * call.tensor("x"))


@operator("linear_activation", "x alpha beta")
def linear_activation(call: Call) -> torch.Tensor:
    return call.tensor("alpha") * call.tensor("x") + call.tensor("beta")


@operator("softmax", "x axis")
def softmax(call: Call) -> torch.Tensor:
    return torch.softmax(call.tensor("x"), call.integer("axis", -1))


def _per_channel(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    if x.dim() < 3 or values.dim() != 1 or values.shape[0] != x.shape[1]:
        raise CannotEvaluate(f"has {values.numel()} values for the channels of a {tuple(x.shape)}")
    return values.reshape(-1, *[1] * (x.dim() - 2))
