"""Opening whatever the user has: a file, a checkpoint's folder, a reference model's name, a callable.

A file is recognised by its content. Nothing of it is handed to a loader that could run code before it was
looked at: see `exported` for ``.pt2``, `scripted` for TorchScript, `saved` for ``torch.save``.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reparamkit.errors import UnusableInput
from reparamkit.loading.archive import Archive, open_archive
from reparamkit.loading.construct import construct, is_address
from reparamkit.loading.door.files import exists, in_words
from reparamkit.loading.door.run_folders import holds_checkpoint
from reparamkit.loading.exported import is_exported, load_exported
from reparamkit.loading.formats import Format, recognise
from reparamkit.loading.saved import Pickled, Weights, load_pickle, load_saved
from reparamkit.loading.scripted import is_scripted, load_scripted
from reparamkit.loading.weights import fit_state_dict

# Training stands above this room; whoever opens no checkpoint does not need its packages.
_CHECKPOINTS = "reparamkit.training.sources"


@dataclass(frozen=True)
class Source:
    """A model and what is known about where it came from.

    `name` is the stem for output files and `path` the file it came from, if any. `example_inputs` and
    `example_kwargs` are what the file or the reference model says to call it with (float32, zero mean, shape
    (N, C, H, W) for a reference model); None where nothing is known. `notes` are for the report.
    """

    model: nn.Module | torch.export.ExportedProgram | torch.jit.ScriptModule
    name: str
    path: Path | None
    example_inputs: tuple[Any, ...] | None
    example_kwargs: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def load(source: str | Path, *, model: str | None = None, trust_pickle: bool = False) -> Source:
    """Open `source`: a file, a folder that `reparamkit train` wrote, a name, or ``package.module:callable``.

    `model`, again a reference model's name or ``package.module:callable``, says what weights alone belong to.
    `trust_pickle` lets a file run code while it is opened, as a pickled module does. The checkpoint of a
    network that is a callable needs one of the two.

    Raises `UntrustedPickle` for a file that could run code, without `trust_pickle`; `UnusableInput` for
    whatever else cannot be opened, saying what was found and what to do.
    """
    path = Path(source)
    if exists(path):
        with in_words(path):
            if holds_checkpoint(path):
                return _from_checkpoint(path, model, trust_pickle)
            return _from_file(path, model, trust_pickle)
    text = str(source)
    if model is not None:
        raise UnusableInput(
            f"--model ({model}) says what a file of weights belongs to, and there is no file {text!r}"
        )
    return _from_name(text)


def _from_file(path: Path, model: str | None, trust_pickle: bool) -> Source:
    kind = recognise(path)
    if kind is Format.PICKLE:
        return _from_saved(path, load_pickle(path, trust_pickle=trust_pickle), model)
    if kind is Format.LEGACY:
        return _from_saved(path, load_saved(path, None, trust_pickle=trust_pickle), model)
    archive = open_archive(path)
    if is_exported(archive):
        _refuse_model(path, model, "a torch.export archive")
        return _from_program(load_exported(archive, trust_pickle=trust_pickle), path.stem, path)
    if is_scripted(archive):
        _refuse_model(path, model, "a TorchScript archive")
        return Source(load_scripted(archive, trust_pickle=trust_pickle), path.stem, path, None)
    if archive.root and "data.pkl" in archive.records:
        return _from_saved(path, load_saved(path, archive, trust_pickle=trust_pickle), model)
    raise UnusableInput(f"{path} is {_foreign_archive(archive)}")


def _from_checkpoint(path: Path, model: str | None, trust_pickle: bool) -> Source:
    opened: Source = importlib.import_module(_CHECKPOINTS).open_source(
        path, model=model, trusted=trust_pickle
    )
    return opened


def _from_program(program: torch.export.ExportedProgram, name: str, path: Path | None) -> Source:
    if program.example_inputs is None:
        return Source(program, name, path, None)
    inputs, keywords = program.example_inputs
    return Source(program, name, path, tuple(inputs), dict(keywords))


def _from_saved(path: Path, saved: Weights | Pickled, model: str | None) -> Source:
    keys = " / ".join(map(repr, saved.where))
    if isinstance(saved, Pickled):
        _refuse_model(path, model, "a whole pickled module")
        notes = (f"the module was found under {keys}",) if keys else ()
        return Source(saved.module, path.stem, path, None, notes=notes)
    notes = (f"the weights were found under {keys}",) if keys else ()
    if model is None:
        raise UnusableInput(
            f"{path} holds weights alone ({len(saved.tensors)} tensors), not the network they belong to; "
            f"pass --model with a reference model's name, or MODULE:CALLABLE that returns the network"
        )
    built, examples = _build(model, path, saved)
    return Source(built, path.stem, path, examples, notes=notes)


def _build(model: str, path: Path, weights: Weights) -> tuple[nn.Module, tuple[Any, ...] | None]:
    """The model of that name or address with the weights in it, and its example inputs where it is known."""
    if is_address(model):
        built = construct(model)
        if not isinstance(built, nn.Module):
            raise UnusableInput(
                f"--model {model}: weights go into a torch.nn.Module, not an exported program"
            )
        _fit(path, built, weights)
        return built, None
    from reparamkit.models import create, info

    try:
        known = info(model)
    except UnusableInput as error:
        raise UnusableInput(f"--model {model}: not MODULE:CALLABLE, and {error}") from error
    if weights.plain:
        # it knows other projects' names for the same weights
        return create(model, weights=path), known.example_inputs()
    reference = create(model)
    _fit(path, reference, weights)
    return reference, known.example_inputs()


def _fit(path: Path, model: nn.Module, weights: Weights) -> None:
    try:
        fit_state_dict(model, weights.tensors)
    except UnusableInput as error:
        raise UnusableInput(f"{path}: {error}") from error


def _from_name(text: str) -> Source:
    if is_address(text):
        made = construct(text)
        name = text.rpartition(":")[2].rpartition(".")[2]
        if isinstance(made, torch.export.ExportedProgram):
            return _from_program(made, name, None)
        return Source(made, name, None, None)
    from reparamkit.models import create, info

    try:
        known = info(text)
    except UnusableInput as error:
        like_a_path = "/" in text or "\\" in text or "." in text
        why = "`reparamkit models` lists them" if like_a_path else error
        raise UnusableInput(
            f"no such file {text!r}, and not the name of a reference model ({why}), nor of the form "
            f"package.module:callable"
        ) from error
    return Source(create(text), text, None, known.example_inputs())


def _refuse_model(path: Path, model: str | None, what: str) -> None:
    if model is not None:
        raise UnusableInput(f"{path} is {what}, so it has its network with it; leave out --model ({model})")


def _foreign_archive(archive: Archive) -> str:
    if "model.json" in archive.records:
        return (
            "a TorchScript archive of torch before 1.3, which is not read; save it again with a newer torch"
        )
    shown = ", ".join(archive.records[:3])
    if all(record.endswith(".npy") for record in archive.records):
        return "an archive of NumPy arrays; give the PyTorch model"
    return (
        f"a zip archive that holds no model ({shown}{', …' if len(archive.records) > 3 else ''}); give a "
        f".pt2 of torch.export, a TorchScript file, or a file of torch.save, or unpack the archive first"
    )
