"""The table of file formats: a new one is a module with a `Writer`, and a line here."""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from reparamkit.errors import MissingExtra, UnusableInput

if TYPE_CHECKING:
    from reparamkit.lower.writer import Writer


@dataclass(frozen=True)
class Format:
    """A kind of file that a network can be written to.

    Attributes:
        suffix: that its files have.
        name: in words.
        extra: the extra of reparamkit that brings the packages for it; None where it needs none.
        refuses_sizes: a file can refuse a size of its inputs when it is run. Where it cannot, no axis is
            free in it at which the network is not shown to compute what the file computes.
        whole: it holds the network as one graph, which has to be captured whole.
        packages: without which nothing of the format can be written.
        module: whose `WRITER` writes and opens it; imported when it is used, so that the table costs nothing.
    """

    suffix: str
    name: str
    extra: str | None
    refuses_sizes: bool
    whole: bool
    module: str
    packages: tuple[str, ...] = ()

    @property
    def writer(self) -> Writer:
        """What writes, opens and counts."""
        writer: Writer = importlib.import_module(self.module).WRITER
        return writer

    def require(self) -> None:
        """Find out whether the packages for it are installed; nothing is imported.

        Raises:
            MissingExtra: naming the first that is not, and the command that installs it.
        """
        for package in self.packages:
            if _is_missing(package):
                raise MissingExtra(package, self.extra or "all", f"writing {self.name}")


def _is_missing(package: str) -> bool:
    try:
        return find_spec(package) is None
    except (ImportError, ValueError):  # what is in sys.modules is no module
        return True


ONNX = Format(
    ".onnx",
    "ONNX",
    "onnx",
    refuses_sizes=False,
    whole=True,
    module="reparamkit.lower.onnx",
    packages=("onnx", "onnxscript", "onnxsim", "onnxruntime"),
)

FORMATS = (
    ONNX,
    Format(".mlpackage", "Core ML", "coreml", False, True, "reparamkit.lower.coreml.save"),
    Format(".pte", "ExecuTorch", "executorch", False, True, "reparamkit.lower.executorch", ("executorch",)),
    Format(".pt2", "torch.export", None, True, True, "reparamkit.lower.pt2"),
    Format(".pt", "a pickled module", None, True, False, "reparamkit.lower.module"),
    Format(".py", "Python source", None, True, True, "reparamkit.lower.python_source", ("safetensors",)),
)

SUFFIXES_FOR_TRAINING = (".pt", ".pth", ".safetensors")
SUFFIXES = tuple(each.suffix for each in FORMATS)


def format_of(path: Path) -> Format:
    """The format that a path asks for by its suffix.

    Raises:
        UnusableInput: there is none, with the list of those that there are.
    """
    for each in FORMATS:
        if each.suffix == path.suffix:
            return each
    asked = f"the suffix {path.suffix!r}" if path.suffix else "no suffix"
    close = difflib.get_close_matches(path.suffix.lower(), SUFFIXES, n=1, cutoff=0.7)
    meant = ""
    if close:
        meant = f"; did you mean {path.with_suffix(close[0])}?"
    elif path.is_dir():
        meant = f"; name a file in it, such as {path / 'net.onnx'}"
    known = f"(supported: {', '.join(SUFFIXES)})"
    raise UnusableInput(f"cannot write {path}: it has {asked}, which names no format {known}{meant}")


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
