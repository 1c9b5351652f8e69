"""Operators that move elements between channels, places and samples.

With b the block and c' the smaller number of channels, x and y in the order (sample, channel, row, column):

    pixel_shuffle    y[n, c, b·i + p, b·j + q] = x[n, (c·b + p)·b + q, i, j]       pixel_unshuffle its inverse
    depth_to_space   y[n, c, b·i + p, b·j + q] = x[n, (p·b + q)·c' + c, i, j]      space_to_depth its inverse
    space_to_batch   pads rows and columns by `paddings`, then y[(p·bw + q)·N + n, c, i, j] = x[n, c, bh·i +
                     p, bw·j + q]
    batch_to_space   its inverse, with `crops` cut off at the end
    sliding_windows  every window of `size` along `axis`, `stride` (1) apart; the windows' own axis follows it
    crop             cuts (before, after) off the rows and columns, the last two axes
    band_part        zero outside the band of `lower` (-1: all) diagonals below and `upper` above the main one
    reverse          along `axes` (all)         reverse_sequence  the first lengths[n] elements of each sample
    tile             repeated reps[i] times along each axis
    concat           along `axis`; with `interleave` one element of each in turn. Scalars become a vector
    stack            along a new axis
    split            into num_splits equal parts along `axis`, or into parts of split_sizes
    pad              (before, after) elements around each of the last axes: constant_val (0), or with mode
                     "reflect" those inside in reverse order without the outermost, or with "replicate" it

depth_to_space and the batch operators are TensorFlow's, whose converter maps its own to them; pixel_shuffle
is PyTorch's. Source: coremltools/converters/mil/mil/ops/defs/iOS15/tensor_transformation.py,
image_resizing.py (crop), tensor_operation.py (band_part, concat, pad, split, stack, tile),
iOS16/tensor_transformation.py (pixel_unshuffle).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from reparamkit.mil.operators.base import Call, CannotEvaluate, axis_of, operator


@operator("pixel_shuffle", "x upscale_factor")
def pixel_shuffle(call: Call) -> torch.Tensor:
    return F.pixel_shuffle(call.tensor("x"), call.integer("upscale_factor"))


@operator("pixel_unshuffle", "x downscale_factor")
def pixel_unshuffle(call: Call) -> torch.Tensor:
    return F.pixel_unshuffle(call.tensor("x"), call.integer("downscale_factor"))


@operator("depth_to_space", "x block_size")
def depth_to_space(call: Call) -> torch.Tensor:
    x, block = _image(call), call.integer("block_size")
    n, c, h, w = x.shape
    parts = x.reshape(n, block, block, c // block**2, h, w)
    return parts.permute(0, 3, 4, 1, 5, 2).reshape(n, c // block**2, h * block, w * block)


@operator("space_to_depth", "x block_size")
def space_to_depth(call: Call) -> torch.Tensor:
    x, block = _image(call), call.integer("block_size")
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // block, block, w // block, block)
    return parts.permute(0, 3, 5, 1, 2, 4).reshape(n, c * block**2, h // block, w // block)


@operator("space_to_batch", "x block_shape paddings")
def space_to_batch(call: Call) -> torch.Tensor:
    (top, bottom, left, right), (rows, columns) = call.integers("paddings"), call.integers("block_shape")
    x = F.pad(_image(call), (left, right, top, bottom))
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // rows, rows, w // columns, columns)
    return parts.permute(3, 5, 0, 1, 2, 4).reshape(-1, c, h // rows, w // columns)


@operator("batch_to_space", "x block_shape crops")
def batch_to_space(call: Call) -> torch.Tensor:
    (top, bottom, left, right), (rows, columns) = call.integers("crops"), call.integers("block_shape")
    n, c, h, w = (x := _image(call)).shape
    parts = x.reshape(rows, columns, n // (rows * columns), c, h, w)
    y = parts.permute(2, 3, 4, 0, 5, 1).reshape(-1, c, h * rows, w * columns)
    return y[:, :, top : h * rows - bottom, left : w * columns - right]


@operator("sliding_windows", "x axis size stride")
def sliding_windows(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    axis = axis_of(call.integer("axis"), x.dim())
    return x.unfold(axis, call.integer("size"), call.integer("stride", 1)).movedim(-1, axis + 1)


@operator("crop", "x crop_height crop_width")
def crop(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    (top, bottom), (left, right) = call.integers("crop_height"), call.integers("crop_width")
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


@operator("band_part", "x lower upper")
def band_part(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    lower, upper = call.integer("lower", -1), call.integer("upper", -1)
    below = torch.arange(x.shape[-2])[:, None] - torch.arange(x.shape[-1])
    inside = torch.ones_like(below, dtype=torch.bool)
    if lower >= 0:
        inside = inside & (below <= lower)
    if upper >= 0:
        inside = inside & (-below <= upper)
    return torch.where(inside, x, torch.zeros_like(x))


@operator("reverse", "x axes")
def reverse(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    return x.flip(call.integers("axes", range(x.dim())))


@operator("reverse_sequence", "x lengths seq_axis batch_axis")
def reverse_sequence(call: Call) -> torch.Tensor:
    x, lengths = call.tensor("x"), call.integers("lengths")
    along = axis_of(call.integer("seq_axis", 0), x.dim())
    batch = axis_of(call.integer("batch_axis", 0), x.dim())
    samples = []
    for place, length in enumerate(lengths):
        sample = x.narrow(batch, place, 1)
        turned = sample.narrow(along, 0, length).flip(along)
        samples.append(torch.cat([turned, sample.narrow(along, length, x.shape[along] - length)], along))
    return torch.cat(samples, batch)


@operator("tile", "x reps")
def tile(call: Call) -> torch.Tensor:
    return call.tensor("x").tile(call.integers("reps"))


def _image(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    if x.dim() != 4:
        raise CannotEvaluate(f"has an input with {x.dim()} axes")
    return x


@operator("concat", "values axis interleave")
def concat(call: Call) -> torch.Tensor:
    values = call.tensors("values")
    if values[0].dim() == 0:
        return torch.stack(values)
    axis = axis_of(call.integer("axis"), values[0].dim())
    if call.flag("interleave", False):
        return torch.stack(values, axis + 1).flatten(axis, axis + 1)
    return torch.cat(values, axis)


@operator("stack", "values axis")
def stack(call: Call) -> torch.Tensor:
    return torch.stack(call.tensors("values"), call.integer("axis"))


@operator("split", "x num_splits split_sizes axis")
def split(call: Call) -> list[torch.Tensor]:
    x, axis = call.tensor("x"), call.integer("axis")
    if call.has("split_sizes"):
        sizes = call.integers("split_sizes")
    else:
        count = call.integer("num_splits")
        if count < 1 or x.shape[axis] % count:
            raise CannotEvaluate(f"has {count} equal parts for an axis of {x.shape[axis]}")
        sizes = [x.shape[axis] // count] * count
    return list(torch.split_with_sizes(x, sizes, axis))


@operator("pad", "x pad mode constant_val")
def pad(call: Call) -> torch.Tensor:
    x, flat, mode = call.tensor("x"), call.integers("pad"), call.text("mode", "constant")
    pads = list(zip(flat[::2], flat[1::2], strict=True))
    if len(pads) > x.dim() or min(flat, default=0) < 0:
        raise CannotEvaluate(f"has the pad {flat} for an input with {x.dim()} axes")
    if mode == "constant":
        reverse = [number for before, after in reversed(pads) for number in (before, after)]
        return F.pad(x, reverse, value=call.number("constant_val", 0.0))
    if mode not in ("reflect", "replicate"):
        raise CannotEvaluate(f"has the unknown mode {mode!r}")
    for axis, (before, after) in enumerate(pads, start=x.dim() - len(pads)):
        size = x.shape[axis]
        places = torch.arange(-before, size + after)
        if mode == "reflect":
            if max(before, after) >= size:
                raise CannotEvaluate(f"reflects {max(before, after)} elements of an axis of {size}")
            places = (size - 1) - ((size - 1) - places.abs()).abs()
        if before or after:
            x = x.index_select(axis, places.clamp(0, size - 1))
    return x
