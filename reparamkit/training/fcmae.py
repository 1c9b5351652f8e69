"""Masked pre-training of ConvNeXt V2: `pretrain` (Woo et al., CVPR 2023, arXiv:2301.00808, section 3).

A share of the patches of 32x32 pixels is removed; the network sees the rest and draws the removed ones:

    loss = mean over removed patches of ‖prediction − target‖² / pixels,   target = (patch − μ)/√(σ² + 1e-6)

where μ and σ² are the patch's own (`normalise_patches`). The masks come from torch's random state, those of
the validation from a seed of their own, so that its loss can be compared from epoch to epoch. What comes out
is the encoder: ``reparamkit train convnextv2_atto --finetune DIR --layer-decay 0.9``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import AdamW

from reparamkit import models
from reparamkit.errors import UnusableInput
from reparamkit.models.fcmae import PATCH, random_mask
from reparamkit.training.augment import flipped, normalised
from reparamkit.training.config import PretrainConfig
from reparamkit.training.data import Data
from reparamkit.training.groups import parameter_groups
from reparamkit.training.loop import Say
from reparamkit.training.run import Trained, begin, finish
from reparamkit.training.task import Best, Call
from reparamkit.training.validation_images import validation_images

_VALIDATION_SEED = 0


class Autoencoder:
    """What `pretrain` trains; see `reparamkit.training.task.Task`."""

    best: tuple[Best, ...] = (Best("best", "loss", False, "loss"),)

    def __init__(
        self, module: nn.Module, config: PretrainConfig, data: Data, size: int, accelerator: Accelerator
    ) -> None:
        self.module = module
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
        images = validation_images(self._data, self._config, self._size, self._accelerator)
        with torch.no_grad():
            for x, _ in images:
                mask = random_mask(len(x), self._patches, self._config.mask_ratio, generator).to(x.device)
                loss, _, _ = module(x, mask)
                sums += torch.tensor([float(loss) * len(x), len(x)], dtype=torch.float64)
        module.train(was_training)
        if self._accelerator.num_processes > 1:
            sums = self._accelerator.reduce(sums.to(self._accelerator.device), reduction="sum").cpu()
        return {"loss": float(sums[0] / sums[1])}


def pretrain(
    model: str | None = None,
    data: str | Data | None = None,
    *,
    out: str | Path,
    config: str | Path | PretrainConfig | None = None,
    resume: bool = False,
    say: Say = lambda text: None,
    warn: Say | None = None,
    bar: bool = True,
    **settings: Any,
) -> Trained:
    """Pre-train the encoder of a ConvNeXt V2 on images without using their labels.

    Arguments, results and errors as for `train`; `settings` are fields of `PretrainConfig`, and `model` is
    the name of a ConvNeXt V2 (or of its FCMAE).
    """
    run = begin(PretrainConfig, model, data, out, config, resume, say, warn, bar, settings)
    chosen = run.settings
    name = _autoencoder_of(chosen.model)
    size = chosen.input_size or models.info(name).input_shape[-1]
    _check_patches(size, chosen.mask_ratio)
    module = models.build(
        name,
        mask_ratio=chosen.mask_ratio,
        norm_pix_loss=chosen.normalise_patches,
        decoder_depth=chosen.decoder_depth,
        decoder_embed_dim=chosen.decoder_width,
    ).train()
    groups = parameter_groups(module, chosen.lr, chosen.weight_decay)
    return finish(
        run,
        Autoencoder(module, chosen, run.data, size, run.accelerator),
        AdamW(groups, chosen.lr, betas=(0.9, 0.95)),
        size=size,
        title=f"{name} on {run.data.name}",
        model=name.replace("fcmae", "convnextv2"),
        classes=[],
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
