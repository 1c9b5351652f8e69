"""Which format a file's suffix asks for, and whether its packages are there; it needs no torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from reparamkit.errors import MissingExtra, UnusableInput

SUFFIXES = (".onnx", ".mlpackage", ".pt2", ".pt")
SUFFIXES_FOR_TRAINING = (".pt", ".pth", ".safetensors")


def check_suffix(path: Path) -> None:
    """Find out whether `reparamkit.lower.save.save` knows the format that a path asks for.

    Raises:
        UnusableInput: it does not, with the list of those that it knows.
    """
    if path.suffix not in SUFFIXES:
        asked = f"the suffix {path.suffix!r}" if path.suffix else "no suffix"
        raise UnusableInput(
            f"cannot write {path}: it has {asked}, which names no format (supported: {', '.join(SUFFIXES)})"
        )


def check_suffix_for_training(path: Path) -> None:
    """Find out whether `reparamkit.lower.for_training.save_for_training` knows the format.

    Raises:
        UnusableInput: it does not; MissingExtra: the package for it is not installed.
    """
    if path.suffix == ".safetensors" and find_spec("safetensors") is None:
        raise MissingExtra("safetensors", "train", f"writing {path}")
    if path.suffix not in SUFFIXES_FOR_TRAINING:
        asked = f"the suffix {path.suffix!r}" if path.suffix else "no suffix"
        raise UnusableInput(
            f"cannot write {path}: it has {asked}, and an expanded network goes into "
            f"{', '.join(SUFFIXES_FOR_TRAINING)}"
        )


def require_packages() -> None:
    """Find out whether everything that ONNX needs is installed; nothing is imported.

    Raises:
        MissingExtra: naming the first package that is not, and the command that installs it.
    """
    for package in ("onnx", "onnxscript", "onnxsim", "onnxruntime"):
        if _is_missing(package):
            raise MissingExtra(package, "onnx", "writing ONNX")


def _is_missing(package: str) -> bool:
    try:
        return find_spec(package) is None
    except (ImportError, ValueError):  # what is in sys.modules is no module
        return True
