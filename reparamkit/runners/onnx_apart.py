"""Runs an ONNX file in a process of its own, where ONNX Runtime may end the process.

Its LSTM and GRU abort on a batch without samples, where torch returns an empty tensor. Whether a batch inside
a network is empty is not known before it runs (`y[1:]` of a batch of one), so that a file with one of them
runs apart: what ends there is an error here.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from reparamkit.errors import UnusableInput
from reparamkit.runners.apart import CHILD, Apart

if TYPE_CHECKING:
    import onnx

_ABORTING = frozenset(("LSTM", "GRU"))

_SESSION = """
import io

import numpy, onnxruntime

options = onnxruntime.SessionOptions()
options.log_severity_level = 4
opened = take()
session = onnxruntime.InferenceSession(
    opened or sys.argv[1], sess_options=options, providers=["CPUExecutionProvider"]
)
while True:
    count = take()
    if len(count) < 8:
        break
    fed = {}
    for _ in range(int.from_bytes(count, "little")):
        name = take().decode()
        fed[name] = numpy.load(io.BytesIO(take()), allow_pickle=False)
    wanted = [take().decode() for _ in range(int.from_bytes(take(), "little"))]
    try:
        parts = []
        for value in session.run(wanted, fed):
            part = io.BytesIO()
            numpy.save(part, value, allow_pickle=False)
            parts.append(part.getvalue())
        give(b"")
        for part in parts:
            give(part)
    except Exception as error:
        give(str(error).encode("utf-8", "replace") or b"an error without words")
"""


def may_abort(model: onnx.ModelProto) -> bool:
    """Whether a model has an operator in it on which ONNX Runtime is known to abort."""
    return any(node.op_type in _ABORTING for node in nodes_of(model))


def nodes_of(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """All nodes of a model, those in functions and subgraphs included."""
    pending = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    nodes = []
    while pending:
        node = pending.pop()
        nodes.append(node)
        for attribute in node.attribute:
            for graph in [attribute.g, *attribute.graphs]:
                pending += graph.node
    return nodes


class ApartSession:
    """A session of ONNX Runtime in another process.

    Args:
        path: the file.
        model: what to run in place of the file's content, serialised.
    """

    def __init__(self, path: str, model: bytes = b"") -> None:
        self._path, self._model = path, model
        self._process: Apart | None = None

    def run(self, wanted: Sequence[str], fed: Mapping[str, np.ndarray[Any, Any]]) -> list[Any]:
        """The outputs of these names.

        Raises:
            RuntimeError: what ONNX Runtime says, or that it ended its process.
            UnusableInput: no other process can be started.
        """
        process = self._started()
        try:
            pieces = [_count(fed)]
            for name, value in fed.items():
                part = io.BytesIO()
                np.save(part, value, allow_pickle=False)
                pieces += [name.encode(), part.getvalue()]
            process.give(*pieces, _count(wanted), *(name.encode() for name in wanted))
            said = process.take()
            if not said:
                parts = [process.take() for _ in wanted]
                return [np.load(io.BytesIO(part), allow_pickle=False) for part in parts]
        except (OSError, EOFError):
            self._process = None
            raise RuntimeError(f"ONNX Runtime ends its process ({process.end()})") from None
        raise RuntimeError(said.decode("utf-8", "replace"))

    def _started(self) -> Apart:
        if self._process is None:
            try:
                self._process = Apart(CHILD + _SESSION, self._path)
            except (OSError, ValueError) as error:
                raise UnusableInput(
                    f"{self._path} has an LSTM or a GRU in it, on which ONNX Runtime may end its process, "
                    f"and no other process can be started to run it in: {error}"
                ) from error
            with suppress(OSError):  # it has ended already, which is told where it is asked
                self._process.give(self._model)
        return self._process


def _count(things: Collection[Any]) -> bytes:
    return len(things).to_bytes(8, "little")
