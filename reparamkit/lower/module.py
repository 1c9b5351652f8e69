"""The `.pt` file: the module itself, pickled whole, for what no graph holds.

Reading one needs reparamkit and the classes that the network is made of, and runs code: it is for files of
one's own.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reparamkit.compare.float64.reference import Reference
from reparamkit.compare.verdict import Equivalence
from reparamkit.errors import UnusableInput
from reparamkit.lower.files import check_writable, write_verified
from reparamkit.runners.torch import TorchRunner
from reparamkit.support.quiet import quiet
from reparamkit.support.text import first_line


def save_module(
    module: nn.Module,
    path: Path,
    reference: Reference,
    *,
    before_it_appears: Callable[[], object] | None = None,
    allow_untold: bool = False,
) -> tuple[Equivalence, Counter[str], tuple[str, ...]]:
    """Write a module with torch.save, read it back, run that against the reference, put the file in place.

    Returns:
        The verdict on the file, how many layers of each class it holds, and notes.

    Raises:
        UnusableInput: something in the module cannot be pickled, the place cannot be written, or (without
            `allow_untold`) it cannot be told whether what was read back is right.
        NotEquivalent: what was read back computes something else. Nothing was written.
    """
    check_writable(path)
    archive = pickled(module, path)
    found: list[tuple[Equivalence, Counter[str]]] = []

    def write(target: Path) -> None:
        with target.open("wb") as file:
            file.write(archive.getbuffer())

    def verify(target: Path) -> None:
        loaded = loaded_module(target, path)
        verdict = reference.judge(TorchRunner(loaded, path.name))
        verdict.require(f"{path} was not written: the file is", allow_untold=allow_untold)
        if before_it_appears is not None:
            before_it_appears()
        found.append((verdict, _layers(loaded)))

    write_verified(path, write, verify)
    notes = [
        f"{kind.__qualname__} is defined in __main__: only a script that defines it too can read the file"
        for kind in dict.fromkeys(type(part) for part in module.modules())
        if kind.__module__ == "__main__"
    ]
    return (*found[0], tuple(notes))


def pickled(module: nn.Module, path: Path) -> io.BytesIO:
    """The bytes of a module for `path`. Raises UnusableInput where something in it cannot be pickled."""
    archive = io.BytesIO()
    try:
        with quiet():
            torch.save(module, archive)
    except Exception as error:  # a local class, a lambda, an open file: each has an error of its own
        raise UnusableInput(
            f"cannot write {path}: the network (a {type(module).__qualname__}) cannot be pickled: "
            f"{first_line(error)}"
        ) from error
    return archive


def loaded_module(target: Path, path: Path) -> nn.Module:
    """What was written to `target` for `path`. Raises UnusableInput where it cannot be read again."""
    try:
        with quiet():
            loaded: Any = torch.load(target, weights_only=False)
    except Exception as error:
        raise UnusableInput(
            f"cannot write {path}: the file cannot be read again: {first_line(error)}"
        ) from error
    assert isinstance(loaded, nn.Module)
    return loaded


def _layers(module: nn.Module) -> Counter[str]:
    """Modules of torch.nn without children, by class."""
    return Counter(
        type(part).__name__
        for part in module.modules()
        if not part._modules
        and type(part) is not nn.Module
        and type(part).__module__.startswith("torch.nn.modules.")
    )
