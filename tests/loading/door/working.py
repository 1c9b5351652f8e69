"""Runs commands in a worker process and sees how they end: by themselves, by a signal, or not at all."""

from __future__ import annotations

import ctypes
import json
import os
import select
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

IN_ACCESS, IN_OPEN = 0x1, 0x20
SECONDS = 120


@dataclass
class Answer:
    """How a command ended.

    Attributes:
        status: its exit status; a negative one is the signal that ended the process, None stands for one that
            did not end.
        said: to stdout and stderr.
        opened: names of the files that Python opened.
        peak: the largest memory of the process up to now, in KiB.
    """

    status: int | None
    said: str
    opened: list[str]
    peak: int


class Worker:
    """One process for many commands; a new one after each that did not end well."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stop()

    def run(self, arguments: list[str]) -> Answer:
        if self._process is None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._answers], [], [], SECONDS)
        if not ready:
            self._stop()
            return Answer(None, "no end", [], 0)
        line = self._answers.readline()
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            said = self._errors.read()[-2000:]
            self._stop()
            return Answer(status, said, [], 0)
        return Answer(**json.loads(line))

    def _start(self) -> None:
        read, write = os.pipe()
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by _stop)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.loading.door.worker", str(write)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            pass_fds=[write],
            text=True,
            cwd=Path(__file__).parents[3],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        )
        os.close(write)
        self._answers = os.fdopen(read, "r")

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._answers.close()
            self._errors.close()
            self._process = None


class Watched:
    """A folder that nothing may open: the kernel tells who does, Python or not."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "secret.bin").write_bytes(bytes(range(256)) * 64)
        libc: Any = ctypes.CDLL(None, use_errno=True)
        self._handle = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert (
            libc.inotify_add_watch(self._handle, os.fsencode(folder / "secret.bin"), IN_ACCESS | IN_OPEN) >= 0
        )

    def was_read(self) -> bool:
        """Whether a file in it was opened since this was asked last."""
        try:
            return bool(os.read(self._handle, 1 << 16))
        except BlockingIOError:
            return False

    def close(self) -> None:
        os.close(self._handle)
