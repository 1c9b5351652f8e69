"""Runs an `.onnx` file under ONNX Runtime, on the CPU."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from reparamkit.errors import MissingExtra, UnusableInput
from reparamkit.runners.base import ExactSums, InputSpec, NamedTensors, least_precise, match_inputs
from reparamkit.runners.onnx_apart import ApartSession, may_abort
from reparamkit.runners.onnx_sums import with_exact_sums
from reparamkit.runners.onnx_weights import Weights, jittered, without_weights
from reparamkit.support.inputs import tensor_leaves
from reparamkit.support.memory import give_back
from reparamkit.support.text import one_line

if TYPE_CHECKING:
    import onnx

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

_QUANTISED = ("QLinear", "QuantizeLinear", "DequantizeLinear", "DynamicQuantize", "ConvInteger")
_ALSO_QUANTISED = ("MatMulInteger", "MatMulNBits", "QGemm", "QAttention", "QMoE")
_ERRORS_ONLY = 3


class OnnxRuntimeRunner:
    """An ONNX file, opened once.

    Args:
        path: the file.
        model: what to run in place of the file's content.
        weights: inputs of it that are always the same.

    Raises:
        MissingExtra: onnxruntime is not installed.
        UnusableInput: ONNX Runtime cannot open the file.
    """

    name = "ONNX Runtime"
    structured = False

    def __init__(
        self, path: Path, model: onnx.ModelProto | None = None, weights: Weights | None = None
    ) -> None:
        require_onnxruntime()
        try:
            self._session = session_of(str(path) if model is None else model.SerializeToString())
        except Exception as error:
            raise UnusableInput(f"ONNX Runtime cannot open {path}: {one_line(error)}") from error
        give_back()
        self.path = path
        self._apart = _apart(path, model)
        self._weights = weights or {}
        self.declared = [
            _spec(entry) for entry in self._session.get_inputs() if entry.name not in self._weights
        ]
        self.output_names = [entry.name for entry in self._session.get_outputs()]

    def jittered(self, seed: int) -> OnnxRuntimeRunner:
        """The same network with every floating-point weight off by a few ulp.

        Raises:
            Exception: whatever reading or changing the file raises.
        """
        return OnnxRuntimeRunner(self.path, *jittered(*without_weights(self.path), seed))

    def with_exact_sums(self) -> ExactSums | None:
        """The same network with its sums over axes taken in float64; None where it has none.

        Raises:
            Exception: whatever reading or changing the file raises.
        """
        model, weights = without_weights(self.path)
        changed, left = with_exact_sums(model)
        if not changed and not left:
            return None
        return ExactSums(OnnxRuntimeRunner(self.path, model, weights), complete=not left)

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NamedTensors:
        """Outputs under the file's own names.

        A tensor goes to the input that bears its keyword, the others to the remaining inputs in order.

        Raises:
            UnusableInput: the file takes another number of tensors, or tensors of another dtype.
        """
        matched = match_inputs(self.declared, tensor_leaves(args, kwargs), self.path.name)
        fed = {name: _array(tensor) for name, tensor in matched.items()}
        session = self._apart or self._session
        values = session.run(self.output_names, {**fed, **self._weights})
        return [
            (name, torch.from_numpy(np.asarray(value)))
            for name, value in zip(self.output_names, values, strict=True)
        ]

    @cached_property
    def precision(self) -> str:
        """The least precise type among weights, casts, inputs and outputs; "int8" if quantised."""
        ports = [*self._session.get_inputs(), *self._session.get_outputs()]
        dtypes = {dtype for entry in ports if (dtype := _DTYPES.get(entry.type)) is not None}
        try:
            import onnx

            model, weights = _outline(self.path)
        except Exception:  # it runs, and that is what counts
            return least_precise(dtypes)
        nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
        if any(node.op_type.startswith(_QUANTISED) or node.op_type in _ALSO_QUANTISED for node in nodes):
            return "int8"
        numbers = {tensor.data_type for tensor in model.graph.initializer}
        numbers |= {onnx.TensorProto.FLOAT} if weights else set()
        for node in nodes:
            numbers |= {entry.i for entry in node.attribute if node.op_type == "Cast" and entry.name == "to"}
        named = {
            onnx.TensorProto.FLOAT16: torch.float16,
            onnx.TensorProto.BFLOAT16: torch.bfloat16,
            onnx.TensorProto.FLOAT: torch.float32,
            onnx.TensorProto.DOUBLE: torch.float64,
        }
        return least_precise(dtypes | {named[number] for number in numbers if number in named})


def require_onnxruntime() -> Any:
    """The package.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise MissingExtra("onnxruntime", "onnx", "running an ONNX file") from None
    return onnxruntime


def session_of(model: str | bytes) -> Any:
    """A session of ONNX Runtime for a file, or for a model that is serialised."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    return onnxruntime.InferenceSession(model, sess_options=options, providers=["CPUExecutionProvider"])


def _apart(path: Path, model: onnx.ModelProto | None) -> ApartSession | None:
    """A process for a file that may end the one that it runs in; None for any other."""
    try:
        outline = _outline(path)[0] if model is None else model
    except Exception:  # it was opened, and what cannot be read otherwise has none of these operators
        return None
    if not may_abort(outline):
        return None
    return ApartSession(str(path), b"" if model is None else model.SerializeToString())


def _outline(path: Path) -> tuple[onnx.ModelProto, Weights]:
    """A file's content without its large weights, which are not read."""
    import onnx

    try:
        return without_weights(path, read=False)
    except ValueError:
        return onnx.load(path, load_external_data=False), {}


def _spec(entry: Any) -> InputSpec:
    shape = None
    if entry.shape is not None:
        # A size without a name is free by itself.
        shape = tuple(
            size if isinstance(size, int) else size or f"{entry.name}[{axis}]"
            for axis, size in enumerate(entry.shape)
        )
    return InputSpec(entry.name, shape, _DTYPES.get(entry.type))


def _array(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    if tensor.dtype is torch.bfloat16:
        raise UnusableInput(
            "ONNX Runtime takes no bfloat16 from Python, so a bfloat16 network cannot be verified with it"
        )
    return tensor.detach().cpu().contiguous().numpy()
