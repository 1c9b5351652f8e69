"""Files of ``torch.save`` and of ``pickle.dump``: weights alone, or a pickled module where the user trusts
it."""

from __future__ import annotations

import pickle
import re
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
from reparamkit.loading.weights import find_state_dict, inside, load_weights_only
from reparamkit.support.text import one_line

_HARMLESS = ("torch._utils", "torch.serialization", "torch.storage", "collections.OrderedDict", "torch.Size")
_NAMED = 3
_MODULES = ("ema", "model_ema", "model", "module", "net", "network")


@dataclass(frozen=True)
class Weights:
    """Weights alone; `where` are the keys under which the file holds them, from the outside in.

    `beside` are all the keys of the outermost mapping, where the file is one, and `hint` is what the file
    says of the network that they belong to: "timm:resnet18"; empty where it says nothing.
    """

    tensors: dict[str, Tensor]
    where: tuple[str, ...]
    beside: tuple[str, ...] = ()
    hint: str = ""


@dataclass(frozen=True)
class Pickled:
    """A module that the file holds whole, under the keys `where`, `beside` others; see `Weights`."""

    module: nn.Module
    where: tuple[str, ...]
    beside: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def load_saved(
    path: Path, archive: Archive | None, *, trust_pickle: bool, key: str | None = None
) -> Weights | Pickled:
    """What ``torch.save`` wrote into the file: a zip (`archive`) or the form before torch 1.6.

    `key` says where in it the model or its weights are, with dots: "ema.model".

    Raises `UntrustedPickle` where the file holds more than tensors and plain containers, unless
    `trust_pickle`; `UnusableInput` where it is damaged or holds neither weights nor a module.
    """
    try:
        return _sorted_out(path, load_weights_only(path), key)
    except UntrustedPickle as error:
        if not trust_pickle:
            raise _refusal(path, _names(path, archive)) from error
    return _sorted_out(path, _unpickled(path), key)


def load_pickle(path: Path, *, trust_pickle: bool, key: str | None = None) -> Weights | Pickled:
    """What ``pickle.dump`` wrote into the file, read only under `trust_pickle`.

    Raises `UntrustedPickle` without that, and `UnusableInput` as `load_saved` does.
    """
    if not trust_pickle:
        raise _refusal(path, _names(path, None), "a raw pickle, which torch.save did not write,")
    return _sorted_out(path, _unpickled(path, raw=True), key)


def _sorted_out(path: Path, held: object, key: str | None) -> Weights | Pickled:
    beside = tuple(map(str, held)) if isinstance(held, Mapping) else ()
    hint = _hint(held)
    asked: tuple[str, ...] = ()
    if key:
        try:
            held, asked = inside(held, key)
        except UnusableInput as error:
            raise UnusableInput(f"{path}: {error}") from error
    if isinstance(held, nn.Module):
        return _module(held, asked, beside)
    if isinstance(held, Mapping):
        # as YOLO's training keeps the module itself, not its weights
        for name in _MODULES:
            if isinstance(held.get(name), nn.Module):
                return _module(held[name], (*asked, name), beside)
    try:
        tensors, keys = find_state_dict(held)
    except UnusableInput as error:
        raise UnusableInput(f"{path}: {error}; give a file that holds a model's state_dict") from error
    where = (*asked, *keys)
    return Weights(tensors, where, beside if where else (), hint)


def _module(module: nn.Module, where: tuple[str, ...], beside: tuple[str, ...]) -> Pickled:
    if not where:
        return Pickled(module, where)
    halves = {value.dtype for value in module.parameters()} & {torch.float16, torch.bfloat16}
    if not halves:
        return Pickled(module, where, beside)
    # training code keeps its checkpoints in half precision and widens them when it opens them
    names = " and ".join(sorted(str(one)[6:] for one in halves))
    return Pickled(module.float(), where, beside, (f"the module, stored in {names}, was widened to float32",))


def _hint(held: object) -> str:
    """What a checkpoint says of its network: timm's training writes its name."""
    named = held.get("arch") if isinstance(held, Mapping) else None
    return f"timm:{named}" if isinstance(named, str) and re.fullmatch(r"[a-z][\w.]{2,80}", named) else ""


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
        reason = one_line(error)
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
