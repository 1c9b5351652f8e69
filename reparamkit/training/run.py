"""A run from its settings to its result: what `train` and `pretrain` have in common.

begin     settings, the checkpoint to go on from, processes, images
finish    the loop over a prepared task, and what it has come to
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import set_seed
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from reparamkit.errors import UnusableInput
from reparamkit.training.checkpoint import About, Checkpoint
from reparamkit.training.curves import Row
from reparamkit.training.data import Data, open_data
from reparamkit.training.data.loader import check_divisible, updates_per_epoch
from reparamkit.training.disk import make_folder, replace_text
from reparamkit.training.loop import Loop, Position, Say
from reparamkit.training.run_folder import CONFIG, SettingsT, previous_checkpoint, settings_of
from reparamkit.training.schedules import schedules
from reparamkit.training.task import Task


@dataclass(frozen=True)
class Trained:
    """What a run has come to.

    Attributes:
        folder: holds config.yaml, metrics, curves and the checkpoints.
        module: the network with the weights of the last update, in evaluation mode, on the processor.
        history: one row for each epoch, as in metrics.csv.
        best: folder of a kept checkpoint -> its row.
        stopped: the signal that ended the run before its last epoch; None where it is complete.
        epoch, update: the position: whole epochs, and updates of the next.
    """

    folder: Path
    module: nn.Module
    history: list[Row]
    best: dict[str, Row]
    stopped: int | None
    epoch: int
    update: int


@dataclass(frozen=True)
class Begun(Generic[SettingsT]):
    """A run whose settings and images are known and usable.

    Attributes:
        previous: the checkpoint that it goes on from, if any.
        say, warn: in the first process, what the caller gave; silent in the others.
        bar: there is a bar for each epoch, on a terminal.
    """

    folder: Path
    settings: SettingsT
    previous: Checkpoint | None
    accelerator: Accelerator
    data: Data
    say: Say
    warn: Say
    bar: bool


def begin(
    kind: type[SettingsT],
    model: str | None,
    data: str | Data | None,
    out: str | Path,
    config: str | Path | SettingsT | None,
    resume: bool,
    say: Say,
    warn: Say | None,
    bar: bool,
    flags: dict[str, Any],
) -> Begun[SettingsT]:
    """Resolve the settings and open the images; nothing is written, and torch's random state is the seed's.

    Raises UnusableInput for whatever cannot be used.
    """
    folder = Path(out)
    named = {"model": model, "data": data if isinstance(data, str) else None}
    settings = settings_of(kind, folder, config, resume, named | flags)
    previous = previous_checkpoint(folder, resume, say)
    accelerator = _accelerator_for(settings.amp)
    check_divisible(settings, accelerator.num_processes)
    images = data if isinstance(data, Data) else open_data(settings)
    updates_per_epoch(images, settings)
    set_seed(settings.seed)
    first = accelerator.is_main_process
    told = (say, warn or say) if first else (_silent, _silent)
    return Begun(folder, settings, previous, accelerator, images, *told, bar and first)


def _silent(text: str) -> None:
    """Nothing is said."""


def finish(
    run: Begun[SettingsT],
    task: Task,
    optimizer: Optimizer,
    *,
    size: int,
    title: str,
    model: str | None,
    classes: list[str],
    model_args: str | None = None,
    average: AveragedModel | None = None,
) -> Trained:
    """Train what was begun, from the start or from its checkpoint.

    Args:
        size: side of the images.
        title: of the curves.
        model, classes, model_args: as the checkpoints say them (`About`).
        average: follows the weights of `task`.

    Raises what `Loop.run` and `Loop.resume` raise.
    """
    settings, accelerator, data = run.settings, run.accelerator, run.data
    make_folder(run.folder)
    if accelerator.is_main_process:
        replace_text(run.folder / CONFIG, settings.as_yaml())
    if settings.channels_last:
        for module in filter(None, (task.module, average)):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    prepared, optimizer = accelerator.prepare(task.module, optimizer)

    def describe(position: Position, row: Row) -> About:
        how = settings.crop, settings.valid_share, list(data.mean), list(data.std)
        return About(model, classes, size, *how, position.epoch, position.update, row, model_args)

    updates = updates_per_epoch(data, settings)
    loop = Loop(
        accelerator,
        task,
        prepared,
        optimizer,
        *schedules(optimizer, settings, updates),
        average.to(accelerator.device) if average is not None else None,
        data,
        settings,
        size,
        run.folder,
        describe,
        title,
        run.say,
        run.warn,
        run.bar,
    )
    set_seed(settings.seed + 1 + accelerator.process_index)
    if run.previous is not None:
        loop.resume(run.previous)
        if loop.position.epoch < settings.epochs:
            run.say(f"going on at epoch {loop.position.epoch + 1}, update {loop.position.update + 1}")
    outcome = loop.run()
    network = accelerator.unwrap_model(prepared, keep_fp32_wrapper=False).cpu().eval()
    if accelerator.num_processes > 1:
        accelerator.end_training()
    position = outcome.position
    return Trained(
        run.folder, network, outcome.history, outcome.best, outcome.stopped, position.epoch, position.update
    )


def _accelerator_for(amp: str) -> Accelerator:
    """The GPUs that are there, else the processor; as many processes as torchrun or accelerate started.

    Raises UnusableInput for float16 on a processor.
    """
    on_processor = not torch.cuda.is_available()
    if on_processor and amp == "fp16":
        raise UnusableInput("amp fp16 needs a GPU; a processor can do --amp bf16")
    # accelerate keeps one state for a process and refuses a second run that wants another precision.
    AcceleratorState._reset_state()
    GradientState._reset_state()
    return Accelerator(cpu=on_processor, mixed_precision=amp)
