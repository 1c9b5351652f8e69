"""Folders of adapters, as PEFT keeps them: an `adapter_config.json`, and the weights beside it.

Nothing here imports torch, so what is wrong with one is known at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reparamkit.errors import UnusableInput
from reparamkit.loading.door.files import exists, parse_json, read_bytes, regular_folder
from reparamkit.loading.door.safetensors_file import check_safetensors
from reparamkit.loading.door.torch_save import check_saved
from reparamkit.loading.registry import nearest

CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_LARGEST_CONFIG = 1 << 24
_IN_FRONT = "puts vectors of its own in front of what the network reads"
_NOT_IN_WEIGHTS = {
    "PROMPT_TUNING": _IN_FRONT,
    "MULTITASK_PROMPT_TUNING": _IN_FRONT,
    "P_TUNING": _IN_FRONT,
    "PREFIX_TUNING": _IN_FRONT,
    "CPT": _IN_FRONT,
    "CARTRIDGE": _IN_FRONT,
    "ADAPTION_PROMPT": "lets the attention read vectors of its own",
    "XLORA": "mixes its adapters by what the network reads",
    "POLY": "mixes its adapters by a task that each call names",
    "SHADOW": "runs layers of its own beside the network's",
}
"""Kind of adapter -> what it does that no numbers in the network's own layers can do."""


@dataclass(frozen=True)
class AdapterFolder:
    """An adapter.

    Attributes:
        kind: PEFT's name for it, such as "LORA".
        base: what its network is called where it was trained; empty where it does not say.
        weights: the file that holds them.
        config: what its adapter_config.json says.
    """

    path: Path
    kind: str
    base: str
    weights: Path
    config: dict[str, Any]


def describe_adapter(path: Path) -> AdapterFolder:
    """What a folder of an adapter holds; the weights are looked at and not read.

    Raises:
        UnusableInput: it is none, lacks something, or is of a kind that does not lie in the network's layers.
    """
    if not exists(path):
        raise UnusableInput(f"--adapter {path}: there is no such folder{_like(path)}")
    if not path.is_dir():
        folder = (
            path.parent if exists(path.parent / CONFIG) else "the folder that PEFT's save_pretrained wrote"
        )
        raise UnusableInput(f"--adapter {path} is a file; give {folder}")
    if not exists(path / CONFIG):
        raise UnusableInput(f"--adapter {path}: {_no_adapter(path)}")
    regular_folder(path)
    config = parse_json(read_bytes(path / CONFIG, _LARGEST_CONFIG), str(path / CONFIG))
    if not isinstance(config, dict) or not isinstance(config.get("peft_type"), str):
        raise UnusableInput(
            f"--adapter {path}: its {CONFIG} does not say which peft_type it is; save it again with PEFT's "
            f"save_pretrained"
        )
    kind = config["peft_type"]
    _require_in_weights(path, kind, config)
    weights = next((path / name for name in _WEIGHTS if exists(path / name)), None)
    if weights is None:
        raise UnusableInput(
            f"--adapter {path} has an {CONFIG} and no weights ({' or '.join(_WEIGHTS)}); download or copy "
            f"them too"
        )
    check_safetensors(weights) if weights.suffix == ".safetensors" else check_saved(weights)
    base = config.get("base_model_name_or_path")
    return AdapterFolder(path, kind, base[:100] if isinstance(base, str) else "", weights, config)


def _require_in_weights(path: Path, kind: str, config: dict[str, Any]) -> None:
    does = _NOT_IN_WEIGHTS.get(kind, "")
    if config.get("alora_invocation_tokens"):
        kind, does = "an activated LORA", "acts only behind certain tokens of what the network reads"
    if does:
        raise UnusableInput(
            f"--adapter {path} is {kind}, which {does}: that is no part of any layer's weights, so it cannot "
            f"be folded; use it with PEFT as it is"
        )
    if config.get("megatron_config"):
        raise UnusableInput(
            f"--adapter {path} is for layers of Megatron's; convert both to transformers first"
        )


def _no_adapter(path: Path) -> str:
    if exists(path / "config.json"):
        return f"it has a config.json and no {CONFIG}: a whole network, not an adapter; give it as SOURCE"
    try:
        inside = sorted(entry.name for entry in path.iterdir() if exists(entry / CONFIG))
    except OSError:
        inside = []
    if inside:
        return f"it has no {CONFIG}, and {inside[-1]} in it has; give {path / inside[-1]}"
    return f"it has no {CONFIG}; give the folder that PEFT's save_pretrained wrote"


def _like(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir() if exists(entry / CONFIG)]
    except OSError:
        names = []
    close = nearest(path.name, names, 1) or (names if len(names) == 1 else [])
    if close:
        return f"; did you mean {path.parent / close[0]}?"
    if len(path.parts) == 2 and not path.is_absolute():
        return f"; of one on the Hugging Face Hub, first: hf download {path} --local-dir {path.name}"
    return ""
