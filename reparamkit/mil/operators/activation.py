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

from reparamkit.mil.operators.base import Call, CannotEvaluate, of_tensors, operator


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


@operator("softmax", "x axis")
def softmax(call: Call) -> torch.Tensor:
    return torch.softmax(call.tensor("x"), call.integer("axis", -1))


def _per_channel(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    if x.dim() < 3 or values.dim() != 1 or values.shape[0] != x.shape[1]:
        raise CannotEvaluate(f"has {values.numel()} values for the channels of a {tuple(x.shape)}")
    return values.reshape(-1, *[1] * (x.dim() - 2))


def _softplus(x: torch.Tensor) -> torch.Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))


of_tensors(
    "x",
    {
        "relu": F.relu,
        "relu6": lambda x: x.clamp(0.0, 6.0),
        "sigmoid": torch.sigmoid,
        "silu": F.silu,
        "softplus": _softplus,
        "softsign": F.softsign,
    },
)
of_tensors(
    "x alpha",
    {
        "leaky_relu": lambda x, alpha: torch.where(x >= 0, x, alpha * x),
        "prelu": lambda x, alpha: torch.where(x > 0, x, _per_channel(alpha, x) * x),
        "thresholded_relu": lambda x, alpha: torch.where(x >= alpha, x, torch.zeros_like(x)),
        # The branch that is not taken must not overflow: its gradient would be NaN.
        "elu": lambda x, alpha: torch.where(x > 0, x, alpha * torch.expm1(x.clamp(max=0.0))),
    },
)
of_tensors(
    "x alpha beta",
    {
        "clamped_relu": lambda x, alpha, beta: torch.minimum(torch.where(x >= 0, x, alpha * x), beta),
        "sigmoid_hard": lambda x, alpha, beta: (alpha * x + beta).clamp(0.0, 1.0),
        "softplus_parametric": lambda x, alpha, beta: (
            _per_channel(alpha, x) * _softplus(_per_channel(beta, x) * x)
        ),
        "scaled_tanh": lambda x, alpha, beta: alpha * torch.tanh(beta * x),
        "linear_activation": lambda x, alpha, beta: alpha * x + beta,
    },
)
