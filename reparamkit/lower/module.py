"""The `.pt` file: the module itself, pickled whole, for what no graph holds.

Reading one needs reparamkit and the classes that the network is made of, and runs code: it is for files of
one's own.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reparamkit.errors import UnusableInput
from reparamkit.lower.writer import FileWriter, Work
from reparamkit.runners.torch import TorchRunner
from reparamkit.support.quiet import quiet
from reparamkit.support.text import first_line


class ModuleWriter(FileWriter):
    """`.pt`: the whole module, pickled."""

    exports = False

    def write(self, work: Work, target: Path) -> Sequence[str]:
        assert work.module is not None
        target.write_bytes(pickled(work.module, work.path).getbuffer())
        return [
            f"{kind.__qualname__} is defined in __main__: only a script that defines it too can read the file"
            for kind in dict.fromkeys(type(part) for part in work.module.modules())
            if kind.__module__ == "__main__"
        ]

    def reopen(self, target: Path, work: Work) -> TorchRunner:
        return TorchRunner(loaded_module(target, work.path), work.path.name)

    def count(self, target: Path, work: Work) -> Counter[str]:
        return layer_counts(loaded_module(target, work.path))


WRITER = ModuleWriter()


def pickled(module: nn.Module, path: Path) -> io.BytesIO:
    """The bytes of a module for `path`. Raises UnusableInput where something in it cannot be pickled."""
    archive = io.BytesIO()
    try:
        with quiet():
            torch.save(module, archive)
    except Exception as error:  # a local class, a lambda, an open file: each has an error of its own
        raise UnusableInput(
            f"cannot write {path.name}: the network (a {type(module).__qualname__}) cannot be pickled: "
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
            f"cannot write {path.name}: the file cannot be read again: {first_line(error)}"
        ) from error
    assert isinstance(loaded, nn.Module)
    return loaded


def layer_counts(module: nn.Module) -> Counter[str]:
    """Modules of torch.nn without children, by class."""
    return Counter(
        type(part).__name__
        for part in module.modules()
        if not part._modules
        and type(part) is not nn.Module
        and type(part).__module__.startswith("torch.nn.modules.")
    )
