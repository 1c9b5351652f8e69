"""Writes an `MLModel` as an `.mlpackage`: the same folder, byte for byte, for the same network and options.

coremltools puts random identifiers into the manifest, today's date and the versions of its sources into the
model, and a map of debugging handles beside it; none of which belongs to the network.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reparamkit.lower import facts as lower_facts
from reparamkit.lower.coreml.options import CoreMlOptions
from reparamkit.lower.facts import PREFIX, Facts
from reparamkit.support.quiet import quiet
from reparamkit.support.version import __version__

_MODEL = Path("com.apple.CoreML") / "model.mlmodel"
_WEIGHTS = Path("com.apple.CoreML") / "weights"
_KEPT = ("com.github.apple.coremltools.version",)
"""What coremltools writes into the metadata and a reader may want: which converter it was."""


def write_package(model: Any, path: Path, *, metadata: Mapping[str, str], description: str) -> None:
    """Write a converted model to a folder that is not there yet.

    Args:
        model: an `MLModel` that was just converted.
        metadata: user-defined entries.
        description: a short text.

    Raises:
        OSError: it cannot be written.
    """
    with quiet():
        model.save(str(path))
    for entry in path.iterdir():
        if entry.name not in ("Data", "Manifest.json"):
            entry.unlink()
    spec = model.get_spec()
    kept = {key: text for key, text in spec.description.metadata.userDefined.items() if key in _KEPT}
    spec.description.metadata.Clear()
    spec.description.metadata.shortDescription = description
    spec.description.metadata.userDefined.update({**kept, **metadata})
    for key in list(spec.mlProgram.attributes):
        del spec.mlProgram.attributes[key]
    content = spec.SerializeToString(deterministic=True)
    target = path / "Data" / _MODEL
    target.unlink()
    target.write_bytes(content)
    _open_to_readers(path)
    # coremltools would keep its own copy until the process ends.
    if model.package_path != str(path):
        shutil.rmtree(model.package_path, ignore_errors=True)
    _write_manifest(path, hashlib.sha256(content).hexdigest())


def _write_manifest(path: Path, seed: str) -> None:
    items = {}
    parts = [
        ("model.mlmodel", "CoreML Model Specification", _MODEL),
        ("weights", "CoreML Model Weights", _WEIGHTS),
    ]
    identifiers = {}
    for name, description, place in parts:
        if not (path / "Data" / place).exists():
            continue
        identifiers[name] = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{seed}/{name}"))
        items[identifiers[name]] = {
            "author": "com.apple.CoreML",
            "description": description,
            "name": name,
            "path": place.as_posix(),
        }
    manifest = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": items,
        "rootModelIdentifier": identifiers["model.mlmodel"],
    }
    (path / "Manifest.json").write_text(
        json.dumps(manifest, indent=4, sort_keys=True) + "\n", encoding="utf-8"
    )


def _open_to_readers(path: Path) -> None:
    """Give everything the permissions that a new file has: coremltools writes for its owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    for root, _, names in os.walk(path):
        os.chmod(root, 0o777 & ~mask)
        for name in names:
            os.chmod(Path(root) / name, 0o666 & ~mask)


def entries(facts: Facts, options: CoreMlOptions) -> dict[str, str]:
    """All user-defined metadata of a package: the normalisation of its images, and the caller's own, too."""
    own = lower_facts.entries(facts)
    if options.image is not None:
        own[f"{PREFIX}image"] = json.dumps(asdict(options.image))
    return {**own, **options.metadata}


def description(facts: Facts, options: CoreMlOptions) -> str:
    """One line for whoever opens the package in Xcode."""
    folds = "1 fold" if facts.folds == 1 else f"{facts.folds} folds"
    return f"Folded by reparamkit {__version__} ({folds}, each proven in float64), {options.precision}."
