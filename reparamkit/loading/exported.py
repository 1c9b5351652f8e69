"""torch.export archives (``.pt2``): what is in them that could run code, and then the program.

Two layouts exist. Since torch 2.8 a folder holds ``models/model.json``, each weight as raw bytes, and the
example inputs as a pickle of ``torch.save``; before, three pickles lay beside one JSON at the top. Raw bytes
cannot do harm. A pickle is admitted where ``torch.load(weights_only=True)`` admits it, which is so for what
``torch.export.save`` writes for an ordinary network. torch's own loader is not so careful: a weight marked as
pickled, an opaque constant, and any pickle that ``weights_only`` refused are unpickled in full, the shared
libraries of a compiled package are loaded, and the JSON has ways of its own (`exported_program`).
"""

from __future__ import annotations

import json
import re
import warnings

import torch

from reparamkit.errors import UntrustedPickle, UnusableInput
from reparamkit.loading.archive import Archive
from reparamkit.loading.declared import check_tensors
from reparamkit.loading.door.files import opened
from reparamkit.loading.door.memory import check_room
from reparamkit.loading.door.torch_save import check_saved_bytes
from reparamkit.loading.exported_program import find_code
from reparamkit.loading.pickles import NotAPickle, plain_tensors, references

_PROGRAM = "models/model.json"
_WEIGHTS = "data/weights/"
_CONSTANTS = "data/constants/"
_SAMPLES = "data/sample_inputs/"
_COMPILED = "data/aotinductor/"
_OLD_PROGRAM = "serialized_exported_program.json"
_OLD_PARTS = ("serialized_state_dict", "serialized_constants", "serialized_example_inputs")


def is_exported(archive: Archive) -> bool:
    """Whether the archive is of ``torch.export.save`` or one of torch's packages in the same layout."""
    if archive.root:
        return "archive_format" in archive.records and archive.read("archive_format") == b"pt2"
    return _OLD_PROGRAM in archive.records


def load_exported(archive: Archive, *, trust_pickle: bool) -> torch.export.ExportedProgram:
    """The program in the archive, on the devices that it names.

    Raises `UntrustedPickle` for anything in it that could run code, unless `trust_pickle`, and
    `UnusableInput` where it holds no program, holds several, or cannot be read by this torch.
    """
    return _load(archive, trust_pickle) if archive.root else _load_old(archive, trust_pickle)


def _load(archive: Archive, trust_pickle: bool) -> torch.export.ExportedProgram:
    from torch.export.pt2_archive._package import load_pt2

    path = archive.path
    programs = [record for record in archive.records if record.startswith("models/")]
    if programs != [_PROGRAM]:
        held = f"the programs {', '.join(programs)}" if programs else "no exported program"
        raise UnusableInput(
            f"{path} is a torch.export package that holds {held}; give one that torch.export.save wrote"
            + (" (a compiled package has no graph left to fold)" if not programs else "")
        )
    if not trust_pickle:
        _refuse_code(archive)
    try:
        with opened(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = load_pt2(file).exported_programs["model"]
    except Exception as error:
        raise _unreadable(archive, error) from error
    return _bounded(archive, program)


def _bounded(archive: Archive, program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program, after a check of what torch did not count: its tensors, and the values of its calls."""
    example = program.example_inputs
    if example is not None and not (
        len(example) == 2 and isinstance(example[0], tuple) and isinstance(example[1], dict)
    ):
        raise UnusableInput(f"{archive.path} is damaged: its example inputs are none. Export it again")
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor) and all(isinstance(size, int) for size in value.shape):
            check_room(value.untyped_storage().nbytes(), f"{archive.path} computes a value of")
    held = [program.state_dict, program.constants, list(program.example_inputs or ())]
    check_tensors(held, str(archive.path))
    return program


def _refuse_code(archive: Archive) -> None:
    for record in archive.records:
        folder, suffix = record.lower(), record.lower().rpartition(".")[2]
        if folder.startswith(_COMPILED):
            raise _refusal(archive, f"the compiled library {record!r}, which would be loaded and run")
        if folder.startswith((_WEIGHTS, _CONSTANTS)) and suffix == "json":
            _refuse_pickled_payloads(archive, record)
        elif folder.startswith((_WEIGHTS, _CONSTANTS, _SAMPLES)) and suffix == "pt":
            _refuse_pickle(archive, record)
    _refuse_program(archive, _PROGRAM)


def _refuse_pickled_payloads(archive: Archive, record: str) -> None:
    folder = _WEIGHTS if record.lower().startswith(_WEIGHTS) else _CONSTANTS
    try:
        payloads = dict(json.loads(archive.read(record).decode())["config"])
        entries = [
            (str(name), str(entry["path_name"]), entry["use_pickle"]) for name, entry in payloads.items()
        ]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise _unreadable(archive, error) from error
    for name, file, pickled in entries:
        if not re.fullmatch(r"\w+", file):
            raise UnusableInput(
                f"{archive.path} is damaged: {name!r} lies in {file!r}, which is no name of torch's"
            )
        if file.startswith(("custom_obj", "opaque_obj")):
            raise _refusal(archive, f"the pickled object {name!r} ({folder}{file})")
        if pickled:
            _refuse_pickle(archive, f"{folder}{file}", f"the weight {name!r}")


def _refuse_pickle(archive: Archive, record: str, what: str = "") -> None:
    if record not in archive.records:
        raise UnusableInput(f"{archive.path} is damaged: its entry {record!r} is missing. Export it again")
    saved = archive.read(record)
    if saved:
        check_saved_bytes(saved, f"{archive.path}, in its entry {record!r},")
    if saved and not plain_tensors(saved):
        named = _imported(saved)
        raise _refusal(archive, f"{what or 'a pickle'} ({record}), a pickle of more than tensors{named}")


def _imported(saved: bytes) -> str:
    """What the pickle outside a zip names; inside one it is not looked for, since a refusal needs no more."""
    try:
        names = references(saved)
    except NotAPickle:
        return ""
    return f" that refers to {', '.join(names[:3])}" if names else ""


def _refuse_program(archive: Archive, record: str) -> None:
    try:
        finding = find_code(archive.read(record))
    except (ValueError, RecursionError) as error:
        raise _unreadable(archive, error) from error
    if finding:
        raise _refusal(archive, f"{finding} ({record}), which torch would evaluate")


def _load_old(archive: Archive, trust_pickle: bool) -> torch.export.ExportedProgram:
    from torch._export.serde.serialize import SerializedArtifact, deserialize

    parts = []
    for part in _OLD_PARTS:
        record = next((f"{part}{end}" for end in (".pt", ".json") if f"{part}{end}" in archive.records), None)
        if record is None:
            raise UnusableInput(
                f"{archive.path} is damaged: its entry '{part}.pt' is missing. Export it again"
            )
        if not trust_pickle:
            _refuse_pickle(archive, record)
        parts.append(archive.read(record))
    if not trust_pickle:
        _refuse_program(archive, _OLD_PROGRAM)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = deserialize(SerializedArtifact(archive.read(_OLD_PROGRAM), *parts))
    except Exception as error:
        raise _unreadable(archive, error) from error
    return _bounded(archive, program)


def _refusal(archive: Archive, what: str) -> UntrustedPickle:
    return UntrustedPickle(
        f"{archive.path} is a torch.export archive that could run code when it is opened: it holds {what}. "
        f"Nothing of it was loaded; pass --trust-pickle (trust_pickle=True) if you trust whoever made the "
        f"file"
    )


def _unreadable(archive: Archive, error: BaseException) -> UnusableInput:
    lines = [line for line in str(error).splitlines() if line.strip()]
    # torch wraps the first error in a traceback of its own; the last line is the reason
    reason = (lines[-1] if "Traceback" in str(error) else lines[0]).strip() if lines else ""
    return UnusableInput(
        f"{archive.path} is a torch.export archive that torch {torch.__version__} cannot read: "
        f"{type(error).__name__}{f': {reason[:300]}' if reason else ''}. Export the model again with this "
        f"torch"
    )
