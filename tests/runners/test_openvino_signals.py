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
