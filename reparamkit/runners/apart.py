"""A Python process beside this one, which takes and gives bytes: what ends there is an error here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import weakref
from contextlib import suppress
from typing import IO

CHILD = """
import os, sys

# What a library prints is not taken for an answer.
given, answer = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)

def take():
    size = int.from_bytes(given.read(8), "little")
    return given.read(size)

def give(data):
    answer.write(len(data).to_bytes(8, "little") + data)
    answer.flush()
"""
"""How the other process takes and gives; the code that it runs begins with this."""


class Apart:
    """A process that runs a piece of code.

    Args:
        code: Python; it begins with `CHILD`.
        arguments: its `sys.argv[1:]`.

    Raises:
        OSError, ValueError: no process can be started.
    """

    def __init__(self, code: str, *arguments: str) -> None:
        # Found where this process finds it, and nowhere else.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        self._told: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 closed with the process
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, *arguments],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._told,
            )
        except BaseException:
            self._told.close()
            raise
        weakref.finalize(self, _end, self._process, self._told)

    def give(self, *pieces: bytes) -> None:
        """Hand it pieces, each with its length.

        Raises:
            OSError: it has ended.
        """
        assert self._process.stdin is not None
        for piece in pieces:
            self._process.stdin.write(len(piece).to_bytes(8, "little"))
            self._process.stdin.write(piece)
        self._process.stdin.flush()

    def take(self) -> bytes:
        """The next piece that it gives; waits for it.

        Raises:
            EOFError: it has ended.
        """
        stream = self._process.stdout
        assert stream is not None
        return _exactly(stream, int.from_bytes(_exactly(stream, 8), "little"))

    def told(self, since: int = 0) -> str:
        """What it has written to its stderr from that byte on."""
        self._told.seek(since)
        return self._told.read().decode("utf-8", "replace")

    def told_so_far(self) -> int:
        """How many bytes it has written to its stderr."""
        return os.fstat(self._told.fileno()).st_size

    def end(self) -> str:
        """Stop it, and say how it ended: "SIGABRT", "status 1"."""
        self._process.kill()
        status = self._process.wait()
        known = {-number: number.name for number in signal.Signals}
        return known.get(status, f"status {status}")


def _exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data


def _end(process: subprocess.Popen[bytes], told: IO[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, told):
        if stream is not None:
            with suppress(OSError):
                stream.close()
