"""Where the windows of a convolution and of its branches lie.

A branch whose kernel is the part [start, start + size) of the convolution's reads the same values if its
padding is

    low − δ·start        before, and        high − δ·(kernel − start − size)        after

on each axis, δ the dilation, where a negative padding crops. Its outputs are then as many, at any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """A box of taps of a kernel: on each axis `size` of them from `start` on."""

    start: Sizes
    size: Sizes

    def taps(self) -> tuple[slice, ...]:
        return tuple(slice(a, a + n) for a, n in zip(self.start, self.size, strict=True))


@dataclass(frozen=True)
class Geometry:
    """A convolution's kernel, stride, dilation and padding (`low` before, `high` after), for each axis.

    The padding is that by zeros: what another padding mode adds is part of the value that is read.
    """

    kernel: Sizes
    stride: Sizes
    dilation: Sizes
    low: Sizes
    high: Sizes

    @property
    def axes(self) -> int:
        return len(self.kernel)

    def whole(self) -> Part:
        return Part((0,) * self.axes, self.kernel)

    def centred(self, size: Sequence[int]) -> Part:
        """The part of that size in the middle; an even rest has one tap more behind than before."""
        start = ((k - n) // 2 for k, n in zip(self.kernel, size, strict=True))
        return Part(tuple(start), tuple(size))

    def padding(self, part: Part) -> tuple[Sizes, Sizes]:
        """What a branch with this part of the kernel has to pad (negative: crop) before and after."""
        axes = zip(self.low, self.high, self.kernel, self.dilation, part.start, part.size, strict=True)
        pairs = [(low - d * a, high - d * (k - a - n)) for low, high, k, d, a, n in axes]
        return tuple(low for low, _ in pairs), tuple(high for _, high in pairs)


def geometry_of(conv: Conv) -> tuple[Geometry, nn.Module | None]:
    """A convolution's geometry, and what it does to the border first where it does not pad by zeros."""
    pads: list[int] = list(conv._reversed_padding_repeated_twice)
    low, high = tuple(pads[0::2][::-1]), tuple(pads[1::2][::-1])
    border = None
    if conv.padding_mode != "zeros":
        if any(pads):
            border = Border(pads, conv.padding_mode)
        low = high = (0,) * len(low)
    kernel, stride, dilation = (tuple(map(int, v)) for v in (conv.kernel_size, conv.stride, conv.dilation))
    return Geometry(kernel, stride, dilation, low, high), border


class Border(nn.Module):
    """Pads (negative: crops) a feature map (N, C, *spatial) as `torch.nn.functional.pad` does.

    Args:
        pads: before and after, the last axis first.
        mode: zeros, reflect, replicate or circular.
    """

    def __init__(self, pads: Sequence[int], mode: str = "zeros") -> None:
        super().__init__()
        self.pads = list(pads)
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.pads, "constant" if self.mode == "zeros" else self.mode)

    def extra_repr(self) -> str:
        return f"{self.pads}, {self.mode!r}"


def zero_border(low: Sequence[int], high: Sequence[int]) -> Border | None:
    """The layer that pads by zeros, or crops; None where there is nothing to do."""
    pads = [n for pair in zip(reversed(low), reversed(high), strict=True) for n in pair]
    return Border(pads) if any(pads) else None
