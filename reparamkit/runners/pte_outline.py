"""What an ExecuTorch program is made of: operators, those that a delegate runs, and the types of its weights.

The runtime does not say; the file does. ExecuTorch's package brings the schemas of its flatbuffers and the
compiler that reads them, which runs as a process of its own. Inside XNNPACK's part of a file lies a
flatbuffer of the same kind.
"""

from __future__ import annotations

import json
import re
import struct
import subprocess
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from reparamkit.errors import MissingExtra, UnusableInput
from reparamkit.loading.door.pte_file import HEADER, HEADER_AT, MAGIC
from reparamkit.runners.base import least_precise

XNNPACK = "XnnpackBackend"

_PROGRAM = "exir/_serialize/program.fbs"
_XNNPACK = "backends/xnnpack/serialization/schema.fbs"
_SECONDS = 60
_LARGEST = 256 << 20
"""Beyond this, a flatbuffer holds its weights itself, and as text would be five times as long."""
_NOT_A_NUMBER = re.compile(rb"(?<=[\s:\[,])-?(?:inf|nan)(?=[\s,\]}])")
_XNN_HEADER = struct.Struct("<4s4sHII")
"""Zeros, magic, length, where the flatbuffer begins, and its size."""
_XNN_MAGIC = b"XH00"
_DTYPES = {
    "FLOAT": torch.float32,
    "DOUBLE": torch.float64,
    "HALF": torch.float16,
    "BFLOAT16": torch.bfloat16,
    "xnn_datatype_fp32": torch.float32,
    "xnn_datatype_fp16": torch.float16,
    "xnn_datatype_pfp32": torch.float32,
}
_QUANTISED = re.compile(r"xnn_datatype_q\w+")
_QUANTISED_OPERATORS = ("quantized_decomposed::", "torchao::", "quantized::")


@dataclass(frozen=True)
class Outline:
    """What a program is made of.

    Attributes:
        operators: how many of each it holds, as the runtime calls them ("convolution"); those that XNNPACK
            runs as that calls them ("Conv2d"). Another delegate counts as one operator.
        delegated: how many of them a delegate runs.
        reserved: bytes that are reserved for values while it runs.
        precision: as in `StatesPrecision`.
    """

    operators: Counter[str]
    delegated: int
    reserved: int
    precision: str


def outline(path: Path, method: str = "forward") -> Outline:
    """Read a program.

    Raises:
        MissingExtra: executorch is not installed.
        UnusableInput: the file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(HEADER_AT + HEADER.size)
        size, segments_at = path.stat().st_size, 0
        if head[HEADER_AT : HEADER_AT + 4] == MAGIC:
            _, _, size, segments_at = HEADER.unpack_from(head, HEADER_AT)
        if size > _LARGEST:
            raise UnusableInput(f"{path} holds its weights in its program, which is too large to be read")
        file.seek(0)
        program = _decoded(file.read(size), _PROGRAM, path)
        try:
            plan = next(each for each in program["execution_plan"] if each["name"] == method)
            return _outlined(plan, program, file, segments_at, path)
        except (KeyError, IndexError, StopIteration, TypeError, AttributeError, struct.error) as error:
            raise UnusableInput(f"{path} is damaged: its program cannot be read; export it again") from error


def _outlined(plan: Any, program: Any, file: Any, segments_at: int, path: Path) -> Outline:
    names = [each["name"] for each in plan.get("operators", ())]
    operators: Counter[str] = Counter()
    delegated, kinds, quantised = 0, set(), any(name.startswith(_QUANTISED_OPERATORS) for name in names)
    for value in plan["values"]:
        if value.get("val_type") == "Tensor":
            tensor = value["val"]
            # One that is neither an input, an output nor a weight is computed, and may be a mask.
            kinds |= {_DTYPES.get(tensor.get("scalar_type"))} if tensor.get("data_buffer_idx") else set()
    for place in [*plan["inputs"], *plan["outputs"]]:
        value = plan["values"][place]
        if value.get("val_type") == "Tensor":
            kinds.add(_DTYPES.get(value["val"].get("scalar_type")))
    for instruction in (each for chain in plan["chains"] for each in chain["instructions"]):
        kind, arguments = instruction.get("instr_args_type"), instruction.get("instr_args") or {}
        if kind == "KernelCall":
            operators[names[arguments.get("op_index", 0)].rsplit("::", 1)[-1]] += 1
        elif kind == "DelegateCall":
            delegate = plan["delegates"][arguments.get("delegate_index", 0)]
            if delegate["id"] != XNNPACK:
                operators[delegate["id"]] += 1
                delegated += 1
                continue
            part = _xnnpack(_processed(delegate["processed"], program, file, segments_at), path)
            inside = Counter(node["xnode_union_type"].removeprefix("XNN") for node in part["xnodes"])
            operators += inside
            delegated += inside.total()
            for value in part["xvalues"]:
                tensor = value["xvalue_union"]
                tensor = tensor.get("tensor_value", tensor)
                quantised |= bool(_QUANTISED.fullmatch(tensor.get("datatype", "")))
                if tensor.get("constant_buffer_idx"):
                    kinds.add(_DTYPES.get(tensor.get("datatype", "")))
    precision = "int8" if quantised else least_precise({kind for kind in kinds if kind is not None})
    return Outline(operators, delegated, sum(plan.get("non_const_buffer_sizes", ())), precision)


def _processed(where: Any, program: Any, file: Any, segments_at: int) -> bytes:
    """What a delegate made of its part of the network."""
    index = where.get("index", 0)
    if where.get("location") != "SEGMENT":
        return bytes(program["backend_delegate_data"][index]["data"])
    segment = program["segments"][index]
    file.seek(segments_at + segment.get("offset", 0))
    data: bytes = file.read(segment["size"])
    return data


def _xnnpack(data: bytes, path: Path) -> Any:
    _, magic, _, begin, size = _XNN_HEADER.unpack_from(data)
    if magic == _XNN_MAGIC:
        data = data[begin : begin + size]
    return _decoded(data, _XNNPACK, path)


def _decoded(data: bytes, schema: str, path: Path) -> Any:
    """A flatbuffer as Python values; fields that have their default are left out."""
    package = _package()
    with TemporaryDirectory() as folder:
        source = Path(folder) / "part.bin"
        source.write_bytes(data)
        command = [
            *(str(package / "data" / "bin" / "flatc"), "--json", "--strict-json", "--raw-binary"),
            *("-o", folder, str(package / schema), "--", str(source)),
        ]
        try:
            ended = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
            text = source.with_suffix(".json").read_bytes() if ended.returncode == 0 else b""
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnusableInput(f"{path} cannot be read by ExecuTorch's flatbuffer compiler") from error
    try:
        return json.loads(_NOT_A_NUMBER.sub(b"null", text))
    except ValueError as error:
        raise UnusableInput(f"{path} is damaged: its program cannot be read; export it again") from error


@cache
def _package() -> Path:
    """Where ExecuTorch lies; importing it takes seconds, and is not needed for this."""
    spec = find_spec("executorch")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra("executorch", "executorch", "reading an ExecuTorch program")
    places = [Path(place) for place in spec.submodule_search_locations]
    return next((place for place in places if (place / _PROGRAM).is_file()), places[0])
