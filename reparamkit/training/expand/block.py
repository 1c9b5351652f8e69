"""The module that stands in a convolution's place: the sum of branches, and the convolution's own bias."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from reparamkit.training.expand.geometry import Conv

_OF_A_CONVOLUTION = frozenset(
    ("weight", "transposed", "output_padding", "_reversed_padding_repeated_twice", "_conv_forward")
)


class ExpandedConv(nn.Module):
    """A convolution in its training-time form: y = Σ branch(x) + bias, (N, C, *spatial) -> (N, C', *spatial).

    The branches are children under the names that the kind's authors gave them; several of one kind are in a
    list. `border`, where there is one, pads for all of them.

    Attributes:
        kind: repvgg, mobileone, dbb, acb or replk.
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode: those of the
            convolution that was replaced.
    """

    border: nn.Module | None
    bias: nn.Parameter | None

    def __init__(
        self, conv: Conv, kind: str, branches: Mapping[str, nn.Module], border: nn.Module | None
    ) -> None:
        super().__init__()
        self.kind = kind
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        self.kernel_size, self.stride, self.padding = conv.kernel_size, conv.stride, conv.padding
        self.dilation, self.groups, self.padding_mode = conv.dilation, conv.groups, conv.padding_mode
        self.border = border
        for name, branch in branches.items():
            self.add_module(name, branch)
        bias = conv.bias
        held = None if bias is None else nn.Parameter(bias.detach().clone(), bias.requires_grad)
        self.register_parameter("bias", held)
        self.train(conv.training)

    def branches(self) -> Iterator[tuple[str, nn.Module]]:
        """Each branch with its name."""
        for name, child in self.named_children():
            if isinstance(child, nn.ModuleList):
                yield from ((f"{name}.{number}", branch) for number, branch in enumerate(child))
            elif name != "border":
                yield name, child

    def forward(self, input: Tensor) -> Tensor:  # the name by which convolutions take it
        x = input if self.border is None else self.border(input)
        total: Tensor | None = None
        for _, branch in self.branches():
            out = branch(x)
            total = out if total is None else total + out
        assert total is not None
        if self.bias is not None:
            total = total + self.bias.view(-1, *(1,) * len(self.kernel_size))
        return total

    def get_extra_state(self) -> Tensor:
        """The ε of the norms, in float64: it goes with their statistics, and belongs in the state dict."""
        return torch.tensor([norm.eps for norm in norms(self)], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        for norm, epsilon in zip(norms(self), state.tolist(), strict=True):
            norm.eps = epsilon

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name not in _OF_A_CONVOLUTION:
                raise
            raise AttributeError(
                f"a convolution that was expanded into branches ({self.kind}) has no {name!r} of its own: "
                "call the module, or fold the network first",
                name=name,
                obj=self,
            ) from None

    def extra_repr(self) -> str:
        return f"{self.kind}: {described(self)}"


def described(conv: Any) -> str:
    """A convolution in a few words: "Conv2d 64 -> 64, 3x3, stride 2"."""
    window = "x".join(map(str, conv.kernel_size))
    kind = "ConvTranspose" if getattr(conv, "transposed", False) else "Conv"
    words = [f"{kind}{len(conv.kernel_size)}d {conv.in_channels} -> {conv.out_channels}", window]
    words += [f"stride {_once(conv.stride)}"] if max(conv.stride) > 1 else []
    words += [f"dilation {_once(conv.dilation)}"] if max(conv.dilation) > 1 else []
    words += [f"groups {conv.groups}"] if conv.groups > 1 else []
    words += [f"{conv.padding_mode} padding"] if conv.padding_mode != "zeros" else []
    return ", ".join(words)


def _once(sizes: tuple[int, ...]) -> str:
    return str(sizes[0]) if len(set(sizes)) == 1 else "x".join(map(str, sizes))


def norms(module: nn.Module) -> list[_BatchNorm]:
    """The batch norms in the branches of a block."""
    return [part for part in module.modules() if isinstance(part, _BatchNorm)]
