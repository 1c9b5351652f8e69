"""Modes other than the one in which a network is captured, which nothing in its graph speaks of.

A captured graph holds what the network computes in evaluation mode, without gradients, on contiguous inputs,
outside autocast, with float32 as the default number type. A network may ask for any of these
(`if torch.is_grad_enabled():`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True)
class Mode:
    """A way to call a network.

    Attributes:
        name: as the end of a sentence: "the network runs other operators …".
        inputs: makes the inputs that it is called with.
        gradients: whether they are recorded.
        around: what to enter for a call of this module.
    """

    name: str
    inputs: Callable[[Tensor], Tensor] = lambda tensor: tensor
    gradients: bool = False
    around: Callable[[nn.Module], AbstractContextManager[Any]] = lambda module: nullcontext()


PLAIN = Mode("in evaluation mode")
"""The mode of a capture."""


def other_modes(device: str) -> list[list[Mode]]:
    """All modes that a capture settles without a word, in groups that can be entered together.

    `device` is the type of the network's own.
    """
    return [
        [
            Mode("when gradients are recorded", gradients=True),
            Mode("for inputs that require gradients", _requiring_gradients, gradients=True),
            Mode("for inputs that are a part of larger ones in memory", _at_an_offset),
            Mode("in training mode", around=_training),
            Mode("with float64 as the default number type", around=lambda module: _float64_default()),
        ],
        [Mode("for inputs in channels-last memory", _channels_last)],
        [Mode("for inputs that are not contiguous", _transposed)],
        [Mode("for inputs that are not contiguous", _spread)],
        [Mode("inside autocast", around=lambda module: torch.autocast(device, torch.bfloat16))],
    ]


def together(modes: Sequence[Mode]) -> Mode:
    """All of these modes at once."""

    def inputs(tensor: Tensor) -> Tensor:
        for mode in sorted(modes, key=lambda mode: mode.inputs is _requiring_gradients):
            tensor = mode.inputs(tensor)
        return tensor

    @contextmanager
    def around(module: nn.Module) -> Iterator[None]:
        with ExitStack() as entered:
            for mode in modes:
                entered.enter_context(mode.around(module))
            yield

    name = " and ".join(mode.name for mode in modes)
    return Mode(name, inputs, any(mode.gradients for mode in modes), around)


def _requiring_gradients(tensor: Tensor) -> Tensor:
    return tensor.requires_grad_() if tensor.is_floating_point() else tensor


def _channels_last(tensor: Tensor) -> Tensor:
    memory_format = _CHANNELS_LAST.get(tensor.ndim)
    if memory_format is None:
        return tensor
    # `contiguous` leaves the strides of axes of one as they are
    return torch.empty_like(tensor, memory_format=memory_format).copy_(tensor)


def _transposed(tensor: Tensor) -> Tensor:
    """The same numbers, with the last two axes that are longer than one exchanged in memory."""
    axes = [axis for axis, size in enumerate(tensor.shape) if size > 1][-2:]
    return tensor.transpose(*axes).contiguous().transpose(*axes) if len(axes) == 2 else tensor


def _spread(tensor: Tensor) -> Tensor:
    """The same numbers, every second one in memory."""
    return tensor.repeat_interleave(2, -1)[..., ::2] if tensor.ndim else tensor


def _at_an_offset(tensor: Tensor) -> Tensor:
    """The same numbers, contiguous, not at the start of their memory."""
    flat = tensor.contiguous().flatten()
    return torch.cat([flat[:1], flat])[1:].view(tensor.shape) if flat.numel() else tensor


@contextmanager
def _training(module: nn.Module) -> Iterator[None]:
    """The flag of the network's own modules; torch's layers, which all know it, stay in evaluation mode."""
    own = [part for part in module.modules() if not _is_layer(type(part))]
    flags = [part.training for part in own]
    try:
        for part in own:
            part.training = True
        yield
    finally:
        for part, flag in zip(own, flags, strict=True):
            part.training = flag


def _is_layer(kind: type) -> bool:
    """Whether a class is one of torch's layers, or made from one."""
    plain = (nn.Module, nn.Sequential, nn.ModuleList, nn.ModuleDict)
    return any(base.__module__.startswith("torch.nn.modules.") for base in kind.__mro__ if base not in plain)


@contextmanager
def _float64_default() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
