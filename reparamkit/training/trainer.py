"""`train`: from the name of a network to its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from reparamkit.errors import UnusableInput
from reparamkit.training.classifier import Classifier
from reparamkit.training.config import Config
from reparamkit.training.data import Data
from reparamkit.training.ema import averaged
from reparamkit.training.groups import parameter_groups
from reparamkit.training.loop import Say
from reparamkit.training.networks import Network, check_classes, load_weights, open_network, with_classes
from reparamkit.training.run import Trained, begin, finish
from reparamkit.training.sync_norm import synchronised
from reparamkit.training.teacher import open_teacher


def train(
    model: str | nn.Module | None = None,
    data: str | Data | None = None,
    *,
    out: str | Path,
    config: str | Path | Config | None = None,
    resume: bool = False,
    say: Say = lambda text: None,
    warn: Say | None = None,
    bar: bool = True,
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
        warn: is told what goes otherwise than one may expect, as an image that is skipped; by default `say`.
        bar: show how far each epoch is, where stderr is a terminal.
        settings: fields of `Config`.

    Raises:
        UnusableInput: whatever cannot be used, in words; what was written before stays.
        MissingExtra: a package of the extra `train` is not installed.
    """
    name = model if isinstance(model, str) else None
    run = begin(Config, name, data, out, config, resume, say, warn, bar, settings)
    chosen, classes, previous = run.settings, run.data.classes, run.previous
    if previous is not None and not isinstance(model, nn.Module) and previous.about.model != chosen.model:
        raise UnusableInput(
            f"{previous.folder} is a checkpoint of {previous.about.model}, not of {chosen.model}; "
            "leave out the model, or choose another --out"
        )
    network = _network(model, chosen, run.data)
    for note in network.notes:
        run.say(note)
    module = network.module
    size = chosen.input_size or network.input_size or 224
    check_classes(module, torch.zeros(2, 3, size, size), len(classes), f"the network {chosen.model}")
    teacher = None
    if chosen.teacher is not None:
        teacher = open_teacher(chosen.teacher, len(classes), size, chosen.model).to(run.accelerator.device)
    if chosen.sync_bn and run.accelerator.num_processes > 1:
        module = synchronised(module, run.accelerator.device)
    return finish(
        run,
        Classifier(module, chosen, run.data, size, run.accelerator, teacher),
        optimizer_for(module, chosen),
        size=size,
        title=f"{chosen.model} on {run.data.name}",
        model=None if isinstance(model, nn.Module) else chosen.model,
        classes=classes,
        model_args=None if isinstance(model, nn.Module) else chosen.model_args,
        average=averaged(module, chosen.ema) if chosen.ema > 0 else None,
    )


def _network(model: str | nn.Module | None, config: Config, data: Data) -> Network:
    classes = len(data.classes)
    if isinstance(model, nn.Module):
        network = with_classes(model.train(), classes, type(model).__name__)
    else:
        network = open_network(
            config.model,
            classes,
            drop_path=config.drop_path,
            layer_scale=config.layer_scale,
            arguments=config.model_args,
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
