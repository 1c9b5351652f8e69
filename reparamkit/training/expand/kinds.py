"""The training-time blocks, each as its authors describe it, around a kernel that is given.

    repvgg     KxK-BN + 1x1-BN + BN                                    arXiv:2101.03697
    mobileone  KxK-BN + … + KxK-BN + 1x1-BN + BN                       arXiv:2206.04040
    dbb        KxK-BN + 1x1-BN + 1x1-BN-avg-BN + 1x1-BN-KxK-BN         arXiv:2103.13425
    acb        KxK-BN + Kx1-BN + 1xK-BN                                arXiv:1908.03930
    replk      KxK-BN + kxk-BN with a small k                          arXiv:2203.06717

A lone BN, the identity, is there where channels and stride allow it. Each batch norm after a kernel
multiplies by a power of two near 1/√n in a block of n branches: then a step of gradient descent on all
branches moves their sum about as far as the same step would have moved the one kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from reparamkit.training.expand import exact
from reparamkit.training.expand.geometry import Conv, Geometry, Part, geometry_of, zero_border
from reparamkit.training.expand.layers import (
    POOLINGS,
    IdentityPlusPointwise,
    conv_norm,
    convolution,
    named,
    norm,
)
from reparamkit.training.expand.shares import Shares

Branches = dict[str, nn.Module]


class CannotExpand(Exception):
    """The kind has no block for this convolution; the message says why."""


@dataclass(frozen=True)
class Kind:
    """One kind of block.

    Attributes:
        build: makes the branches.
        branches: how many branches with the whole kernel there are by default.
    """

    build: Callable[[_Kernel, int], Branches]
    branches: int = 1


class _Kernel:
    """A convolution to be shared out."""

    def __init__(self, conv: Conv, random: np.random.Generator) -> None:
        self.conv, self.like = conv, conv.weight
        self.geometry: Geometry
        self.geometry, self.border = geometry_of(conv)
        self.shares = Shares(exact.array(conv.weight), conv.weight.dtype, random)
        self.groups = conv.groups
        self._factor = 1.0

    @property
    def point(self) -> Part:
        return self.geometry.centred((1,) * self.geometry.axes)

    @property
    def taps(self) -> int:
        return math.prod(self.geometry.kernel)

    @property
    def keeps_channels_and_stride(self) -> bool:
        return self.conv.in_channels == self.conv.out_channels and max(self.geometry.stride) == 1

    def require_window(self, kind: str, remedy: str = "") -> None:
        if self.taps == 1:
            raise CannotExpand(f"{kind} needs a kernel larger than one tap{remedy}")

    def plan(self, count: int, *parts: Part, identity: bool = False, dense: int = 1) -> None:
        """Announce the branches: how many there are, and which parts of the kernel they can express."""
        self._factor = 2.0 ** -round(math.log2(count) / 2)
        for part in (*parts, *[self.geometry.whole()] * dense):
            self.shares.expect(part)
        if identity:
            self.shares.expect(self.point, diagonal=True)

    def window(self, part: Part) -> nn.Module:
        return self._conv_norm(self.shares.take(part), part)

    def rest(self) -> nn.Module:
        """The branch that takes what the others have left; to be made last."""
        return self._conv_norm(self.shares.left, self.geometry.whole())

    def dense(self, name: str, count: int, *, listed: bool) -> Branches:
        """So many branches with the whole kernel; to be made last."""
        more = [self.window(self.geometry.whole()) for _ in range(count - 1)]
        branches = [self.rest(), *more]
        return {name: nn.ModuleList(branches) if listed or count > 1 else branches[0]}

    def identity(self) -> nn.Module:
        factor = self.shares.take_diagonal(self.point)
        pad = zero_border(*self.geometry.padding(self.point))
        bn = norm(self.geometry.axes, factor, self.like)
        return bn if pad is None else named(pad=pad, bn=bn)

    def average(self) -> nn.Module | None:
        """1x1, norm, average pooling, norm; a depthwise convolution has its input averaged as it is."""
        conv, geometry = self.conv, self.geometry
        if max(geometry.dilation) > 1:
            return None  # an average has no dilation
        direct = conv.groups == conv.in_channels == conv.out_channels
        bits = exact.significant_bits(conv.weight.dtype)
        bits = (bits // 2 if direct else bits) - math.ceil(math.log2(self.taps))
        if bits < 2:
            return None
        sums = self.taps * self.shares.take_mean(bits)
        pool = POOLINGS[geometry.axes - 1](geometry.kernel, geometry.stride)
        pad = zero_border(geometry.low, geometry.high)
        if direct:
            return named(pad=pad, avg=pool, avgbn=norm(geometry.axes, sums[:, 0], self.like))
        kernel = sums.reshape(*sums.shape, *(1,) * geometry.axes)
        return named(
            pad=pad,
            conv=convolution(kernel / self._factor, self.like, groups=conv.groups),
            bn=self._norm(conv.out_channels, 1.0),
            avg=pool,
            avgbn=self._norm(conv.out_channels, self._factor),
        )

    def sequence(self) -> nn.Module:
        """1x1, norm, kxk, norm. The first starts as the identity, twice over in a depthwise convolution.

        The border is put around the input, and not, as in the authors' code, around what the norm makes of
        it: the same in evaluation mode, and in training mode the norm sees the border too.
        """
        conv, geometry = self.conv, self.geometry
        whole, inputs = geometry.whole(), conv.in_channels
        if conv.groups < conv.out_channels:
            kernel = self.shares.take(whole)
            first: nn.Module = IdentityPlusPointwise(inputs, conv.groups, geometry.axes, self.like)
            layers, internal = {"idconv1": first}, inputs
        else:
            kernel = np.concatenate([self.shares.take(whole), self.shares.take(whole)], axis=1)
            inside = inputs // conv.groups
            twice = np.tile(np.eye(inside), (2 * conv.groups, 1)).reshape(
                2 * inputs, inside, *(1,) * geometry.axes
            )
            layers, internal = {"conv1": convolution(twice, self.like, groups=conv.groups)}, 2 * inputs
        second = convolution(
            kernel / self._factor,
            self.like,
            groups=conv.groups,
            stride=geometry.stride,
            dilation=geometry.dilation,
        )
        return named(
            pad=zero_border(geometry.low, geometry.high),
            **layers,
            bn1=self._norm(internal, 1.0),
            conv2=second,
            bn2=self._norm(conv.out_channels, self._factor),
        )

    def _conv_norm(self, kernel: exact.Array, part: Part) -> nn.Module:
        return conv_norm(kernel, part, self.geometry, self.groups, self._factor, self.like)

    def _norm(self, channels: int, factor: float) -> nn.Module:
        return norm(self.geometry.axes, np.full(channels, factor), self.like)


def branches_of(
    kind: str, conv: Conv, branches: int | None, random: np.random.Generator
) -> tuple[Branches, nn.Module | None]:
    """The branches that compute what a convolution does but for its bias, and what pads for all of them.

    Raises:
        CannotExpand: the kind has no block for it.
        NotRepresentable: its precision cannot hold the numbers.
    """
    kernel = _Kernel(conv, random)
    return KINDS[kind].build(kernel, branches or KINDS[kind].branches), kernel.border


def _repvgg(kernel: _Kernel, dense: int) -> Branches:
    kernel.require_window("repvgg", " (mobileone has branches for 1x1 kernels)")
    identity = kernel.keeps_channels_and_stride
    kernel.plan(dense + 1 + identity, kernel.point, identity=identity, dense=dense)
    branches: Branches = {"rbr_identity": kernel.identity()} if identity else {}
    branches["rbr_1x1"] = kernel.window(kernel.point)
    return kernel.dense("rbr_dense", dense, listed=False) | branches


def _mobileone(kernel: _Kernel, dense: int) -> Branches:
    identity, scale = kernel.keeps_channels_and_stride, kernel.taps > 1
    if dense + identity + scale < 2:
        raise CannotExpand("one branch would stand for it, which is no block; ask for two branches or more")
    kernel.plan(dense + identity + scale, *[kernel.point] * scale, identity=identity, dense=dense)
    branches: Branches = {"rbr_skip": kernel.identity()} if identity else {}
    if scale:
        branches["rbr_scale"] = kernel.window(kernel.point)
    return kernel.dense("rbr_conv", dense, listed=True) | branches


def _dbb(kernel: _Kernel, dense: int) -> Branches:
    kernel.require_window("dbb", " (mobileone has branches for 1x1 kernels)")
    whole, depthwise = kernel.geometry.whole(), kernel.groups == kernel.conv.out_channels
    sequences = 2 if depthwise else 1
    kernel.plan(dense + 3 - depthwise, *[kernel.point] * (not depthwise), *[whole] * sequences, dense=dense)
    branches: Branches = {} if depthwise else {"dbb_1x1": kernel.window(kernel.point)}
    branches["dbb_1x1_kxk"] = kernel.sequence()
    average = kernel.average()
    if average is not None:
        branches["dbb_avg"] = average
    return kernel.dense("dbb_origin", dense, listed=False) | branches


def _acb(kernel: _Kernel, dense: int) -> Branches:
    sides = kernel.geometry.kernel
    long_axes = [axis for axis, side in enumerate(sides) if side > 1]
    if len(long_axes) < 2:
        raise CannotExpand(
            "acb needs a kernel larger than one tap on two axes: each of its branches is on one alone"
        )
    names = {2: ("ver", "hor"), 3: ("deep", "ver", "hor")}[len(sides)]
    lines = {
        names[axis]: kernel.geometry.centred([n if a == axis else 1 for a, n in enumerate(sides)])
        for axis in long_axes
    }
    kernel.plan(dense + len(lines), *lines.values(), dense=dense)
    branches: Branches = {name: kernel.window(part) for name, part in lines.items()}
    return kernel.dense("square", dense, listed=False) | branches


def _replk(kernel: _Kernel, dense: int) -> Branches:
    kernel.require_window("replk", " (mobileone has branches for 1x1 kernels)")
    small = kernel.geometry.centred([5 if k > 5 else 3 if k > 3 else 1 for k in kernel.geometry.kernel])
    kernel.plan(dense + 1, small, dense=dense)
    branches: Branches = {"small_conv": kernel.window(small)}
    return kernel.dense("lkb_origin", dense, listed=False) | branches


KINDS = {
    "repvgg": Kind(_repvgg),
    "mobileone": Kind(_mobileone, branches=4),
    "dbb": Kind(_dbb),
    "acb": Kind(_acb),
    "replk": Kind(_replk),
}


def precision_is_real(dtype: torch.dtype) -> bool:
    """Whether there are batch norms in that type."""
    return dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
