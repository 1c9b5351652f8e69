"""What a run writes about itself after each epoch: CSV, JSON lines, TensorBoard, a picture.

The whole history is part of a checkpoint, and the text files are written anew from it: after a resume
they hold each epoch once.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from reparamkit.training.curves import Row, draw_curves, finite
from reparamkit.training.disk import replace_bytes, replace_text


class Records:
    """The files of one run in `folder`; TensorBoard's are in ``tensorboard/``."""

    def __init__(self, folder: Path, first_epoch: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder
        # What an interrupted run wrote for epochs that are now run again is hidden.
        self._board: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=first_epoch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._board.close()

    def write(self, history: list[Row]) -> None:
        """One row an epoch, the last of them new.

        Raises UnusableInput where a file cannot be written.
        """
        write_tables(self._folder, history)
        for name, value in history[-1].items():
            if name != "epoch":
                self._board.add_scalar(name, value, int(history[-1]["epoch"]))
        self._board.flush()

    def draw(self, history: list[Row], title: str) -> Path:
        """`curves.png`."""
        path = self._folder / "curves.png"
        replace_bytes(path, draw_curves(history, title))
        return path


def write_tables(folder: Path, history: list[Row]) -> None:
    """`metrics.csv` and `metrics.jsonl`, whole.

    Raises UnusableInput where a file cannot be written.
    """
    names = list(dict.fromkeys(name for row in history for name in row))
    table = io.StringIO()
    writer = csv.DictWriter(table, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    replace_text(folder / "metrics.csv", table.getvalue())
    replace_text(folder / "metrics.jsonl", "".join(json.dumps(finite(row)) + "\n" for row in history))
