"""How the user wants files: what is known to be wrong about that is said before torch is imported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reparamkit.errors import UnusableInput
from reparamkit.lower.coreml.identifiers import identifiers
from reparamkit.support.output_names import plain_names

if TYPE_CHECKING:
    from reparamkit.lower.coreml.options import CoreMlOptions

EXECUTORCH_BACKENDS = ("xnnpack", "portable")
OPSETS = range(14, 26)
"""Those that torch.onnx writes, from 18 on, and those that ONNX's own converter leads a Relu back to."""
NAMED = (".onnx", ".mlpackage", ".pte")
"""Suffixes of files whose inputs and outputs have names."""


@dataclass(frozen=True)
class Request:
    """How the user wants files.

    Attributes:
        coreml: what an .mlpackage is to be.
        allow_untold: write a file of which it cannot be told whether it is right, too.
        executorch_backend: what runs a .pte, one of `EXECUTORCH_BACKENDS`; None for the first.
        opset: of an .onnx, one of `OPSETS`; None for torch.onnx's own choice.
        input_names, output_names: in the file, one per tensor, in order; empty for the network's own.

    Raises:
        UnusableInput: a value that there is none of, a name that is empty, given twice, or a number.
    """

    coreml: CoreMlOptions | None = None
    allow_untold: bool = False
    executorch_backend: str | None = None
    opset: int | None = None
    input_names: Sequence[str] = ()
    output_names: Sequence[str] = ()

    def __post_init__(self) -> None:
        backend = self.executorch_backend
        if backend is not None and backend not in EXECUTORCH_BACKENDS:
            raise UnusableInput(
                f"{backend!r} is no backend of ExecuTorch's here: say {' or '.join(EXECUTORCH_BACKENDS)}"
            )
        if self.opset is not None and self.opset not in OPSETS:
            raise UnusableInput(
                f"an .onnx is not written in opset {self.opset}: say {OPSETS[0]} to {OPSETS[-1]} (below 18 "
                "as far as ONNX's converter leads the network back)"
            )
        for what in ("input", "output"):
            names = getattr(self, f"{what}_names")
            if isinstance(names, str):
                raise UnusableInput(f"the {what} names are a list of texts, not the text {names!r}")
            object.__setattr__(self, f"{what}_names", tuple(names or ()))
            for name in getattr(self, f"{what}_names"):
                _check_name(name, what)
        _check_distinct(self.input_names, self.output_names)

    def check_for(self, paths: Sequence[Path]) -> None:
        """Find out whether everything that was asked for can be done in the files that are written.

        Raises:
            UnusableInput: it is for other files, or one of them takes no such name.
        """
        suffixes = {path.suffix for path in paths}
        for what, given, ends in (
            ("a backend of ExecuTorch's", self.executorch_backend is not None, (".pte",)),
            ("an opset", self.opset is not None, (".onnx",)),
            ("a name of an input", bool(self.input_names), NAMED),
            ("a name of an output", bool(self.output_names), NAMED),
        ):
            if given and not suffixes.intersection(ends):
                raise UnusableInput(
                    f"{what} is for {_listed(ends)}, and no output is one: give -o FILE{ends[0]}"
                )
        for name in [*self.input_names, *self.output_names] if ".mlpackage" in suffixes else ():
            (taken,) = identifiers([name])
            if taken != name:
                raise UnusableInput(
                    f'{name!r} is no name that Core ML takes (letters, digits and "_", not beginning '
                    f"with a digit, no word of Swift's): say {taken}"
                )

    def check_counts(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Find out whether the names fit a network.

        Args:
            inputs: what the network itself calls its tensors; a bare number is a place.
            outputs: what it calls its outputs.

        Raises:
            UnusableInput: there are more or fewer names than tensors, or one is that of another tensor, which
                whoever goes by names would take for it.
        """
        plain = plain_names(outputs)
        for what, names, own in (("input", self.input_names, inputs), ("output", self.output_names, plain)):
            if not names:
                continue
            if len(names) != len(own):
                raise UnusableInput(
                    f"{_number(len(names), f'{what} name')} ({', '.join(names)}) for a network with "
                    f"{_number(len(own), what)} ({', '.join(own)})"
                )
            for place, name in enumerate(names):
                if name in own and own.index(name) != place:
                    raise UnusableInput(
                        f"the {what} name {name!r} is given to {what} {place}, and the network calls its "
                        f"{what} {own.index(name)} so: give names that cannot be taken for each other"
                    )
        _check_distinct(self.input_names or inputs, self.output_names or plain)


def _check_name(name: object, what: str) -> None:
    if not isinstance(name, str) or not name:
        raise UnusableInput(f"an {what} name is empty: give one name per {what}, with commas between")
    if name.isdigit():
        raise UnusableInput(f"the {what} name {name!r} would be taken for a place: begin it with a letter")
    if not name.isprintable() or any(letter.isspace() for letter in name):
        raise UnusableInput(f"the {what} name {name!r} has spaces or signs that do not show: leave them out")


def _check_distinct(inputs: Sequence[str], outputs: Sequence[str]) -> None:
    repeated = [name for name, count in Counter([*inputs, *outputs]).items() if count > 1]
    if repeated:
        both = repeated[0] in inputs and repeated[0] in outputs
        where = "to an input and to an output" if both else "twice"
        raise UnusableInput(f"the name {repeated[0]!r} is given {where}: give each a name of its own")


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _listed(suffixes: Sequence[str]) -> str:
    """For a sentence: "an .onnx, .mlpackage or .pte"."""
    *first, last = suffixes
    article = "an" if suffixes[0][1] in "aeimos" else "a"
    return f"{article} {', '.join(first)}{' or ' if first else ''}{last}"
