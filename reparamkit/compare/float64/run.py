"""What a reference computed on one probe: plain data, which stays when the network is gone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from reparamkit.compare.inputs.probes import Probe
from reparamkit.compare.noise import Noise, PerAxis


@dataclass(frozen=True)
class Truth:
    """One output of the reference under one probe, on the CPU.

    Attributes:
        values: float64, or the integers and booleans themselves. Where the float64 run is not finite
            or the reference's own run is not, the own run's value.
        dtype: the output's own dtype; complex outputs are held as pairs on a last axis.
        noise: largest absolute rounding error of the reference, in the output's units.
        scale: largest finite magnitude.
        finite: how many elements can be compared.
        undecided: integers that differ between the reference's own run and its float64 run.
        along_scale, along_noise: `scale` and `noise` at each index along each axis; without axes where
            nothing is known of them.
    """

    name: str
    values: torch.Tensor
    dtype: torch.dtype
    noise: float
    scale: float
    finite: int
    undecided: torch.Tensor | None = None
    along_scale: PerAxis = ()
    along_noise: PerAxis = ()

    def with_noise(self, noise: Noise) -> Truth:
        """The same output, with another rounding error."""
        return replace(self, noise=noise.whole, along_noise=noise.along)

    @property
    def rounding(self) -> Noise:
        """`noise` and `along_noise`."""
        return Noise(self.noise, self.along_noise)


@dataclass(frozen=True)
class Run:
    """All outputs of the reference under one probe, and how long they took, its float64 run included."""

    probe: Probe
    truths: tuple[Truth, ...]
    seconds: float = field(default=0.0, compare=False)
