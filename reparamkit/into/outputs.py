"""Which outputs hold weights for a class of the user's own: files by suffix, and folders of transformers."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from reparamkit.errors import MissingExtra, UnusableInput

SUFFIXES = (".pth", ".safetensors")


def is_folder(path: Path) -> bool:
    """Whether a path names a folder to write: no suffix, or none that a format could have ("opt-1.3b")."""
    return not re.fullmatch(r"\.[A-Za-z]\w{0,15}", path.suffix)


def check_target_suffix(path: Path) -> None:
    """Raises UnusableInput for a file that holds no state dict, MissingExtra for one without its package."""
    if is_folder(path):
        return
    if path.suffix not in SUFFIXES:
        raise UnusableInput(
            f"cannot write {path}: weights for a class of your own go into {' or '.join(SUFFIXES)}, those of "
            f"a network of transformers also into a folder, a name without a suffix"
        )
    if path.suffix == ".safetensors" and find_spec("safetensors") is None:
        raise MissingExtra("safetensors", "train", "writing .safetensors")
