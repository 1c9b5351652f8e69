"""Other libraries: imported quietly or refused in one line, their networks' names read off their sources."""

from __future__ import annotations

import importlib
import importlib.util
import re
import socket
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from reparamkit.errors import MissingExtra, UnusableInput
from reparamkit.loading.registry import Stored
from reparamkit.support.text import one_line

RANDOM = "its weights are random, the same each time"
_REGISTERED = re.compile(r"^@register_model\b(?:\(name=\"(\w+)\"\))?.*\n(?:(?!def ).*\n)*?def (\w+)\(", re.M)
_QUOTED = re.compile(r"""['"](\w+)['"]\s*:""")
_TORCHVISION = re.compile(r"torchvision::|No module named 'torchvision'|torchvision\.")


def imported(package: str, wanted: str) -> ModuleType:
    """A library.

    Args:
        package: its name, or that of a module in it.
        wanted: what needs it, for messages: "timm:resnet18".

    Raises:
        MissingExtra: it is not installed.
        UnusableInput: it is, and cannot be imported.
    """
    from reparamkit.support.quiet import quiet

    top = package.partition(".")[0]
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name == top:
            raise MissingExtra(top, None, wanted) from None
        raise UnusableInput(
            f"{wanted} needs {top}, which is installed and needs {error.name!r}: pip install {error.name}"
        ) from error
    except Exception as error:
        text = one_line(error, 200)
        raise UnusableInput(
            f"{wanted} needs {top}, which is installed and cannot be imported: {type(error).__name__}: "
            f"{text}{_advice(text)}"
        ) from error


def _advice(text: str) -> str:
    if not _TORCHVISION.search(text):
        return ""
    import torch

    return (
        f". The torchvision that is there belongs to another torch than the {torch.__version__} that is "
        f"there; install the two together, from one index: pip install --force-reinstall torch torchvision"
    )


@cache
def registered(package: str) -> frozenset[str]:
    """Networks that a library's sources register (``@register_model``); nothing is imported."""
    registrations = (match for text in _sources(package) for match in _REGISTERED.finditer(text))
    return frozenset(match[1] or match[2] for match in registrations)


@cache
def mentioned(package: str) -> frozenset[str]:
    """Whatever a library's sources have as a key, older names of networks among it."""
    return frozenset(name for text in _sources(package) for name in _QUOTED.findall(text))


def _sources(package: str) -> Iterator[str]:
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for file in sorted((Path(folder) / "models").rglob("*.py")):
            yield file.read_text(encoding="utf-8", errors="replace")


@contextmanager
def drawn_from_seed() -> Iterator[None]:
    """Random weights inside are the same each time; the random state outside is not touched."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def fitted(model: Any, stored: Stored, name: str) -> tuple[str, ...]:
    """Put weights into a library's network, and return notes.

    Raises:
        UnusableInput: they do not fit.
    """
    from reparamkit.loading.weights import fit_state_dict

    try:
        return tuple(fit_state_dict(model, stored.tensors))
    except UnusableInput as error:
        raise UnusableInput(f"{stored.where}: as {name}, {error}") from error


@contextmanager
def hub_reached_or_offline() -> Iterator[None]:
    """Where the Hugging Face Hub has no address, its cache alone is asked: retrying takes a minute."""
    try:
        from huggingface_hub import constants
    except ModuleNotFoundError:
        yield
        return
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _has_address(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _has_address(url: str) -> bool:
    if urllib.request.getproxies():  # the proxy knows the names
        return True
    try:
        socket.getaddrinfo(urllib.parse.urlsplit(url).hostname, 443)
    except OSError:
        return False
    return True
