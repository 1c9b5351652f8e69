"""The command line's options for what is written into files, and what they amount to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from reparamkit.errors import UnusableInput
from reparamkit.support.output_names import keep_of


@dataclass(frozen=True)
class FileArguments:
    """The options as they were given."""

    opset: Annotated[
        int | None,
        typer.Option(
            "--opset",
            metavar="N",
            help="The opset of an .onnx, 14 to 25 (default: torch.onnx's own choice); one below 18 as far as "
            "ONNX's converter leads the network back.",
        ),
    ] = None
    input_names: Annotated[
        str | None,
        typer.Option(
            "--input-names",
            metavar="NAME,…",
            help="What the inputs are called in an .onnx, .mlpackage or .pte, one name per tensor, in order.",
        ),
    ] = None
    output_names: Annotated[
        str | None,
        typer.Option("--output-names", metavar="NAME,…", help="What the outputs are called there, in order."),
    ] = None
    executorch_backend: Annotated[
        str | None,
        typer.Option(
            "--executorch-backend",
            metavar="xnnpack|portable",
            help="What runs a .pte: XNNPACK, as much of the network as it knows (default), or ExecuTorch's "
            "portable kernels alone.",
        ),
    ] = None

    def asked(self) -> dict[str, Any]:
        """The options as `Folded.save` takes them."""
        return {
            **vars(self),
            "input_names": _names(self.input_names),
            "output_names": _names(self.output_names),
        }


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
