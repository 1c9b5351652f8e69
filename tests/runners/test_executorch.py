"""ExecuTorch's runtime: files of others, damaged ones, and the end of the process that it runs in."""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.export import export

import reparamkit as rk
from reparamkit.errors import UnusableInput
from reparamkit.loading.door import pte_file
from reparamkit.runners import executorch as runs_executorch
from reparamkit.runners.base import BoundsSizes, DeclaresInputs, StatesPrecision
from reparamkit.runners.executorch import ExecuTorchRunner
from reparamkit.runners.open import open_foreign
from reparamkit.support.quiet import quiet
from tests.compare.files import IMAGE, small, spoilt

pytest.importorskip("executorch", reason="ExecuTorch, of the extra [executorch], is not installed")


@cache
def _made(name: str) -> bytes:
    """A file that reparamkit did not write."""
    with quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
            XNNPACKQuantizer,
            get_symmetric_quantization_config,
        )
        from executorch.exir import to_edge_transform_and_lower
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        network = spoilt() if name == "spoilt" else small()
        program = export(network, (IMAGE,))
        if name == "quantised":
            quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config())
            prepared = prepare_pt2e(program.module(), quantizer)
            prepared(IMAGE)
            program = export(convert_pt2e(prepared), (IMAGE,))
        programs: Any = {"one": program, "two": program} if name == "methods" else program
        lowered = to_edge_transform_and_lower(programs, partitioner=[XnnpackPartitioner()])
        data: bytes = lowered.to_executorch().buffer
    return data


def _file(folder: Path, name: str = "plain") -> Path:
    path = folder / f"{name}.pte"
    path.write_bytes(_made(name))
    return path


@pytest.mark.slow
def test_a_file_of_others(tmp_path: Path) -> None:
    runner = open_foreign(_file(tmp_path))
    assert isinstance(runner, ExecuTorchRunner)
    assert isinstance(runner, DeclaresInputs)
    assert isinstance(runner, BoundsSizes)
    assert isinstance(runner, StatesPrecision)
    assert [(spec.name, spec.shape) for spec in runner.declared] == [("input_0", (1, 3, 12, 10))]
    assert (runner.precision, runner.outline.operators["Conv2d"]) == ("float32", 2)
    ((name, value),) = runner.run((IMAGE,), {})
    assert name == "output_0"
    assert torch.allclose(value, small()(IMAGE), atol=1e-6)
    with pytest.raises(RuntimeError, match="Attempted to resize a static tensor"):
        runner.run((torch.zeros(1, 3, 12, 11),), {})
    with pytest.raises(UnusableInput, match=r"is torch\.float32, the reference takes torch\.float64"):
        runner.run((IMAGE.double(),), {})
    ((_, again),) = runner.run((IMAGE,), {})
    assert torch.equal(again, value)


def test_it_is_compared_like_any_other(tmp_path: Path) -> None:
    assert rk.check(small(), _file(tmp_path), IMAGE).passed
    assert not rk.check(small(), _file(tmp_path, "spoilt"), IMAGE).passed


@pytest.mark.slow
def test_a_quantised_file_is_judged_as_one(tmp_path: Path) -> None:
    runner = ExecuTorchRunner(_file(tmp_path, "quantised"))
    assert runner.precision == "int8"
    ((_, value),) = runner.run((IMAGE,), {})
    expected = small()(IMAGE)
    assert (value - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.slow
def test_a_file_without_a_forward(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match="it has no method 'forward', but one, two"):
        open_foreign(_file(tmp_path, "methods"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04" + bytes(60), "is damaged or no ExecuTorch program"),
        (bytes(64), "is damaged or no ExecuTorch program"),
    ],
)
def test_what_is_no_program(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "net.pte"
    path.write_bytes(content)
    with pytest.raises(UnusableInput, match=words):
        open_foreign(path)


def test_a_file_cut_short(tmp_path: Path) -> None:
    path = _file(tmp_path)
    data = path.read_bytes()
    for size in (40, len(data) // 2, len(data) - 64):
        path.write_bytes(data[:size])
        with pytest.raises(UnusableInput, match="is damaged or cut short"):
            open_foreign(path)


def test_damage_ends_no_process_but_its_own(tmp_path: Path) -> None:
    path = _file(tmp_path)
    data = path.read_bytes()
    _, _, program, _ = pte_file.HEADER.unpack_from(data, pte_file.HEADER_AT)
    refused = []
    for place in (40, program // 3, program // 2, program - 40):
        path.write_bytes(data[:place] + b"\xff\xff\xff\x7f" * 8 + data[place + 32 :])
        try:
            ExecuTorchRunner(path)
        except UnusableInput as error:
            refused.append(str(error))
    assert refused
    assert not any("\n" in words for words in refused)


def test_a_root_that_leads_nowhere(tmp_path: Path) -> None:
    path = _file(tmp_path)
    path.write_bytes(struct.pack("<I", 0x7FFFFFF0) + path.read_bytes()[4:])
    with pytest.raises(UnusableInput, match=r"ExecuTorch cannot open .*plain\.pte: "):
        open_foreign(path)


@pytest.mark.slow
def test_the_end_of_the_runtime_is_an_error_and_the_next_run_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "ended"
    ending = f"import os\n        if fed[0].sum() > 1e6 and not os.path.exists({str(marker)!r}):\n"
    ending += f"            open({str(marker)!r}, 'w').close(); os.abort()\n        "
    code = runs_executorch._RUNTIME
    line = "values = list(forward(tuple(fed)))"
    assert line in code
    monkeypatch.setattr(runs_executorch, "_RUNTIME", code.replace(line, ending + line))
    runner = ExecuTorchRunner(_file(tmp_path))
    with pytest.raises(RuntimeError, match=r"ExecuTorch ends its process \(SIGABRT\)"):
        runner.run((torch.full_like(IMAGE, 1e6),), {})
    ((_, value),) = runner.run((IMAGE,), {})
    assert torch.allclose(value, small()(IMAGE), atol=1e-6)
