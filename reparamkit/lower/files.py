"""An output file, or a folder that counts as one, appears whole and verified, or not at all.

It is written into a hidden folder beside its destination (`hidden`), under its final name, verified there,
forced to the disk, and moved into place in one step. Until that step an older file under the name stays as
it was, and whatever fails, the hidden folder is removed: at once, or by the next run that writes there where
this one is killed. A folder takes two steps where there is an older one, which has to step aside first, and
comes back if the new one cannot take its place.

A link stays a link, and what it leads to is replaced.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from reparamkit.errors import WRITE_ERRORS, UnusableInput
from reparamkit.lower.hidden import ASIDE, LOCK, hidden_folder

_TRIES = 20
_PAUSE = 0.01  # seconds


class Stage:
    """An output that lies in its hidden folder until it is put in place.

    Attributes:
        path: where it is to appear.
        made: where it is written: a path of the same name. Files that are put beside it (ONNX weights, say)
            are moved into place first; give them names that no older output uses.
    """

    def __init__(self, path: Path, hidden: Path) -> None:
        self.path, self.made = path, hidden / path.name
        self._hidden, self._target = hidden, _target(path)

    def clear(self) -> None:
        """Remove what was written, to write it in another way."""
        for entry in self._hidden.iterdir():
            if entry.name == LOCK:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def check_written(self) -> None:
        """Find out whether what was written can be put in place.

        Raises:
            UnusableInput: it has a second file, and the place is a link.
        """
        if not self.made.exists():
            raise RuntimeError(f"nothing was written under the name {self.path.name}")
        if self._companions() and self.path.is_symlink():
            raise UnusableInput(
                f"cannot write {self.path}: it is a link, and this output has a second file, which belongs "
                f"beside the first; give the place that the link leads to"
            )

    def commit(self) -> None:
        """Put it in place; an older file there is replaced in one step.

        Raises:
            UnusableInput: the place cannot be written, in words.
        """
        with _words_for_os_errors(self.path):
            _to_disk(self._hidden)
            for companion in self._companions():
                os.replace(companion, self._target.parent / companion.name)
            _move(self.made, self._target, self._hidden)
            _sync(self._target.parent)

    def _companions(self) -> list[Path]:
        return sorted(
            entry for entry in self._hidden.iterdir() if entry not in (self.made, self._hidden / LOCK)
        )


@contextlib.contextmanager
def staged(path: Path) -> Iterator[Stage]:
    """An output for this path, in a hidden folder that is removed at the end, whatever happens.

    Raises:
        UnusableInput: the folder does not exist, or it cannot be written: no permission, disk full, … What is
            raised inside for such a reason becomes this, too. In every case an older file is untouched.
    """
    check_writable(path)
    with _words_for_os_errors(path), hidden_folder(_target(path)) as hidden:
        yield Stage(path, hidden)


def write_verified(path: Path, write: Callable[[Path], object], verify: Callable[[Path], object]) -> None:
    """Write a file (or a folder that counts as one, such as an .mlpackage), verify it, then put it in place.

    Args:
        path: where it is to appear. An older file there is replaced.
        write: writes to the path it is given, whose name is that of `path`.
        verify: raises if what lies at the path it is given is not good.

    Raises:
        UnusableInput: as `staged`.
        Exception: whatever `write` and `verify` raise. In every case an older file is untouched.
    """
    with staged(path) as stage:
        write(stage.made)
        stage.check_written()
        verify(stage.made)
        stage.commit()


def _target(path: Path) -> Path:
    """Where an output really goes: what a link leads to, be it there already or not.

    Raises:
        UnusableInput: the links lead in a circle.
    """
    if not path.is_symlink():
        return path
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise UnusableInput(f"cannot write {path}: it is a link that leads in a circle")
    return target


def check_writable(path: Path) -> None:
    """Find out before any long work whether an output can be written at `path`.

    Raises:
        UnusableInput: it cannot, in words.
    """
    with _words_for_os_errors(path):
        folder = _target(path).parent
        if not path.name:
            raise UnusableInput(f"cannot write {path}: it names no file")
        if not folder.exists():
            raise UnusableInput(f"cannot write {path}: the folder {folder} does not exist")
        if not folder.is_dir():
            raise UnusableInput(f"cannot write {path}: {folder} is not a folder")
        mode = _mode(path)  # read once: another run may put its own output there at any time
        if stat.S_ISDIR(mode) and path.suffix != ".mlpackage":
            raise UnusableInput(f"cannot write {path}: a folder of that name exists")
        if stat.S_ISDIR(mode) and not _is_package(path):
            raise UnusableInput(
                f"cannot write {path}: a folder of that name exists, and it is no Core ML package"
            )
        if mode and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise UnusableInput(f"cannot write {path}: it is a device or a pipe, not a file")
        # The rename would replace a write-protected file without asking; its owner meant it to stay.
        if mode and not (mode & 0o222 and (os.access(path, os.W_OK) or not path.exists())):
            raise UnusableInput(f"cannot write {path}: the file is write-protected")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UnusableInput(f"cannot write {path}: permission denied in the folder {folder}")


def _mode(path: Path) -> int:
    """Kind and permissions of what lies there; 0 for nothing."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return 0


def _is_package(folder: Path) -> bool:
    """Whether a folder is a Core ML package, or empty.

    Another run may take the folder away while it is read, whose names are then those that are left: looked at
    again, there is the new one.
    """
    for _ in range(_TRIES):
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            return True
        if not names or "Manifest.json" in names:
            return True
        time.sleep(_PAUSE)
    return False


@contextlib.contextmanager
def _words_for_os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        words = WRITE_ERRORS.get(error.errno or 0)
        if words is None:
            raise
        kept = "; the file that was there is unchanged" if os.path.exists(path) else ""
        raise UnusableInput(f"cannot write {path}: {words}{kept}") from error


def _move(staged: Path, path: Path, hidden: Path) -> None:
    for place in range(_TRIES):
        try:
            os.replace(staged, path)
            return
        except OSError as error:
            if not staged.is_dir() or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        # A folder cannot replace one that holds something, so the old one steps aside first. Another run may
        # put its own there in between; then that one is the older.
        aside = hidden / f"{ASIDE}{place}"
        try:
            os.replace(path, aside)
        except FileNotFoundError:
            continue
        try:
            os.replace(staged, path)
            return
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.replace(aside, path)
            if not isinstance(error, OSError) or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    raise UnusableInput(f"cannot write {path}: other runs replace it all the time")


def _to_disk(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            _sync(Path(root) / name)
        _sync(Path(root))


def _sync(path: Path) -> None:
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags)
    except PermissionError:
        if path.is_dir():
            return  # Windows opens no folders
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):  # a file system without fsync
            raise
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step: an older one is replaced whole or not at all.

    Raises:
        UnusableInput: it cannot be written, in words.
    """
    write_verified(path, lambda target: target.write_text(text, encoding="utf-8"), lambda target: None)
