"""What goes through a network's convolutions, and through the batch norms of the blocks that replace them.

Over everything that reaches a batch norm, channel by channel:  mean and variance (with n, not n − 1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from reparamkit.training.expand.block import ExpandedConv, norms
from reparamkit.training.expand.exact import Array
from reparamkit.training.expand.layers import Norm, set_statistics

_FUNCTIONS = {F.conv1d: "conv1d", F.conv2d: "conv2d", F.conv3d: "conv3d"}


@dataclass
class Moments:
    """Count, mean and sum of squared deviations, by channel, of all values so far."""

    count: int = 0
    mean: Array = field(default_factory=lambda: np.zeros(()))
    squares: Array = field(default_factory=lambda: np.zeros(()))

    def add(self, values: Tensor) -> None:
        """Take in a feature map (N, C, *spatial)."""
        channels = values.detach().double().transpose(0, 1).flatten(1)
        count = channels.shape[1]
        if not count:
            return
        mean = channels.mean(1)
        squares = (channels - mean[:, None]).square().sum(1)
        ours, theirs = self.count, count
        self.count += count
        shift = mean.cpu().numpy() - self.mean
        self.mean = self.mean + shift * (theirs / self.count)
        self.squares = self.squares + squares.cpu().numpy() + shift**2 * (ours * theirs / self.count)


@dataclass
class Observed:
    """What reached one convolution, and the norms of the block that is to replace it."""

    block: ExpandedConv
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    outputs: list[tuple[int, ...]] = field(default_factory=list)
    moments: dict[nn.Module, Moments] = field(default_factory=dict)

    def see(self, x: Tensor, output: Tensor) -> None:
        """Run the block on what the convolution was given, and note what goes through its norms."""
        self.shapes.append(tuple(x.shape))
        self.outputs.append(tuple(output.shape))
        if x.ndim != len(self.block.kernel_size) + 2 or not x.numel():
            return
        was_training = self.block.training
        self.block.eval()
        with ExitStack() as hooks, torch.no_grad():
            for each in norms(self.block):
                hooks.callback(each.register_forward_pre_hook(self._note).remove)
            self.block(x.to(next(self.block.parameters()).dtype))
        self.block.train(was_training)

    def _note(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self.moments.setdefault(module, Moments()).add(args[0])

    def settle(self) -> None:
        """Give each norm the statistics of what went through it. Raises NotRepresentable."""
        for each, moments in self.moments.items():
            assert isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
            batch_norm: Norm = each
            set_statistics(batch_norm, moments.mean, moments.squares / moments.count)

    def obstacle(self) -> str | None:
        """Why the convolution is not to be replaced, after what was seen; None if it is."""
        axes = len(self.block.kernel_size)
        if not self.shapes:
            return "the network does not call it on the example"
        if any(len(shape) != axes + 2 for shape in self.shapes):
            return "it is called without a batch axis, which batch norms need"
        pixels = max(math.prod(shape[2:]) for shape in self.shapes)
        if pixels == 1 and math.prod(self.block.kernel_size) == 1:
            return "it reads one pixel of each channel, as a linear layer: norms would have the batch alone"
        if min(shape[0] * math.prod(shape[2:]) for shape in self.outputs) < 2:
            return "it gives one value for each channel on the example: give a larger batch or larger inputs"
        return None


class FunctionalConvolutions(TorchFunctionMode):
    """While this is on: which modules convolve without being a convolution (path -> functions), and whether
    convolutions do."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.at: dict[str, list[str]] = {}
        self.by_modules = False
        self._inside: list[tuple[str, nn.Module]] = [("", model)]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        path, module = self._inside[-1]
        if func in _FUNCTIONS:
            if isinstance(module, _ConvNd | ExpandedConv):
                self.by_modules = True
            else:
                self.at.setdefault(path, []).append(_FUNCTIONS[func])
        return func(*args, **(kwargs or {}))

    def watch(self, path: str, module: nn.Module) -> list[Any]:
        """Know when this module runs. Returns hooks to remove."""

        def enter(*_: Any) -> None:
            self._inside.append((path, module))

        def leave(*_: Any) -> None:
            self._inside.pop()

        return [
            module.register_forward_pre_hook(enter, prepend=True),
            module.register_forward_hook(leave, always_call=True),
        ]


@contextmanager
def watched(model: nn.Module, blocks: dict[str, Observed]) -> Iterator[FunctionalConvolutions]:
    """While this is open, calls of the named convolutions are shown to what observes them."""

    def show(observed: Observed) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            value = args[0] if args else kwargs["input"]
            observed.see(value, output)

        return hook

    functional = FunctionalConvolutions(model)
    with ExitStack() as hooks:
        for name, observed in blocks.items():
            handle = model.get_submodule(name).register_forward_hook(
                show(observed), prepend=True, with_kwargs=True
            )
            hooks.callback(handle.remove)
        for path, module in model.named_modules():
            if path and not isinstance(module, torch.jit.ScriptModule):
                for handle in functional.watch(path, module):
                    hooks.callback(handle.remove)
        with functional:
            yield functional
