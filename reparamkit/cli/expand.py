"""`reparamkit expand`: arguments in, one expanded network out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reparamkit.cli import console as cli_console
from reparamkit.cli import progress as cli_progress
from reparamkit.cli import sources as cli_sources
from reparamkit.errors import UnusableInput
from reparamkit.lower.files import write_text
from reparamkit.lower.formats import check_suffix_for_training as check_suffix
from reparamkit.support.progress import phase

if TYPE_CHECKING:
    from torch import nn


def expand(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="What 'fold' takes: a file, the name of a reference model, or package.module:callable.",
        ),
    ],
    kind: Annotated[
        str,
        typer.Option("--as", metavar="repvgg|mobileone|dbb|acb|replk", help="The kind of the blocks."),
    ],
    branches: Annotated[
        int | None,
        typer.Option(
            "--branches", metavar="N", help="Branches with the whole kernel (4 for mobileone, else 1)."
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            metavar="PATTERN",
            help="Which convolutions: a module's name (it, or all inside it) or a pattern such as "
            "'layer1.*'; may be given several times. All by default.",
        ),
    ] = None,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Where to write: .pt, the whole module, pickled, to load and train; .pth or .safetensors, "
            "its weights. May be given several times. Default: STEM.expanded.pt beside the source.",
        ),
    ] = None,
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="[NAME:]SHAPE[:DTYPE][:KIND]",
            help="An input, such as 8x3x224x224, as for 'fold'. The batch norms' statistics are those on it.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Draw other shares.")] = 0,
    model: cli_sources.ModelOption = None,
    model_args: cli_sources.ArgumentsOption = None,
    key: cli_sources.KeyOption = None,
    trust_pickle: cli_sources.TrustOption = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the report to FILE as JSON.")
    ] = None,
    quiet: cli_progress.QuietOption = False,
    verbose: cli_progress.VerboseOption = False,
) -> None:
    """Make training-time branches of MODEL's convolutions, the same function, and write the network.

    The inverse of 'fold': train what it writes, then fold that.
    """
    for path in output or []:
        check_suffix(path)
    _check_outputs(source, [*(output or []), *([json_file] if json_file else [])])
    cli_sources.check_ahead(source, model, model_args, shapes=shapes)
    with cli_progress.progress(3, quiet=quiet, verbose=verbose):
        import reparamkit as rk
        from reparamkit.lower.for_training import save_for_training

        opened, inputs = cli_sources.opened(source, model, trust_pickle, model_args, key, shapes)
        paths = output or [cli_sources.beside(opened, ".expanded.pt")]
        _check_outputs(source, [*paths, *([json_file] if json_file else [])])
        with phase("expanding"):
            expanded = rk.expand(opened, inputs, kind, branches, where or None, seed=seed)
        with phase(f"writing and reading back {', '.join(map(str, paths))}"):
            files = save_for_training(expanded, paths)
    _tell(opened.name, expanded, files, json_file)


def _check_outputs(source: str, paths: list[Path]) -> None:
    cli_console.check_distinct(paths)
    for path in paths:
        if os.path.realpath(path) == os.path.realpath(source):
            raise UnusableInput(f"{path} would replace the source")


def _tell(name: str, expanded: nn.Module, files: list[tuple[str, str]], json_file: Path | None) -> None:
    import json

    import reparamkit as rk
    from reparamkit.report.expansion import expansion_as_dict, show_expansion

    report = rk.expansion_report(expanded)
    if json_file is not None:
        write_text(json_file, json.dumps(expansion_as_dict(name, report, files), indent=2) + "\n")
    with cli_console.report() as console:
        show_expansion(name, report, files, console)
