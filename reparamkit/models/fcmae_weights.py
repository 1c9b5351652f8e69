"""Weights of the sparse FCMAE on dense modules, and from there into the classifier that is fine-tuned.

The original pre-trains with MinkowskiEngine, whose tensors have other names and shapes:

    sparse                                  dense
    kernel (k·k, in, out)                   weight (out, in, k, k)
    kernel (k·k, C), depthwise              weight (C, 1, k, k)
    bias (1, C)                             bias (C)
    norm.ln.weight, pwconv1.linear.weight   norm.weight, pwconv1.weight
    grn.gamma (1, C)                        grn.gamma (1, 1, 1, C)

where the first spatial axis runs fastest in `k·k`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn

from reparamkit.loading.weights import fit_state_dict
from reparamkit.models.convnextv2 import ConvNeXtV2


def dense_from_sparse(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of the original FCMAE (or of its encoder alone) with our names and shapes.

    Entries that are dense already pass unchanged.
    """
    converted = {}
    for key, value in state.items():
        name = key.replace(".ln.", ".").replace(".linear.", ".")
        if name.endswith(".kernel"):
            name, value = name.removesuffix("kernel") + "weight", _dense_kernel(value)
        elif name.endswith((".grn.gamma", ".grn.beta")):
            value = value.reshape(1, 1, 1, -1)
        elif name.endswith(".bias"):
            value = value.reshape(-1)
        converted[name] = value
    return converted


def encoder_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What an FCMAE of weights `state`, sparse or dense, has for `ConvNeXtV2`, under the latter's names."""
    prefix = "encoder."
    return {
        key.removeprefix(prefix): value
        for key, value in dense_from_sparse(state).items()
        if key.startswith(prefix)
    }


def transfer(state: Mapping[str, Tensor], model: ConvNeXtV2) -> ConvNeXtV2:
    """Put the pre-trained encoder of `state` (sparse or dense) into `model`, to be fine-tuned; return it.

    The final norm is left as it is. The classifier starts near 0, with deviation 2e-5 and no bias, as the
    original's fine-tuning does. Raises UnusableInput when the encoder is that of another variant; `model` is
    then unchanged.
    """
    own = {key: value for key, value in model.state_dict().items() if key.startswith(("norm.", "head."))}
    fit_state_dict(model, {**encoder_weights(state), **own})
    nn.init.trunc_normal_(model.head.weight, std=2e-5)
    nn.init.zeros_(model.head.bias)
    return model


def _dense_kernel(kernel: Tensor) -> Tensor:
    side = math.isqrt(kernel.shape[0])
    inputs_last = kernel[:, None, :] if kernel.ndim == 2 else kernel
    weight = inputs_last.permute(2, 1, 0)
    return weight.reshape(*weight.shape[:2], side, side).transpose(2, 3).contiguous()
