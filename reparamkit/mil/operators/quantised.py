"""Weights that are stored in fewer bits, and quantised activations.

    constexpr_affine_dequantize      scale·(quantized_data - zero_point), both scalars or along `axis`
    constexpr_blockwise_shift_scale  scale·(data - offset), each scale and offset for a block of data of the
                                     size data.shape / scale.shape
    constexpr_cast                   source_val
    constexpr_lut_to_dense           iOS 16: lut[indices], the indices packed without gaps, the lowest bits
                                     first, in `shape`. iOS 18: the indices of each block look up tables of
                                     their own, lut[block…, index, :]; with several numbers to an entry they
                                     follow each other along vector_axis
    constexpr_sparse_to_dense        nonzero_data where `mask` has a bit, in row-major order, 0 elsewhere; iOS
                                     16 packs the mask, in `shape`
    constexpr_lut_to_sparse, constexpr_sparse_blockwise_shift_scale  the same of the elements under a mask:
                                     the mask, and the elements
    quantize                         clip(round(input / scale) + zero_point) in the range of output_dtype
    dequantize                       scale·(input - zero_point)

Source: coremltools/converters/mil/mil/ops/defs/iOS16/constexpr_ops.py, iOS18/compression.py and
iOS17/quantization_ops.py.
"""

from __future__ import annotations

import math

import torch

from reparamkit.mil.operators.base import Call, CannotEvaluate, axis_of, operator


@operator("constexpr_affine_dequantize", "quantized_data zero_point scale axis")
def affine_dequantize(call: Call) -> torch.Tensor:
    return _dequantised(call, call.tensor("quantized_data"))


@operator("constexpr_cast", "source_val output_dtype")
def constexpr_cast(call: Call) -> torch.Tensor:
    return call.tensor("source_val")


@operator("constexpr_lut_to_dense", "indices lut shape vector_axis")
def lut_to_dense(call: Call) -> torch.Tensor:
    lut, indices = call.tensor("lut"), call.tensor("indices")
    if not call.has("shape"):
        return _looked_up(call, indices, lut)
    shape = call.integers("shape")
    width = int(math.log2(lut.numel()))
    return lut[_unpacked(indices, width, math.prod(shape))].reshape(shape)


@operator("constexpr_sparse_to_dense", "nonzero_data mask shape")
def sparse_to_dense(call: Call) -> torch.Tensor:
    mask = call.tensor("mask")
    if call.has("shape"):
        shape = call.integers("shape")
        mask = _unpacked(mask, 1, math.prod(shape)).reshape(shape)
    return _dense(call.tensor("nonzero_data"), mask)


@operator("constexpr_blockwise_shift_scale", "data scale offset")
def blockwise_shift_scale(call: Call) -> torch.Tensor:
    return _shifted(call, call.tensor("data"))


@operator("constexpr_lut_to_sparse", "indices_mask indices_nonzero_data lut vector_axis")
def lut_to_sparse(call: Call) -> list[torch.Tensor]:
    mask, lut = call.tensor("indices_mask"), call.tensor("lut")
    dense = _looked_up(call, _dense(call.tensor("indices_nonzero_data"), mask), lut)
    if lut.shape[-1] > 1:
        mask = mask.repeat_interleave(lut.shape[-1], call.integer("vector_axis"))
    return [mask, dense[mask != 0]]


@operator("constexpr_sparse_blockwise_shift_scale", "data_mask nonzero_data scale offset")
def sparse_blockwise_shift_scale(call: Call) -> list[torch.Tensor]:
    mask = call.tensor("data_mask")
    return [mask, _shifted(call, _dense(call.tensor("nonzero_data"), mask))[mask != 0]]


@operator("quantize", "input zero_point scale output_dtype axis")
def quantize(call: Call) -> torch.Tensor:
    x = call.tensor("input")
    dtype = {"int8": torch.int8, "uint8": torch.uint8}.get(call.text("output_dtype"))
    if dtype is None or dtype is not call.operation.outputs[0].dtype:
        raise CannotEvaluate(f"has the output_dtype {call.text('output_dtype')!r}")
    scale, shift = _scales(call, x)
    limits = torch.iinfo(dtype)
    return (torch.round(x / scale) + shift).clamp(limits.min, limits.max).to(dtype)


@operator("dequantize", "input zero_point scale axis")
def dequantize(call: Call) -> torch.Tensor:
    return _dequantised(call, call.tensor("input"))


def _dequantised(call: Call, data: torch.Tensor) -> torch.Tensor:
    scale, shift = _scales(call, data)
    return scale * (data.to(call.floating) - shift)


def _scales(call: Call, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """scale and zero_point, so shaped that they broadcast along their axis."""
    scale = call.tensor("scale")
    shift = call.tensor("zero_point") if call.has("zero_point") else torch.zeros(())
    pair = []
    for values in (scale, shift):
        if values.dim() == 1:
            axis = axis_of(call.integer("axis"), data.dim())
            values = values.reshape(-1, *[1] * (data.dim() - axis - 1))
        pair.append(values.to(call.floating))
    return pair[0], pair[1]


def _shifted(call: Call, data: torch.Tensor) -> torch.Tensor:
    scale = call.tensor("scale")
    y = data.to(call.floating)
    if call.has("offset"):
        y = y - _blocks(call.tensor("offset").to(call.floating), data.shape)
    return y * _blocks(scale, data.shape)


def _blocks(values: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Each value repeated over its block, so that the whole has the given shape."""
    if values.dim() != len(shape):
        raise CannotEvaluate(f"has {values.dim()} axes of blocks for {len(shape)}")
    for axis, size in enumerate(shape):
        if size % values.shape[axis]:
            raise CannotEvaluate(f"has {values.shape[axis]} blocks for an axis of {size}")
        values = values.repeat_interleave(size // values.shape[axis], axis)
    return values


def _dense(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    where = mask != 0
    if int(where.sum()) != values.numel():
        raise CannotEvaluate(f"has {values.numel()} elements for {int(where.sum())} places")
    empty = torch.zeros(mask.shape, dtype=values.dtype)
    return empty.masked_scatter(where, values)


def _looked_up(call: Call, indices: torch.Tensor, lut: torch.Tensor) -> torch.Tensor:
    entries, length = lut.shape[-2:]
    # The table that each index belongs to, numbered, then the entry in all tables in one list.
    count = math.prod(lut.shape[:-2])
    tables = _blocks(torch.arange(count).reshape(lut.shape[:-2]), indices.shape)
    chosen = lut.reshape(-1, length)[tables * entries + indices.to(torch.int64)]
    if length == 1:
        return chosen.squeeze(-1)
    axis = axis_of(call.integer("vector_axis"), indices.dim())
    return chosen.movedim(-1, axis + 1).flatten(axis, axis + 1)


def _unpacked(data: torch.Tensor, width: int, count: int) -> torch.Tensor:
    """`count` indices of `width` bits out of bytes."""
    if data.numel() != (count * width + 7) // 8:
        raise CannotEvaluate(f"has {data.numel()} bytes for {count} elements of {width} bits")
    bits = (data.to(torch.int64)[:, None] >> torch.arange(8)) & 1
    flat = bits.reshape(-1)[: count * width].reshape(count, width)
    return (flat << torch.arange(width)).sum(-1)
