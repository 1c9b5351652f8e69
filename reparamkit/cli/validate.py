"""`reparamkit validate`: networks and files against labelled images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from reparamkit.cli import console as cli_console
from reparamkit.cli import progress as cli_progress
from reparamkit.cli import sources as cli_sources
from reparamkit.cli.settings import with_settings
from reparamkit.lower.files import write_text
from reparamkit.training.config import DataSettings
from reparamkit.training.extra import require_extra

_SETTINGS = ("data", "batch_size", "input_size", "crop", "corrupt", "workers", "valid_share")


@with_settings(DataSettings, only=_SETTINGS)
def validate(
    subjects: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL|FILE…",
            help="What to validate: the folder of a training run or checkpoint, a network's name, an .onnx "
            "file, an OpenVINO IR (.xml), a .pte, an .mlpackage, a .pt2, or whatever else 'reparamkit "
            "check' runs.",
        ),
    ],
    fold: Annotated[
        bool, typer.Option("--fold/--no-fold", help="Validate beside each network what it folds to.")
    ] = True,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights", metavar="ema|raw", help="Of a checkpoint: the average, or the last update's weights."
        ),
    ] = None,
    model: cli_sources.ModelOption = None,
    model_args: cli_sources.ArgumentsOption = None,
    key: cli_sources.KeyOption = None,
    trust_pickle: cli_sources.TrustOption = False,
    real_labels: Annotated[
        Path | None,
        typer.Option(
            "--real-labels",
            metavar="FILE.json",
            help="Several right classes for each image: a list of lists in the images' order, or file "
            "names with such lists.",
        ),
    ] = None,
    valid_labels: Annotated[
        Path | None,
        typer.Option(
            "--valid-labels",
            metavar="FILE",
            help="Which of the network's classes the data has: a class index on each line.",
        ),
    ] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the table.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all results as JSON.")
    ] = None,
    quiet: cli_progress.QuietOption = False,
    verbose: cli_progress.VerboseOption = False,
    **settings: Any,
) -> None:
    """Top-1, top-5, loss, calibration error and throughput of networks and files, on the same images.

    A network of PyTorch's is validated as it is and folded, side by side. Predictions that differ from
    those of the first are counted and listed.
    """
    require_extra("validation")
    cli_console.check_distinct([path for path in (csv_file, json_file) if path])
    for one in subjects:
        cli_sources.check_ahead(one, model, model_args, side=True)
    from reparamkit.report.training_text import show_validation, validation_csv
    from reparamkit.training.validation import validate as run

    data = settings.pop("data") or "digits"
    with cli_progress.progress(quiet=quiet, verbose=verbose) as shown:
        result = run(
            subjects,
            data,
            fold=fold,
            weights=weights,
            model=model,
            model_args=model_args,
            key=key,
            trust_pickle=trust_pickle,
            real_labels=real_labels,
            valid=valid_labels,
            say=shown.say,
            **settings,
        )
    if csv_file is not None:
        write_text(csv_file, validation_csv(result.rows))
    if json_file is not None:
        write_text(json_file, json.dumps(result.as_dict(), indent=2) + "\n")
    with cli_console.report() as console:
        show_validation(result.rows, result.notes, console)
