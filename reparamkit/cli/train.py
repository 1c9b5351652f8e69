"""`reparamkit train` and `reparamkit pretrain`: arguments in, one run, its summary out."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reparamkit.cli import console as cli_console
from reparamkit.cli import progress as cli_progress
from reparamkit.cli import sources as cli_sources
from reparamkit.cli.settings import with_settings
from reparamkit.errors import CannotCapture
from reparamkit.support.progress import phase
from reparamkit.training.config import Config, PretrainConfig
from reparamkit.training.extra import require_extra

if TYPE_CHECKING:
    from reparamkit.training.run import Trained

OutOption = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Everything that is written goes in here.")
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE.yaml", help="Settings; flags override them.")
]
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on where the checkpoint DIR/last was written; start where there is none."
    ),
]


@with_settings(Config, without=("model",))
def train(
    out: OutOption,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A reference model (see 'reparamkit models'), timm:NAME, or package.module:callable that "
            "returns a network.",
        ),
    ] = None,
    config: ConfigOption = None,
    resume: ResumeOption = False,
    fold: Annotated[
        bool,
        typer.Option(
            "--fold/--no-fold", help="At the end, fold the best network and print accuracy and latency."
        ),
    ] = True,
    quiet: cli_progress.QuietOption = False,
    **settings: Any,
) -> None:
    """Train MODEL, and fold it.

    DIR gets config.yaml, metrics.csv, metrics.jsonl, curves.png, TensorBoard's files, and the checkpoints
    last, best and best_ema, which 'reparamkit fold DIR' takes. SIGTERM and Ctrl-C write a checkpoint first.
    The same command runs on many GPUs: 'torchrun --nproc_per_node 8 -m reparamkit train …'.
    """
    cli_sources.check_trained(model, settings.get("model_args"))
    require_extra("training")
    from reparamkit.training.trainer import train as run

    trained = _run(run, quiet, model, out=out, config=config, resume=resume, **settings)
    if not is_main_process():
        return
    if not quiet:
        say(f"{out} holds the checkpoints {', '.join(['last', *trained.best])}, metrics.csv and curves.png")
    if fold:
        _show_before_after(out, quiet=quiet)


@with_settings(PretrainConfig, without=("model",))
def pretrain(
    out: OutOption,
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="A ConvNeXt V2, such as convnextv2_atto.")
    ] = None,
    config: ConfigOption = None,
    resume: ResumeOption = False,
    quiet: cli_progress.QuietOption = False,
    **settings: Any,
) -> None:
    """Pre-train the encoder of a ConvNeXt V2 on images, without their labels (FCMAE).

    Then finetune it: 'reparamkit train MODEL --finetune DIR --layer-decay 0.9'.
    """
    require_extra("training")
    from reparamkit.training.fcmae import pretrain as run

    _run(run, quiet, model, out=out, config=config, resume=resume, **settings)
    if is_main_process() and not quiet:
        say(f"{out} holds the encoder: reparamkit train MODEL --finetune {out} --layer-decay 0.9 …")


def say(text: str) -> None:
    """A line on stderr, above the progress bar."""
    from tqdm import tqdm

    with tqdm.external_write_mode():
        cli_console.say(text)


def silent(text: str) -> None:
    """Nothing is said."""


def is_main_process() -> bool:
    """Whether this is the first of the processes that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def _run(run: Callable[..., Trained], quiet: bool, model: str | None, **settings: Any) -> Trained:
    """Train; a run that was stopped ends here."""
    trained = run(model, say=silent if quiet else say, warn=say, bar=not quiet, **settings)
    if trained.stopped is None:
        return trained
    if is_main_process():
        at = f"update {trained.update} of epoch {trained.epoch + 1}"
        say(f"stopped after {at}, which {trained.folder / 'last'} holds; go on with --resume")
    raise typer.Exit(130 if trained.stopped == signal.SIGINT else 0)


def _show_before_after(out: Path, *, quiet: bool) -> None:
    from reparamkit.report.training_text import show_before_after
    from reparamkit.training.before_after import before_and_after

    try:
        with cli_progress.progress(quiet=quiet), phase("folding the best network and comparing it"):
            result = before_and_after(out)
    except CannotCapture as error:
        say(f"the trained network is not folded: {error}")
        return
    with cli_console.report() as console:
        show_before_after(result.validation.rows, result.latency, console)
