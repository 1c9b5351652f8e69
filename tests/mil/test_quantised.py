"""Weights in fewer bits: against the definitions written out, and against what coremltools unpacks itself."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reparamkit.mil.evaluate import evaluate
from reparamkit.mil.program import open_program
from reparamkit.mil.types import BY_NAME, unpack
from reparamkit.runners.coreml import CoreMlRunner
from reparamkit.support.quiet import quiet
from tests.mil.programs import Case, array, assert_agree, ct, mb, normal, read, save, types

with quiet():
    import coremltools.optimize as cto

DATA = np.array([[-7, 3, 0, 127], [5, -128, 9, 1]], np.int8)
SCALE = np.array([0.5, 0.125], np.float32)


def _plus(x: Any, value: Any) -> Any:
    """The constant, made an operation's operand: a program's output has to come of an input."""
    return mb.add(x=mb.mul(x=x, y=np.float32(0)), y=value)


def test_affine_and_lookup() -> None:
    shift = np.array([3, -4], np.int8)
    packed = np.array([0b01101100, 0b00000011], np.uint8)  # the reference's example: 0, 3, 2, 1, 3
    lut = np.array([1.0, 5.0, 9.0, 13.0], np.float32)
    mask = np.array([0b00001100], np.uint8)
    dense = np.zeros(5)
    dense[2:4] = [0.5, 1.5]
    assert_agree(
        [
            Case(
                "affine, rows",
                lambda x: _plus(
                    x,
                    mb.constexpr_affine_dequantize(
                        quantized_data=DATA, zero_point=shift, scale=SCALE, axis=np.int32(0)
                    ),
                ),
                lambda x: SCALE[:, None] * (DATA.astype(float) - shift[:, None]),
            ),
            Case(
                "affine, scalar",
                lambda x: _plus(
                    x,
                    mb.constexpr_affine_dequantize(
                        quantized_data=DATA, zero_point=np.int8(2), scale=np.float32(0.25), axis=np.int32(1)
                    ),
                ),
                lambda x: 0.25 * (DATA.astype(float) - 2),
            ),
            Case(
                "lookup",
                lambda x: mb.constexpr_lut_to_dense(indices=packed, lut=lut, shape=np.array([5], np.uint32)),
                lambda x: lut[[0, 3, 2, 1, 3]].astype(float),
            ),
            Case(
                "sparse",
                lambda x: mb.constexpr_sparse_to_dense(
                    nonzero_data=np.array([0.5, 1.5], np.float32), mask=mask, shape=np.array([5], np.uint32)
                ),
                lambda x: dense,
            ),
            Case(
                "cast",
                lambda x: _plus(
                    x, mb.constexpr_cast(source_val=np.array([[0.1], [3]], np.float16), output_dtype="fp32")
                ),
                lambda x: np.array([[0.1], [3]], np.float16).astype(float).repeat(4, 1),
            ),
        ],
        {"x": normal(2, 4)},
        ios=16,
    )


def test_blocks_and_vectors() -> None:
    """The examples of the iOS 18 reference."""
    four = types.np_int4_dtype if hasattr(types, "np_int4_dtype") else np.int8
    data = np.arange(-8, 16).reshape(4, 6).astype(np.int8)
    scale = np.array([[0.5, 2.0], [1.0, 0.25]], np.float32)
    offset = np.array([[1, -2], [3, 0]], np.int8)
    repeated = [each.astype(float).repeat(2, 0).repeat(3, 1) for each in (scale, offset)]
    del four
    groups = np.array([[2, 3], [3, 0], [1, 0], [3, 0], [2, 1], [0, 3]], np.uint8)
    tables = np.array([1, 5, 9, 13, 2, 10, 18, 26], np.float32).reshape(2, 1, 4, 1)
    two = types.nptype_from_builtin(types.uint2)
    looked_up = [[9, 13], [13, 1], [5, 1], [26, 2], [18, 10], [2, 26]]
    one = types.nptype_from_builtin(types.uint1)
    bits = np.array([[[0, 0], [1, 0]], [[1, 1], [0, 0]]], np.uint8)
    vectors = np.array([[1.0, 2, 3], [4, 5, 6]], np.float32).reshape(1, 1, 1, 2, 3)
    along = [
        [[1, 1], [2, 2], [3, 3], [4, 1], [5, 2], [6, 3]],
        [[4, 4], [5, 5], [6, 6], [1, 1], [2, 2], [3, 3]],
    ]
    last = [[[1, 2, 3, 1, 2, 3], [4, 5, 6, 1, 2, 3]], [[4, 5, 6, 4, 5, 6], [1, 2, 3, 1, 2, 3]]]
    assert_agree(
        [
            Case(
                "shift and scale",
                lambda x: mb.constexpr_blockwise_shift_scale(data=data, scale=scale, offset=offset),
                lambda x: repeated[0] * (data - repeated[1]),
            ),
            Case(
                "scale alone",
                lambda x: mb.constexpr_blockwise_shift_scale(data=data, scale=scale),
                lambda x: repeated[0] * data,
            ),
            Case(
                "groups",
                lambda x: mb.constexpr_lut_to_dense(indices=groups.astype(two), lut=tables),
                lambda x: np.array(looked_up, float),
            ),
            Case(
                "vectors",
                lambda x: mb.constexpr_lut_to_dense(
                    indices=bits.astype(one), lut=vectors, vector_axis=np.int32(1)
                ),
                lambda x: np.array(along, float),
            ),
            Case(
                "vectors, last axis",
                lambda x: mb.constexpr_lut_to_dense(
                    indices=bits.astype(one), lut=vectors, vector_axis=np.int32(-1)
                ),
                lambda x: np.array(last, float),
            ),
        ],
        {"x": normal(2, 4)},
        ios=18,
    )


def test_sparse_tables_and_scales() -> None:
    """The examples of the iOS 18 reference, joined to what is dense."""
    one = types.nptype_from_builtin(types.uint1)
    mask = np.array([[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 1], [0, 1, 1, 0, 1, 0], [0, 0, 0, 1, 0, 0]])
    picked = np.array([0, 1, 1, 0, 1, 1, 0, 0, 1])
    lut = np.array([2.0, 3.0], np.float32).reshape(1, 1, 2, 1)
    found = np.zeros((4, 6))
    found[mask == 1] = np.where(picked, 3.0, 2.0)
    other = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1], [1, 1, 0, 0]])
    values = np.array([10, 11, 3, 4, 5, 6, 7, 8, 9], np.int8)
    scale, offset = np.array([[0.1, 0.2, 0.3, 0.4]], np.float32), np.array([[1, 2, 3, 4]], np.int8)
    columns = np.nonzero(other)[1]
    scaled = np.zeros((4, 4))
    scaled[other == 1] = (values.astype(float) - offset[0, columns]) * scale[0, columns].astype(float)

    def table(x: Any) -> Any:
        where, what = mb.constexpr_lut_to_sparse(
            indices_mask=mask.astype(one), indices_nonzero_data=picked.astype(one), lut=lut
        )
        return mb.constexpr_sparse_to_dense(nonzero_data=what, mask=where)

    def blocks(x: Any) -> Any:
        where, what = mb.constexpr_sparse_blockwise_shift_scale(
            data_mask=other.astype(one), nonzero_data=values, scale=scale, offset=offset
        )
        return mb.constexpr_sparse_to_dense(nonzero_data=what, mask=where)

    assert_agree(
        [Case("table", table, lambda x: found), Case("blocks", blocks, lambda x: scaled)],
        {"x": normal(2, 4)},
        ios=18,
    )


def test_activations_to_integers_and_back() -> None:
    step, shift = np.array([0.25, 0.5, 0.125], np.float32), np.array([0, 10, -20], np.int8)

    def whole(x: torch.Tensor) -> Any:
        return np.clip(np.round(x.numpy() / step[:, None]) + shift[:, None], -128, 127)

    def there_and_back(x: Any) -> Any:
        there = mb.quantize(input=x, zero_point=shift, scale=step, output_dtype="int8", axis=1)
        return mb.dequantize(input=there, zero_point=shift, scale=step, axis=1)

    assert_agree(
        [
            Case("rows", there_and_back, lambda x: step[:, None].astype(float) * (whole(x) - shift[:, None])),
            Case(
                "unsigned, scalar",
                lambda x: mb.dequantize(
                    input=mb.quantize(input=x, scale=np.float32(0.5), output_dtype="uint8"),
                    scale=np.float32(0.5),
                ),
                lambda x: 0.5 * np.clip(np.round(x.numpy() / 0.5), 0, 255),
            ),
        ],
        {"x": normal(2, 3, 5) * 20},
    )


@pytest.mark.parametrize("name", ["int4", "uint1", "uint2", "uint3", "uint4", "uint6"])
def test_packed_integers_as_coremltools_packs_them(name: str) -> None:
    from coremltools.optimize import _utils

    kind = BY_NAME[name]
    low = -(1 << (kind.bits - 1)) if kind.signed else 0
    values = np.random.default_rng(0).integers(low, low + (1 << kind.bits), 37, dtype=kind.stored)
    packed = _utils.pack_elements_into_bits(values, kind.bits)
    assert unpack(packed.tobytes(), kind, 37).tolist() == values.tolist()
    with pytest.raises(ValueError, match="hold no 64 values"):
        unpack(packed.tobytes(), kind, 64)


def _two_layers(x: Any) -> Any:
    y = mb.relu(x=mb.conv(x=x, weight=array(32, 16, 3, 3), pad_type="same", name="first"))
    return mb.conv(x=y, weight=array(16, 32, 3, 3, seed=5), name="second")


@pytest.mark.diagonal(2)
@pytest.mark.parametrize(
    ("ios", "settings"),
    [
        (16, "quantised"),
        (16, "palettised"),
        (16, "pruned"),
        (18, "quantised in blocks"),
        (18, "palettised in groups"),
    ],
)
def test_what_coremltools_compresses(ios: int, settings: str) -> None:
    """A saved file, compressed by coremltools' own passes, against its own unpacking."""
    x = normal(1, 16, 9, 9)
    optimise = cto.coreml
    config: Any
    if settings == "quantised":
        config = optimise.OpLinearQuantizerConfig(mode="linear", weight_threshold=1)
        change: Any = optimise.linear_quantize_weights
    elif settings == "quantised in blocks":
        config = optimise.OpLinearQuantizerConfig(
            mode="linear", dtype="int4", granularity="per_block", block_size=8, weight_threshold=1
        )
        change = optimise.linear_quantize_weights
    elif settings == "palettised":
        config = optimise.OpPalettizerConfig(mode="uniform", nbits=4, weight_threshold=1)
        change = optimise.palettize_weights
    elif settings == "palettised in groups":
        config = optimise.OpPalettizerConfig(
            mode="uniform", nbits=3, granularity="per_grouped_channel", group_size=8, weight_threshold=1
        )
        change = optimise.palettize_weights
    else:
        config = optimise.OpMagnitudePrunerConfig(target_sparsity=0.6, weight_threshold=1)
        change = optimise.prune_weights
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = save(_two_layers, {"x": x}, Path(folder) / "plain.mlpackage", ios=ios)
        model = ct.models.MLModel(str(path), skip_model_load=True)
        packed = change(model, optimise.OptimizationConfig(global_config=config))
        packed.save(str(Path(folder) / "packed.mlpackage"))
        unpacked = optimise.decompress_weights(packed)
        unpacked.save(str(Path(folder) / "unpacked.mlpackage"))
        runner = CoreMlRunner(Path(folder) / "packed.mlpackage")
        wanted = evaluate(open_program(Path(folder) / "unpacked.mlpackage"), {"x": x})
        original = evaluate(open_program(path), {"x": x})
    assert any(kind.startswith("constexpr_") for kind in runner.operators)
    assert runner.precision == ("float32" if settings == "pruned" else "int8")
    ((_, found),) = runner.run((x,), {})
    (expected,), (plain,) = wanted.values(), original.values()
    scale = float(expected.abs().max())
    assert float((found - expected).abs().max()) <= 1e-6 * scale
    assert float((found - plain).abs().max()) > 1e-4 * scale


def test_a_program_without_compressed_weights_is_not_int8() -> None:
    program = read(_two_layers, {"x": normal(1, 16, 9, 9)})
    assert program.counts == {"conv": 2, "relu": 1}
