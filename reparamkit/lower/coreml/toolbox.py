"""coremltools, imported when it is needed and not before, and without what it says while it is imported.

It complains of torch versions that it has not seen and, where there is no Core ML, of its missing libraries;
none of which whoever lowers a network can mend. `version_note` says in one line what is worth knowing.
"""

from __future__ import annotations

from typing import Any

from reparamkit.errors import MissingExtra, UnusableInput
from reparamkit.support.quiet import quiet
from reparamkit.support.text import first_line


class CannotConvert(UnusableInput):
    """coremltools cannot express the network; `reason` says why in its words."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"coremltools cannot convert this network: {reason}")
        self.reason = reason


def reason_of(error: BaseException) -> str:
    """One line on what went wrong."""
    if isinstance(error, AssertionError) and not str(error):
        return "an assertion of coremltools failed"
    return first_line(error)


def coremltools() -> Any:
    """The module.

    Raises:
        MissingExtra: it is not installed, with the command that installs it.
        UnusableInput: it, or the numpy that is there, cannot be used, with what to install.
    """
    try:
        with quiet():
            import coremltools
    except ModuleNotFoundError as error:
        if error.name != "coremltools":
            raise
        raise MissingExtra("coremltools", "coreml", "writing Core ML") from None
    return coremltools


def require_coremltools() -> None:
    """Find out whether Core ML packages can be written here.

    Raises:
        MissingExtra: coremltools is not installed.
        UnusableInput: numpy is one that coremltools 9 fails with, with what to install.
    """
    import numpy

    coremltools()
    if tuple(int(part) for part in numpy.__version__.split(".")[:2]) >= (2, 4):
        raise UnusableInput(
            f"writing Core ML needs a numpy before 2.4 (coremltools 9 fails with {numpy.__version__}): "
            "pip install 'numpy<2.4'"
        )


def version_note() -> str:
    """That this torch is newer than what coremltools was tried with, in words; empty where it is not."""
    import torch

    with quiet():
        from coremltools import _deps
    newest = str(getattr(_deps, "_TORCH_MAX_VERSION", ""))
    if not newest or _numbers(torch.__version__) <= _numbers(newest):
        return ""
    return (
        f"coremltools {coremltools().__version__} was tested by its makers with torch {newest} at most, not "
        f"with {torch.__version__.split('+')[0]}; this package was read back, evaluated and compared"
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+")[0].split(".")[:2])
