"""Files that appear whole or not at all, and errors of the disk in words."""

from __future__ import annotations

import os
from pathlib import Path

from reparamkit.errors import WRITE_ERRORS, UnusableInput


def in_words(error: OSError) -> str:
    """What went wrong, for a message."""
    return WRITE_ERRORS.get(error.errno or 0) or error.strerror or str(error)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file and force it to the disk. Raises OSError."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_text(path: Path, text: str) -> None:
    """Write a text file in one step: an older one is replaced whole or not at all.

    Raises UnusableInput where it cannot be written.
    """
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """As `replace_text`, for bytes."""
    hidden = path.with_name(f".{path.name}.new")
    try:
        write_bytes(hidden, content)
        os.replace(hidden, path)
    except OSError as error:
        hidden.unlink(missing_ok=True)
        kept = "; the file that was there is unchanged" if path.exists() else ""
        raise UnusableInput(f"cannot write {path}: {in_words(error)}{kept}") from error


def make_folder(path: Path) -> None:
    """The folder, with those above it.

    Raises UnusableInput where it cannot be made, or written into.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnusableInput(f"cannot write into {path}: {in_words(error)}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise UnusableInput(f"cannot write into {path}: permission denied")


def sync_folder(path: Path) -> None:
    """Force the names in a folder to the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:
        return  # Windows opens no folders
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
