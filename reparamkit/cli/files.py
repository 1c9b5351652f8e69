"""The command line's options for what is written into files, and what they amount to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from reparamkit.errors import UnusableInput
from reparamkit.lower.request import Request
from reparamkit.support.output_names import keep_of

BackendOption = Annotated[
    str | None,
    typer.Option(
        "--executorch-backend",
        metavar="xnnpack|portable",
        help="What runs a .pte: XNNPACK, as much of the network as it knows (default), or ExecuTorch's "
        "portable kernels alone.",
    ),
]


OpsetOption = Annotated[
    int | None,
    typer.Option(
        "--opset",
        metavar="N",
        help="The opset of an .onnx, 14 to 25 (default: torch.onnx's own choice); one below 18 as far as "
        "ONNX's converter leads the network back.",
    ),
]
InputNamesOption = Annotated[
    str | None,
    typer.Option(
        "--input-names",
        metavar="NAME,…",
        help="What the inputs are called in an .onnx, .mlpackage or .pte, one name per tensor, in order.",
    ),
]
OutputNamesOption = Annotated[
    str | None,
    typer.Option("--output-names", metavar="NAME,…", help="What the outputs are called there, in order."),
]


def asked(
    outputs: list[Path],
    executorch_backend: str | None,
    opset: int | None,
    input_names: str | None,
    output_names: str | None,
) -> dict[str, Any]:
    """The options as `Folded.save` takes them.

    Raises:
        UnusableInput: one has a value that it cannot have, or no output is of a format that it is for.
    """
    options: dict[str, Any] = {
        "executorch_backend": executorch_backend,
        "opset": opset,
        "input_names": _names(input_names),
        "output_names": _names(output_names),
    }
    Request(**options).check_for(outputs)
    return options


def check_counts(options: dict[str, Any], inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Find out whether names that were given fit those that a network has.

    Raises:
        UnusableInput: they do not.
    """
    Request(**options).check_counts(inputs, outputs)


def _names(text: str | None) -> tuple[str, ...]:
    return () if text is None else tuple(name.strip() for name in text.split(","))


def keep(given: str | None, own_class: bool = False) -> int | tuple[str, ...] | None:
    """The outputs that `--outputs` keeps, None for all; `own_class`: a class of the user's takes them."""
    if given is None:
        return None
    if own_class:
        raise UnusableInput(
            "--outputs leaves outputs out, and a class of your own (--into, --adapter) has all of them: give "
            "one of both"
        )
    return keep_of(given)
