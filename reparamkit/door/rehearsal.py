"""Opens a file in a process of its own first, where its reader is written in C++ and can be brought down.

ONNX Runtime and OpenVINO parse, optimise and fold constants before the first input is given. A file that
makes them crash, ask for all memory or go on for ever does so there, under a limit of memory and time, and
what is said here is an error in words. It costs a tenth to a third of a second and the time to open the file.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from reparamkit.door.memory import free_bytes
from reparamkit.errors import UnusableInput

ONNX_RUNTIME, OPENVINO = "ONNX Runtime", "OpenVINO"

_SECONDS = 120
_BYTES_A_SECOND = 5_000_000
_ADDRESSES = 4 << 30
"""Addresses that the libraries reserve and do not use."""

_LIMIT = """
import sys
try:
    import resource
    room = int(sys.argv[2])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (room if hard < 0 else min(room, hard), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ImportError, ValueError, OSError):
    pass
def refuse(error):
    sys.stdout.buffer.write(" ".join(str(error).split())[:300].encode("utf-8", "replace"))
    sys.stdout.flush()
    sys.exit(7)
"""
_OPEN = {
    ONNX_RUNTIME: """
try:
    import onnxruntime
except ImportError:
    sys.exit(0)
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
try:
    onnxruntime.InferenceSession(sys.argv[1], sess_options=options, providers=["CPUExecutionProvider"])
except MemoryError:
    refuse("it asks for more memory than there is")
except Exception as error:
    refuse(error)
""",
    OPENVINO: """
try:
    import openvino
except ImportError:
    sys.exit(0)
try:
    core = openvino.Core()
    core.compile_model(core.read_model(sys.argv[1]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
except MemoryError:
    refuse("it asks for more memory than there is")
except Exception as error:
    refuse(error)
""",
}
_REFUSED = 7


def rehearse(path: Path, reader: str) -> None:
    """Open a file as `reader` does, in a process of its own.

    Args:
        path: the file; that it is regular is known already.
        reader: `ONNX_RUNTIME` or `OPENVINO`.

    Raises:
        UnusableInput: the reader refuses it, crashes, or needs more memory or time than it can have.
    """
    if not sys.executable:
        return
    seconds = _SECONDS + path.stat().st_size // _BYTES_A_SECOND
    command = [sys.executable, "-c", _LIMIT + _OPEN[reader], str(path), str(free_bytes() + _ADDRESSES)]
    # Found where this process finds it, and nowhere else.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    try:
        ended = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UnusableInput(f"{reader} did not open {path} within {seconds} seconds") from error
    except OSError:
        return  # no process can be started here, and that says nothing of the file
    if ended.returncode == _REFUSED:
        raise UnusableInput(f"{reader} cannot open {path}: {ended.stdout.decode('utf-8', 'replace')}")
    if ended.returncode < 0:
        name = (
            signal.Signals(-ended.returncode).name
            if -ended.returncode in list(signal.Signals)
            else "a signal"
        )
        raise UnusableInput(
            f"{reader} crashes on {path} ({name}), or needs more memory than there is; export the file again"
        )
