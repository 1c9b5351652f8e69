"""Files of ``torch.save`` and of ``pickle.dump``: weights alone, or a pickled module where the user trusts
it."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from reparamkit.errors import UntrustedPickle, UnusableInput
from reparamkit.loading.archive import Archive
from reparamkit.loading.construct import current_folder_importable
from reparamkit.loading.door.files import opened, read_bytes
from reparamkit.loading.pickles import NotAPickle, beyond, references
from reparamkit.loading.weights import find_state_dict, load_weights_only

_HARMLESS = ("torch._utils", "torch.serialization", "torch.storage", "collections.OrderedDict", "torch.Size")
_NAMED = 3


@dataclass(frozen=True)
class Weights:
    """Weights alone; `where` are the keys under which the file holds them, from the outside in.

    `plain` says that ``torch.load(weights_only=True)`` admits the file.
    """

    tensors: dict[str, Tensor]
    where: tuple[str, ...]
    plain: bool


@dataclass(frozen=True)
class Pickled:
    """A module that the file holds whole, under the keys `where`."""

    module: nn.Module
    where: tuple[str, ...]


def load_saved(path: Path, archive: Archive | None, *, trust_pickle: bool) -> Weights | Pickled:
    """What ``torch.save`` wrote into the file: a zip (`archive`) or the form before torch 1.6.

    Raises `UntrustedPickle` where the file holds more than tensors and plain containers, unless
    `trust_pickle`; `UnusableInput` where it is damaged or holds neither weights nor a module.
    """
    try:
        return _sorted_out(path, load_weights_only(path), plain=True)
    except UntrustedPickle as error:
        if not trust_pickle:
            raise _refusal(path, _names(path, archive)) from error
    return _sorted_out(path, _unpickled(path), plain=False)


def load_pickle(path: Path, *, trust_pickle: bool) -> Weights | Pickled:
    """What ``pickle.dump`` wrote into the file, read only under `trust_pickle`.

    Raises `UntrustedPickle` without that, and `UnusableInput` as `load_saved` does.
    """
    if not trust_pickle:
        raise _refusal(path, _names(path, None), "a raw pickle, which torch.save did not write,")
    return _sorted_out(path, _unpickled(path, raw=True), plain=False)


def _sorted_out(path: Path, held: object, *, plain: bool) -> Weights | Pickled:
    if isinstance(held, nn.Module):
        return Pickled(held, ())
    if isinstance(held, Mapping):
        # as YOLO's training keeps the module itself, not its weights
        for key in ("ema", "model_ema", "model", "module", "net", "network"):
            if isinstance(held.get(key), nn.Module):
                return Pickled(held[key], (key,))
    try:
        tensors, keys = find_state_dict(held)
    except UnusableInput as error:
        raise UnusableInput(f"{path}: {error}; give a file that holds a model's state_dict") from error
    return Weights(tensors, keys, plain)


def _unpickled(path: Path, *, raw: bool = False) -> object:
    try:
        with current_folder_importable(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if raw:
                with opened(path) as file:
                    return pickle.load(file)
            with opened(path) as file:
                held: object = torch.load(file, map_location="cpu", weights_only=False)
            return held
    except UnusableInput:
        raise
    except (AttributeError, ImportError) as error:
        raise UnusableInput(
            f"{path} is a pickle that needs code which cannot be imported here: {error}. Run in the folder "
            f"where that code lies, or save the weights alone and pass --model"
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UnusableInput(
            f"{path} cannot be unpickled: {type(error).__name__}: {reason}. It may be damaged; save it again"
        ) from error


def _refusal(path: Path, names: list[str], what: str = "a pickle of more than weights,") -> UntrustedPickle:
    shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    refers = f" ({shown})" if names else ""
    kind = "a pickled module," if any(name.startswith("torch.nn.modules.") for name in names) else what
    return UntrustedPickle(
        f"{path} is {kind} and a pickle can run code when it is opened{refers}: nothing of it was loaded. "
        f"Pass --trust-pickle (trust_pickle=True) if you trust whoever made the file, or have them save the "
        f"weights alone, torch.save(model.state_dict(), ...), and pass --model"
    )


def _names(path: Path, archive: Archive | None) -> list[str]:
    """What the pickle refers to beyond tensors, for the message."""
    try:
        stream = archive.read("data.pkl") if archive else read_bytes(path)
        return beyond(references(stream), _HARMLESS)
    except (NotAPickle, OSError, UnusableInput):
        return []
