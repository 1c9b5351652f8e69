"""The command line's options for what is written into files, and what they amount to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

BackendOption = Annotated[
    str | None,
    typer.Option(
        "--executorch-backend",
        metavar="xnnpack|portable",
        help="What runs a .pte: XNNPACK, as much of the network as it knows (default), or ExecuTorch's "
        "portable kernels alone.",
    ),
]


def asked(outputs: list[Path], executorch_backend: str | None) -> dict[str, Any]:
    """The options as `Folded.save` takes them.

    Raises:
        UnusableInput: one has a value that it cannot have, or no output is of a format that it is for.
    """
    from reparamkit.lower.request import Request

    options: dict[str, Any] = {"executorch_backend": executorch_backend}
    Request(**options).check_for(outputs)
    return options
