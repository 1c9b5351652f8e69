"""Archives whose names are not text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from reparamkit.errors import UnusableInput
from reparamkit.loading.archive import open_archive
from reparamkit.loading.source import load
from reparamkit.lower.exported import export_program
from reparamkit.lower.pt2 import save_pt2


def unprintable(folder: Path) -> Path:
    path = folder / os.fsdecode(b"net-\xff.pt2")
    try:
        path.touch()
    except OSError:
        pytest.skip("this file system takes no such name")
    return path


def test_a_pt2_whose_name_is_not_utf_8_is_read(tmp_path: Path) -> None:
    plain, path = tmp_path / "net.pt2", unprintable(tmp_path)
    image = torch.randn(1, 3, 8, 8)
    save_pt2(export_program(nn.Conv2d(3, 4, 3).eval(), (image,), {}), plain)
    path.write_bytes(plain.read_bytes())
    found, same = load(path).model, load(plain).model
    assert isinstance(found, torch.export.ExportedProgram)
    assert isinstance(same, torch.export.ExportedProgram)
    torch.testing.assert_close(found.module()(image), same.module()(image), rtol=0, atol=0)
    assert open_archive(path).records == open_archive(plain).records


def test_a_damaged_one_is_refused_in_words(tmp_path: Path) -> None:
    path = unprintable(tmp_path)
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(UnusableInput, match="begins like a zip archive"):
        load(path)
