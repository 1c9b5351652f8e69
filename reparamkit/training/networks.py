"""The network that is trained: by name, with its head, its rate of stochastic depth, its first weights."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import reparamkit as rk
from reparamkit import models
from reparamkit.errors import UnusableInput
from reparamkit.loading.addresses import looks_like_code
from reparamkit.loading.arguments import parse_arguments
from reparamkit.loading.construct import is_address
from reparamkit.loading.libraries.importing import imported
from reparamkit.loading.registry import scheme_of
from reparamkit.loading.safetensors_weights import read_shards
from reparamkit.loading.weights import fit_state_dict, read_state_dict
from reparamkit.models import families
from reparamkit.models.convnextv2 import ConvNeXtV2
from reparamkit.models.fcmae_weights import transfer
from reparamkit.support.text import one_line

_TIMM = "timm:"
_LAYER_SCALE = re.compile(r"(^|\.)(layer_scale(_\d+)?(\.gamma)?|ls\d*\.gamma|gamma(_\d+)?)$")
_GRN = re.compile(r"(^|\.)grn\.gamma$")


@dataclass(frozen=True)
class Network:
    """A network as training starts with it.

    Attributes:
        module: in training mode, with its published initialisation.
        input_size: side in pixels of the square images it is made for; None where it does not say.
        notes: what was done to it that was not asked for.
    """

    module: nn.Module
    input_size: int | None
    notes: tuple[str, ...] = ()


def open_network(
    name: str,
    num_classes: int,
    *,
    drop_path: float | None = None,
    layer_scale: float | None = None,
    arguments: str | None = None,
) -> Network:
    """Build the network `name` for `num_classes` classes.

    Args:
        name: a reference model's, ``timm:NAME`` (or a timm name that is no reference model's), or whatever
            else `reparamkit.load` takes that is no file: ``torchvision:NAME``, ``module:callable``.
        num_classes: the number of logits; a network from a callable that has another gets a new last layer.
        drop_path: rate of stochastic depth of the last block; None for what the builder has.
        layer_scale: start value of the scales of residual branches; None for what the builder has.
        arguments: for the builder, as text: "act='relu'".

    Raises:
        UnusableInput: there is no such network, or it has no such option.
        MissingExtra: timm is needed and is not installed.
    """
    given = parse_arguments(arguments)
    if "num_classes" in given:
        raise UnusableInput(f"--model-args {arguments}: the number of classes is that of the data")
    if name.startswith(_TIMM):
        network = _from_timm(name.removeprefix(_TIMM), num_classes, drop_path, given)
    elif scheme_of(name) or is_address(name) or looks_like_code(name):
        network = _from_callable(name, num_classes, drop_path, given)
    else:
        network = _from_name(name, num_classes, drop_path, given)
    if layer_scale is not None:
        set_layer_scale(network.module, layer_scale)
    network.module.train()
    return network


def set_layer_scale(module: nn.Module, value: float) -> None:
    """Give every scale of a residual branch the value (section 3.2 of arXiv:2103.17239).

    Raises UnusableInput where the network has none.
    """
    scales = [
        parameter
        for name, parameter in module.named_parameters()
        if _LAYER_SCALE.search(name) and not _GRN.search(name)
    ]
    if not scales:
        raise UnusableInput(f"layer_scale is given, and a {type(module).__name__} has no layer scale")
    with torch.no_grad():
        for scale in scales:
            scale.fill_(value)


def load_weights(module: nn.Module, path: Path, name: str) -> tuple[str, ...]:
    """Put weights into a network that may have another head; the head then keeps its initialisation.

    Args:
        module: the network `name`.
        path: a folder that `train` or `pretrain` wrote, a ``.safetensors`` file, or a file of ``torch.save``.
        name: as `open_network` takes it; a reference model knows other projects' names for its parameters.

    Returns:
        Notes on what was left as it was.

    Raises:
        UnusableInput: the weights are those of another network, or cannot be read; `module` is unchanged.
    """
    state = _stored(path)
    with contextlib.suppress(UnusableInput):  # no reference model
        state = families.resolve(name)[1].renamed(state)
    if isinstance(module, ConvNeXtV2) and any(key.startswith("encoder.") for key in state):
        transfer(state, module)
        return (f"{path}: the encoder of an FCMAE; norm and classifier start anew",)
    own = module.state_dict()
    head = _head_keys(module)
    differing = [key for key in head if key in state and state[key].shape != own[key].shape]
    if differing:
        state = {**state, **{key: own[key] for key in head}}
    try:
        fit_state_dict(module, state)
    except UnusableInput as error:
        raise UnusableInput(f"the weights in {path} are not those of {name}: {error}") from error
    if not differing:
        return ()
    return (f"{path}: its head tells other classes apart; {differing[0].rpartition('.')[0]} starts anew",)


def logits_of(output: Any) -> Tensor:
    """The logits (N, K) of what a classifier returned.

    Raises UnusableInput for anything else.
    """
    if isinstance(output, Tensor) and output.ndim == 2:
        return output
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor) and output[0].ndim == 2:
        return output[0]
    shape = f" of shape {tuple(output.shape)}" if isinstance(output, Tensor) else ""
    raise UnusableInput(
        f"a classifier returns logits (images, classes), this network a {type(output).__name__}{shape}"
    )


def check_classes(module: nn.Module, images: Tensor, num_classes: int, what: str) -> None:
    """Run a network once, in evaluation mode and without a trace, and hold its logits against the classes.

    Raises UnusableInput where they are others, or where it does not run on these images (N, 3, H, W).
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            logits = logits_of(module(images))
    except UnusableInput:
        raise
    except Exception as error:
        text = one_line(error)
        raise UnusableInput(
            f"{what} does not run on images of {'x'.join(map(str, images.shape[1:]))}: {text}"
        ) from error
    finally:
        for part, training in modes:
            part.training = training
    if logits.shape[1] != num_classes:
        raise UnusableInput(f"{what} tells {logits.shape[1]} classes apart and the data has {num_classes}")


def _from_name(name: str, num_classes: int, drop_path: float | None, arguments: dict[str, Any]) -> Network:
    try:
        known = models.info(name)
    except UnusableInput as error:
        if _is_timm_name(name):
            return _from_timm(name, num_classes, drop_path, arguments)
        raise UnusableInput(
            f"{error} (timm's networks are named timm:NAME, your own module:callable)"
        ) from error
    if known.family == "FCMAE":
        raise UnusableInput(
            f"{known.name} classifies nothing; it is trained by reparamkit pretrain "
            f"{known.name.replace('fcmae', 'convnextv2')}"
        )
    options = {} if drop_path is None else {"drop_path_rate": drop_path}
    try:
        module = models.build(name, num_classes=num_classes, **options, **arguments)
    except TypeError as error:
        if arguments:
            raise UnusableInput(f"--model-args: {known.name} does not take them: {error}") from error
        raise UnusableInput(f"drop_path is given, and {known.name} has no stochastic depth") from error
    return Network(module, known.input_shape[-1])


def _from_timm(name: str, num_classes: int, drop_path: float | None, arguments: dict[str, Any]) -> Network:
    timm = timm_package()
    if not timm.is_model(name):
        import difflib

        close = difflib.get_close_matches(name, timm.list_models(), n=4)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise UnusableInput(f"timm has no network {name!r}{hint}")
    options = {} if drop_path is None else {"drop_path_rate": drop_path}
    try:
        module: nn.Module = timm.create_model(name, num_classes=num_classes, **options, **arguments)
    except TypeError as error:
        if arguments:
            raise UnusableInput(f"--model-args: timm's {name} does not take them: {error}") from error
        raise UnusableInput(f"timm's {name} takes no drop_path: {error}") from error
    return Network(module, int(module.default_cfg["input_size"][-1]))  # type: ignore[index]


def _from_callable(
    name: str, num_classes: int, drop_path: float | None, arguments: dict[str, Any]
) -> Network:
    if drop_path is not None:
        raise UnusableInput(f"drop_path is given, and {name} is yours: set it there")
    module = rk.load(name, model_args=arguments).model
    if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise UnusableInput(f"{name} is a {type(module).__name__}; what is trained is a torch.nn.Module")
    return with_classes(module, num_classes, name)


def with_classes(module: nn.Module, num_classes: int, name: str) -> Network:
    """A network of which nothing is known, with `num_classes` logits: its last linear layer may be new."""
    path, head = _last_linear(module)
    if head is None or head.out_features == num_classes:
        return Network(module, None)
    fresh = nn.Linear(head.in_features, num_classes, head.bias is not None)
    module.set_submodule(path, fresh)
    note = (
        f"{name}: its last layer {path} told {head.out_features} classes apart; a new one has {num_classes}"
    )
    return Network(module, None, (note,))


def _last_linear(module: nn.Module) -> tuple[str, nn.Linear | None]:
    layers = [(path, part) for path, part in module.named_modules() if isinstance(part, nn.Linear) and path]
    return layers[-1] if layers else ("", None)


def _head_keys(module: nn.Module) -> list[str]:
    path, head = _last_linear(module)
    return [] if head is None else [f"{path}.{name}" for name, _ in head.named_parameters()]


def _stored(path: Path) -> dict[str, Tensor]:
    if path.is_dir():
        from reparamkit.training.checkpoint import open_checkpoint

        return open_checkpoint(path).weights()
    if not path.exists():
        raise UnusableInput(f"there are no weights at {path}")
    if path.suffix == ".safetensors":
        return read_shards([path])
    return read_state_dict(path)


def _is_timm_name(name: str) -> bool:
    try:
        return bool(timm_package().is_model(name))
    except UnusableInput:
        return False


def timm_package() -> Any:
    """The module timm. Raises MissingExtra where it is not installed, UnusableInput where it is broken."""
    return imported("timm", "a network of timm's")
