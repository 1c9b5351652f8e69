"""transformers' networks: ``transformers:FOLDER``, or the name of one on the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from reparamkit.errors import UntrustedPickle, UnusableInput
from reparamkit.loading.door.files import exists, parse_json, read_bytes, steady
from reparamkit.loading.door.safetensors_file import check_safetensors
from reparamkit.loading.door.torch_save import check_saved
from reparamkit.loading.folders import TRANSFORMERS, WeightFolder, describe_folder
from reparamkit.loading.inputs_said import image, said, takes_images
from reparamkit.loading.libraries.importing import drawn_from_seed, fitted, hub_reached_or_offline, imported
from reparamkit.loading.registry import Named, Stored
from reparamkit.support.text import one_line

_HALVES = ("F16", "BF16")


def names() -> Iterable[str]:
    """None: they are folders, and repositories of the Hub without end."""
    return ()


def known(name: str) -> bool:
    """Whether a folder can be one; whether the Hub has a repository shows only there."""
    if exists(Path(name)):
        describe_folder(Path(name), weights_needed=False)
    return True


def build(name: str, arguments: Mapping[str, Any], stored: Stored | None, *, trusted: bool) -> Named:
    """The network in evaluation mode and in float32; see `reparamkit.loading.registry.Provider`."""
    own = name.partition(":")[2]
    library = imported("transformers", name)
    path = Path(own) if exists(Path(own)) else _fetched(own, name)
    folder = describe_folder(path, weights_needed=stored is None)
    if folder.library != TRANSFORMERS:
        raise UnusableInput(f"{path} has no config.json of transformers; give the folder itself, and --model")
    if folder.needs_code and not trusted:
        raise UntrustedPickle(
            f"{path} needs code of its own ({', '.join(map(str, folder.config['auto_map']))}), which would "
            f"run; pass --trust-pickle (trust_pickle=True) if you trust whoever made it"
        )
    for file in folder.weights if stored is None else ():
        check_safetensors(file) if file.suffix == ".safetensors" else check_saved(file)
    from reparamkit.support.quiet import quiet

    try:
        with quiet(), drawn_from_seed(), steady(folder.weights):
            return _built(library, folder, name, arguments, stored, trusted)
    except (UnusableInput, KeyboardInterrupt):
        raise
    except Exception as error:
        text = one_line(error)
        raise UnusableInput(f"transformers cannot build {path}: {type(error).__name__}: {text}") from error


def _built(
    library: Any,
    folder: WeightFolder,
    name: str,
    arguments: Mapping[str, Any],
    stored: Stored | None,
    trusted: bool,
) -> Named:
    import torch

    options = {"local_files_only": True, "trust_remote_code": trusted}
    config = library.AutoConfig.from_pretrained(str(folder.path), **options, **arguments)
    notes: list[str] = []
    if getattr(config, "use_cache", False):
        config.use_cache = False
        notes.append(f"{name}: use_cache is off: a cache of keys and values is no output of a folded network")
    kind = _class_of(library, config)
    if stored is not None:
        model = kind(config) if kind is not library.AutoModel else kind.from_config(config)
        notes += fitted(model, stored, name)
    else:
        model, told = kind.from_pretrained(
            str(folder.path), config=config, dtype=torch.float32, output_loading_info=True, **options
        )
        notes += _loaded(folder, told, type(model).__name__)
    inputs, who = _input(folder.path, model)
    stem = folder.path.name or type(model).__name__.lower()
    return Named(model.eval(), stem, inputs, who, tuple(notes))


def _class_of(library: Any, config: Any) -> Any:
    """The class that the weights were saved from; without one that is known, the network without a head."""
    for name in getattr(config, "architectures", None) or ():
        kind = getattr(library, str(name), None)
        if kind is not None and hasattr(kind, "from_pretrained"):
            return kind
    return library.AutoModel


def _loaded(folder: WeightFolder, told: Mapping[str, Any], kind: str) -> list[str]:
    missing = sorted(map(str, told.get("missing_keys") or ()))
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UnusableInput(
            f"{folder.path} lacks weights of {kind}, which would be random: {', '.join(missing[:3])}{more}"
        )
    notes = []
    unused = sorted(map(str, told.get("unexpected_keys") or ()))
    if unused:
        notes.append(
            f"{folder.path}: {len(unused)} of its weights are not in {kind}: {', '.join(unused[:3])}"
        )
    safe = [file for file in folder.weights if file.suffix == ".safetensors"]
    types = [entry.dtype for file in safe for entry in check_safetensors(file).values()]
    halves = sum(one in _HALVES for one in types)
    if halves:
        notes.append(f"{halves} of {len(types)} weights, stored in half precision, were widened to float32")
    return notes


def _input(path: Path, model: Any) -> tuple[Any, str]:
    """The example: what the image processor makes of an image, else what the network's config says."""
    file = path / "preprocessor_config.json"
    if takes_images(model) and exists(file):
        told = parse_json(read_bytes(file, 1 << 24), str(file))
        sides = _sides(told) if isinstance(told, dict) else None
        channels = getattr(getattr(model.config, "vision_config", model.config), "num_channels", 3)
        if sides is not None and isinstance(channels, int):
            return image(channels, *sides), "its preprocessor_config.json"
    return said(model)


def _sides(told: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width of the images that an image processor makes; None where it leaves them open."""
    size = told.get("crop_size") if told.get("do_center_crop") else told.get("size")
    if isinstance(size, dict):
        shortest = size.get("shortest_edge")
        height, width = size.get("height", shortest), size.get("width", shortest)
    else:
        height = width = size
    if (
        isinstance(height, int)
        and isinstance(width, int)
        and 0 < min(height, width) <= max(height, width) < 1 << 14
    ):
        return height, width
    return None


def _fetched(name: str, wanted: str) -> Path:
    """A repository of the Hub, as a folder: fetched, or from the cache."""
    hub = imported("huggingface_hub", wanted)
    try:
        with hub_reached_or_offline():
            return Path(hub.snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:
        text = one_line(error, 160)
        raise UnusableInput(
            f"{wanted}: there is no folder {name!r}, and the Hugging Face Hub cannot give it "
            f"({type(error).__name__}: {text}). With a connection, hf download {name} --local-dir DIR; then "
            f"give DIR"
        ) from error
