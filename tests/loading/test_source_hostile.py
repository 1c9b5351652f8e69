"""Hostile files: nothing of them runs.

Each test first proves that the attack works, by opening the file as torch itself does and finding the marker
file, where torch lets it work at all.
"""

from __future__ import annotations

import io
import json
import logging
import pickle
import sys
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
from reparamkit.loading.weights import read_state_dict
from tests.loading import files
from tests.loading.files import Bomb

CONFIG = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


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


def proven(path: Path, marker: Path, naive: Callable[[Path], None] | None) -> str:
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


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_pickled_module(tmp_path: Path, marker: Path, zipped: bool) -> None:
    module = files.SpoiltNet()
    module.marker = marker
    (tmp_path / "net.pt").write_bytes(saved(module, zipped=zipped))
    assert "can run code" in proven(tmp_path / "net.pt", marker, run_torch_load)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_weights_with_a_hostile_object(tmp_path: Path, marker: Path, zipped: bool) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(saved({"state_dict": {"w": torch.ones(1)}, "extra": Bomb(marker)}, zipped=zipped))
    assert "exec" in proven(path, marker, run_torch_load)
    with pytest.raises(UntrustedPickle, match=r"it refers to .*exec"):
        read_state_dict(path)
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_raw_pickle(tmp_path: Path, marker: Path, protocol: int) -> None:
    path = tmp_path / "raw.pt"
    path.write_bytes(pickle.dumps([Bomb(marker)], protocol=protocol))
    message = proven(path, marker, run_pickle)
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
    message = proven(path, marker, run_export)
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
    assert f"the pickled object 'offset' (data/constants/{prefix})" in proven(path, marker, naive)


@pytest.mark.parametrize(
    "record", ["data/sample_inputs/model.pt", "data/weights/model.pt", "data/constants/model.pt"]
)
def test_an_exported_pickle_file(tmp_path: Path, marker: Path, record: str) -> None:
    path = hostile_export(tmp_path)
    files.tamper(path, record, lambda _: saved((Bomb(marker),)))
    assert record in proven(path, marker, run_export)


def test_an_exported_pickle_inside_a_torchscript_archive(tmp_path: Path, marker: Path) -> None:
    """torch.load hands what looks like TorchScript to torch.jit.load, whose code can write files."""
    path = hostile_export(tmp_path)
    inner = script_with(
        tmp_path, "training : bool", f"training : bool\n  q : Final[Tensor] = {from_file(marker)}"
    )
    files.tamper(path, "data/sample_inputs/model.pt", lambda _: inner.read_bytes())
    assert "sample_inputs" in proven(path, marker, run_export)


@pytest.mark.parametrize("part", ["state_dict", "constants", "example_inputs"])
def test_the_old_exported_layout(tmp_path: Path, marker: Path, part: str) -> None:
    path = files.write_old_exported(tmp_path / "net.pt2")
    files.tamper(path, f"serialized_{part}.pt", lambda _: saved({"w": Bomb(marker)}))
    assert f"serialized_{part}.pt" in proven(path, marker, run_export)


def first_size(program: Any) -> dict[str, Any]:
    values = program["graph_module"]["graph"]["tensor_values"]
    return next(size for value in values.values() for size in value["sizes"] if "as_expr" in size)


def test_an_exported_size_that_is_code(tmp_path: Path, marker: Path) -> None:
    path = hostile_export(tmp_path)

    def change(program: Any) -> None:
        first_size(program)["as_expr"]["expr_str"] = code(marker)

    files.tamper_json(path, "models/model.json", change)
    assert "the size " in proven(path, marker, run_export)


def test_an_exported_size_that_is_code_in_a_text_of_its_own(tmp_path: Path, marker: Path) -> None:
    path = hostile_export(tmp_path)

    def change(program: Any) -> None:
        first_size(program)["as_expr"]["expr_str"] = f'Max(2, "{code(marker)}")'

    files.tamper_json(path, "models/model.json", change)
    assert "the size " in proven(path, marker, run_export)


def test_an_exported_size_of_a_value_that_is_named_metadata(tmp_path: Path, marker: Path) -> None:
    path = hostile_export(tmp_path)

    def change(program: Any) -> None:
        size = {"as_expr": {"expr_str": code(marker), "hint": None}}
        program["graph_module"]["graph"]["sym_int_values"]["metadata"] = size

    files.tamper_json(path, "models/model.json", change)
    assert "the size " in proven(path, marker, None)


def test_an_exported_condition_that_is_code(tmp_path: Path, marker: Path) -> None:
    path = hostile_export(tmp_path)
    files.tamper_json(path, "models/model.json", lambda program: program["guards_code"].append(code(marker)))
    assert "the condition " in proven(path, marker, run_export_module)


def test_an_exported_condition_that_leaves_its_quotes(tmp_path: Path, marker: Path) -> None:
    path = hostile_export(tmp_path)
    leaves = f"L['x'].size()[0] != '\\x27\" + str({code(marker)}) + \"'".replace(
        "'" + str(marker) + "'", "__m__"
    )
    files.tamper_json(path, "models/model.json", lambda program: program["guards_code"].append(leaves))
    assert "the condition " in proven(path, marker, None)


def test_an_exported_call_of_a_function(tmp_path: Path, marker: Path) -> None:
    path = hostile_export(tmp_path)

    def change(program: Any) -> None:
        node = program["graph_module"]["graph"]["nodes"][0]
        node["target"] = "torch.os.system"
        node["inputs"] = [{"name": "", "kind": 1, "arg": {"as_string": f"touch {marker}"}}]

    files.tamper_json(path, "models/model.json", change)
    assert "a call of 'torch.os.system'" in proven(path, marker, None)


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
    assert "the value name" in proven(path, marker, run_export)


def test_an_exported_argument_name_that_is_code(tmp_path: Path, marker: Path) -> None:
    path = hostile_export(tmp_path)

    def change(program: Any) -> None:
        entry = program["graph_module"]["module_call_graph"][0]
        entry["signature"]["forward_arg_names"] = [f"x={code(marker)}"]

    files.tamper_json(path, "models/model.json", change)
    assert "the value name" in proven(path, marker, None)


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
    assert "the enumeration 'evil_structure:A'" in proven(path, marker, run_export)
    sys.modules.pop("evil_structure", None)


def test_an_exported_compiled_library(tmp_path: Path, marker: Path) -> None:
    path = hostile_export(tmp_path)
    files.tamper(path, "data/aotinductor/model/evil.so", lambda _: b"\x7fELF")
    assert "the compiled library 'data/aotinductor/model/evil.so'" in proven(path, marker, None)


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


@pytest.mark.parametrize("record", ["data.pkl", "constants.pkl"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_torchscript_pickle(tmp_path: Path, marker: Path, record: str, protocol: int) -> None:
    path = files.write_scripted(tmp_path / "net.pt")
    files.tamper(path, record, lambda _: pickle.dumps(Bomb(marker), protocol=protocol))
    assert f"the pickle {record} refers to" in proven(path, marker, None)


STATEMENTS = {
    "save": ('torch.save(x, "{marker}")', "calls the operator save"),
    "alias": ('(torch).save(x, "{marker}")', "calls the operator save"),
    "from_file": (
        'torch.add_(x, torch.sum(torch.from_file("{marker}", True, 4)))',
        "calls the operator from_file",
    ),
    "getattr": ('getattr(torch, "sa\\166e")(x, "{marker}")', "calls an operator which reaches beyond"),
}


@pytest.mark.parametrize("way", STATEMENTS)
def test_a_torchscript_operator_that_touches_files(tmp_path: Path, marker: Path, way: str) -> None:
    statement, complaint = STATEMENTS[way]
    statement = statement.replace("{marker}", str(marker))
    path = script_with(tmp_path, "    return", f"    _evil = {statement}\n    return")
    assert complaint in proven(path, marker, run_script)


def test_a_torchscript_operator_is_found_again_in_the_compiled_graphs(
    tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = script_with(tmp_path, "    return", f'    torch.save(x, "{marker}")\n    return')
    monkeypatch.setattr("reparamkit.loading.scripted._refuse_code", lambda archive: None)
    assert "forward calls aten::save" in proven(path, marker, run_script)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("  training : bool", "  training : bool\n  q : Final[Tensor] = {from_file}", "computes a constant"),
        ("mode: str=", "q: Tensor={from_file},\n    mode: str=", "computes a default value"),
    ],
    ids=["constant", "default"],
)
def test_torchscript_that_runs_as_it_is_opened(
    tmp_path: Path, marker: Path, old: str, new: str, complaint: str
) -> None:
    path = script_with(tmp_path, old, new.replace("{from_file}", from_file(marker)))
    naive = run_script if complaint == "computes a constant" else None
    assert complaint in proven(path, marker, naive)


class Stateful(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = 2.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale

    @torch.jit.export
    def __getstate__(self) -> tuple[float, bool]:
        return (self.scale, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[float, bool]) -> None:
        self.scale = state[0]
        self.training = state[1]


def test_torchscript_with_a_setstate(tmp_path: Path, marker: Path) -> None:
    path = files.write_scripted(tmp_path / "net.pt", Stateful())
    record = f"code/__torch__/{__name__.replace('.', '/')}.py"
    evil = f'    _evil = torch.save(1, "{marker}")\n    self.scale ='
    files.tamper(path, record, lambda content: content.decode().replace("    self.scale =", evil, 1).encode())
    files.tamper(path, f"{record}.debug_pkl", lambda _: pickle.dumps((), protocol=2))
    assert "defines __setstate__, which runs when the file is opened" in proven(path, marker, run_script)


def test_torchscript_that_names_a_class_implemented_elsewhere(tmp_path: Path, marker: Path) -> None:
    evil = "    _evil = __torch__.torch.classes.dist_c10d.FileStore\n    return"
    path = script_with(tmp_path, "    return", evil)
    assert "a class that is implemented outside TorchScript" in proven(path, marker, None)
