"""How far two tensors are apart, in the measures that people quote.

With z the candidate, y the truth, S the output's scale (largest |y| over the probe's group), all in float64:

    max abs    max |z − y|
    max rel    max |z − y| / S
    rms        sqrt(mean (z − y)²)
    PSNR       20 log10(S / rms) dB, infinite where nothing differs
    cosine     <z, y> / (|z| |y|); 1 for two zero vectors, 0 for one
    top-1      the share of rows of an (N, K) output whose largest entry is at the same place

Only elements that are finite in both count. A row whose two best entries are closer in the truth than the
reference's own rounding error is a tie, and either place is right.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Metrics:
    """The measures above for one output under one probe; `rms` and `max_abs` in the output's own units.

    `top1` is None for an output that is no (N, K) matrix of floating-point scores with K of at least 2.
    """

    max_abs: float
    max_rel: float
    rms: float
    psnr: float
    cosine: float
    top1: float | None

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON."""
        return dict(plain(self))


def measure(values: torch.Tensor, truth: torch.Tensor, scale: float, tie: float = 0.0) -> Metrics:
    """Measure `values` against `truth`.

    Args:
        values, truth: tensors of one shape, real; integers and booleans are taken as numbers.
        scale: S, in the outputs' units.
        tie: entries of one row that are within this of each other are tied.
    """
    top1 = _agreement(values, truth, tie) if is_scores(truth) else None
    left, right = values.double().flatten(), truth.double().flatten()
    both = left.isfinite() & right.isfinite()
    left, right = left[both], right[both]
    if left.numel() == 0:
        return Metrics(0.0, 0.0, 0.0, math.inf, 1.0, top1)
    difference = left - right
    max_abs = float(difference.abs().max())
    rms = _norm(difference) / math.sqrt(difference.numel())
    return Metrics(
        max_abs=max_abs,
        max_rel=relative(max_abs, scale),
        rms=rms,
        psnr=psnr(rms, scale),
        cosine=_cosine(left, right),
        top1=top1,
    )


def psnr(rms: float, scale: float) -> float:
    """20 log10(scale / rms) in dB."""
    if rms == 0:
        return math.inf
    return 20 * (math.log10(scale) - math.log10(rms)) if scale > 0 else -math.inf


def is_scores(truth: torch.Tensor) -> bool:
    """Whether an output has the form of a classifier's: (N, K), floating point, K of at least 2."""
    return truth.ndim == 2 and truth.shape[0] > 0 and truth.shape[1] > 1 and truth.is_floating_point()


def _agreement(values: torch.Tensor, truth: torch.Tensor, tie: float) -> float:
    truth, values = truth.double().nan_to_num(-math.inf), values.double().nan_to_num(-math.inf)
    chosen = truth.gather(1, values.argmax(1, keepdim=True))[:, 0]
    best = truth.amax(1)
    return float(((chosen == best) | (best - chosen <= tie)).double().mean())


def _cosine(left: torch.Tensor, right: torch.Tensor) -> float:
    # Divided by the largest entries first: squares of large and of tiny values leave float64.
    left, right = (each / (each.abs().max() or 1.0) for each in (left, right))
    sizes = float(left.norm()), float(right.norm())
    if 0.0 in sizes:
        return 1.0 if sizes == (0.0, 0.0) else 0.0
    return max(-1.0, min(1.0, float(left @ right) / (sizes[0] * sizes[1])))


def _norm(values: torch.Tensor) -> float:
    largest = float(values.abs().max())
    return largest * float((values / largest).norm()) if largest > 0 else 0.0


def relative(error: float, scale: float) -> float:
    """`error / scale`, where no error on a scale of zero is 0 and any other is infinite."""
    if scale > 0:
        return error / scale
    return math.inf if error > 0 else 0.0


def plain(value: Any) -> Any:
    """As JSON: dataclasses are dicts of their fields, tuples lists, and numbers what `json_number` says."""
    if dataclasses.is_dataclass(value):
        return {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(each) for each in value]
    return json_number(value) if isinstance(value, float) else value


def json_number(value: float | None) -> float | str | None:
    """The number, or the text "inf", "-inf" or "nan" for one that JSON lacks."""
    if value is None or math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
