"""Folders of weights, as libraries keep them: a `config.json` and files beside it, in shards too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reparamkit.errors import UnusableInput
from reparamkit.loading.door.files import companion, exists, parse_json, read_bytes, regular_folder
from reparamkit.loading.door.safetensors_file import INDEX_SUFFIX, shards

_LARGEST_CONFIG = 1 << 24
_WEIGHTS = (
    *("model.safetensors", f"model.safetensors{INDEX_SUFFIX}"),
    *("pytorch_model.bin", f"pytorch_model.bin{INDEX_SUFFIX}"),
)
_SINGLE = (".safetensors", ".pt", ".pth", ".pt2", ".bin", ".ckpt")
TRANSFORMERS, TIMM = "transformers", "timm"


@dataclass(frozen=True)
class WeightFolder:
    """A folder of weights.

    Attributes:
        library: who builds its network, "transformers" or "timm"; empty where it does not say.
        config: what its config.json holds; empty without one.
        weights: the files that hold its weights, all of them.
    """

    path: Path
    library: str
    config: dict[str, Any]
    weights: tuple[Path, ...]

    @property
    def needs_code(self) -> bool:
        """Whether its network is code that lies in the folder or on a hub."""
        return bool(self.config.get("auto_map"))


def describe_folder(path: Path, *, weights_needed: bool = True) -> WeightFolder:
    """What a folder holds; nothing of the weights is read.

    Raises:
        UnusableInput: no weights, or those of something else.
    """
    config = _config(path)
    if config:
        regular_folder(path, _root(path))  # a library reads what else lies there
    weights = _weights(path)
    if exists(path / "adapter_config.json") and not config:
        base = _json(path / "adapter_config.json").get("base_model_name_or_path")
        raise UnusableInput(
            f"{path} holds an adapter alone (of {str(base)[:100]}); give the network as SOURCE, and this as "
            f"--adapter {path}"
        )
    if not weights and (weights_needed or not config):
        raise UnusableInput(f"{path} is a folder{_inside(path, exists(path / 'config.json'))}")
    library = ""
    if "architectures" in config or "model_type" in config:
        library = TRANSFORMERS
    elif isinstance(config.get("architecture"), str):
        library = TIMM
    return WeightFolder(path, library, config, weights)


def _root(path: Path) -> Path:
    """Where the links of a folder may lead: in a cache of the Hugging Face Hub, to the files beside."""
    cache = path.parent.parent
    return cache if path.parent.name == "snapshots" and (cache / "blobs").is_dir() else path


def _config(path: Path) -> dict[str, Any]:
    return _json(path / "config.json") if exists(path / "config.json") else {}


def _json(path: Path) -> dict[str, Any]:
    told = parse_json(read_bytes(path, _LARGEST_CONFIG), str(path))
    if not isinstance(told, dict):
        raise UnusableInput(f"{path} is no table of settings")
    return told


def _weights(path: Path) -> tuple[Path, ...]:
    for name in _WEIGHTS:
        file = path / name
        if exists(file):
            return files_of_index(file) if name.endswith(INDEX_SUFFIX) else (file,)
    return ()


def files_of_index(index: Path) -> tuple[Path, ...]:
    """The shards that an index names, in order.

    Raises:
        UnusableInput: the index is damaged, or one of them is not there.
    """
    return tuple(companion(index, name) for name in sorted(shards(index)))


def _inside(path: Path, has_config: bool) -> str:
    if has_config:
        return f" with a config.json and without weights ({' or '.join(_WEIGHTS)}); download or copy them too"
    try:
        models = sorted(f.name for f in path.iterdir() if f.suffix in _SINGLE)
    except OSError:
        models = []
    wanted = "; give a file of a model"
    if models:
        return f"{wanted}, for instance {path / models[0]}"
    return f"{wanted}, or a folder with config.json and model.safetensors, or one that reparamkit train wrote"
