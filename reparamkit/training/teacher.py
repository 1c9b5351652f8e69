"""The teacher of a distillation: any network that can be opened, frozen and in evaluation mode."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram

import reparamkit as rk
from reparamkit import models
from reparamkit.errors import UnusableInput
from reparamkit.loading.door.run_folders import holds_checkpoint
from reparamkit.support.text import one_line
from reparamkit.training.checkpoint import open_checkpoint
from reparamkit.training.networks import check_classes
from reparamkit.training.restored import restored


def open_teacher(name: str, num_classes: int, size: int, student: str) -> nn.Module:
    """The network `name`, with weights that were trained.

    Args:
        name: a training checkpoint's folder, a file that `reparamkit.load` opens, ``timm:NAME`` (with its
            released weights), or ``module:callable``.
        num_classes: what the student tells apart.
        size: side of the images.
        student: the network that learns; a checkpoint of the same ``module:callable`` may run it.

    Raises:
        UnusableInput: it cannot be opened, has random weights, or tells other classes apart.
    """
    if name.startswith("timm:"):
        module = _from_timm(name.removeprefix("timm:"))
    elif not Path(name).exists() and ":" not in name:
        if name.lower().replace("-", "_") in models.names():
            raise UnusableInput(
                f"the reference model {name} has random weights and teaches nothing; give the folder of a "
                "training checkpoint of it"
            )
        raise UnusableInput(
            f"there is no teacher {name!r}: give a training checkpoint's folder, a file of a network, "
            "timm:NAME or module:callable"
        )
    else:
        opened = _opened(name, student)
        module = opened.module() if isinstance(opened, ExportedProgram) else opened
        if isinstance(opened, ExportedProgram):
            return _frozen(module, name, num_classes, size)  # it has one mode and refuses to change it
    return _frozen(module.eval(), name, num_classes, size)


def _opened(name: str, student: str) -> nn.Module | ExportedProgram:
    if not holds_checkpoint(Path(name)):
        return rk.load(name).model
    checkpoint = open_checkpoint(Path(name))
    return restored(checkpoint, trusted=checkpoint.about.model == student).model


def _frozen(module: nn.Module, name: str, num_classes: int, size: int) -> nn.Module:
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    check_classes(module, torch.zeros(2, 3, size, size), num_classes, f"the teacher {name}")
    return module


def _from_timm(name: str) -> nn.Module:
    from reparamkit.training.networks import timm_package

    timm = timm_package()
    try:
        module: nn.Module = timm.create_model(name, pretrained=True)
    except Exception as error:  # no such network, no released weights, no connection
        text = one_line(error)
        raise UnusableInput(f"timm cannot give the teacher {name} with its weights: {text}") from error
    return module
