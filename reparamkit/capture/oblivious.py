"""Sizes without special cases.

By default torch's symbolic sizes are at least two: whatever asks "is it one?" gets the answer "no", and
nobody is told that it was asked. Inside `sizes_oblivious` a branch of the network's own on such a question
becomes a condition of the capture, and torch's own operators take the general way without asking.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.fx.experimental import _config


@contextmanager
def sizes_oblivious() -> Iterator[None]:
    """Capture, or retrace, without the assumption that no size is 0 or 1."""
    with _config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        yield
