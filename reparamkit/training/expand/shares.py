"""A kernel shared out among branches: W = C₁ + … + Cₙ, exactly, in the kernel's own precision.

Each part is W times a random fraction near 1/n, where n counts the branches that can express that entry, cut
to a multiple of ulp(W); the last branch takes what is left. So parts have the sign of what they are parts of,
nothing cancels, and no two branches are alike. Where W is zero so are its parts, except in a kernel that is
zero throughout: branches that are alike would be so for ever, so there they are small and cancel.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from reparamkit.training.expand import exact
from reparamkit.training.expand.exact import Array
from reparamkit.training.expand.geometry import Part


class Shares:
    """What of a kernel (O, I/groups, *spatial) is still to be given to a branch."""

    def __init__(self, kernel: Array, dtype: torch.dtype, random: np.random.Generator) -> None:
        self.kernel, self.left = kernel, kernel.copy()
        self.takers = np.zeros(kernel.shape)
        self._dtype, self._random = dtype, random
        self._unit = exact.units(kernel, dtype)
        self._grid = 0.0
        if not kernel.any():
            self._grid = 2.0 ** (math.floor(-math.log2(kernel[0].size) / 2) - 6)

    def expect(self, part: Part, diagonal: bool = False) -> None:
        """Announce a branch that is going to take from this part, so that fractions come out even."""
        box = np.zeros(self.kernel.shape)
        box[(slice(None), slice(None), *part.taps())] = 1
        self.takers += box * self._eye() if diagonal else box

    def take(self, part: Part) -> Array:
        """A share of a part of the kernel, as a whole kernel."""
        share = self._draw()
        mask = np.zeros(share.shape)
        mask[(slice(None), slice(None), *part.taps())] = 1
        share = share * mask
        self.left -= share
        return share

    def take_diagonal(self, tap: Part) -> Array:
        """A share of the entries that lead each channel to itself through one tap: a factor per channel."""
        drawn = (self._draw() * self._eye())[(slice(None), slice(None), *tap.taps())]
        factor = drawn.reshape(len(drawn), -1).sum(1)
        factor = exact.rounded(factor, exact.significant_bits(self._dtype) // 2)
        unit = (self._unit * self._eye())[(slice(None), slice(None), *tap.taps())].reshape(len(drawn), -1)
        unit = np.maximum(unit.sum(1), exact.factor_unit(self._dtype))
        factor = exact.cut(factor, unit) if not self._grid else factor
        spread = np.zeros(self.kernel.shape)
        spread[(slice(None), slice(None), *tap.taps())] = factor.reshape(-1, *(1,) * (self.kernel.ndim - 1))
        self.left -= spread * self._eye()
        return factor

    def take_mean(self, bits: int) -> Array:
        """A share (O, I/groups) of what all taps have in common, of so many significant bits.

        What is left stays exact: a share is a multiple of the coarsest tap's unit, and no larger than the
        finest tap has room for.
        """
        taps = tuple(range(2, self.kernel.ndim))
        if self._grid:
            most = min(4, 2**bits - 1)
            share = self._grid * self._random.integers(-most, most + 1, self.kernel.shape[:2]).astype(float)
        else:
            coarsest = self._unit.max(taps)
            room = self._unit * 2.0 ** exact.significant_bits(self._dtype) - np.abs(self.left)
            room = np.where(self._unit > 0, room, np.inf).min(taps)
            mean = self.kernel.mean(taps)
            fraction = self._random.uniform(0.5, 1.5, mean.shape) / 4
            size = np.minimum(np.abs(mean) * fraction, np.where(np.isfinite(room), room, 0.0))
            _, exponents = np.frexp(size)
            coarsest = np.maximum(coarsest, np.where(size > 0, np.ldexp(1.0, exponents - bits), 0.0))
            share = exact.cut(np.copysign(size, mean), coarsest)
        self.left -= share.reshape(*share.shape, *(1,) * len(taps))
        return share

    def _draw(self) -> Array:
        if self._grid:
            return self._grid * self._random.integers(-16, 17, self.kernel.shape).astype(float)
        fraction = self._random.uniform(0.5, 1.5, self.kernel.shape) / np.maximum(self.takers, 1)
        return exact.cut(self.kernel * fraction, self._unit)

    def _eye(self) -> Array:
        """1 where an entry leads a channel to itself."""
        outputs, inside = self.kernel.shape[:2]
        eye: Array = (np.arange(outputs)[:, None] % inside == np.arange(inside)[None]).astype(np.float64)
        return eye.reshape(outputs, inside, *(1,) * (self.kernel.ndim - 2))
