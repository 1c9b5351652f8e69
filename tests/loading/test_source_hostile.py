"""Hostile files: nothing of them runs.

Each test first proves that the attack works, by opening the file as torch itself does and finding the marker
file, where torch lets it work at all.
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from reparamkit.errors import UntrustedPickle
from reparamkit.loading.source import load
from reparamkit.loading.weights import read_state_dict
from tests.loading import files
from tests.loading.attacks import (
    assert_refused,
    code,
    from_file,
    run_export,
    run_export_module,
    run_pickle,
    run_torch_load,
    saved,
    script_with,
)
from tests.loading.files import Bomb

CONFIG = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_pickled_module(tmp_path: Path, marker: Path, zipped: bool) -> None:
    module = files.SpoiltNet()
    module.marker = marker
    (tmp_path / "net.pt").write_bytes(saved(module, zipped=zipped))
    assert "can run code" in assert_refused(tmp_path / "net.pt", marker, run_torch_load)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_weights_with_a_hostile_object(tmp_path: Path, marker: Path, zipped: bool) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(saved({"state_dict": {"w": torch.ones(1)}, "extra": Bomb(marker)}, zipped=zipped))
    assert "exec" in assert_refused(path, marker, run_torch_load)
    with pytest.raises(UntrustedPickle, match=r"it refers to .*exec"):
        read_state_dict(path)
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_raw_pickle(tmp_path: Path, marker: Path, protocol: int) -> None:
    path = tmp_path / "raw.pt"
    path.write_bytes(pickle.dumps([Bomb(marker)], protocol=protocol))
    message = assert_refused(path, marker, run_pickle)
    assert "a raw pickle" in message
    assert "exec" in message


def hostile_export(tmp_path: Path) -> Path:
    return files.write_exported(tmp_path / "net.pt2")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("where", ["weight", "constant"])
def test_an_exported_pickled_payload(tmp_path: Path, marker: Path, where: str, zipped: bool) -> None:
    path = hostile_export(tmp_path)
    config, name, record = {
        "weight": (CONFIG, "conv.bias", "data/weights/weight_77"),
        "constant": (CONSTANTS, "offset", "data/constants/tensor_77"),
    }[where]

    def point(parsed: Any) -> None:
        parsed["config"][name].update(use_pickle=True, path_name=record.rpartition("/")[2])

    files.tamper_json(path, config, point)
    files.tamper(path, record, lambda _: saved(Bomb(marker), zipped=zipped))
    message = assert_refused(path, marker, run_export)
    assert repr(name) in message
    assert record in message


def test_an_exported_payload_pickled_harmlessly_is_admitted(tmp_path: Path) -> None:
    path = hostile_export(tmp_path)
    bias = torch.nn.Parameter(torch.arange(4.0))
    files.tamper_json(
        path, CONFIG, lambda c: c["config"]["conv.bias"].update(use_pickle=True, path_name="weight_77")
    )
    files.tamper(path, "data/weights/weight_77", lambda _: saved(bias))
    model = load(path).model
    assert isinstance(model, torch.export.ExportedProgram)
    assert torch.equal(model.state_dict["conv.bias"], bias)


@pytest.mark.parametrize(
    ("prefix", "naive"), [("opaque_obj_0", run_export), ("custom_obj_0", None)], ids=["opaque", "custom"]
)
def test_an_exported_object(
    tmp_path: Path, marker: Path, prefix: str, naive: Callable[[Path], None] | None
) -> None:
    path = hostile_export(tmp_path)
    files.tamper_json(
        path, CONSTANTS, lambda c: c["config"]["offset"].update(use_pickle=True, path_name=prefix)
    )
    files.tamper(path, f"data/constants/{prefix}", lambda _: pickle.dumps(Bomb(marker)))
    assert f"the pickled object 'offset' (data/constants/{prefix})" in assert_refused(path, marker, naive)


@pytest.mark.parametrize(
    "record", ["data/sample_inputs/model.pt", "data/weights/model.pt", "data/constants/model.pt"]
)
def test_an_exported_pickle_file(tmp_path: Path, marker: Path, record: str) -> None:
    path = hostile_export(tmp_path)
    files.tamper(path, record, lambda _: saved((Bomb(marker),)))
    assert record in assert_refused(path, marker, run_export)


def test_an_exported_pickle_inside_a_torchscript_archive(tmp_path: Path, marker: Path) -> None:
    """torch.load hands what looks like TorchScript to torch.jit.load, whose code can write files."""
    path = hostile_export(tmp_path)
    inner = script_with(
        tmp_path, "training : bool", f"training : bool\n  q : Final[Tensor] = {from_file(marker)}"
    )
    files.tamper(path, "data/sample_inputs/model.pt", lambda _: inner.read_bytes())
    assert "sample_inputs" in assert_refused(path, marker, run_export)


@pytest.mark.parametrize("part", ["state_dict", "constants", "example_inputs"])
def test_the_old_exported_layout(tmp_path: Path, marker: Path, part: str) -> None:
    path = files.write_old_exported(tmp_path / "net.pt2")
    files.tamper(path, f"serialized_{part}.pt", lambda _: saved({"w": Bomb(marker)}))
    assert f"serialized_{part}.pt" in assert_refused(path, marker, run_export)


def first_size(program: Any) -> dict[str, Any]:
    values = program["graph_module"]["graph"]["tensor_values"]
    return next(size for value in values.values() for size in value["sizes"] if "as_expr" in size)


def test_an_exported_size_that_is_code(tmp_path: Path, marker: Path) -> None:
    path = hostile_export(tmp_path)

    def change(program: Any) -> None:
        first_size(program)["as_expr"]["expr_str"] = code(marker)

    files.tamper_json(path, "models/model.json", change)
    assert "the size " in assert_refused(path, marker, run_export)


def test_an_exported_size_that_is_code_in_a_text_of_its_own(tmp_path: Path, marker: Path) -> None:
    path = hostile_export(tmp_path)

    def change(program: Any) -> None:
        first_size(program)["as_expr"]["expr_str"] = f'Max(2, "{code(marker)}")'

    files.tamper_json(path, "models/model.json", change)
    assert "the size " in assert_refused(path, marker, run_export)


def test_an_exported_size_of_a_value_that_is_named_metadata(tmp_path: Path, marker: Path) -> None:
    path = hostile_export(tmp_path)

    def change(program: Any) -> None:
        size = {"as_expr": {"expr_str": code(marker), "hint": None}}
        program["graph_module"]["graph"]["sym_int_values"]["metadata"] = size

    files.tamper_json(path, "models/model.json", change)
    assert "the size " in assert_refused(path, marker, None)


def test_an_exported_condition_that_is_code(tmp_path: Path, marker: Path) -> None:
    path = hostile_export(tmp_path)
    files.tamper_json(path, "models/model.json", lambda program: program["guards_code"].append(code(marker)))
    assert "the condition " in assert_refused(path, marker, run_export_module)


def test_an_exported_condition_that_leaves_its_quotes(tmp_path: Path, marker: Path) -> None:
    path = hostile_export(tmp_path)
    leaves = f"L['x'].size()[0] != '\\x27\" + str({code(marker)}) + \"'".replace(
        "'" + str(marker) + "'", "__m__"
    )
    files.tamper_json(path, "models/model.json", lambda program: program["guards_code"].append(leaves))
    assert "the condition " in assert_refused(path, marker, None)


def test_an_exported_call_of_a_function(tmp_path: Path, marker: Path) -> None:
    path = hostile_export(tmp_path)

    def change(program: Any) -> None:
        node = program["graph_module"]["graph"]["nodes"][0]
        node["target"] = "torch.os.system"
        node["inputs"] = [{"name": "", "kind": 1, "arg": {"as_string": f"touch {marker}"}}]

    files.tamper_json(path, "models/model.json", change)
    assert "a call of 'torch.os.system'" in assert_refused(path, marker, None)


def test_an_exported_name_that_is_code(tmp_path: Path, marker: Path) -> None:
    path = hostile_export(tmp_path)
    spoilt = f"x={code(marker)}"

    def change(content: bytes) -> bytes:
        text = content.decode()
        return (
            text.replace('"name": "x"', f'"name": "{spoilt}"')
            .replace('"x": {"dtype"', f'"{spoilt}": {{"dtype"')
            .encode()
        )

    files.tamper(path, "models/model.json", lambda c: json.dumps(json.loads(c)).encode())
    files.tamper(path, "models/model.json", change)
    assert "the value name" in assert_refused(path, marker, run_export)


def test_an_exported_argument_name_that_is_code(tmp_path: Path, marker: Path) -> None:
    path = hostile_export(tmp_path)

    def change(program: Any) -> None:
        entry = program["graph_module"]["module_call_graph"][0]
        entry["signature"]["forward_arg_names"] = [f"x={code(marker)}"]

    files.tamper_json(path, "models/model.json", change)
    assert "the value name" in assert_refused(path, marker, None)


def test_an_exported_structure_that_imports_a_module(
    tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = hostile_export(tmp_path)
    (tmp_path / "evil_structure.py").write_text(f"open({str(marker)!r}, 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    context = json.dumps({"__enum__": True, "fqn": "evil_structure:A", "name": "B"})

    def change(program: Any) -> None:
        signature = program["graph_module"]["module_call_graph"][0]["signature"]
        spec = json.loads(signature["out_spec"])
        spec[1]["context"] = context
        signature["out_spec"] = json.dumps(spec)

    files.tamper_json(path, "models/model.json", change)
    assert "the enumeration 'evil_structure:A'" in assert_refused(path, marker, run_export)
    sys.modules.pop("evil_structure", None)


def test_an_exported_compiled_library(tmp_path: Path, marker: Path) -> None:
    path = hostile_export(tmp_path)
    files.tamper(path, "data/aotinductor/model/evil.so", lambda _: b"\x7fELF")
    assert "the compiled library 'data/aotinductor/model/evil.so'" in assert_refused(path, marker, None)
