"""The original and what was made from it, each as something that answers a call."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reparamkit.support.quiet import quiet
from tests.hostile.agreement import leaves
from tests.hostile.sample import Sample, arguments

_SHAKEN = 4


@dataclass
class Answer:
    """What came out, and what the inputs and buffers were afterwards; or the exception."""

    value: Any = None
    inputs: Any = None
    buffers: dict[str, Tensor] | None = None
    error: BaseException | None = None


def ask(module: nn.Module, example: Any, grad: bool = False) -> Answer:
    """Call a module on a copy of the inputs, which may be written to."""
    given = copied(example)
    args, kwargs = arguments(given)
    try:
        with quiet(), torch.enable_grad() if grad else torch.no_grad():
            value = module(*args, **kwargs)
    except Exception as error:
        return Answer(error=error)
    buffers = {name: b.detach().clone() for name, b in module.named_buffers()}
    return Answer(value, leaves(given)[0], buffers)


def copied(example: Any) -> Any:
    """Copies of the tensors, with the same strides."""
    return copy.deepcopy(example)


def ask_original(sample: Sample, example: Any, grad: bool = False, wide: bool = False) -> Answer:
    """A new network from the text each time: nothing that was done to another reaches it."""
    module = sample.text.build(sample.seed)
    if wide:
        return ask(module.double(), widened(example), grad)
    return ask(module.to(sample.dtype), example, grad)


def ask_shaken(sample: Sample, example: Any, grad: bool = False) -> list[Any]:
    """What the original answers where its weights and inputs are off by one rounding, a few times."""
    values = []
    for seed in range(_SHAKEN):
        generator = torch.Generator().manual_seed(seed)
        module, given = sample.text.build(sample.seed).to(sample.dtype), copied(example)
        for tensor in [*module.parameters(), *(t for t in leaves(given)[0] if isinstance(t, Tensor))]:
            if tensor.is_floating_point():  # where it lies, so that offset and strides stay
                signs = torch.randint(0, 2, tensor.shape, generator=generator).mul(2).sub(1)
                tensor.detach().mul_(1 + signs.to(tensor.dtype) * torch.finfo(tensor.dtype).eps)
        answer = ask(module, given, grad)
        values += [answer.value] if answer.error is None else []
    return values


def widened(value: Any) -> Any:
    """The same inputs in float64."""

    def wide(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        # a new leaf, which can be copied although it requires gradients
        return tensor.detach().double().requires_grad_(tensor.requires_grad)

    return mapped(wide, value)


def mapped(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """The same inputs with other tensors."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: mapped(function, part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return type(value)([mapped(function, part) for part in value])
    if hasattr(value, "first"):
        return type(value)(mapped(function, value.first), mapped(function, value.second))
    return value


@contextmanager
def state_kept(module: nn.Module) -> Iterator[None]:
    """Give back to parameters and buffers what they held."""
    held = [(tensor, tensor.detach().clone()) for tensor in [*module.parameters(), *module.buffers()]]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in held:
                if tensor.shape == value.shape:
                    tensor.copy_(value)


def state_of(module: nn.Module) -> dict[str, Any]:
    """Parameters, buffers and plain attributes, as something that can be compared."""
    state: dict[str, Any] = {}
    for path, part in module.named_modules():
        for name, value in [*part._parameters.items(), *part._buffers.items()]:
            if value is not None:
                state[f"{path}.{name}"] = (tuple(value.shape), value.detach().flatten().tolist())
        for name, value in vars(part).items():
            if not name.startswith("_") and not isinstance(value, Tensor):
                state[f"{path}.{name}"] = repr(value)
            elif isinstance(value, Tensor):
                state[f"{path}.{name}"] = (tuple(value.shape), value.detach().flatten().tolist())
    return state


class OnnxFile:
    """A file under ONNX Runtime, called with the tensors in order."""

    def __init__(self, path: Path) -> None:
        import onnx
        import onnxruntime

        from reparamkit.runners.onnx_apart import ApartSession, may_abort

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.names = [given.name for given in session.get_inputs()]
        self.outputs = [given.name for given in session.get_outputs()]
        self.session = ApartSession(str(path)) if may_abort(onnx.load(path)) else session

    def ask(self, example: Any) -> Answer:
        args, kwargs = arguments(example)
        tensors = [leaf for leaf in leaves([*args, *kwargs.values()])[0] if isinstance(leaf, Tensor)]
        names = self.names
        if len(names) != len(tensors):
            return Answer(error=ValueError(f"the file takes {names}, the network {len(tensors)} tensors"))
        try:
            with nullcontext():
                given = {n: t.numpy() for n, t in zip(names, tensors, strict=True)}
                found = self.session.run(self.outputs, given)
        except Exception as error:
            return Answer(error=error)
        return Answer([torch.as_tensor(each) for each in found])
