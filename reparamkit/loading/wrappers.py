"""What is put around a model: taken off where that leaves the same function, named where it does not."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn
from torch._subclasses import FakeTensor

from reparamkit.errors import UnusableInput
from reparamkit.support.inputs import Args, Kwargs, map_tensors, tensor_leaves, told_apart

# Class -> where the model is. By name: some of them are in packages that are slow to import.
_INNER: dict[str, str] = {
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.optim.swa_utils.AveragedModel": "module",
}
_SHARDED = ("FullyShardedDataParallel", "FSDPModule", "DeepSpeedEngine", "PipelineStage")


def unwrapped(model: nn.Module) -> tuple[nn.Module, list[str]]:
    """The model inside what torch.compile, DataParallel and the like put around it, and notes that say so.

    Raises:
        UnusableInput: its weights lie on several machines, or have no values at all.
    """
    notes: list[str] = []
    while inner := _inner(model):
        kind = type(model).__name__
        outside = "torch.compile" if kind == "OptimizedModule" else kind
        notes.append(f"the model inside {outside} was taken")
        model = getattr(model, inner)
    for path, module in model.named_modules():
        names = {kind.__name__ for kind in type(module).__mro__}
        sharded = next((name for name in _SHARDED if name in names), None)
        if sharded is not None:
            where = f"{path!r} in it is" if path else "it is"
            raise UnusableInput(
                f"the model's weights are spread over several processes ({where} a {sharded}): gather its "
                "full state dict, load that into the plain model, and give that"
            )
    _require_values(model)
    if any(tensor.is_inference() for tensor in [*model.parameters(), *model.buffers()]):
        model = copy.deepcopy(model)  # whose tensors are as others are
        notes.append("the model was made in inference mode; a copy was folded")
    return model, notes


def usable_inputs(args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
    """The same inputs, each a tensor of its own, those of inference mode copies.

    Raises:
        UnusableInput: one has a shape and no values.
    """
    for name, tensor in tensor_leaves(args, kwargs):
        if _is_empty(tensor):
            raise UnusableInput(
                f"the example input {name} has a shape and no values (it is {_lack(tensor)}): give a tensor "
                "with values on the model's device"
            )
    args, kwargs = map_tensors(lambda _, x: x.clone() if x.is_inference() else x, args, kwargs)
    return told_apart(args, kwargs)


def _require_values(model: nn.Module) -> None:
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if nn.parameter.is_lazy(tensor):
            raise UnusableInput(
                f"the model's weight {name!r} has no shape yet: run the model once on an example first"
            )
        if type(tensor).__name__ == "DTensor" or type(tensor.data).__name__ == "DTensor":
            raise UnusableInput(
                f"the model's weight {name!r} is spread over several processes (a DTensor): gather the full "
                "state dict, load that into the plain model, and give that"
            )
        if _is_empty(tensor):
            raise UnusableInput(
                f"the model's weight {name!r} has a shape and no values (it is {_lack(tensor)}): load the "
                "weights first, model.to_empty(device='cpu') and model.load_state_dict(...), or "
                "load_state_dict(..., assign=True)"
            )


def _is_empty(tensor: Tensor) -> bool:
    return tensor.is_meta or isinstance(tensor, FakeTensor)


def _lack(tensor: Tensor) -> str:
    return "a fake tensor" if isinstance(tensor, FakeTensor) else "on the device 'meta'"


def _inner(model: nn.Module) -> str:
    """The name under which a wrapper holds the model that it calls; "" where it is no wrapper."""
    for kind in type(model).__mro__:
        name = _INNER.get(f"{kind.__module__}.{kind.__qualname__}")
        if name is not None:
            own: Any = type(model)
            return name if own.forward is vars(kind).get("forward", own.forward) else ""
    return ""


__all__ = ["unwrapped", "usable_inputs"]
