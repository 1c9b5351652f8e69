"""What a mutation really does: both networks in float64, on inputs that the checker does not know.

Nothing of the checker is used here. Modules run as torch runs them in float64; ONNX files under the reference
evaluator of the ONNX project, with their weights in float64, and torch's convolutions, because its own takes
minutes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from onnx import ModelProto
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from torch import Generator, Tensor, nn
from torch.nn import functional as F

_SMALL = 4096


def zero_mean_inputs(example: tuple[Tensor, ...], seed: int) -> tuple[Tensor, ...]:
    """A batch of independent normal values, rounded to float32, for a network that takes any batch size.

    It has 64 samples, and 40 where a sample is an image: the checker tries 15 pairs of images, each of them
    of another kind.
    """
    generator = Generator().manual_seed(seed ^ 0x5EED)
    count = 64 if all(values[0].numel() < _SMALL for values in example) else 40
    shapes = [(count, *values.shape[1:]) for values in example]
    drawn = [torch.randn(shape, generator=generator) for shape in shapes]
    return tuple(values.double() for values in drawn)


def run_module(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """All outputs of a module that is float64 already."""
    with torch.no_grad():
        result = module(*inputs)
    outputs = [result] if isinstance(result, Tensor) else list(result)
    assert all(values.dtype is torch.float64 for values in outputs)
    return outputs


def run_onnx(model: ModelProto, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """All outputs of an ONNX model, computed in float64."""
    evaluator = ReferenceEvaluator(model, new_ops=[Conv, Gelu, LayerNormalization])
    evaluator.rt_inits_ = {name: _double(values) for name, values in evaluator.rt_inits_.items()}
    fed = {name: values.numpy() for name, values in zip(evaluator.input_names, inputs, strict=True)}
    with np.errstate(all="ignore"):
        outputs = [torch.from_numpy(np.asarray(values)) for values in evaluator.run(None, fed)]
    assert all(values.dtype is torch.float64 for values in outputs)
    return outputs


def effect(found: list[Tensor], truth: list[Tensor]) -> list[float]:
    """For each output, the largest error relative to the largest magnitude of the truth."""
    assert [values.shape for values in found] == [values.shape for values in truth]
    effects = []
    for values, exact in zip(found, truth, strict=True):
        worst = float((values - exact).abs().max())
        effects.append(worst / float(exact.abs().max()) if math.isfinite(worst) else math.inf)
    return effects


def _double(values: Any) -> Any:
    return values.astype(np.float64) if values.dtype == np.float32 else values


class Conv(OpRun):
    """A convolution by torch, with padding on each side as the file says."""

    op_domain = ""

    def _run(
        self, X: Any, W: Any, B: Any = None, auto_pad: Any = None, dilations: Any = None, group: Any = None,
        kernel_shape: Any = None, pads: Any = None, strides: Any = None,
    ) -> tuple[Any]:  # fmt: skip
        assert auto_pad in (None, "NOTSET")
        axes = W.ndim - 2
        pads = list(pads or [0] * 2 * axes)
        sides = [amount for axis in reversed(range(axes)) for amount in (pads[axis], pads[axis + axes])]
        convolution = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
        result = convolution(
            F.pad(torch.from_numpy(np.ascontiguousarray(X)), sides),
            torch.from_numpy(np.ascontiguousarray(W)),
            None if B is None else torch.from_numpy(np.ascontiguousarray(B)),
            stride=tuple(strides or [1] * axes),
            dilation=tuple(dilations or [1] * axes),
            groups=group or 1,
        )
        return (result.numpy(),)


class Gelu(OpRun):
    """x Φ(x), or its approximation by tanh."""

    op_domain = ""

    def _run(self, X: Any, approximate: Any = None) -> tuple[Any]:
        return (F.gelu(torch.from_numpy(np.ascontiguousarray(X)), approximate=approximate or "none").numpy(),)


class LayerNormalization(OpRun):
    """The layer norm over the last axes, all of it in float64."""

    op_domain = ""

    def _run(
        self, X: Any, Scale: Any, B: Any = None, axis: Any = None, epsilon: Any = None, stash_type: Any = None
    ) -> tuple[Any]:
        shape = X.shape[axis if axis is not None else -1 :]
        values, weight = torch.from_numpy(np.ascontiguousarray(X)), torch.from_numpy(Scale)
        bias = None if B is None else torch.from_numpy(B)
        return (F.layer_norm(values, shape, weight, bias, 1e-5 if epsilon is None else epsilon).numpy(),)
