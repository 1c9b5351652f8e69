"""Where checkpoints lie: by name, and after a run was killed.

A checkpoint is written beside its place and moved there in two renames: the older one steps aside, the new
one takes its place. Whoever is killed in between leaves a complete folder under one of the hidden names.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

MANIFEST = "checkpoint.json"
LAST, BEST, BEST_EMA = "last", "best", "best_ema"


def fresh(folder: Path) -> Path:
    """Where a checkpoint is written before it takes its place."""
    return folder.with_name(f".{folder.name}.new")


def older(folder: Path) -> Path:
    """Where the one before it steps aside."""
    return folder.with_name(f".{folder.name}.old")


def recovered(folder: Path) -> Path:
    """The folder, put back into its place where a run was killed between the two renames."""
    if folder.exists():
        return folder
    for candidate in (fresh(folder), older(folder)):
        if (candidate / MANIFEST).exists():  # the last file that is written
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                candidate.rename(folder)
            break
    return folder


def chosen(path: Path) -> Path | None:
    """The folder itself, or of a run's folder the best average, else the best, else the last; or None."""
    if (path / MANIFEST).exists():
        return path
    for name in (BEST_EMA, BEST, LAST):
        folder = recovered(path / name) if path.is_dir() else path / name
        if (folder / MANIFEST).exists():
            return folder
    return None


def holds_checkpoint(path: Path) -> bool:
    """Whether a folder is a checkpoint, or holds those of a run."""
    return path.is_dir() and chosen(path) is not None
