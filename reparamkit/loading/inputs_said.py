"""What a network says of its own input, and what to propose where it says nothing.

timm's networks carry a `pretrained_cfg`, those of transformers a `config`, ultralytics' the arguments that
they were trained with. The channels of a stem are no more than a proposal: they leave the size open.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def image(channels: int, height: int, width: int) -> tuple[Tensor]:
    """An example (1, channels, height, width): zero-mean normal values, the same each time."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return (torch.randn(1, channels, height, width, generator=generator, device="cpu"),)


def said(model: Any) -> tuple[tuple[Tensor] | None, str]:
    """An example of what a network says that it takes, and where it says so; (None, "") where it does not."""
    for read in (_of_timm, _of_transformers, _of_ultralytics):
        shape, where = read(model)
        if shape is not None and all(0 < size < 1 << 14 for size in shape):
            return image(*shape), where
    return None, ""


Shape = tuple[int, int, int] | None


def _of_timm(model: Any) -> tuple[Shape, str]:
    for name in ("pretrained_cfg", "default_cfg"):
        told = getattr(model, name, None)
        size = told.get("input_size") if isinstance(told, Mapping) else None
        if size is None or not _are_sizes(size, 3):
            continue
        assert isinstance(told, Mapping)
        channels, height, width = size
        first = told.get("first_conv")
        stem = _part(model, first[0] if isinstance(first, (list, tuple)) and first else first)
        if isinstance(getattr(stem, "in_channels", None), int):
            channels = stem.in_channels  # built for others than it was released for
        patches = getattr(getattr(model, "patch_embed", None), "img_size", None)
        if patches is not None and _are_sizes(patches, 2):
            height, width = patches
        return (channels, height, width), f"its {name}"
    return None, ""


def _of_transformers(model: Any) -> tuple[Shape, str]:
    if not takes_images(model):
        return None, ""
    config = model.config
    own = getattr(config, "vision_config", config)
    size, channels = getattr(own, "image_size", None), getattr(own, "num_channels", 3)
    if isinstance(size, int):
        size = (size, size)
    if size is None or not _are_sizes(size, 2) or not isinstance(channels, int):
        return None, ""
    return (channels, *size), "its config"


def takes_images(model: Any) -> bool:
    """Whether a network of transformers' takes images and nothing else has to be given."""
    if getattr(model, "config", None) is None or getattr(model, "main_input_name", None) != "pixel_values":
        return False
    return required_inputs(model) in ([], ["pixel_values"])


def _of_ultralytics(model: Any) -> tuple[Shape, str]:
    arguments, layout = getattr(model, "args", None), getattr(model, "yaml", None)
    if isinstance(arguments, Mapping):
        side = arguments.get("imgsz")
    else:
        side = getattr(arguments, "imgsz", None)
    if not isinstance(layout, Mapping) or not isinstance(side, int):
        return None, ""
    channels = layout.get("channels") or layout.get("ch") or 3
    return ((channels, side, side), "the imgsz of its training") if isinstance(channels, int) else (None, "")


def _are_sizes(value: Any, count: int) -> bool:
    return (
        isinstance(value, (list, tuple)) and len(value) == count and all(type(size) is int for size in value)
    )


def _part(model: Any, path: Any) -> Any:
    try:
        return model.get_submodule(path) if isinstance(path, str) else None
    except AttributeError:
        return None


def required_inputs(model: Any) -> list[str]:
    """The names of what a forward has to be given."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one.name for one in parameters if one.kind in plain and one.default is one.empty]


def proposal(model: Any) -> str:
    """What to say to somebody who has given no inputs: options that may fit, by the first layer."""
    first = first_layer(model)
    shape = shape_for(first) or "1x3x224x224"
    names = required_inputs(model) if hasattr(model, "forward") else []
    if len(names) > 1:
        return f"give --input for each of {', '.join(names)}, for instance --input {names[0]}:{shape}"
    because = f" (its first layer is {_described(first)})" if first is not None else ""
    return f"give --input, for instance --input {shape}{because}"


def first_layer(model: Any) -> nn.Module | None:
    """The first layer that says which shape it takes; None where there is none."""
    return next((part for part in _layers(model) if shape_for(part)), None)


def _layers(model: Any) -> list[nn.Module]:
    from torch import nn

    return (
        [part for part in model.modules() if not list(part.children())]
        if isinstance(model, nn.Module)
        else []
    )


def shape_for(part: nn.Module | None) -> str:
    """An input for a layer, as `--input` takes it; empty where it does not say."""
    from torch import nn

    if isinstance(part, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        sizes = {1: "x128", 2: "x224x224", 3: "x16x112x112"}[len(part.kernel_size)]
        return f"1x{part.in_channels}{sizes}"
    if isinstance(part, nn.Linear):
        return f"1x{part.in_features}"
    if isinstance(part, nn.Embedding):
        return f"1x16:int64:0..{part.num_embeddings - 1}"
    if isinstance(part, (nn.RNN, nn.LSTM, nn.GRU)):
        return f"1x16x{part.input_size}"
    return ""


def _described(part: nn.Module) -> str:
    return " ".join(str(part).split())[:80]
