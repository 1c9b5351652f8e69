"""The packages of the extra ``train``: there, or named with the command that installs them."""

from __future__ import annotations

import importlib.util

from reparamkit.errors import MissingExtra

_PACKAGES = (
    "accelerate",
    "datasets",
    "kornia",
    "matplotlib",
    "PIL",
    "safetensors",
    "sklearn",
    "tensorboard",
    "yaml",
)


def require_extra(purpose: str, packages: tuple[str, ...] = _PACKAGES) -> None:
    """Find out whether the packages are installed, without importing them.

    Raises MissingExtra, naming the first that is not; `purpose` says what needs it: "training".
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "train", purpose)
