"""The reference networks by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from reparamkit.models import checkpoints, families
from reparamkit.models.families import ModelInfo
from reparamkit.models.random_weights import randomize


def names() -> list[str]:
    """All registered names, family by family, small to large."""
    return families.all_names()


def info(name: str) -> ModelInfo:
    """Family, paper and input shape of the network `name`; case, `-` and `_` do not matter.

    Raises UnusableInput, with the closest names, for a name that is not registered.
    """
    canonical, family = families.resolve(name)
    return ModelInfo(canonical, family.name, family.paper, family.input_shape)


def build(name: str, *, num_classes: int | None = None, **options: Any) -> nn.Module:
    """The network `name` with its published initialisation, in training mode: where training starts from.

    Raises UnusableInput for an unknown name, TypeError for an option that the family does not have.
    """
    return families.construct(name, num_classes=num_classes, **options)


def create(
    name: str,
    *,
    num_classes: int | None = None,
    weights: str | Path | None = None,
    seed: int = 0,
    **options: Any,
) -> nn.Module:
    """The network `name` in its training-time form and in evaluation mode, on the CPU in float32.

    With `weights`, the path of a checkpoint of the original repository or of timm, it has those weights;
    without, random weights and statistics drawn from `seed` (see `randomize`), never an untrained
    initialisation. The global random state is neither read nor changed. `options` go to the family's builder;
    `num_classes` is 1000 unless given (FCMAE classifies nothing and takes none).

    Raises UnusableInput for an unknown name and for a checkpoint that cannot be read or does not fit;
    TypeError for an option that the family does not have.
    """
    canonical, family = families.resolve(name)
    model = families.on_meta(canonical, num_classes=num_classes, **options)
    if weights is not None:
        checkpoints.load(Path(weights), canonical, family, model)
        return model.float().eval()
    model = model.to_empty(device="cpu")
    sample = _sample(seed) if family.mask_of is None else None  # without batch norms nothing is calibrated
    return randomize(model, seed, sample=sample).eval()


def _sample(seed: int) -> Tensor:
    """Noise (8, 3, 64, 64) of many contrasts and brightnesses: one kind's statistics would fit no other."""
    generator = Generator().manual_seed(seed)
    noise = torch.randn(8, 3, 64, 64, generator=generator, device="cpu")
    contrast = torch.linspace(0.4, 1.6, 8, device="cpu")[:, None, None, None]
    brightness = torch.randn(8, 3, 1, 1, generator=generator, device="cpu")
    return contrast * noise + brightness
