"""`train`: from the name of a network to its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from reparamkit.errors import UnusableInput
from reparamkit.training.checkpoint import About
from reparamkit.training.classifier import Classifier
from reparamkit.training.columns import Row
from reparamkit.training.config import Config
from reparamkit.training.data import Data, open_data
from reparamkit.training.data.loader import check_divisible, updates_per_epoch
from reparamkit.training.devices import accelerator_for
from reparamkit.training.disk import make_folder, replace_text
from reparamkit.training.ema import averaged
from reparamkit.training.groups import parameter_groups
from reparamkit.training.loop import Loop, Outcome, Position, Say
from reparamkit.training.networks import Network, check_classes, load_weights, open_network, with_classes
from reparamkit.training.run_folder import CONFIG, previous_checkpoint, settings_of
from reparamkit.training.schedules import schedules
from reparamkit.training.sync_norm import synchronised
from reparamkit.training.teacher import open_teacher


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


def train(
    model: str | nn.Module | None = None,
    data: str | Data | None = None,
    *,
    out: str | Path,
    config: str | Path | Config | None = None,
    resume: bool = False,
    say: Say = lambda text: None,
    **settings: Any,
) -> Trained:
    """Train a classifier.

    Args:
        model: a reference model, ``timm:NAME``, ``module:callable``, or an `nn.Module` that returns logits;
            it is trained as it is, in place.
        data: as in `Config.data`, or a `Data`.
        out: a folder for everything that is written.
        config: a YAML file, or a `Config`; what else is given overrides it.
        resume: go on where the checkpoint in ``out/last`` was written, with the settings in
            ``out/config.yaml``; where there is none, start.
        say: is told what happens.
        settings: fields of `Config`.

    Raises:
        UnusableInput: whatever cannot be used, in words; what was written before stays.
        MissingExtra: a package of the extra `train` is not installed.
    """
    folder = Path(out)
    flags = dict(settings)
    if isinstance(model, str):
        flags["model"] = model
    if isinstance(data, str):
        flags["data"] = data
    chosen = settings_of(Config, folder, config, resume, flags)
    previous = previous_checkpoint(folder, resume, say)
    if previous is not None and not isinstance(model, nn.Module) and previous.about.model != chosen.model:
        raise UnusableInput(
            f"{previous.folder} is a checkpoint of {previous.about.model}, not of {chosen.model}; "
            "leave out the model, or choose another --out"
        )
    accelerator = accelerator_for(chosen.amp)
    say_once = say if accelerator.is_main_process else lambda text: None
    check_divisible(chosen, accelerator.num_processes)
    images = open_data(chosen) if not isinstance(data, Data) else data
    updates = updates_per_epoch(images, chosen)
    set_seed(chosen.seed)
    network = _network(model, chosen, images)
    for note in network.notes:
        say_once(note)
    module = network.module
    size = chosen.input_size or network.input_size or 224
    check_classes(module, torch.zeros(2, 3, size, size), len(images.classes), f"the network {chosen.model}")
    teacher = None
    if chosen.teacher is not None:
        teacher = open_teacher(chosen.teacher, len(images.classes), size, chosen.model)
        teacher = teacher.to(accelerator.device)
    make_folder(folder)
    if accelerator.is_main_process:
        replace_text(folder / CONFIG, chosen.as_yaml())

    if chosen.channels_last:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if chosen.sync_bn and accelerator.num_processes > 1:
        module = synchronised(module, accelerator.device)
    average = averaged(module, chosen.ema).to(accelerator.device) if chosen.ema > 0 else None
    optimizer = optimizer_for(module, chosen)
    prepared, optimizer = accelerator.prepare(module, optimizer)
    about_model = chosen.model if not isinstance(model, nn.Module) else None

    def describe(position: Position, row: Row) -> About:
        return About(
            about_model,
            images.classes,
            size,
            chosen.crop,
            chosen.valid_share,
            list(images.mean),
            list(images.std),
            position.epoch,
            position.update,
            row,
        )

    loop = Loop(
        accelerator,
        Classifier(module, chosen, images, size, accelerator, teacher),
        prepared,
        optimizer,
        *schedules(optimizer, chosen, updates),
        average,
        images,
        chosen,
        size,
        folder,
        describe,
        f"{chosen.model} on {images.name}",
        say_once,
    )
    set_seed(chosen.seed + 1 + accelerator.process_index)
    if previous is not None:
        loop.resume(previous)
        at = f"epoch {loop.position.epoch + 1}, update {loop.position.update + 1}"
        if loop.position.epoch < chosen.epochs:
            say_once(f"going on at {at}")
    outcome = loop.run()
    result = _result(folder, accelerator.unwrap_model(prepared, keep_fp32_wrapper=False), outcome)
    if accelerator.num_processes > 1:
        accelerator.end_training()
    return result


def _network(model: str | nn.Module | None, config: Config, data: Data) -> Network:
    classes = len(data.classes)
    if isinstance(model, nn.Module):
        network = with_classes(model.train(), classes, type(model).__name__)
    else:
        network = open_network(
            config.model, classes, drop_path=config.drop_path, layer_scale=config.layer_scale
        )
    if config.finetune is None:
        return network
    notes = load_weights(network.module, Path(config.finetune), config.model)
    return Network(network.module, network.input_size, (*network.notes, *notes))


def optimizer_for(module: nn.Module, config: Config) -> Optimizer:
    """The optimizer with its groups: what decays and what does not, and layer by layer where asked for."""
    groups = parameter_groups(module, config.lr, config.weight_decay, config.layer_decay)
    if config.optimizer == "sgd":
        return SGD(groups, config.lr, momentum=config.momentum, nesterov=config.momentum > 0)
    return AdamW(groups, config.lr)


def _result(folder: Path, module: nn.Module, outcome: Outcome) -> Trained:
    module = module.cpu().eval()
    position = outcome.position
    return Trained(
        folder, module, outcome.history, outcome.best, outcome.stopped, position.epoch, position.update
    )
