"""ultralytics' networks: ``ultralytics:yolov8n.yaml`` and whatever other ``.yaml`` the library brings."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from reparamkit.errors import UntrustedPickle, UnusableInput
from reparamkit.loading.inputs_said import image
from reparamkit.loading.libraries.importing import RANDOM, drawn_from_seed, fitted, imported
from reparamkit.loading.registry import Named, Stored
from reparamkit.support.text import one_line


@cache
def names() -> Iterable[str]:
    """The files that the library brings, and their scales."""
    spec = importlib.util.find_spec("ultralytics")
    folders = (spec.submodule_search_locations or ()) if spec is not None else ()
    files = [file for folder in folders for file in (Path(folder) / "cfg" / "models").rglob("*.yaml")]
    scales = re.compile(r"^\s{2,}([a-z]): *\[", re.M)
    known_names = {file.name for file in files}
    for file in files:
        for scale in scales.findall(file.read_text(encoding="utf-8", errors="replace")):
            known_names.add(re.sub(r"^(\D+\d+)(.*)$", rf"\g<1>{scale}\g<2>", file.name))
    return frozenset(known_names)


def known(name: str) -> bool:
    """Whether the library has it, or it is a file of its own."""
    return Path(name).name != name or name.endswith(".pt") or Path(name).exists() or name in names()


def build(name: str, arguments: Mapping[str, Any], stored: Stored | None, *, trusted: bool) -> Named:
    """The network in evaluation mode; see `reparamkit.loading.registry.Provider`."""
    own = name.partition(":")[2]
    if own.endswith(".pt"):
        raise UnusableInput(
            f"{name}: a .pt of ultralytics is a file, and is opened as one: give {own} --trust-pickle (with "
            f"a connection, yolo checks model={own} fetches it)"
        )
    if "://" in own or not own.endswith((".yaml", ".yml")):
        raise UnusableInput(f"{name}: ultralytics' networks are named by a .yaml, such as yolov8n.yaml")
    if (Path(own).name != own or Path(own).exists()) and not trusted:
        raise UntrustedPickle(
            f"{name} is a file of your own, and ultralytics may run expressions in it; pass --trust-pickle "
            f"(trust_pickle=True) if you trust whoever wrote it"
        )
    os.environ.setdefault("YOLO_OFFLINE", "true")  # importing it asks a name server else
    library = imported("ultralytics", name)
    from reparamkit.support.quiet import quiet

    try:
        with quiet(), drawn_from_seed():
            model = library.YOLO(own, verbose=False).model
            if arguments:
                model = type(model)(own, verbose=False, **arguments)
    except TypeError as error:
        raise UnusableInput(f"--model-args: ultralytics' {own} does not take them: {error}") from error
    except Exception as error:
        text = one_line(error, 200)
        raise UnusableInput(f"ultralytics cannot build {own}: {type(error).__name__}: {text}") from error
    notes: tuple[str, ...] = ()
    if stored is not None:
        notes = fitted(model, stored, name)
    else:
        notes = (f"{name}: {RANDOM}",)
    side = int(imported("ultralytics.utils", name).DEFAULT_CFG.imgsz)
    channels = int(model.yaml.get("channels") or model.yaml.get("ch") or 3)
    stem = re.sub(r"\.ya?ml$", "", Path(own).name)
    return Named(model.eval(), stem, image(channels, side, side), "ultralytics' imgsz", notes)
