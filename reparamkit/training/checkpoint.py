"""A checkpoint: a folder from which a run goes on, and from which a network is folded.

    checkpoint.json        which network, which images, where in the run; the sizes of the files beside it
    model.safetensors      the weights that the folder is about: of the last update, in best_ema the average's
    ema.safetensors        the average, where the first are the last update's; in best_ema raw.safetensors
    training.pt            optimizer, schedules, scaler, random states, position, history

A folder is written beside its place, forced to the disk, and moved there in two renames; whatever happens,
one complete folder is left, and `reparamkit.loading.door.run_folders` finds it. Nothing in it is a pickle of
objects: `training.pt` is read with `weights_only`. (accelerate's `save_state` writes in place, and goes on
without random states that it cannot load, so a run would not be the same and nobody would know.)
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reparamkit.errors import UnusableInput
from reparamkit.loading.addresses import looks_like_code
from reparamkit.loading.door.run_folders import BEST_EMA, MANIFEST, chosen, fresh, older, recovered
from reparamkit.loading.safetensors_weights import as_safetensors, read_shards
from reparamkit.support.text import one_line
from reparamkit.support.version import __version__
from reparamkit.training.curves import finite
from reparamkit.training.disk import in_words, sync_folder, write_bytes

STATE = "training.pt"
FORMAT = 1


@dataclass(frozen=True)
class About:
    """What a checkpoint says of itself.

    Attributes:
        model: as `reparamkit train` takes it; None for a network that was handed in as an object.
        classes: names of the classes; empty for an autoencoder.
        input_size: side of the square images in pixels.
        crop, valid_share: how the validation images were cropped, and how many were held back.
        mean, std: what the images were normalised by.
        epoch, update: the position: whole epochs, and updates of the next.
        scores: of the last validation.
        model_args: what its callable was called with, as text; None for nothing.
    """

    model: str | None
    classes: list[str]
    input_size: int
    crop: float
    valid_share: float
    mean: list[float]
    std: list[float]
    epoch: int
    update: int
    scores: dict[str, float]
    model_args: str | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A folder that was found complete."""

    folder: Path
    about: About
    files: dict[str, str]

    def weights(self, kind: str | None = None) -> dict[str, Tensor]:
        """The weights: "raw" those of the last update, "ema" the average's; by default the average's, if any.

        Raises UnusableInput where the checkpoint has none of that kind.
        """
        wanted = self.kind(kind)
        if wanted not in self.files:
            raise UnusableInput(f"{self.folder} has no {wanted} weights; it has {', '.join(self.files)}")
        return read_shards([self.folder / self.files[wanted]])

    def kind(self, kind: str | None) -> str:
        """Which weights are meant where a caller names none."""
        return kind or ("ema" if "ema" in self.files else "raw")

    def state(self) -> dict[str, Any]:
        """What a run goes on from.

        Raises UnusableInput where it cannot be read.
        """
        path = self.folder / STATE
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise UnusableInput(f"{path} cannot be read: {one_line(error)}") from error
        return state


def is_code(model: str) -> bool:
    """Whether a network's name is that of a callable, which runs when the network is built."""
    return looks_like_code(model)


def write_checkpoint(
    folder: Path, about: About, weights: Mapping[str, Tensor], ema: Mapping[str, Tensor] | None, state: Any
) -> None:
    """Write a checkpoint at `folder`; an older one there is replaced whole or not at all.

    Raises UnusableInput where it cannot be written (a full disk): the older one is then as it was.
    """
    average_first = ema is not None and folder.name == BEST_EMA
    files = {"raw": "raw.safetensors" if average_first else "model.safetensors"}
    contents = {files["raw"]: as_safetensors(weights)}
    if ema is not None:
        files["ema"] = "model.safetensors" if average_first else "ema.safetensors"
        contents[files["ema"]] = as_safetensors(ema)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    contents[STATE] = buffer.getvalue()
    manifest = {
        "format": FORMAT,
        "reparamkit": __version__,
        **vars(about),
        "scores": finite(about.scores),
        "weights": files,
        "files": {name: len(content) for name, content in contents.items()},
    }
    new, old = fresh(folder), older(folder)
    try:
        recovered(folder)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        for name, content in contents.items():
            write_bytes(new / name, content)
        write_bytes(new / MANIFEST, json.dumps(manifest, indent=2).encode())
        sync_folder(new)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        new.rename(folder)
        sync_folder(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        if folder.exists():
            shutil.rmtree(new, ignore_errors=True)
        kept = f"; {folder} is the older one, unchanged" if folder.exists() else ""
        raise UnusableInput(f"cannot write the checkpoint {folder}: {in_words(error)}{kept}") from error


def open_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at `path`; of a run's folder its best average, else its best, else its last.

    Raises UnusableInput where there is none, or where it is damaged.
    """
    folder = chosen(path) or recovered(path)
    manifest_path = folder / MANIFEST
    if not manifest_path.exists():
        raise UnusableInput(f"{path} holds no checkpoint (there is no {MANIFEST} in it)")
    try:
        manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
        sizes, files = dict(manifest["files"]), dict(manifest["weights"])
        told = {"model_args": None, **manifest}  # older ones do not have it
        about = About(**{name: told[name] for name in About.__dataclass_fields__})
        version = manifest["format"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnusableInput(f"{manifest_path} is damaged: {type(error).__name__}: {error}") from error
    if version != FORMAT:
        raise UnusableInput(f"{folder} has the format {version}, and this reparamkit reads {FORMAT}")
    for name, size in sizes.items():
        file = folder / name
        if not file.exists() or file.stat().st_size != size:
            raise UnusableInput(
                f"the checkpoint {folder} is damaged: {name} is missing or has another length"
            )
    return Checkpoint(folder, about, dict(files))
