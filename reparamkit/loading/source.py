"""Opening whatever the user has: a file, a folder of weights or of training, a name, a callable.

A file is recognised by its content. Nothing of it is handed to a loader that could run code before it was
looked at: see `exported` for ``.pt2``, `scripted` for TorchScript, `saved` for ``torch.save``. Who builds the
network of a name says `registry`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reparamkit.errors import UnusableInput
from reparamkit.loading import registry
from reparamkit.loading.adapters import AdapterFolder, describe_adapter
from reparamkit.loading.ahead import check_ahead, check_name, weights_alone
from reparamkit.loading.archive import Archive, open_archive
from reparamkit.loading.arguments import as_arguments, as_text
from reparamkit.loading.construct import construct, is_address, stem_of
from reparamkit.loading.door.files import exists, in_words
from reparamkit.loading.door.run_folders import holds_checkpoint
from reparamkit.loading.exported import is_exported, load_exported
from reparamkit.loading.folders import TIMM, TRANSFORMERS, WeightFolder, describe_folder, files_of_index
from reparamkit.loading.formats import Format, recognise
from reparamkit.loading.inputs_said import said
from reparamkit.loading.opened import Source as Source
from reparamkit.loading.registry import Named, Stored
from reparamkit.loading.safetensors_weights import read_shards
from reparamkit.loading.saved import Pickled, Weights, load_pickle, load_saved
from reparamkit.loading.scripted import is_scripted, load_scripted
from reparamkit.loading.weights import (
    find_state_dict,
    fit_state_dict,
    inside,
    load_weights_only,
    read_state_dict,
)


@dataclass(frozen=True)
class _Asked:
    """How a source is to be opened, as `load` was told."""

    model: str | None
    trusted: bool
    arguments: Mapping[str, Any]
    key: str | None


def load(
    source: str | Path,
    *,
    model: str | None = None,
    trust_pickle: bool = False,
    model_args: str | Mapping[str, Any] | None = None,
    key: str | None = None,
    adapter: str | Path | None = None,
) -> Source:
    """Open `source`: a file, a folder of weights or one that `reparamkit train` wrote, a name, or a callable.

    Args:
        source: a name is a reference model's or another library's (``timm:resnet18``,
            ``hf-hub:timm/resnet18.a1_in1k``, ``torchvision:resnet18``, ``transformers:FOLDER``,
            ``ultralytics:yolov8n.yaml``); a callable is ``package.module:callable``,
            ``package/module.py:callable`` or ``package.module.callable``.
        model: again a name or a callable: what weights alone belong to.
        trust_pickle: a file may run code while it is opened, as a pickled module does. The checkpoint of a
            network that is a callable needs this or `model`.
        model_args: keyword arguments for the callable, or the function of the library, that builds the
            network: a dict, or text such as ``"num_classes=10, act='relu'"``.
        key: what inside the file is meant, with dots: ``"ema.model"``; of a training checkpoint ema or raw.
        adapter: a folder of PEFT's: its layers are put into the network, and not merged; `Source.base` is the
            network without them.

    Raises:
        UntrustedPickle: the file could run code, and `trust_pickle` is not given.
        MissingExtra: the library that a name needs is not installed.
        UnusableInput: it cannot be opened for another reason; the message says what was found and what to do.
    """
    asked = _Asked(model, trust_pickle, as_arguments(model_args), key)
    folder = None if adapter is None else describe_adapter(Path(adapter))
    check_ahead(str(source), model)
    opened = _opened(source, asked)
    return opened if folder is None else _adapted(opened, folder)


def _opened(source: str | Path, asked: _Asked) -> Source:
    text, path, key = str(source), Path(source), asked.key
    if not exists(path):
        if key is not None:
            raise UnusableInput(f"--key {key} says what inside a file is meant, and {text!r} is none")
        return _from_name(text, asked)
    with in_words(path):
        if holds_checkpoint(path):
            return _from_checkpoint(path, asked)
        opened = _from_folder(path, asked) if path.is_dir() else _from_file(path, asked)
    return _with_inputs_said(opened)


def _adapted(source: Source, adapter: AdapterFolder) -> Source:
    base = source.model
    if not isinstance(base, nn.Module) or isinstance(base, torch.jit.ScriptModule):
        raise UnusableInput(
            f"--adapter {adapter.path}: {source.name} was captured or scripted already, so nothing can be "
            f"put into it; give the network itself"
        )
    from reparamkit.loading.libraries.peft import adapted

    model, notes = adapted(base, adapter)
    return dataclasses.replace(source, model=model, base=base, notes=(*source.notes, *notes))


def _from_file(path: Path, asked: _Asked) -> Source:
    kind = recognise(path)
    if kind in (Format.SAFETENSORS, Format.INDEX):
        files = (path,) if kind is Format.SAFETENSORS else files_of_index(path)
        return _from_saved(path, _chosen_weights(read_shards(files), asked.key), asked)
    if kind is Format.PICKLE:
        return _from_saved(path, load_pickle(path, trust_pickle=asked.trusted, key=asked.key), asked)
    if kind is Format.LEGACY:
        return _from_saved(path, load_saved(path, None, trust_pickle=asked.trusted, key=asked.key), asked)
    archive = open_archive(path)
    if is_exported(archive):
        _refuse_options(path, asked, "a torch.export archive")
        return _from_program(load_exported(archive, trust_pickle=asked.trusted), path.stem, path)
    if is_scripted(archive):
        _refuse_options(path, asked, "a TorchScript archive")
        return Source(load_scripted(archive, trust_pickle=asked.trusted), path.stem, path, None)
    if archive.root and "data.pkl" in archive.records:
        return _from_saved(path, load_saved(path, archive, trust_pickle=asked.trusted, key=asked.key), asked)
    raise UnusableInput(f"{path} is {_foreign_archive(archive)}")


def _from_folder(path: Path, asked: _Asked) -> Source:
    folder = describe_folder(path)
    schemes = {TRANSFORMERS: "transformers:", TIMM: "timm:local-dir:"}
    if asked.model is None and folder.library not in schemes:
        raise UnusableInput(_no_network(path, folder))
    if asked.model is not None:
        return _from_saved(path, _weights_of(folder, asked.key), asked)
    if asked.key is not None:
        raise UnusableInput(f"--key {asked.key} says what inside a file is meant, and {path} is a folder")
    registry.require_package(folder.library, str(path))
    stored = None
    if folder.library == TIMM:  # read here, within bounds, and not by timm
        stored = Stored(_weights_of(folder, None).tensors, str(path))
    name = f"{schemes[folder.library]}{path}"
    built = registry.provider(folder.library).build(name, asked.arguments, stored, trusted=asked.trusted)
    return dataclasses.replace(_from_built(built), path=path, name=path.resolve().name or built.stem)


def _weights_of(folder: WeightFolder, key: str | None) -> Weights:
    safe = all(file.suffix == ".safetensors" for file in folder.weights)
    if safe:
        return _chosen_weights(read_shards(folder.weights), key)
    if len(folder.weights) == 1:
        return _chosen_weights(load_weights_only(folder.weights[0]), key)
    state: dict[str, torch.Tensor] = {}
    for file in folder.weights:
        state |= read_state_dict(file)
    return _chosen_weights(state, key)


def _no_network(path: Path, folder: WeightFolder) -> str:
    has = "a config.json that names no architecture" if folder.config else "no config.json"
    return (
        f"{path} holds weights and {has}, so it does not say what they belong to; pass --model with a "
        f"network's name, or MODULE:CALLABLE that returns the network"
    )


def _from_checkpoint(path: Path, asked: _Asked) -> Source:
    if asked.key not in (None, "ema", "raw"):
        raise UnusableInput(f"--key {asked.key}: of a training checkpoint it is ema or raw")
    text = as_text(asked.arguments)
    return registry.checkpoints().open_source(
        path, model=asked.model, trusted=asked.trusted, kind=asked.key, arguments=text
    )


def _from_program(program: torch.export.ExportedProgram, name: str, path: Path | None) -> Source:
    if program.example_inputs is None:
        return Source(program, name, path, None)
    inputs, keywords = program.example_inputs
    return Source(program, name, path, tuple(inputs), dict(keywords))


def _chosen_weights(held: object, key: str | None) -> Weights:
    where: tuple[str, ...] = ()
    if key is not None:
        held, where = inside(held, key)
    tensors, keys = find_state_dict(held)
    return Weights(tensors, (*where, *keys))


def _from_saved(path: Path, saved: Weights | Pickled, asked: _Asked) -> Source:
    if isinstance(saved, Pickled):
        _refuse_options(path, asked, "a whole pickled module", "--key")
        notes = (*_chosen("the module was", saved.where, saved.beside), *saved.notes)
        return Source(saved.module, path.stem, path, None, notes=notes)
    notes = _chosen("the weights were", saved.where, saved.beside)
    if asked.model is None:
        raise weights_alone(path, len(saved.tensors), saved.hint)
    built = _build(asked.model, Stored(saved.tensors, str(path)), asked)
    stem = path.stem if path.suffix != ".json" else path.name.partition(".")[0]
    opened = _from_built(built)
    return dataclasses.replace(opened, name=stem, path=path, notes=(*notes, *opened.notes))


def _chosen(what: str, where: tuple[str, ...], beside: tuple[str, ...]) -> tuple[str, ...]:
    """A note on what was taken of what a file holds."""
    if not where:
        return ()
    keys = " / ".join(map(repr, where))
    others = [name for name in beside if name != where[0] and not where[0].startswith(f"{name}.")]
    if not others:
        return (f"{what} found under {keys}",)
    shown = ", ".join(map(repr, others[:6])) + (f" and {len(others) - 6} more" if len(others) > 6 else "")
    return (f"{what} found under {keys}; beside it are {shown} (--key takes another)",)


def _build(model: str, stored: Stored, asked: _Asked) -> Named:
    """The model of that name or address with the weights in it."""
    check_name(model, "--model ")
    scheme = registry.scheme_of(model)
    if scheme or registry.is_plain(model):
        return registry.provider(scheme).build(model, asked.arguments, stored, trusted=asked.trusted)
    built = construct(model, asked.arguments)
    if not isinstance(built, nn.Module):
        raise UnusableInput(f"--model {model}: weights go into a torch.nn.Module, not an exported program")
    try:
        notes = tuple(fit_state_dict(built, stored.tensors))
    except UnusableInput as error:
        raise UnusableInput(f"{stored.where}: {error}") from error
    return Named(built, stem_of(model), notes=notes)


def _from_name(text: str, asked: _Asked) -> Source:
    scheme = registry.scheme_of(text)
    if scheme or not is_address(text):
        built = registry.provider(scheme).build(text, asked.arguments, None, trusted=asked.trusted)
        return _from_built(built)
    network = construct(text, asked.arguments)
    if isinstance(network, torch.export.ExportedProgram):
        return _from_program(network, stem_of(text), None)
    return _with_inputs_said(Source(network, stem_of(text), None, None))


def _from_built(built: Named) -> Source:
    return Source(
        built.model, built.stem, None, built.example_inputs, notes=built.notes, inferred=built.inferred
    )


def _with_inputs_said(source: Source) -> Source:
    """The same source, with the example that its network itself asks for where nothing else gives one."""
    if source.example_inputs is not None or source.example_kwargs or not isinstance(source.model, nn.Module):
        return source
    inputs, inferred = said(source.model)
    return dataclasses.replace(source, example_inputs=inputs, inferred=inferred)


def _refuse_options(path: Path, asked: _Asked, what: str, allowed: str = "") -> None:
    """Refuse what says how to build a network, or where in a file it is, of a file that is one."""
    given = {"--model": asked.model, "--model-args": as_text(asked.arguments), "--key": asked.key}
    for option, value in given.items():
        if value and option != allowed:
            raise UnusableInput(
                f"{path} is {what}, so it has its network with it; leave out {option} ({value})"
            )


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
