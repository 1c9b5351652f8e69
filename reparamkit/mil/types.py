"""The element types of MIL and what they are in torch.

Source: MIL.proto in coremltools (DataType), and BlobDataType in its MILBlob for the file of weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class MilType:
    """An element type.

    Attributes:
        name: as `cast` writes it: "fp16".
        number: in MIL.proto.
        blob: its number in a file of weights; None where it cannot be there.
        bits: of an element in the file.
        stored: NumPy's type of the stored elements; of the bytes where several elements share one.
        dtype: the torch type that holds its values; None where there is none.
    """

    name: str
    number: int
    blob: int | None
    bits: int
    stored: str
    dtype: torch.dtype | None

    @property
    def signed(self) -> bool:
        return self.name.startswith("int")

    @property
    def held(self) -> np.dtype[np.generic]:
        """NumPy's type for the values in memory."""
        wider = {"uint16": np.int32, "uint32": np.int64, "uint64": np.int64}
        return np.dtype(wider.get(self.name, self.stored))


_TYPES = [
    MilType("bool", 1, None, 8, "?", torch.bool),
    MilType("fp16", 10, 1, 16, "<f2", torch.float16),
    MilType("fp32", 11, 2, 32, "<f4", torch.float32),
    MilType("fp64", 12, None, 64, "<f8", torch.float64),
    MilType("int8", 21, 4, 8, "i1", torch.int8),
    MilType("int16", 22, 6, 16, "<i2", torch.int16),
    MilType("int32", 23, 14, 32, "<i4", torch.int32),
    MilType("int64", 24, None, 64, "<i8", torch.int64),
    MilType("int4", 25, 8, 4, "i1", torch.int8),
    MilType("uint8", 31, 3, 8, "u1", torch.uint8),
    MilType("uint16", 32, 7, 16, "<u2", torch.int32),
    MilType("uint32", 33, 15, 32, "<u4", torch.int64),
    MilType("uint64", 34, None, 64, "<u8", torch.int64),
    MilType("uint4", 35, 11, 4, "u1", torch.uint8),
    MilType("uint2", 36, 10, 2, "u1", torch.uint8),
    MilType("uint1", 37, 9, 1, "u1", torch.uint8),
    MilType("uint6", 38, 13, 6, "u1", torch.uint8),
    MilType("uint3", 39, 12, 3, "u1", torch.uint8),
]

STRING = 2
BY_NUMBER = {each.number: each for each in _TYPES}
BY_NAME = {each.name: each for each in _TYPES}


def unpack(data: bytes, kind: MilType, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    """`count` values of a type from their bytes, in memory of their own.

    Elements below 8 bits are packed without gaps, the lowest bits first, also across bytes.

    Raises:
        ValueError: there are too few or too many bytes.
    """
    if len(data) != (count * kind.bits + 7) // 8:
        raise ValueError(f"{len(data)} bytes hold no {count} values of {kind.name}")
    if kind.bits >= 8:
        return np.frombuffer(data, kind.stored).astype(kind.held)
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[: count * kind.bits]
    weights = 1 << np.arange(kind.bits, dtype=np.int16)
    values = bits.reshape(count, kind.bits).astype(np.int16) @ weights
    if kind.signed:
        values = np.where(values >= 1 << (kind.bits - 1), values - (1 << kind.bits), values)
    return values.astype(kind.held)
