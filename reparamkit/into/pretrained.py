"""Folders that `from_pretrained` loads: a `config.json`, the weights, and what lay beside them before."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from torch import nn

from reparamkit.errors import UnusableInput
from reparamkit.loading.door.files import exists, parse_json, read_bytes
from reparamkit.support.quiet import quiet

_CONFIG = "config.json"
_LARGEST = 1 << 28
_BESIDE = (".json", ".txt", ".model", ".jinja", ".tiktoken")
_NOT_BESIDE = re.compile(r"^config\.json$|adapter_|\.index\.json$|^(trainer|optimizer|scheduler|training)")


def require_pretrained(module: nn.Module, path: Path) -> None:
    """Raises UnusableInput where a network has no such folder."""
    if not all(callable(getattr(module, name, None)) for name in ("save_pretrained", "from_pretrained")):
        raise UnusableInput(
            f"cannot write {path}: it has no suffix, and a {type(module).__name__} is no network of "
            f"transformers, which goes into a folder; give a file, such as {path}.safetensors"
        )


def write_pretrained(module: Any, path: Path) -> None:
    """The folder: names, files and config as the network's library writes them.

    The config is that of the folder that the network came from, where there is one, with the type of the
    weights that are written; tokenizers and the like are copied from there.
    """
    with quiet():
        module.save_pretrained(str(path))
    origin = Path(str(getattr(module, "name_or_path", "") or "."))
    if not exists(origin / _CONFIG):
        return
    told = parse_json(read_bytes(origin / _CONFIG, _LARGEST), str(origin / _CONFIG))
    written = json.loads((path / _CONFIG).read_text(encoding="utf-8"))
    told = {key: value for key, value in told.items() if key not in ("dtype", "torch_dtype")}
    told |= {key: written[key] for key in ("dtype", "torch_dtype") if key in written}
    (path / _CONFIG).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    for file in sorted(origin.iterdir()):
        if file.suffix in _BESIDE and file.is_file() and not _NOT_BESIDE.search(file.name):
            (path / file.name).write_bytes(read_bytes(file, _LARGEST))


def read_pretrained(like: Any, path: Path) -> nn.Module:
    """The network in a folder, of the class of `like`.

    Raises:
        UnusableInput: its weights are not those of that class, one by one.
    """
    with quiet():
        module, told = type(like).from_pretrained(
            str(path), local_files_only=True, output_loading_info=True, attn_implementation=_attention(like)
        )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        names = sorted(map(str, told.get(kind) or ()))
        if names:
            raise UnusableInput(f"cannot write {path.name}: read back, it has {kind}: {', '.join(names[:3])}")
    module.config.use_cache = getattr(like.config, "use_cache", False)
    read: nn.Module = module.eval()
    return read


def _attention(like: Any) -> str | None:
    name = getattr(like.config, "_attn_implementation", None)
    return name if isinstance(name, str) else None
