"""Everything that reparamkit raises on purpose.

`UnusableInput` is the user's to mend (exit status 2 on the command line); `NotEquivalent` says that a
result was computed and is wrong (exit status 1).
"""

from __future__ import annotations

import errno
import os
import shlex
from typing import Any, Protocol

WRITE_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than this system allows",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EIO: "the disk reports an error",
    errno.ENOTDIR: "it is not a folder",
    errno.EEXIST: "there is a file of that name",
}
"""What an operating system's error means, said of a file that cannot be written."""


class ReparamkitError(Exception):
    """Base of all errors of this package."""


class UnusableInput(ReparamkitError):
    """The input cannot be used; the message says why, and what to do."""


class CannotCapture(UnusableInput):
    """torch.export could not turn the model into one graph; `reason` says why without advice."""

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason or message


class NothingExpanded(UnusableInput, ValueError):
    """No convolution of the network can become branches; the message says why not."""


class CannotWrite(UnusableInput):
    """A file format, or torch's writer of it, has no way to express the network."""


class UntrustedPickle(UnusableInput):
    """The file holds a pickle, and a pickle can run code; nothing of it was loaded."""


class MissingExtra(UnusableInput):
    """An optional package is not installed; the message names the command that installs it.

    `extra` is the extra of reparamkit's that brings the package, None for a package of its own.
    """

    def __init__(self, package: str, extra: str | None, purpose: str) -> None:
        how = f"pip install {package}" if extra is None else install_line(extra)
        super().__init__(f"{purpose} needs the package {package!r}, which is not installed: {how}")


def install_line(extra: str) -> str:
    """The command that installs an extra, for an install from an index and for one from a checkout."""
    folder, editable = _checkout()
    if not folder:
        return f"pip install 'reparamkit[{extra}]'"
    bounds = os.path.join(folder, "constraints.txt")
    constrained = f"-c {shlex.quote(bounds)} " if os.path.exists(bounds) else ""
    return f"pip install {constrained}{'-e ' if editable else ''}{shlex.quote(f'{folder}[{extra}]')}"


def _checkout() -> tuple[str, bool]:
    """The folder that reparamkit was installed from, and whether it still runs there; "" for an index."""
    import importlib.metadata
    import json
    import urllib.parse

    try:
        # A checkout holds what setuptools left there as well, which does not say where it came from.
        installed = importlib.metadata.distributions(name="reparamkit")
        texts = (each.read_text("direct_url.json") for each in installed)
        told = json.loads(next((text for text in texts if text), "{}"))
        url = urllib.parse.urlsplit(told.get("url", ""))
        editable = bool(told.get("dir_info", {}).get("editable"))
    except (ValueError, AttributeError):
        return "", False
    folder = urllib.parse.unquote(url.path) if url.scheme == "file" else ""
    return (folder, editable) if os.path.isdir(folder) else ("", False)


class Verdict(Protocol):
    """What is known of a verdict without the comparator: whether, how near, and all of it as plain JSON.

    `rk.Equivalence` is the class that `isinstance` narrows it to, with the errors of every output.
    """

    @property
    def passed(self) -> bool:
        """The two are the same function, to within rounding."""

    @property
    def e0(self) -> float | None:
        """The reference's own error; None where there is no float64 run of it."""

    @property
    def e1(self) -> float:
        """The candidate's error."""

    @property
    def budget(self) -> float:
        """What `e1` had to stay under."""

    @property
    def reason(self) -> str:
        """Why it failed, in words."""

    def summary(self) -> str:
        """The verdict in one or two lines."""

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for `json.dumps`."""


class NotEquivalent(ReparamkitError):
    """Two networks, or a network and a file made from it, do not compute the same function.

    `equivalence` holds the numbers.
    """

    def __init__(self, message: str, equivalence: Verdict | None = None) -> None:
        super().__init__(message)
        self.equivalence = equivalence
