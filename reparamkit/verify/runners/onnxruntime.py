"""Runs an `.onnx` file under ONNX Runtime, on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from reparamkit.errors import MissingExtra, UnusableInput
from reparamkit.inputs import tensor_leaves
from reparamkit.verify.runners.base import NamedTensors

_DTYPES = {
    "tensor(float)": torch.float32,
    "tensor(double)": torch.float64,
    "tensor(float16)": torch.float16,
    "tensor(bfloat16)": torch.bfloat16,
    "tensor(int64)": torch.int64,
    "tensor(int32)": torch.int32,
    "tensor(int16)": torch.int16,
    "tensor(int8)": torch.int8,
    "tensor(uint8)": torch.uint8,
    "tensor(bool)": torch.bool,
}

_ERRORS_ONLY = 3


class OnnxRuntimeRunner:
    """An ONNX file, opened once.

    Raises:
        MissingExtra: onnxruntime is not installed.
        UnusableInput: ONNX Runtime cannot open the file.
    """

    name = "ONNX Runtime"
    structured = False

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ModuleNotFoundError:
            raise MissingExtra("onnxruntime", "onnx", "running an ONNX file") from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise UnusableInput(f"ONNX Runtime cannot open {path}: {error}") from error
        self.path = path
        self.inputs = {entry.name: entry for entry in self._session.get_inputs()}
        self.output_names = [entry.name for entry in self._session.get_outputs()]

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NamedTensors:
        """Outputs under the file's own names.

        A tensor goes to the input that bears its keyword, the others to the remaining inputs in order.

        Raises:
            UnusableInput: the file takes another number of tensors, or tensors of another dtype.
        """
        fed = {name: _array(tensor) for name, tensor in self._match(args, kwargs).items()}
        values = self._session.run(self.output_names, fed)
        return [
            (name, torch.from_numpy(np.asarray(value)))
            for name, value in zip(self.output_names, values, strict=True)
        ]

    def _match(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, torch.Tensor]:
        leaves = tensor_leaves(args, kwargs)
        if len(leaves) != len(self.inputs):
            raise UnusableInput(
                f"{self.path.name} takes {len(self.inputs)} inputs ({', '.join(self.inputs)}), "
                f"the reference takes {len(leaves)} tensors"
            )
        matched = {name: tensor for name, tensor in leaves if name in self.inputs}
        unnamed = (tensor for name, tensor in leaves if name not in self.inputs)
        for name in self.inputs:
            if name not in matched:
                matched[name] = next(unnamed)
        for name, tensor in matched.items():
            wanted = _DTYPES.get(self.inputs[name].type)
            if wanted is not None and wanted is not tensor.dtype:
                raise UnusableInput(
                    f"input {name!r} of {self.path.name} is {wanted}, the reference takes {tensor.dtype}"
                )
        return matched


def _array(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    if tensor.dtype is torch.bfloat16:
        raise UnusableInput(
            "ONNX Runtime takes no bfloat16 from Python, so a bfloat16 network cannot be verified with it"
        )
    return tensor.detach().cpu().contiguous().numpy()
