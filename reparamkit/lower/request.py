"""How the user wants files: what is known to be wrong about that is said before torch is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reparamkit.errors import UnusableInput

if TYPE_CHECKING:
    from reparamkit.lower.coreml.options import CoreMlOptions

EXECUTORCH_BACKENDS = ("xnnpack", "portable")


@dataclass(frozen=True)
class Request:
    """How the user wants files.

    Attributes:
        coreml: what an .mlpackage is to be.
        allow_untold: write a file of which it cannot be told whether it is right, too.
        executorch_backend: what runs a .pte, one of `EXECUTORCH_BACKENDS`; None for the first.

    Raises:
        UnusableInput: the backend is none of them.
    """

    coreml: CoreMlOptions | None = None
    allow_untold: bool = False
    executorch_backend: str | None = None

    def __post_init__(self) -> None:
        backend = self.executorch_backend
        if backend is not None and backend not in EXECUTORCH_BACKENDS:
            raise UnusableInput(
                f"{backend!r} is no backend of ExecuTorch's here: say {' or '.join(EXECUTORCH_BACKENDS)}"
            )

    def check_for(self, paths: Sequence[Path]) -> None:
        """Find out whether everything that was asked for is asked of a file that is written.

        Raises:
            UnusableInput: it is not, with the suffix that it is for.
        """
        suffixes = {path.suffix for path in paths}
        for what, given, ends in (("a backend of ExecuTorch's", self.executorch_backend, (".pte",)),):
            if given is not None and not suffixes.intersection(ends):
                raise UnusableInput(
                    f"{what} is for {_listed(ends)}, and no output is one: give -o FILE{ends[0]}"
                )


def _listed(suffixes: Sequence[str]) -> str:
    """For a sentence: "an .onnx, .pte or .mlpackage"."""
    *first, last = suffixes
    article = "an" if suffixes[0][1] in "aeimos" else "a"
    return f"{article} {', '.join(first)}{' or ' if first else ''}{last}"
