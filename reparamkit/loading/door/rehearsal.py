"""Opens and runs a file in a process of its own first, where its reader is written in C++.

ONNX Runtime and OpenVINO parse, optimise and fold constants before the first input is given, and what a file
computes can need any amount of memory: a shape of two numbers asks for it. A file that makes them crash, ask
for all memory or go on for ever does so there, under a limit of memory and time, and what is said here is an
error in words. It costs a third of a second, the time to open the file, and one run of it on zeros.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from reparamkit.errors import UnusableInput
from reparamkit.loading.door.memory import free_bytes

ONNX_RUNTIME, OPENVINO = "ONNX Runtime", "OpenVINO"

_SECONDS = 60
_BYTES_A_SECOND = 5_000_000
_SHARE = 0.5
"""Of the memory that is free: a comparison runs a network more than once, and another beside it."""
_ADDRESSES_A_CORE = 80 << 20
"""What a thread of a library reserves and does not use."""

LIMITS = """
import sys

def limit():
    # From here on, this process may take what is free, and no more.
    try:
        import resource
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        room = now + int(sys.argv[2])
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (room if hard < 0 else min(room, hard), hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # Where memory runs out all the same, this process is to go and no other.
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except (ImportError, ValueError, OSError):
        pass

def say(error, status):
    sys.stdout.buffer.write(" ".join(str(error).split())[:300].encode("utf-8", "replace"))
    sys.stdout.flush()
    sys.exit(status)

def failed(error):
    words = str(error).lower()
    memory = isinstance(error, MemoryError) or "bad_alloc" in words or "allocat" in words
    return 8 if memory else 7

def zeros(sizes, kind):
    import numpy
    known = lambda size: isinstance(size, int) and size >= 0
    sizes = [size if known(size) else 64 if axis else 1 for axis, size in enumerate(sizes)]
    return numpy.zeros(sizes, getattr(numpy, kind))
"""
_OPEN = {
    ONNX_RUNTIME: """
try:
    import onnxruntime
except ImportError:
    sys.exit(0)
limit()
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
try:
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(sys.argv[1], sess_options=options, providers=providers)
except Exception as error:
    say(error, failed(error))
try:
    names = {"float": "float32", "double": "float64", "bool": "bool_"}
    kinds = [entry.type[len("tensor("):-1] for entry in session.get_inputs()]
    fed = {
        entry.name: zeros(entry.shape, names.get(kind, kind))
        for entry, kind in zip(session.get_inputs(), kinds)
    }
    session.run(None, fed)
except Exception as error:
    # That it fails on zeros, or at these sizes, says nothing; that it needs all memory does.
    if failed(error) == 8:
        say(error, 8)
""",
    OPENVINO: """
try:
    import openvino
except ImportError:
    sys.exit(0)
limit()
try:
    core = openvino.Core()
    model = core.compile_model(core.read_model(sys.argv[1]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
except Exception as error:
    say(error, failed(error))
try:
    names = {"f32": "float32", "f64": "float64", "f16": "float16", "boolean": "bool_", "u8": "uint8"}
    fed = {}
    for place, port in enumerate(model.inputs):
        kind = port.get_element_type().get_type_name()
        sizes = [size.get_length() if size.is_static else -1 for size in port.get_partial_shape()]
        fed[place] = zeros(sizes, names.get(kind, kind.replace("i", "int")))
    model(fed)
except Exception as error:
    if failed(error) == 8:
        say(error, 8)
""",
}
_REFUSED, _NO_MEMORY = 7, 8


def room_apart() -> int:
    """The memory that a process beside this one may take, for its second argument."""
    return int(_SHARE * free_bytes()) + _ADDRESSES_A_CORE * (os.cpu_count() or 1)


def rehearse(path: Path, reader: str) -> None:
    """Open a file as `reader` does and run it on zeros, in a process of its own.

    Args:
        path: the file; that it is regular is known already.
        reader: `ONNX_RUNTIME` or `OPENVINO`.

    Raises:
        UnusableInput: the reader refuses it, crashes, or needs more memory or time than it can have.
    """
    if not sys.executable:
        return
    seconds = _SECONDS + path.stat().st_size // _BYTES_A_SECOND
    # Found where this process finds it, and nowhere else.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    try:
        ended = subprocess.run(
            [sys.executable, "-c", LIMITS + _OPEN[reader], str(path), str(room_apart())],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UnusableInput(
            f"{reader} did not open {path} and run it once within {seconds} seconds"
        ) from error
    except OSError:
        return  # no process can be started here, and that says nothing of the file
    said = ended.stdout.decode("utf-8", "replace")
    if ended.returncode == _REFUSED:
        raise UnusableInput(f"{reader} cannot open {path}: {said}")
    if ended.returncode == _NO_MEMORY:
        raise UnusableInput(f"{reader} needs more memory for {path} than is free: {said}")
    if ended.returncode < 0:
        number = -ended.returncode
        name = signal.Signals(number).name if number in list(signal.Signals) else f"signal {number}"
        raise UnusableInput(
            f"{reader} crashes on {path} ({name}), or needs more memory than is free; export the file again"
        )
