"""Runs an ONNX file in a process of its own, where ONNX Runtime may end the process.

Its LSTM and GRU abort on a batch without samples, where torch returns an empty tensor. Whether a batch inside
a network is empty is not known before it runs (`y[1:]` of a batch of one), so that a file with one of them
runs apart: what ends there is an error here.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from reparamkit.errors import UnusableInput

if TYPE_CHECKING:
    import onnx

_ABORTING = frozenset(("LSTM", "GRU"))

_CHILD = """
import io, sys

import numpy, onnxruntime

given, answer = sys.stdin.buffer, sys.stdout.buffer

def take():
    size = int.from_bytes(given.read(8), "little")
    return given.read(size)

def give(data):
    answer.write(len(data).to_bytes(8, "little") + data)

options = onnxruntime.SessionOptions()
options.log_severity_level = 4
opened = take()
session = onnxruntime.InferenceSession(
    opened or sys.argv[1], sess_options=options, providers=["CPUExecutionProvider"]
)
while True:
    count = given.read(8)
    if len(count) < 8:
        break
    fed = {}
    for _ in range(int.from_bytes(count, "little")):
        name = take().decode()
        fed[name] = numpy.load(io.BytesIO(take()), allow_pickle=False)
    wanted = [take().decode() for _ in range(int.from_bytes(given.read(8), "little"))]
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
    answer.flush()
"""


def may_abort(model: onnx.ModelProto) -> bool:
    """Whether a model has an operator in it on which ONNX Runtime is known to abort."""
    graphs, nodes = [model.graph], [node for function in model.functions for node in function.node]
    while graphs:
        nodes += graphs.pop().node
        while nodes:
            node = nodes.pop()
            if node.op_type in _ABORTING:
                return True
            graphs += [each.g for each in node.attribute if each.HasField("g")]
            graphs += [graph for each in node.attribute for graph in each.graphs]
    return False


class ApartSession:
    """A session of ONNX Runtime in another process.

    Args:
        path: the file.
        model: what to run in place of the file's content, serialised.
    """

    def __init__(self, path: str, model: bytes = b"") -> None:
        self._path, self._model = path, model
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, wanted: Sequence[str], fed: Mapping[str, np.ndarray[Any, Any]]) -> list[Any]:
        """The outputs of these names.

        Raises:
            RuntimeError: what ONNX Runtime says, or that it ended its process.
            UnusableInput: no other process can be started.
        """
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(len(fed).to_bytes(8, "little"))
            for name, value in fed.items():
                _give(process.stdin, name.encode())
                part = io.BytesIO()
                np.save(part, value, allow_pickle=False)
                _give(process.stdin, part.getvalue())
            process.stdin.write(len(wanted).to_bytes(8, "little"))
            for name in wanted:
                _give(process.stdin, name.encode())
            process.stdin.flush()
            said = _take(process.stdout)
            if not said:
                parts = [_take(process.stdout) for _ in wanted]
                return [np.load(io.BytesIO(part), allow_pickle=False) for part in parts]
        except (OSError, EOFError):
            self._process = None
            process.kill()
            raise RuntimeError(f"ONNX Runtime ends its process ({_way(process.wait())})") from None
        raise RuntimeError(said.decode("utf-8", "replace"))

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            # Found where this process finds it, and nowhere else.
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
            try:
                process = subprocess.Popen(
                    [sys.executable, "-c", _CHILD, self._path],
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
            except (OSError, ValueError) as error:
                raise UnusableInput(
                    f"{self._path} has an LSTM or a GRU in it, on which ONNX Runtime may end its process, "
                    f"and no other process can be started to run it in: {error}"
                ) from error
            weakref.finalize(self, _end, process)
            assert process.stdin is not None
            with suppress(OSError):  # it has ended already, which is told where it is asked
                _give(process.stdin, self._model)
            self._process = process
        return self._process


def _give(stream: Any, data: bytes) -> None:
    stream.write(len(data).to_bytes(8, "little"))
    stream.write(data)


def _take(stream: Any) -> bytes:
    return _exactly(stream, int.from_bytes(_exactly(stream, 8), "little"))


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data


def _way(status: int) -> str:
    known = {-number: number.name for number in signal.Signals}
    return known.get(status, f"status {status}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.close()
