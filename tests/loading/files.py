"""Model files to open: honest ones of each kind, and tools to tamper with them."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """A small network with a buffer outside the state, an awkward child name and a size-dependent guard."""

    offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.parts = nn.ModuleDict({"a-b": nn.Conv2d(4, 4, 1)})
        self.register_buffer("offset", torch.ones(4), persistent=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.parts["a-b"](self.norm(self.conv(x))) + self.offset.view(-1, 1, 1)
        return {"out": nn.functional.interpolate(y, size=(x.shape[-2] // 2, x.shape[-1] // 2))}


class Plain(nn.Module):
    """A network that can be scripted."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.steps = [1, 2]

    def forward(self, x: Tensor, scale: float = 1.5, mode: str = "same") -> Tensor:
        return torch.add(self.body(x), torch.ones(1, 4, 1, 1), alpha=self.steps[1]) * scale


class Bomb:
    """An object whose unpickling writes the file `marker`."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


class SpoiltNet(Net):
    """A network whose unpickling writes the file `marker`."""

    marker: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return Bomb(self.marker).__reduce__()


def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def write_exported(path: Path) -> Path:
    path.write_bytes(_exported())
    return path


@cache
def _exported() -> bytes:
    auto = torch.export.Dim.AUTO
    shapes = ({0: auto, 2: auto, 3: auto},)
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(net(), (torch.randn(2, 3, 16, 16),), dynamic_shapes=shapes), buffer)
    return buffer.getvalue()


@cache
def _old_exported() -> dict[str, bytes]:
    from torch._export.serde.schema import SCHEMA_VERSION
    from torch._export.serde.serialize import serialize

    artifact = serialize(torch.export.export(net(), (torch.randn(2, 3, 16, 16),)))
    return {
        "version": ".".join(map(str, SCHEMA_VERSION)).encode(),
        "serialized_exported_program.json": artifact.exported_program,
        "serialized_state_dict.pt": artifact.state_dict,
        "serialized_constants.pt": artifact.constants,
        "serialized_example_inputs.pt": artifact.example_inputs,
    }


def write_old_exported(path: Path) -> Path:
    """The layout of torch before 2.8."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in _old_exported().items():
            archive.writestr(name, content)
    return path


def write_scripted(path: Path, module: nn.Module | None = None) -> Path:
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=r"`torch\.jit\.\w+` is deprecated", category=DeprecationWarning
        )
        torch.jit.script((module or Plain()).eval()).save(str(path))
    return path


def write_traced(path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=r"`torch\.jit\.\w+` is deprecated", category=DeprecationWarning
        )
        torch.jit.trace(Plain().eval(), torch.randn(1, 3, 8, 8)).save(str(path))
    return path


def root_of(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()[0].partition("/")[0]


def tamper(path: Path, record: str, change: Callable[[bytes], bytes]) -> None:
    """Replace a record of the archive, named without its folder."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    full = record if record in entries else f"{root_of(path)}/{record}"
    entries[full] = change(entries.get(full, b""))
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def tamper_json(path: Path, record: str, change: Callable[[Any], None]) -> None:
    def changed(content: bytes) -> bytes:
        parsed = json.loads(content)
        change(parsed)
        return json.dumps(parsed).encode()

    tamper(path, record, changed)
