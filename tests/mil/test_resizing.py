"""Resizing and sampling against torch, and against the grids of the reference's text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reparamkit.errors import UnusableInput
from reparamkit.mil.evaluate import evaluate
from tests.mil.programs import Case, assert_agree, mb, normal, read


def _grid(n: int, m: int, mode: str) -> Any:
    """The grid points of one axis, as the reference prints them."""
    i = np.arange(m)
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        if m == 1:
            return np.array([(n - 1) / 2 if mode == "ALIGN_CORNERS" else 0.0])
        return i * ((n - 1) / (m - 1))
    if mode == "DEFAULT":
        spacing = (n - n / m) / (m - 1) if m > 1 else 0
        return np.clip(i * spacing, 0, n - 1)
    if mode == "OFFSET_CORNERS":
        delta = max(1, n - 1) / m
        return np.clip(0.5 * delta + i * delta, 0, n - 1)
    spacing = n / m
    return np.clip(i * spacing + 0.5 * spacing - 0.5, 0, n - 1)


def _interpolated(x: torch.Tensor, sizes: tuple[int, int], mode: str) -> Any:
    values = x.numpy()
    for axis, m in zip((-2, -1), sizes, strict=True):
        n = values.shape[axis]
        points = _grid(n, m, mode)
        hat = np.maximum(0, 1 - np.abs(points[:, None] - np.arange(n)))
        values = np.moveaxis(np.moveaxis(values, axis, -1) @ hat.T, -1, axis)
    return values


MODES = ["STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS"]


@pytest.mark.parametrize("sizes", [(11, 7), (3, 4), (1, 13)])
def test_resize_bilinear_by_every_grid(sizes: tuple[int, int]) -> None:
    assert_agree(
        [
            Case(
                mode,
                lambda x, mode=mode: mb.resize_bilinear(
                    x=x, target_size_height=sizes[0], target_size_width=sizes[1], sampling_mode=mode
                ),
                lambda x, mode=mode: _interpolated(x, sizes, mode),
            )
            for mode in MODES
        ]
        + [
            Case(
                f"resize, {mode}",
                lambda x, mode=mode: mb.resize(
                    x=x, shape=[1, *sizes], resized_dims=np.uint32(2), sampling_mode=mode
                ),
                lambda x, mode=mode: _interpolated(x, sizes, mode),
            )
            for mode in MODES
        ],
        {"x": normal(1, 2, 5, 6)},
    )


def test_grids_of_the_reference() -> None:
    """The grid points that the reference gives for two elements, on the elements 0 and 1."""
    printed = {
        "UNALIGN_CORNERS": [[0.0, 0.1, 0.5, 0.9, 1.0], [0.0, 0.0, 1 / 3, 2 / 3, 1.0, 1.0]],
        "STRICT_ALIGN_CORNERS": [[0.0, 0.25, 0.5, 0.75, 1.0], [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]],
        "DEFAULT": [[0.0, 0.4, 0.8, 1.0, 1.0], [0.0, 1 / 3, 2 / 3, 1.0, 1.0, 1.0]],
        "OFFSET_CORNERS": [[0.1, 0.3, 0.5, 0.7, 0.9], [1 / 12, 0.25, 5 / 12, 7 / 12, 0.75, 11 / 12]],
    }
    assert_agree(
        [
            Case(
                f"{mode} {len(points)}",
                lambda x, mode=mode, points=points: mb.resize_bilinear(
                    x=x, target_size_height=1, target_size_width=len(points), sampling_mode=mode
                ),
                lambda x, points=points: np.array([[[points]]]),
            )
            for mode, rows in printed.items()
            for points in rows
        ],
        {"x": torch.tensor([[[[0.0, 1.0]]]])},
    )


def test_upsampling_against_torch() -> None:
    def torchs(x: torch.Tensor, scale: tuple[float, float], mode: str, align: bool | None = None) -> Any:
        sizes = [int(factor * size) for factor, size in zip(scale, x.shape[-2:], strict=True)]
        return F.interpolate(x, size=sizes, mode=mode, align_corners=align)

    assert_agree(
        [
            Case(
                "aligned",
                lambda x: mb.upsample_bilinear(x=x, scale_factor_height=2, scale_factor_width=3),
                lambda x: torchs(x, (2, 3), "bilinear", True),
            ),
            Case(
                "not aligned",
                lambda x: mb.upsample_bilinear(
                    x=x, scale_factor_height=2.5, scale_factor_width=1.5, align_corners=False
                ),
                lambda x: torchs(x, (2.5, 1.5), "bilinear", False),
            ),
            Case(
                "neither",
                lambda x: mb.upsample_bilinear(
                    x=x,
                    scale_factor_height=2,
                    scale_factor_width=2,
                    align_corners=False,
                    half_pixel_centers=False,
                ),
                lambda x: _interpolated(x, (10, 12), "DEFAULT"),
            ),
            Case(
                "nearest",
                lambda x: mb.upsample_nearest_neighbor(x=x, scale_factor_height=3, scale_factor_width=2),
                lambda x: torchs(x, (3, 2), "nearest"),
            ),
            Case(
                "nearest, fractional",
                lambda x: mb.upsample_nearest_neighbor(x=x, scale_factor_height=1.5, scale_factor_width=2.5),
                lambda x: torchs(x, (1.5, 2.5), "nearest"),
            ),
            Case(
                "nearest, sizes",
                lambda x: mb.resize_nearest_neighbor(x=x, target_size_height=7, target_size_width=4),
                lambda x: F.interpolate(x, size=(7, 4), mode="nearest-exact"),
            ),
            Case(
                "nearest, resize",
                lambda x: mb.resize(
                    x=x, shape=[0, 8], resized_dims=np.uint32(2), interpolation_mode="NEAREST_NEIGHBOR"
                ),
                lambda x: F.interpolate(x, size=(5, 8), mode="nearest-exact"),
            ),
        ],
        {"x": normal(1, 2, 5, 6)},
    )


def _nearest_resize(x: Any, *shape: int, mode: str = "DEFAULT") -> Any:
    return mb.resize(
        x=x,
        shape=[*shape],
        resized_dims=np.uint32(2),
        interpolation_mode="NEAREST_NEIGHBOR",
        sampling_mode=mode,
    )


@pytest.mark.parametrize("shape", [(1, 1, 2, 1), (1, 1, 1, 2, 1)])
def test_two_elements_to_three_as_the_reference_tests_them(shape: tuple[int, ...]) -> None:
    first, second = -6.174, 9.371
    expected = torch.tensor([[first, first], [second, second], [second, second]])
    assert_agree(
        [
            Case(
                "resize",
                lambda x: _nearest_resize(x, 1, 1, 3, 2),
                lambda x: expected.reshape(*shape[:-2], 3, 2),
            ),
            Case(
                "resize_nearest_neighbor",
                lambda x: mb.resize_nearest_neighbor(x=x, target_size_height=3, target_size_width=2),
                lambda x: expected.reshape(*shape[:-2], 3, 2),
            ),
        ],
        {"x": torch.tensor([first, second]).reshape(shape)},
    )


def test_the_reference_s_other_nearest_neighbours() -> None:
    """Two rows to three columns each, and three columns doubled."""
    assert_agree(
        [
            Case(
                "wider",
                lambda x: mb.resize_nearest_neighbor(x=x, target_size_height=2, target_size_width=3),
                lambda x: torch.tensor([0.37, 0.37, 0.37, 6.17, 6.17, 6.17]).reshape(1, 1, 2, 3),
            )
        ],
        {"x": torch.tensor([0.37, 6.17]).reshape(1, 1, 2, 1)},
    )
    assert_agree(
        [
            Case(
                "doubled",
                lambda x: mb.upsample_nearest_neighbor(x=x, scale_factor_height=1, scale_factor_width=2),
                lambda x: torch.tensor([1.5, 1.5, 2.5, 2.5, 3.5, 3.5]).reshape(1, 1, 1, 6),
            )
        ],
        {"x": torch.tensor([1.5, 2.5, 3.5]).reshape(1, 1, 1, 3)},
    )


@pytest.mark.diagonal(2)
@pytest.mark.parametrize("sizes", [(25, 30), (2, 20), (3, 7), (10, 40), (1, 1)])
def test_the_two_kinds_of_nearest_neighbour(sizes: tuple[int, int]) -> None:
    """At the sizes at which the reference is held against TensorFlow, and others: torch's two kinds."""
    h, w = sizes
    scale_h, scale_w = (h + 1e-4) / 10, (w + 1e-4) / 20
    assert_agree(
        [
            Case(
                "by centres",
                lambda x: mb.resize_nearest_neighbor(x=x, target_size_height=h, target_size_width=w),
                lambda x: F.interpolate(x, size=sizes, mode="nearest-exact"),
            ),
            Case(
                "resize",
                lambda x: _nearest_resize(x, h, w),
                lambda x: F.interpolate(x, size=sizes, mode="nearest-exact"),
            ),
            Case(
                "by corners",
                lambda x: mb.upsample_nearest_neighbor(
                    x=x, scale_factor_height=scale_h, scale_factor_width=scale_w
                ),
                lambda x: F.interpolate(x, size=sizes, mode="nearest"),
            ),
        ],
        {"x": normal(1, 1, 10, 20)},
    )


@pytest.mark.diagonal(2)
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "DEFAULT"])
def test_what_the_reference_leaves_open_is_refused(mode: str) -> None:
    x = normal(1, 1, 4, 4)
    program = read(lambda x: _nearest_resize(x, 5, 5, mode=mode), {"x": x})
    with pytest.raises(UnusableInput, match=r"cannot verify: resize at .* 'NEAREST_NEIGHBOR' with the sampl"):
        evaluate(program, {"x": x})


def _resampled(label: str, settings: dict[str, Any], align: bool, scale: str = "normal") -> Case:
    mode, around = settings["mode"], settings["padding_mode"]
    outside = {"zeros": "constant", "border": "border", "reflection": "reflection" if align else "symmetric"}

    def coordinates(grid: torch.Tensor) -> torch.Tensor:
        if scale == "unnormalized":
            w, h = 6.0, 5.0
            sizes = torch.tensor([w, h], dtype=grid.dtype)
            return 2 * grid / (sizes - 1) - 1 if align else (2 * grid + 1) / sizes - 1
        return 2 * grid - 1 if scale == "normalized_zero_to_one" else grid

    named = "normalized_minus_one_to_one" if scale == "normal" else scale
    return Case(
        label,
        lambda x, grid: mb.resample(
            x=x,
            coordinates=grid,
            sampling_mode=mode,
            padding_mode=outside[around],
            padding_value=0.0,
            coordinates_mode=named,
            align_corners=align,
        ),
        lambda x, grid: F.grid_sample(x, coordinates(grid), mode, around, align_corners=align),
    )


def test_sampling_against_torch() -> None:
    cases = [
        _resampled(f"{mode} {around} {align}", {"mode": mode, "padding_mode": around}, align)
        for mode in ("bilinear", "nearest")
        for around in ("zeros", "border", "reflection")
        for align in (True, False)
    ]
    plain = {"mode": "bilinear", "padding_mode": "border"}
    for align in (True, False):
        cases.append(_resampled(f"pixels {align}", plain, align, "unnormalized"))
        cases.append(_resampled(f"zero to one {align}", plain, align, "normalized_zero_to_one"))
    assert_agree(cases, {"x": normal(2, 3, 5, 6), "grid": normal(2, 4, 3, 2, seed=5)})


def test_affine_against_its_formula() -> None:
    """Each output place is mapped by hand and read with grid_sample."""
    matrix = np.array([[0.75, 0.25, 0.125, -0.25, 1.25, 0.0]], np.float32)

    def expect(x: torch.Tensor) -> torch.Tensor:
        height, width = 4, 7
        rows, columns = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
        a, b = matrix[0, :3].astype(float), matrix[0, 3:].astype(float)
        places = np.stack([a[0] * columns + a[1] * rows + a[2], b[0] * columns + b[1] * rows + b[2]], -1)
        grid = torch.from_numpy(places)[None].expand(x.shape[0], -1, -1, -1)
        return F.grid_sample(x, grid, align_corners=True)

    assert_agree(
        [
            Case(
                "affine",
                lambda x: mb.affine(
                    x=x,
                    transform_matrix=matrix,
                    output_height=4,
                    output_width=7,
                    sampling_mode="bilinear",
                    padding_mode="constant",
                    padding_value=0.0,
                    coordinates_mode="normalized_minus_one_to_one",
                    align_corners=True,
                ),
                expect,
            )
        ],
        {"x": normal(2, 3, 5, 6)},
    )


def test_a_border_that_rounding_decides_is_refused() -> None:
    """20.5 * (2 / 41) is 1 exactly, and a little less in float32."""
    x = normal(1, 1, 1, 2)
    program = read(
        lambda x: mb.resize_nearest_neighbor(x=x, target_size_height=1, target_size_width=41), {"x": x}
    )
    with pytest.raises(
        UnusableInput, match="resizes 2 to 41 by the nearest neighbour, where element 20 lies"
    ):
        evaluate(program, {"x": x})
