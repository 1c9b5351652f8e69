"""Limits that the user sets instead of the error budget: each one given must hold on every probe.

`atol` is in the units of the output, so whoever writes it down has outputs of the usual size in mind. It
holds as it stands wherever the output is as large as on normal values or smaller. On probes that make it
larger (`large` feeds values 32 times as large) it grows as the output's scale does: with S the largest
magnitude of the output over a group of probes,

    max |z − y64|  ≤  atol · max(1, S of the group / S of the normal values)

The other limits are relative, and hold as they stand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from reparamkit.compare.metrics import Metrics
from reparamkit.errors import UnusableInput


@dataclass(frozen=True)
class Criteria:
    """Limits on the measures of `reparamkit.compare.metrics`; None where there is none.

    Attributes:
        atol: largest `max_abs`, in the output's units, where the output is of its usual size (see above).
        rtol: largest `max_rel`.
        psnr: smallest PSNR, in dB.
        cosine: smallest cosine similarity.
        top1: smallest share of rows with the same largest entry; for outputs of shape (N, K) only.

    Raises:
        UnusableInput: a limit that no measure can meet, or that every one meets.
    """

    atol: float | None = None
    rtol: float | None = None
    psnr: float | None = None
    cosine: float | None = None
    top1: float | None = None

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("atol", self.atol, 0.0, math.inf),
            ("rtol", self.rtol, 0.0, math.inf),
            ("psnr", self.psnr, 0.0, math.inf),
            ("cosine", self.cosine, -1.0, 1.0),
            ("top1", self.top1, 0.0, 1.0),
        ):
            if value is not None and not (low <= value <= high and math.isfinite(value)):
                bounds = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
                raise UnusableInput(f"--{name} {value:g} is no limit: it is a finite number {bounds}")

    @property
    def given(self) -> bool:
        """Whether there is any limit."""
        return any(getattr(self, entry.name) is not None for entry in fields(self))

    def stated(self) -> str:
        """All limits in words."""
        words = (
            ("max abs ≤ {:g}", self.atol),
            ("max rel ≤ {:g} of the output's scale", self.rtol),
            ("PSNR ≥ {:g} dB", self.psnr),
            ("cosine ≥ {:g}", self.cosine),
            ("top-1 agreement ≥ {:g}", self.top1),
        )
        return ", ".join(text.format(limit) for text, limit in words if limit is not None)

    def applies(self, metrics: Metrics) -> bool:
        """Whether any limit says something about an output with these measures."""
        others = any(limit is not None for limit in (self.atol, self.rtol, self.psnr, self.cosine))
        return others or (self.top1 is not None and metrics.top1 is not None)

    def broken(self, metrics: Metrics, growth: float = 1.0) -> tuple[str, ...]:
        """The limits that these measures do not meet, each with the figure that it met.

        Args:
            growth: how many times larger the output is on such probes than on normal values, at least 1.
        """
        broken = []
        # `not <=` rather than `>`: a measure that is NaN meets nothing.
        if self.atol is not None and not metrics.max_abs <= self.atol * growth:
            scaled = (
                f" ({self.atol:g} times {growth:.3g}, by which the output is larger)" if growth > 1 else ""
            )
            broken.append(f"max abs is {metrics.max_abs:.3g}, allowed {self.atol * growth:g}{scaled}")
        if self.rtol is not None and not metrics.max_rel <= self.rtol:
            broken.append(f"max rel is {metrics.max_rel:.3g}, allowed {self.rtol:g}")
        if self.psnr is not None and not metrics.psnr >= self.psnr:
            broken.append(f"PSNR is {metrics.psnr:.4g} dB, wanted {self.psnr:g} dB")
        if self.cosine is not None and not metrics.cosine >= self.cosine:
            broken.append(f"cosine is {metrics.cosine:.6g}, wanted {self.cosine:g}")
        if self.top1 is not None and metrics.top1 is not None and not metrics.top1 >= self.top1:
            broken.append(f"top-1 agreement is {metrics.top1:.4g}, wanted {self.top1:g}")
        return tuple(broken)
