"""Weights as they lie in files: read them without running code, unwrap them, fit them into a model.

A training script saves its weights in many wrappings: alone, under ``state_dict`` or ``model``, as an
exponential moving average beside the last step, with the ``module.`` that DistributedDataParallel puts before
every name. What is inside is always a mapping of names to tensors, and that is what these functions look for.
"""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reparamkit.errors import UntrustedPickle, UnusableInput
from reparamkit.loading.declared import check_tensors
from reparamkit.loading.door.files import opened
from reparamkit.loading.door.torch_save import check_saved
from reparamkit.support.text import first_line_alone

# In the order of preference: where a file holds an average of the weights beside the last step, the average
# is what its authors evaluated and released.
_WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
    "params_ema",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "params",
    "net",
    "network",
    "weights",
)
_PREFIXES = ("module.", "_orig_mod.")
_NAMED = 5
_DEPTH = 4


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Weights from a file of ``torch.save``, in its zip form or the one before torch 1.6, onto the CPU.

    Only what ``torch.load(weights_only=True)`` admits is read: no code of the file runs.

    Raises `UntrustedPickle` where the file holds more than tensors and plain containers, `UnusableInput`
    where it cannot be read or holds no weights.
    """
    return unwrap_state_dict(load_weights_only(path))


def load_weights_only(path: Path) -> object:
    """Whatever ``torch.load(weights_only=True)`` finds in the file, tensors on the CPU.

    Raises `UntrustedPickle` and `UnusableInput` as `read_state_dict` does.
    """
    check_saved(path)
    try:
        # a plain container of settings, which timm's training keeps beside the weights
        harmless = torch.serialization.safe_globals([argparse.Namespace])
        with opened(path) as file, warnings.catch_warnings(), harmless:
            warnings.simplefilter("ignore")
            loaded: object = torch.load(file, map_location="cpu", weights_only=True)
    except UnusableInput:
        raise
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+) was not an allowed", str(error))
        refers = f" (it refers to {refused.group(1)})" if refused else ""
        raise UntrustedPickle(
            f"{path} holds more than tensors{refers}: opening it would unpickle objects, and a pickle can "
            f"run code, so nothing of it was loaded. Save the weights alone, torch.save(model.state_dict(), "
            f"...), or pass --trust-pickle (trust_pickle=True) if you trust whoever made the file"
        ) from error
    except OSError as error:
        raise UnusableInput(f"{path} cannot be read: {error.strerror or first_line_alone(error)}") from error
    except Exception as error:
        raise UnusableInput(
            f"{path} cannot be read as weights: {first_line_alone(error)}. It may be damaged or incomplete; "
            f"compare its size with the original's"
        ) from error
    check_tensors(loaded, str(path))
    return loaded


def unwrap_state_dict(obj: object) -> dict[str, Tensor]:
    """The name-to-tensor mapping inside ``obj``, without the prefix of DDP or torch.compile.

    ``obj`` may be the mapping itself, a checkpoint that holds it under one of the usual keys (an average of
    the weights, an ``ema``, is preferred to the last step), a module, or an object that wraps a module.

    Raises `UnusableInput`, naming what was found, where there is none.
    """
    return find_state_dict(obj)[0]


def find_state_dict(obj: object) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """As `unwrap_state_dict`, and the keys under which the mapping was found (none where ``obj`` is it).

    Raises `UnusableInput`, naming what was found, where there is none.
    """
    unwrapped = _search(obj, _DEPTH)
    if unwrapped is None:
        raise UnusableInput(
            f"no weights found: expected a mapping of names to tensors, found {_describe(obj)}"
        )
    tensors, where = unwrapped
    return _without_prefixes(tensors), where


def inside(held: object, key: str) -> tuple[object, tuple[str, ...]]:
    """What lies under a key with dots in a file's mappings, lists, objects and modules, and the way to it.

    Among the names of weights it is a prefix: ``model`` means all that begin with ``model.``.

    Raises `UnusableInput`, naming what is there, where nothing is.
    """
    where: tuple[str, ...] = ()
    rest = key
    while rest:
        if isinstance(held, Mapping) and _is_state_dict(held) and rest not in held:
            under = {
                name.removeprefix(f"{rest}."): v for name, v in held.items() if name.startswith(f"{rest}.")
            }
            if not under:
                raise _nothing_under(key, where, held)
            return under, (*where, rest)
        step, held = _step(held, rest, key, where)
        where = (*where, step)
        rest = rest[len(step) + 1 :]
    return held, where


def _step(held: object, rest: str, key: str, where: tuple[str, ...]) -> tuple[str, object]:
    """The first part of `rest` that is there, and what is under it; names with dots go first."""
    parts = rest.split(".")
    for count in range(len(parts), 0, -1):
        name = ".".join(parts[:count])
        if isinstance(held, Mapping):
            if name in held:
                return name, held[name]
        elif isinstance(held, (list, tuple)):
            if name.isdecimal() and int(name) < len(held):
                return name, held[int(name)]
        elif count == 1 and isinstance(getattr(held, "__dict__", None), dict):
            value = getattr(held, name, None)
            if isinstance(value, (nn.Module, Mapping, list, tuple)):
                return name, value
    raise _nothing_under(key, where, held)


def _nothing_under(key: str, where: tuple[str, ...], held: object) -> UnusableInput:
    at = f"under {'.'.join(where)!r} there is" if where else "it holds"
    return UnusableInput(f"it has nothing under the key {key!r}; {at} {_describe(held)}")


def fit_state_dict(model: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Load ``state`` into ``model``: every name must be there, with the same shape.

    A prefix that all names of one side share and the other side lacks is no difference (Lightning writes
    ``model.`` before every name); nor are weights of something else beside (a loss, an average), where those
    of the network are all that lie under one prefix. ``num_batches_tracked``, which inference never reads,
    may be absent.

    Returns notes: what was chosen among the weights, and what they were widened or rounded to.

    Raises `UnusableInput` with the counts and the first names that are missing, unexpected, of another
    shape or kind; the model is then as it was.
    """
    own: dict[str, Tensor] = {
        name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)
    }
    aligned, notes = _align(dict(state), own)
    aligned |= _tied(model, aligned)
    missing = [name for name in own if name not in aligned and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in aligned if name not in own and not name.endswith("_extra_state")]
    reshaped = [
        f"{name} is {_shape(aligned[name])} in the weights and {_shape(value)} in the model"
        for name, value in own.items()
        if name in aligned and not _is_lazy(value) and aligned[name].shape != value.shape
    ]
    of_another_kind = [
        f"{name} is {_type(aligned[name])} in the weights and {_type(value)} in the model"
        for name, value in own.items()
        if name in aligned and _floats(value) and not _floats(aligned[name])
    ]
    complaints = [
        f"{len(names)} {what}: {_first(names)}"
        for names, what in (
            (missing, "missing from the weights"),
            (unexpected, "not in the model"),
            (reshaped, "of another shape"),
            (of_another_kind, "no floating-point numbers"),
        )
        if names
    ]
    if complaints:
        raise UnusableInput(
            f"the weights do not fit the model {type(model).__name__} ({len(own)} names in the model, "
            f"{len(aligned)} in the weights): {'; '.join(complaints)}"
        )
    notes += _converted(aligned, own)
    # copy_ into a meta tensor does nothing, silently
    on_meta = any(value.is_meta for value in own.values())
    absent = {
        name: torch.zeros_like(value, device="cpu")
        for name, value in own.items()
        if name not in aligned and name.endswith("num_batches_tracked")
    }
    try:
        model.load_state_dict({**aligned, **absent}, strict=True, assign=on_meta)
    except RuntimeError as error:
        raise UnusableInput(
            f"the weights do not fit the model {type(model).__name__}: {first_line_alone(error)}"
        ) from error
    return notes


def _tied(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights that the model has under two names and the file under one, as safetensors keeps them."""
    names_of: dict[int, list[str]] = {}
    for name, value in model.named_parameters(remove_duplicate=False):
        names_of.setdefault(id(value), []).append(name)
    shared = [names for names in names_of.values() if len(names) > 1]
    absent: dict[str, Tensor] = {}
    for names in shared:
        present = next((name for name in names if name in state), None)
        if present is not None:
            absent |= {name: state[present] for name in names if name not in state}
    return absent


def _converted(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Notes on the weights whose floating-point type is another than the model's."""
    pairs = Counter(
        (state[name].dtype, value.dtype)
        for name, value in own.items()
        if name in state and _floats(value) and state[name].dtype is not value.dtype
    )
    notes = []
    for (stored, held), count in pairs.items():
        exact = torch.promote_types(stored, held) is held if stored.itemsize > 1 else held.itemsize > 1
        how = "widened" if exact else "rounded"
        plural = "weights" if count > 1 else "weight"
        notes.append(f"{count} {plural} stored in {str(stored)[6:]} {how} to {str(held)[6:]}")
    return notes


def _floats(value: Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()


def _type(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _search(obj: object, depth: int) -> tuple[dict[str, Tensor], tuple[str, ...]] | None:
    if isinstance(obj, nn.Module):
        return dict(obj.state_dict()), ()
    if not isinstance(obj, Mapping):
        inner = getattr(obj, "module", None) or getattr(obj, "ema", None)
        return (dict(inner.state_dict()), ()) if isinstance(inner, nn.Module) else None
    if _is_state_dict(obj):
        return {name: value for name, value in obj.items() if isinstance(value, Tensor)}, ()
    if depth == 0:
        return None
    for key in _WRAPPERS:
        if key in obj and (unwrapped := _search(obj[key], depth - 1)) is not None:
            return unwrapped[0], (key, *unwrapped[1])
    return None


def _is_state_dict(mapping: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in mapping.values()) and all(
        isinstance(name, str) and (isinstance(value, Tensor) or name.endswith("_extra_state"))
        for name, value in mapping.items()
    )


def _without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    # torch.optim.swa_utils.AveragedModel counts its steps beside the module that it wraps
    names = [name for name in state if name != "n_averaged"]
    for prefix in _PREFIXES:
        if names and all(name.startswith(prefix) for name in names):
            return _without_prefixes({name.removeprefix(prefix): state[name] for name in names})
    return state


def _align(state: dict[str, Tensor], own: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """``state`` under the model's names, where prefixes are all that differs, and notes."""
    if state.keys() & own.keys():
        return state, []
    shorter = _less_shared(state)
    if shorter is not None and shorter.keys() & own.keys():
        return shorter, []
    shorter_own = _less_shared(own)
    if shorter_own is not None and shorter_own.keys() & state.keys():
        prefix = next(iter(own)).split(".", 1)[0]
        return {f"{prefix}.{name}": value for name, value in state.items()}, []
    return _under_one_prefix(state, own)


def _under_one_prefix(
    state: dict[str, Tensor], own: dict[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """The weights under the one prefix that holds all of the model's; as they are where there is none."""
    needed = [name for name in own if not name.endswith("num_batches_tracked")]
    if not needed:
        return state, []
    ending = f".{needed[0]}"
    candidates = [name.removesuffix(ending) for name in state if name.endswith(ending)]
    fitting = [
        prefix
        for prefix in candidates
        if all(
            f"{prefix}.{name}" in state
            and (_is_lazy(own[name]) or state[f"{prefix}.{name}"].shape == own[name].shape)
            for name in needed
        )
    ]
    if len(fitting) > 1:
        shown = " and ".join(map(repr, fitting[:3]))
        raise UnusableInput(
            f"the weights under {shown} fit the model alike; say which: --key {fitting[0]} "
            f"(key={fitting[0]!r})"
        )
    if not fitting:
        return state, []
    start = f"{fitting[0]}."
    chosen = {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
    left = [name for name in state if not name.startswith(start)]
    note = f"the weights under {fitting[0]!r} were taken; {len(left)} others were left: {_first(left)}"
    return chosen, [note] if left else []


def _less_shared(names: dict[str, Tensor]) -> dict[str, Tensor] | None:
    first = {name.partition(".")[0] for name in names}
    if len(first) != 1 or not all("." in name for name in names):
        return None
    return {name.partition(".")[2]: value for name, value in names.items()}


def _is_lazy(value: Tensor) -> bool:
    return isinstance(value, (nn.UninitializedParameter, nn.UninitializedBuffer))


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "a scalar"


def _first(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown}, and {len(names) - _NAMED} more"


def _describe(obj: object) -> str:
    if isinstance(obj, Mapping):
        if not obj:
            return "an empty dict"
        return f"a dict with the keys {_first([repr(key) for key in obj])}"
    return f"a {type(obj).__module__}.{type(obj).__qualname__}"
