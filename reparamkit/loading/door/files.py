"""What may be opened at all: regular files, inside the folder that they belong to, of a size that fits.

A pipe would be waited for without end, a device may have no end, and a link in a downloaded folder can lead
anywhere. So what is there is asked of the system before it is opened, once more of what was opened, and a
file's own statements are never trusted for it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from reparamkit.errors import ReparamkitError, UnusableInput
from reparamkit.loading.door.memory import amount, check_room

_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)
_WORDS = {
    errno.ELOOP: "it is a link that leads in a circle",
}
_FILES_IN_A_FOLDER = 10_000


def regular(path: Path) -> os.stat_result:
    """What the system says of a regular file; links are followed.

    Raises:
        UnusableInput: there is none, or it is a folder, a pipe, a device or a socket.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) == errno.ENOENT and os.path.islink(path):
            raise UnusableInput(f"{path} is a link to {os.readlink(path)}, which does not exist") from error
        raise UnusableInput(f"{path} cannot be read: {_words(error)}") from error
    if stat.S_ISDIR(status.st_mode):
        raise UnusableInput(f"{path} is a folder where a file is needed; give the file itself")
    if not stat.S_ISREG(status.st_mode):
        kind = next((words for test, words in _KINDS if test(status.st_mode)), "no file")
        raise UnusableInput(f"{path} is {kind}, no regular file; copy its content into a file and give that")
    return status


def exists(path: Path) -> bool:
    """Whether something lies there, be it out of reach: a link to nowhere, a folder that is closed."""
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
    except ValueError:
        return False
    return True


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """A regular file, open for reading. It is looked at again once it is open, so that nothing can be put in
    its place in between, and opening never waits.

    Raises:
        UnusableInput: it is none, or cannot be read; also where the reading inside fails.
    """
    regular(path)
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise UnusableInput(f"{path} cannot be read: {_words(error)}") from error
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise UnusableInput(f"{path} was replaced while it was opened; give a regular file")
        try:
            yield file
        except OSError as error:
            raise UnusableInput(f"{path} cannot be read: {_words(error)}") from error


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """The whole of a regular file.

    Args:
        limit: the most bytes that such a file may have; by default, what fits into memory.

    Raises:
        UnusableInput: it cannot be read, or has more.
    """
    size = regular(path).st_size
    if limit is not None and size > limit:
        raise UnusableInput(f"{path} has {amount(size)}, where {amount(limit)} are more than it can need")
    check_room(size, f"{path} has")
    with opened(path) as file:
        # One byte more than there should be shows a file that grows.
        content = file.read(size + 1)
    if len(content) != size:
        raise UnusableInput(f"{path} changed while it was read; give it once it is complete")
    return content


def parse_json(content: bytes, where: str) -> Any:
    """What a JSON text holds.

    Raises:
        UnusableInput: it is none, or nests deeper than anything that is meant to be read.
    """
    try:
        return json.loads(content)
    except RecursionError as error:
        raise UnusableInput(f"{where} is damaged: it nests thousands of levels deep") from error
    except ValueError as error:
        raise UnusableInput(f"{where} is damaged: it is no JSON") from error


def inside(folder: Path, entry: Path, whole: Path) -> Path:
    """Where a file or folder that `entry` names really lies, which has to be inside `folder`.

    Args:
        folder: links in it are followed, and lead nowhere else.
        entry: below it.
        whole: what the user gave, for messages.

    Raises:
        UnusableInput: it lies outside, or there is none.
    """
    try:
        root, target = folder.resolve(strict=True), entry.resolve(strict=True)
    except (OSError, ValueError, RuntimeError) as error:
        # Python before 3.13 has a RuntimeError for links that lead in a circle.
        words = _WORDS[errno.ELOOP] if isinstance(error, RuntimeError) else _words(error)
        raise UnusableInput(f"{whole} is damaged: its {entry.name!r} cannot be read: {words}") from error
    if target != root and root not in target.parents:
        raise UnusableInput(
            f"{whole} names a file outside its own folder ({_short(entry)}), which is not read; give a copy "
            f"that has all of its files"
        )
    return target


def companion(path: Path, name: str) -> Path:
    """A second file that belongs to a first and lies in its folder, or below.

    Where both are links, as in a cache of downloads, it may lie in the folder that the first one leads to.

    Raises:
        UnusableInput: it lies elsewhere, is not regular, or there is none.
    """
    entry = path.parent / name
    regular(entry)
    if path.resolve().parent not in entry.resolve().parents:
        inside(path.parent, entry, path)
    return entry


def regular_folder(folder: Path, bounds: Path | None = None) -> None:
    """Find out whether a folder that counts as one file holds regular files and folders only, all inside it.

    Args:
        bounds: a folder around it to which its links may lead as well.

    Raises:
        UnusableInput: it holds something else, a link that leads out, or more files than such a folder has.
    """
    count = 0
    try:
        for root, folders, names in os.walk(folder, onerror=_raised):
            for name in [*folders, *names]:
                count += 1
                if count > _FILES_IN_A_FOLDER:
                    raise UnusableInput(f"{folder} holds more than {_FILES_IN_A_FOLDER} files")
                entry = Path(root) / name
                target = inside(bounds or folder, entry, folder) if entry.is_symlink() else entry
                if not target.is_dir():
                    regular(target)
    except OSError as error:
        raise UnusableInput(f"{folder} cannot be read: {_words(error)}") from error


@contextlib.contextmanager
def in_words(path: Path) -> Iterator[None]:
    """Make whatever opening a file raises an error that names the file.

    Raises:
        UnusableInput: something else was raised inside than an error of reparamkit's own.
    """
    try:
        yield
    except (ReparamkitError, KeyboardInterrupt):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UnusableInput(
            f"{path} cannot be opened ({type(error).__name__}{f': {reason}' if reason else ''}); it may be "
            f"damaged: copy or export it again"
        ) from error


@contextlib.contextmanager
def steady(paths: Iterable[Path]) -> Iterator[None]:
    """Find out whether files stay as they are while they are read by others.

    Raises:
        UnusableInput: one of them was changed meanwhile, so what was checked need not be what was read.
    """
    before = {path: _state(path) for path in paths}
    yield
    for path, state in before.items():
        if _state(path) != state:
            raise UnusableInput(f"{path} changed while it was read; give it once it is complete")


def _state(path: Path) -> tuple[int, int, int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _raised(error: OSError) -> None:
    raise error


def _short(entry: Path) -> str:
    text = str(entry)
    return repr(text if len(text) <= 100 else f"…{text[-100:]}")


def _words(error: BaseException) -> str:
    if isinstance(error, OSError):
        return _WORDS.get(error.errno or 0, error.strerror or type(error).__name__)
    return "its name holds a zero byte" if "null" in str(error) else str(error)
