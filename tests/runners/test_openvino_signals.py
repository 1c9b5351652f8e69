"""OpenVINO in a process whose children end while it compares, as the workers of a data loader do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_CODE = """
import signal, sys
from pathlib import Path
from tests.compare.test_compare import test_every_pair_of_forms as compares

ended = []
signal.signal(signal.SIGCHLD, lambda *_: ended.append(1))  # torch's data loader has such a handler
compares(Path(sys.argv[1]), "openvino", "openvino")
print("ended" if ended else "none")
"""

_TIMED = """
import os, signal, sys, threading
from pathlib import Path
import torch
import reparamkit as rk
from reparamkit.benchmark.backends import BACKENDS

path, x = Path(sys.argv[1]) / "net.onnx", torch.randn(1, 3, 8, 8)
rk.fold(torch.nn.Conv2d(3, 4, 3).eval(), x, dynamic=False).save(path)
calls = [BACKENDS["openvino"].opened(path, (x,), {}, 1)]
calls[0]()
elsewhere = threading.Thread(target=calls.clear)  # where garbage is collected is nobody's choice
elsewhere.start()
elsewhere.join()
handled = []
signal.signal(signal.SIGTERM, lambda *_: handled.append(1))
os.kill(os.getpid(), signal.SIGTERM)
print("handled" if handled else "none")
"""


def test_a_signal_after_timing_does_no_harm(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _TIMED, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


@pytest.mark.slow
def test_the_end_of_a_child_does_no_harm(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _CODE, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr
