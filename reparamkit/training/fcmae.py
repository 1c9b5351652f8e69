"""Masked pre-training of ConvNeXt V2: `pretrain` (Woo et al., CVPR 2023, arXiv:2301.00808, section 3).

A share of the patches of 32x32 pixels is removed; the network sees the rest and draws the removed ones:

    loss = mean over removed patches of ‖prediction − target‖² / pixels,   target = (patch − μ)/√(σ² + 1e-6)

where μ and σ² are the patch's own (`normalise_patches`). The masks come from torch's random state, those of
the validation from a seed of their own, so that its loss can be compared from epoch to epoch. What comes out
is the encoder: ``reparamkit train convnextv2_atto --finetune DIR --layer-decay 0.9``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.optim import AdamW

from reparamkit import models
from reparamkit.errors import UnusableInput
from reparamkit.models.fcmae import FCMAE, PATCH, random_mask
from reparamkit.training.augment import flipped, normalised
from reparamkit.training.checkpoint import About
from reparamkit.training.columns import Row
from reparamkit.training.config import PretrainConfig
from reparamkit.training.data import Data, open_data, validation_batches
from reparamkit.training.data.loader import Place, check_divisible, updates_per_epoch
from reparamkit.training.devices import accelerator_for
from reparamkit.training.disk import make_folder, replace_text
from reparamkit.training.groups import parameter_groups
from reparamkit.training.loop import Loop, Position, Say
from reparamkit.training.run_folder import CONFIG, previous_checkpoint, settings_of
from reparamkit.training.schedules import schedules
from reparamkit.training.task import Best, Call
from reparamkit.training.trainer import Trained

_VALIDATION_SEED = 0


class Autoencoder:
    """What `pretrain` trains; see `reparamkit.training.task.Task`."""

    best: tuple[Best, ...] = (Best("best", "loss", False, "loss"),)

    def __init__(
        self, module: FCMAE, config: PretrainConfig, data: Data, size: int, accelerator: Accelerator
    ) -> None:
        self.module: nn.Module = module
        self._config, self._data, self._size, self._accelerator = config, data, size, accelerator
        self._patches = (size // PATCH) ** 2

    def loss(self, call: Call, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        x = normalised(flipped(images.float() / 255, self._config.flip), self._data.mean, self._data.std)
        mask = random_mask(len(x), self._patches, self._config.mask_ratio).to(x.device)
        loss, _, _ = call(x, mask)
        return loss, None

    def validate(self, module: nn.Module) -> dict[str, float]:
        generator = torch.Generator().manual_seed(_VALIDATION_SEED)
        sums = torch.zeros(2, dtype=torch.float64)
        was_training = module.training
        module.eval()
        with torch.no_grad():
            for x in self._images():
                mask = random_mask(len(x), self._patches, self._config.mask_ratio, generator).to(x.device)
                loss, _, _ = module(x, mask)
                sums += torch.tensor([float(loss) * len(x), len(x)], dtype=torch.float64)
        module.train(was_training)
        if self._accelerator.num_processes > 1:
            sums = self._accelerator.reduce(sums.to(self._accelerator.device), reduction="sum").cpu()
        return {"loss": float(sums[0] / sums[1])}

    def _images(self) -> Iterator[Tensor]:
        accelerator, config = self._accelerator, self._config
        for batch in validation_batches(
            self._data.valid,
            self._data.columns,
            self._size,
            max(1, config.batch_size // accelerator.num_processes),
            crop=config.crop,
            corrupt=config.corrupt,
            workers=config.workers,
            place=Place(accelerator.process_index, accelerator.num_processes),
        ):
            if len(batch.images):
                images = batch.images.to(accelerator.device).float() / 255
                yield normalised(images, self._data.mean, self._data.std)


def pretrain(
    model: str | None = None,
    data: str | Data | None = None,
    *,
    out: str | Path,
    config: str | Path | PretrainConfig | None = None,
    resume: bool = False,
    say: Say = lambda text: None,
    **settings: Any,
) -> Trained:
    """Pre-train the encoder of a ConvNeXt V2 on images without using their labels.

    Arguments, results and errors as for `train`; `settings` are fields of `PretrainConfig`, and `model` is
    the name of a ConvNeXt V2 (or of its FCMAE).
    """
    folder = Path(out)
    flags = dict(settings) | ({"model": model} if model is not None else {})
    if isinstance(data, str):
        flags["data"] = data
    chosen = settings_of(PretrainConfig, folder, config, resume, flags)
    name = _autoencoder_of(chosen.model)
    previous = previous_checkpoint(folder, resume, say)
    accelerator = accelerator_for(chosen.amp)
    say_once: Callable[[str], object] = say if accelerator.is_main_process else lambda text: None
    check_divisible(chosen, accelerator.num_processes)
    images = data if isinstance(data, Data) else open_data(chosen)
    updates = updates_per_epoch(images, chosen)
    size = chosen.input_size or models.info(name).input_shape[-1]
    set_seed(chosen.seed)
    module = models.build(
        name,
        mask_ratio=chosen.mask_ratio,
        norm_pix_loss=chosen.normalise_patches,
        decoder_depth=chosen.decoder_depth,
        decoder_embed_dim=chosen.decoder_width,
    )
    assert isinstance(module, FCMAE)
    _check_patches(size, chosen.mask_ratio)
    make_folder(folder)
    if accelerator.is_main_process:
        replace_text(folder / CONFIG, chosen.as_yaml())
    optimizer = AdamW(parameter_groups(module, chosen.lr, chosen.weight_decay), chosen.lr, betas=(0.9, 0.95))
    prepared, optimizer = accelerator.prepare(module.train(), optimizer)

    def describe(position: Position, row: Row) -> About:
        mean, std = list(images.mean), list(images.std)
        how = chosen.crop, chosen.valid_share, mean, std
        return About(chosen.model, [], size, *how, position.epoch, position.update, row)

    loop = Loop(
        accelerator,
        Autoencoder(module, chosen, images, size, accelerator),
        prepared,
        optimizer,
        *schedules(optimizer, chosen, updates),
        None,
        images,
        chosen,
        size,
        folder,
        describe,
        f"{name} on {images.name}",
        say_once,
    )
    set_seed(chosen.seed + 1 + accelerator.process_index)
    if previous is not None:
        loop.resume(previous)
    outcome = loop.run()
    network = accelerator.unwrap_model(prepared, keep_fp32_wrapper=False).cpu().eval()
    position = outcome.position
    if accelerator.num_processes > 1:
        accelerator.end_training()
    return Trained(
        folder, network, outcome.history, outcome.best, outcome.stopped, position.epoch, position.update
    )


def _autoencoder_of(name: str) -> str:
    """The FCMAE of a ConvNeXt V2, by name."""
    known = models.info(name)
    if known.family not in ("ConvNeXtV2", "FCMAE"):
        raise UnusableInput(
            f"{known.name} has no masked autoencoder; pretrain takes convnextv2_atto and its like"
        )
    return known.name.replace("convnextv2", "fcmae")


def _check_patches(size: int, ratio: float) -> None:
    """Raise UnusableInput where no patch would be left, or none removed."""
    patches = (size // PATCH) ** 2
    kept = int(patches * (1 - ratio))
    if kept == 0 or kept == patches:
        raise UnusableInput(
            f"images of {size} pixels have {patches} patches of {PATCH}, of which a mask ratio of {ratio} "
            f"leaves {kept}; give a larger --input-size"
        )
