"""Opening a file as torch itself does, where an attack in it works, and as `load` does, where it does not."""

from __future__ import annotations

import io
import logging
import pickle
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from reparamkit.errors import UntrustedPickle
from reparamkit.loading.source import load
from tests.loading import files


def run_export(path: Path) -> None:
    torch.export.load(path)


def run_export_module(path: Path) -> None:
    torch.export.load(path).module()(torch.ones(2, 3, 16, 16))


def run_script(path: Path) -> None:
    torch.jit.load(str(path))(torch.ones(1, 3, 8, 8))


def run_torch_load(path: Path) -> None:
    torch.load(path, weights_only=False)


def run_pickle(path: Path) -> None:
    pickle.loads(path.read_bytes())


def assert_refused(path: Path, marker: Path, naive: Callable[[Path], None] | None) -> str:
    """The message with which `load` refuses the file, nothing having run."""
    if naive is not None:
        logging.disable(logging.CRITICAL)
        try:
            with suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                naive(path)
        finally:
            logging.disable(logging.NOTSET)
        assert marker.exists(), "the attack does not work, so refusing it proves nothing"
        marker.unlink()
    with pytest.raises(UntrustedPickle, match="--trust-pickle") as caught:
        load(path, model=None)
    assert not marker.exists()
    return str(caught.value)


def saved(value: Any, *, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def code(marker: Path) -> str:
    return f"__import__('pathlib').Path('{marker}').touch()"


def script_with(folder: Path, old: str, new: str) -> Path:
    """A TorchScript archive with a change in the code of its module."""
    path = files.write_scripted(folder / "script.pt")
    root = f"{files.root_of(path)}/"
    with zipfile.ZipFile(path) as archive:
        # A class scripted for the second time in one process gets a mangled name.
        (record,) = [
            name.removeprefix(root)
            for name in archive.namelist()
            if "/code/__torch__/tests/loading/" in name and name.endswith(".py")
        ]
        assert old in archive.read(root + record).decode()
    files.tamper(path, record, lambda content: content.decode().replace(old, new, 1).encode())
    files.tamper(path, f"{record}.debug_pkl", lambda _: pickle.dumps((), protocol=2))
    return path


def from_file(marker: Path) -> str:
    return f'torch.from_file("{marker}", True, 4)'
