"""affine and resample: an image at places that are given as coordinates (x, y).

In normalised coordinates -1 and 1 are the centres of the outermost pixels with align_corners, their outer
edges without; in unnormalised ones 0 is the centre of the first pixel.

    affine    at x' = a0·x + a1·y + a2, y' = b0·x + b1·y + b2 for every place (x, y) of the output, with one
              transform_matrix [a0, a1, a2, b0, b1, b2] for each image or for all
    resample  at `coordinates`, by sampling_mode "bilinear" or "nearest"

Outside the image there are zeros (padding_mode "constant"), the border pixels ("border") or the image
mirrored at the centre of its border pixels ("reflection") or at their outer edge ("symmetric"). Other
constants than zero, and a mirror that does not go with align_corners, are refused.
Source: coremltools/converters/mil/mil/ops/defs/iOS15/image_resizing.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from reparamkit.mil.operators.base import Call, CannotEvaluate, operator

_SETTINGS = "sampling_mode padding_mode padding_value coordinates_mode align_corners"


@operator("affine", f"x transform_matrix output_height output_width {_SETTINGS}")
def affine(call: Call) -> torch.Tensor:
    x, matrix = call.tensor("x"), call.tensor("transform_matrix")
    if call.text("coordinates_mode") != "normalized_minus_one_to_one":
        raise CannotEvaluate("has coordinates that are not normalised to -1 … 1")
    size = [x.shape[0], x.shape[1], call.integer("output_height"), call.integer("output_width")]
    theta = matrix.reshape(-1, 2, 3).expand(x.shape[0], -1, -1)
    return _sampled(call, x, F.affine_grid(theta, size, call.flag("align_corners")))


@operator("resample", f"x coordinates {_SETTINGS}")
def resample(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    grid = call.tensor("coordinates").to(x.dtype)
    mode = call.text("coordinates_mode")
    if mode == "normalized_zero_to_one":
        grid = grid * 2 - 1
    elif mode == "unnormalized":
        sizes = torch.tensor([x.shape[3], x.shape[2]], dtype=x.dtype)
        align = call.flag("align_corners")
        grid = grid * 2 / (sizes - 1) - 1 if align else (grid * 2 + 1) / sizes - 1
    elif mode != "normalized_minus_one_to_one":
        raise CannotEvaluate(f"has the unknown coordinates_mode {mode!r}")
    return _sampled(call, x, grid)


def _sampled(call: Call, x: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    align, how, around = call.flag("align_corners"), call.text("sampling_mode"), call.text("padding_mode")
    if how not in ("bilinear", "nearest"):
        raise CannotEvaluate(f"has the unknown sampling_mode {how!r}")
    if around == "constant" and call.number("padding_value", 0.0) == 0.0:
        outside = "zeros"
    elif around == "border":
        outside = "border"
    elif around == ("reflection" if align else "symmetric"):
        outside = "reflection"
    else:
        raise CannotEvaluate(f"has the padding_mode {around!r} with align_corners {align}")
    return F.grid_sample(x, grid, how, outside, align_corners=align)
