"""Operators that move values without changing them, against torch and NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reparamkit.errors import UnusableInput
from reparamkit.mil.evaluate import evaluate
from tests.mil.programs import Case, assert_agree, mb, normal, read


def test_other_shapes() -> None:
    assert_agree(
        [
            Case("reshape", lambda x: mb.reshape(x=x, shape=[4, -1]), lambda x: x.reshape(4, 30)),
            Case(
                "reshape, 0", lambda x: mb.reshape(x=x, shape=[0, -1, 0, 2]), lambda x: x.reshape(2, 15, 2, 2)
            ),
            Case(
                "transpose", lambda x: mb.transpose(x=x, perm=[0, -1, 1, 2]), lambda x: x.permute(0, 3, 1, 2)
            ),
            Case(
                "expand_dims",
                lambda x: mb.expand_dims(x=mb.reshape(x=x, shape=[6, 2, 10]), axes=[-1, 0]),
                lambda x: x.reshape(1, 6, 2, 10, 1),
            ),
            Case("squeeze", lambda x: mb.squeeze(x=mb.expand_dims(x=x, axes=[2])), lambda x: x),
            Case(
                "squeeze, one",
                lambda x: mb.squeeze(x=mb.reshape(x=x, shape=[1, 6, 1, 20]), axes=[-2]),
                lambda x: x.reshape(1, 6, 20),
            ),
            Case(
                "squeeze, longer axes stay",
                lambda x: mb.squeeze(x=mb.expand_dims(x=x, axes=[3]), axes=[0, 3]),
                lambda x: x,
            ),
            Case("flatten2d", lambda x: mb.flatten2d(x=x), lambda x: x.reshape(2, 60)),
            Case("flatten2d, axis", lambda x: mb.flatten2d(x=x, axis=-2), lambda x: x.reshape(6, 20)),
            Case("identity", lambda x: mb.identity(x=x), lambda x: x),
            Case(
                "reshape_like",
                lambda x: mb.reshape_like(
                    x=x,
                    ref_tensors=(mb.reshape(x=x, shape=[5, 24]), mb.reshape(x=x, shape=[5, 4, 3, 2])),
                    begins=(0, 1),
                    ends=(1, 0),
                    end_masks=(False, True),
                ),
                lambda x: x.reshape(5, 4, 3, 2),
            ),
        ],
        {"x": normal(2, 3, 2, 10)},
    )


def test_zeros_in_a_shape_mean_other_axes_since_ios17() -> None:
    """(2, 50) to (1, 0, -1, 0): the example of the iOS 17 reference; from the front there is no such axis."""
    for ios in (16, 17):
        assert_agree(
            [Case("0", lambda x: mb.reshape(x=x, shape=[0, -1, 0]), lambda x: x)],
            {"x": normal(2, 3, 4)},
            ios=ios,
        )
    x = normal(2, 50)
    assert_agree(
        [Case("0", lambda x: mb.reshape(x=x, shape=[1, 0, -1, 0]), lambda x: x.reshape(1, 1, 2, 50))],
        {"x": x},
    )
    program = read(lambda x: mb.reshape(x=x, shape=[1, 2, 50, 1]), {"x": x}, ios=16)
    (name,) = program.operations[0].inputs["shape"]
    assert isinstance(program.constants, dict)
    program.constants[name] = torch.tensor([1, 0, -1, 0], dtype=torch.int32)
    with pytest.raises(UnusableInput, match="has 0 in a shape of 4 axes for an input of 2"):
        evaluate(program, {"x": x})


def test_joining_and_splitting() -> None:
    assert_agree(
        [
            Case(
                "concat",
                lambda x, y: mb.concat(values=(x, y, x), axis=-2),
                lambda x, y: torch.cat([x, y, x], 1),
            ),
            Case(
                "interleave",
                lambda x, y: mb.concat(values=(x, y), axis=1, interleave=True),
                lambda x, y: np.stack([x, y], 2).reshape(2, 12, 4),
            ),
            Case("stack", lambda x, y: mb.stack(values=(x, y), axis=-1), lambda x, y: np.stack([x, y], -1)),
            Case("split", lambda x, y: mb.split(x=x, num_splits=3, axis=1), lambda x, y: list(x.split(2, 1))),
            Case(
                "split, sizes",
                lambda x, y: mb.split(x=x, split_sizes=[1, 4, 1], axis=-2),
                lambda x, y: [x[:, :1], x[:, 1:5], x[:, 5:]],
            ),
            Case("tile", lambda x, y: mb.tile(x=x, reps=[1, 3, 2]), lambda x, y: np.tile(x, (1, 3, 2))),
            Case("reverse", lambda x, y: mb.reverse(x=x), lambda x, y: x.flip(0, 1, 2)),
            Case("reverse, axis", lambda x, y: mb.reverse(x=x, axes=[-2]), lambda x, y: x.flip(1)),
            Case(
                "reverse_sequence",
                lambda x, y: mb.reverse_sequence(
                    x=x, lengths=np.array([2, 5], np.int32), seq_axis=1, batch_axis=0
                ),
                lambda x, y: torch.stack(
                    [torch.cat([x[0, :2].flip(0), x[0, 2:]]), torch.cat([x[1, :5].flip(0), x[1, 5:]])]
                ),
            ),
            Case(
                "sliding_windows",
                lambda x, y: mb.sliding_windows(x=x, axis=1, size=3, stride=2),
                lambda x, y: torch.stack([x[:, 0:3], x[:, 2:5]], 1),
            ),
        ],
        {"x": normal(2, 6, 4), "y": normal(2, 6, 4, seed=3)},
    )


def _space_to_batch(x: torch.Tensor) -> Any:
    """TensorFlow's definition, element by element."""
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (0, 2)))
    n, c, h, w = padded.shape
    y = np.zeros((n * 6, c, h // 2, w // 3))
    for p in range(2):
        for q in range(3):
            y[(p * 3 + q) * n : (p * 3 + q + 1) * n] = padded[:, :, p::2, q::3]
    return y


def _depth_to_space(x: torch.Tensor, block: int) -> Any:
    values = x.numpy()
    n, c, h, w = values.shape
    few = c // block**2
    y = np.zeros((n, few, h * block, w * block))
    for p in range(block):
        for q in range(block):
            y[:, :, p::block, q::block] = values[:, (p * block + q) * few : (p * block + q + 1) * few]
    return y


def _space_to_depth(x: torch.Tensor, block: int) -> Any:
    values = x.numpy()
    return np.concatenate([values[:, :, p::block, q::block] for p in range(block) for q in range(block)], 1)


def test_channels_and_places() -> None:
    assert_agree(
        [
            Case(
                "pixel_shuffle",
                lambda x: mb.pixel_shuffle(x=x, upscale_factor=2),
                lambda x: F.pixel_shuffle(x, 2),
            ),
            Case(
                "pixel_unshuffle",
                lambda x: mb.pixel_unshuffle(x=x, downscale_factor=np.uint32(2)),
                lambda x: F.pixel_unshuffle(x, 2),
            ),
            Case(
                "depth_to_space",
                lambda x: mb.depth_to_space(x=x, block_size=2),
                lambda x: _depth_to_space(x, 2),
            ),
            Case(
                "space_to_depth",
                lambda x: mb.space_to_depth(x=x, block_size=2),
                lambda x: _space_to_depth(x, 2),
            ),
            Case(
                "space_to_batch",
                lambda x: mb.space_to_batch(x=x, block_shape=[2, 3], paddings=[[1, 1], [0, 2]]),
                _space_to_batch,
            ),
            Case(
                "batch_to_space",
                lambda x: mb.batch_to_space(
                    x=mb.space_to_batch(x=x, block_shape=[2, 3], paddings=[[1, 1], [0, 2]]),
                    block_shape=[2, 3],
                    crops=[[1, 1], [0, 2]],
                ),
                lambda x: x,
            ),
            Case(
                "crop",
                lambda x: mb.crop(x=x, crop_height=[1, 2], crop_width=[0, 3]),
                lambda x: x[:, :, 1:-2, :-3],
            ),
            Case("lower", lambda x: mb.band_part(x=x, lower=-1, upper=0), lambda x: torch.tril(x)),
            Case("upper", lambda x: mb.band_part(x=x, lower=0, upper=-1), lambda x: torch.triu(x)),
            Case(
                "band",
                lambda x: mb.band_part(x=x, lower=1, upper=2),
                lambda x: np.tril(np.triu(x.numpy(), -1), 2),
            ),
        ],
        {"x": normal(2, 8, 6, 10)},
    )


def test_padding() -> None:
    assert_agree(
        [
            Case(
                "constant",
                lambda x: mb.pad(x=x, pad=[1, 0, 2, 3], constant_val=1.5),
                lambda x: F.pad(x, (2, 3, 1, 0), value=1.5),
            ),
            Case(
                "all axes",
                lambda x: mb.pad(x=x, pad=[0, 1, 2, 0, 1, 1, 0, 0], mode="constant"),
                lambda x: np.pad(x.numpy(), ((0, 1), (2, 0), (1, 1), (0, 0))),
            ),
            Case(
                "reflect",
                lambda x: mb.pad(x=x, pad=[2, 1, 3, 4], mode="reflect"),
                lambda x: np.pad(x.numpy(), ((0, 0), (0, 0), (2, 1), (3, 4)), "reflect"),
            ),
            Case(
                "replicate",
                lambda x: mb.pad(x=x, pad=[1, 2, 0, 3, 4, 0], mode="replicate"),
                lambda x: np.pad(x.numpy(), ((0, 0), (1, 2), (0, 3), (4, 0)), "edge"),
            ),
        ],
        {"x": normal(1, 2, 4, 5)},
    )


def test_shapes_and_settings() -> None:
    assert_agree(
        [
            Case("shape", lambda x: mb.shape(x=x), lambda x: np.array([2, 3, 4])),
            Case(
                "fill", lambda x: mb.fill(shape=mb.shape(x=x), value=0.5), lambda x: np.full((2, 3, 4), 0.5)
            ),
            Case("fill, 0", lambda x: mb.fill(shape=[2, 1]), lambda x: np.zeros((2, 1))),
            Case("fill_like", lambda x: mb.fill_like(ref_tensor=x, value=7), lambda x: np.full((2, 3, 4), 7)),
            Case("range", lambda x: mb.range_1d(start=3, end=12, step=4), lambda x: np.array([3, 7, 11])),
            Case(
                "range, float",
                lambda x: mb.range_1d(start=0.5, end=2.0, step=0.5),
                lambda x: np.array([0.5, 1, 1.5]),
            ),
            Case("cast", lambda x: mb.cast(x=x, dtype="int32"), lambda x: np.trunc(x.numpy()).astype(int)),
            Case(
                "cast, bool",
                lambda x: mb.cast(x=mb.cast(x=mb.cast(x=x, dtype="int32"), dtype="bool"), dtype="fp32"),
                lambda x: (np.trunc(x.numpy()) != 0).astype(float),
            ),
            Case("non_zero", lambda x: mb.non_zero(x=mb.relu(x=x)), lambda x: np.argwhere(x.numpy() > 0)),
        ],
        {"x": normal(2, 3, 4) * 3},
    )
