"""Runs an OpenVINO IR (an `.xml` with its `.bin`) under OpenVINO, on the CPU, computing in float32."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reparamkit.errors import MissingExtra, UnusableInput
from reparamkit.runners.base import InputSpec, NamedTensors, least_precise, match_inputs
from reparamkit.support.inputs import tensor_leaves
from reparamkit.support.text import one_line

_DTYPES = {
    "f64": torch.float64,
    "f32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "i64": torch.int64,
    "i32": torch.int32,
    "i16": torch.int16,
    "i8": torch.int8,
    "u8": torch.uint8,
    "boolean": torch.bool,
}
_QUANTISED_WEIGHTS = ("i4", "u4", "i8", "u8", "nf4")


class OpenVinoRunner:
    """An IR, compiled once. Without the hint, OpenVINO would compute in bfloat16 where the processor can.

    Raises:
        MissingExtra: openvino is not installed.
        UnusableInput: OpenVINO cannot read or compile the file.
    """

    name = "OpenVINO"
    structured = False

    def __init__(self, path: Path) -> None:
        require_openvino()
        try:
            core = the_core()
            model = core.read_model(str(path))
            self._compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        except Exception as error:
            raise UnusableInput(f"OpenVINO cannot open {path}: {one_line(error)}") from error
        self.path = path
        self.declared = [_spec(place, port) for place, port in enumerate(model.inputs)]
        self.output_names = [_name(port, f"output_{place}") for place, port in enumerate(model.outputs)]
        self.precision = _least_precise(model)

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NamedTensors:
        """Outputs under the file's own names; inputs are matched as `match_inputs` does.

        Raises:
            UnusableInput: the file takes another number of tensors, or tensors of another dtype.
        """
        matched = match_inputs(self.declared, tensor_leaves(args, kwargs), self.path.name)
        # By place: two inputs may have no name at all.
        fed = {
            place: tensor.detach().cpu().contiguous().numpy() for place, tensor in enumerate(matched.values())
        }
        outputs = self._compiled(fed)
        return [
            (name, torch.from_numpy(np.asarray(outputs[place])))
            for place, name in enumerate(self.output_names)
        ]


@cache
def the_core() -> Any:
    """OpenVINO's core, the one of the process, which stays.

    Its plugin for processors registers a stack for signals and takes it along when the last core goes. Where
    that happens on another thread, the next signal that Python handles (Ctrl-C, the end of a data loader's
    worker) would be a crash.

    Raises:
        MissingExtra: OpenVINO is not installed.
    """
    return require_openvino().Core()


def require_openvino() -> Any:
    """The package.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import openvino
    except ModuleNotFoundError:
        raise MissingExtra("openvino", "openvino", "running an OpenVINO IR") from None
    return openvino


def _spec(place: int, port: Any) -> InputSpec:
    name = _name(port, f"input_{place}")
    partial = port.get_partial_shape()
    shape = None
    if partial.rank.is_static:
        shape = tuple(
            size.get_length() if size.is_static else f"{name}[{axis}]" for axis, size in enumerate(partial)
        )
    return InputSpec(name, shape, _DTYPES.get(port.get_element_type().get_type_name()))


def _name(port: Any, otherwise: str) -> str:
    names = sorted(port.get_names())
    return names[0] if names else otherwise


def _least_precise(model: Any) -> str:
    dtypes = set()
    for operator in model.get_ops():
        kind = operator.get_type_name()
        if kind == "FakeQuantize":
            return "int8"
        if kind != "Constant":
            continue
        element = operator.get_output_element_type(0).get_type_name()
        if element in _QUANTISED_WEIGHTS and operator.get_output_size() and _is_weight(operator):
            return "int8"
        if element in _DTYPES:
            dtypes.add(_DTYPES[element])
    return least_precise(dtypes)


def _is_weight(constant: Any) -> bool:
    """Whether a constant of small integers is converted to numbers to compute with."""
    shape = constant.get_output_shape(0)
    readers = [target.get_node().get_type_name() for target in constant.output(0).get_target_inputs()]
    return len(shape) > 1 and "Convert" in readers
