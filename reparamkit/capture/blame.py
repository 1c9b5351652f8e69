"""Which line of the user's own code stopped a capture."""

from __future__ import annotations

import traceback
from pathlib import Path

import torch

_OURS = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))


def line_of(error: BaseException) -> str:
    """Where it came from, as ", at line 12 of net.py: `if x.sum() > 0:`"; "" if unknown."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.line and not frame.filename.startswith((*_OURS, "<")):
            return f", at line {frame.lineno} of {Path(frame.filename).name}: `{frame.line.strip()[:80]}`"
    return ""
