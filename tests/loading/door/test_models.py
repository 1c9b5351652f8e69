"""ONNX files, OpenVINO IRs and Core ML packages: what they declare is there, and theirs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from reparamkit.errors import UnusableInput
from reparamkit.loading.door import memory, rehearsal
from reparamkit.loading.door.onnx_file import check_onnx
from reparamkit.loading.door.openvino_ir import check_ir
from reparamkit.loading.door.rehearsal import ONNX_RUNTIME, rehearse
from reparamkit.mil.program import open_program
from reparamkit.runners.open import open_foreign
from tests.compare.files import write_onnx, write_openvino
from tests.loading.door.honest import write_coreml

Change = Callable[[onnx.TensorProto], object]


def _model(path: Path, change: Change = lambda tensor: None, *, nodes: list[Any] | None = None) -> Path:
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    change(weight)
    graph = helper.make_graph(
        nodes or [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def _external(location: str, **facts: str) -> Change:
    def change(tensor: onnx.TensorProto) -> None:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **facts}.items():
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value

    return change


def _dims(*dims: int, raw: bool = True) -> Change:
    def change(tensor: onnx.TensorProto) -> None:
        tensor.dims[:] = dims
        if not raw:
            tensor.ClearField("raw_data")

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_external("/etc/passwd"), "by a path of its own ('/etc/passwd')"),
        (_external("C:\\x.bin"), "by a path of its own"),
        (_external(""), "by a path of its own"),
        (_external("../secret"), "outside its folder ('../secret')"),
        (_external("a/../../secret"), "outside its folder"),
        (_external("..\\secret"), "outside its folder"),
        (_external("link"), "outside its own folder"),
        (_external("pipe"), "is a pipe, no regular file"),
        (_external("zero"), "is a device, no regular file"),
        (_external("none"), "cannot be read: No such file"),
        (_external("folder"), "is a folder where a file is needed"),
        (_external("w.bin", offset="1"), "lie in 'w.bin' from byte 1 on, and that file has 0.1 KiB"),
        (_external("w.bin", length="65"), "and that file has"),
        (_external("w.bin", length="3"), "and that file has"),
        (_external("w.bin", offset=str(1 << 62)), "and that file has"),
        (_external("w.bin", offset="-1"), "the offset of a weight in another file is '-1'"),
        (_external("w.bin", length="1e3"), "the length of a weight in another file is '1e3'"),
        (_dims(1 << 50, raw=False), "does not hold its"),
        (_dims(1 << 40, 1 << 40, raw=False), "does not hold its"),
        (_dims(1 << 50), "takes 4,503,599,627,370,496 bytes, and 64 are there"),
        (_dims(4, 5), "takes 80 bytes, and 64 are there"),
        (_dims(4, -4), "a tensor with a negative size"),
    ],
)
def test_weights_that_are_not_there(tmp_path: Path, change: Change, words: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(64))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "w.bin").write_bytes(bytes(64))
    (folder / "folder").mkdir()
    (folder / "link").symlink_to("../secret")
    (folder / "zero").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe")
    with pytest.raises(UnusableInput) as raised:
        open_foreign(_model(folder / "net.onnx", change))
    assert words in str(raised.value)


def test_weights_beside_the_model_are_found(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(np.ones(17, np.float32).tobytes())
    path = _model(tmp_path / "net.onnx", _external("w.bin", offset="4", length="64"))
    assert check_onnx(path) == [path, tmp_path / "w.bin"]
    runner = open_foreign(path)
    assert runner is not None
    assert runner.run((torch.ones(1, 4),), {})[0][1].tolist() == [[4.0] * 4]


def test_weights_in_nodes_functions_and_inner_graphs_are_seen(tmp_path: Path) -> None:
    bad = numpy_helper.from_array(np.ones(4, np.float32), "c")
    _external("../secret")(bad)
    constant = helper.make_node("Constant", [], ["c"], value=bad)
    inner = helper.make_graph([constant], "inner", [], [helper.make_tensor_value_info("c", 1, [4])])
    chosen = helper.make_node("If", ["x"], ["c"], then_branch=inner, else_branch=inner)
    function = helper.make_function("d", "F", [], ["c"], [constant], [helper.make_opsetid("", 17)])
    graph = helper.make_graph([], "g", [], [])
    sparse = helper.make_graph([], "g", [], [], sparse_initializer=[onnx.SparseTensorProto(values=bad)])
    for number, model in enumerate(
        [
            helper.make_model(helper.make_graph([constant], "g", [], [])),
            helper.make_model(helper.make_graph([chosen], "g", [], [])),
            helper.make_model(graph, functions=[function]),
            helper.make_model(sparse),
        ]
    ):
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(model.SerializeToString())
        with pytest.raises(UnusableInput, match="outside its folder"):
            check_onnx(path)


_NONE = [b"", b"\x08", b"no model", b"\x3a\xff\xff\xff\xff\x0f", b"\x0b" * 50, b"\x3a\x02\x0a" * 3, b"\0\0"]


@pytest.mark.parametrize("content", _NONE)
def test_what_is_no_onnx_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(UnusableInput, match=r"net\.onnx is (empty|damaged or no ONNX file)"):
        check_onnx(tmp_path / "net.onnx")


def test_messages_that_nest(tmp_path: Path) -> None:
    message = b""
    for _ in range(200):
        # graph / node / attribute / graph: the length of each in front of it
        for key in (b"\x32", b"\x2a", b"\x0a"):
            size, length = len(message), b""
            while size > 127:
                length += bytes([size & 127 | 128])
                size >>= 7
            message = key + length + bytes([size]) + message
    (tmp_path / "net.onnx").write_bytes(
        b"\x3a" + bytes([len(message) & 127 | 128, len(message) >> 7]) + message
    )
    with pytest.raises(UnusableInput, match="messages nested more than a hundred deep"):
        check_onnx(tmp_path / "net.onnx")


def test_what_needs_all_memory_is_found_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = helper.make_node("Constant", [], ["s"], value_ints=[1 << 14, 1 << 14])
    huge = helper.make_node("ConstantOfShape", ["s"], ["c"])
    total = helper.make_node("ReduceSum", ["c"], ["r"], keepdims=0)
    path = _model(
        tmp_path / "net.onnx", nodes=[sizes, huge, total, helper.make_node("Add", ["x", "r"], ["y"])]
    )
    rehearse(path, ONNX_RUNTIME)
    monkeypatch.setattr(rehearsal, "free_bytes", lambda: 500 << 20)
    with pytest.raises(UnusableInput, match=r"ONNX Runtime needs more memory for .* than is free"):
        rehearse(path, ONNX_RUNTIME)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", r"crashes on .*net\.onnx \(SIGSEGV\)"),
        ("import os; os.abort()", r"crashes on .*net\.onnx \(SIGABRT\)"),
        ("import time; time.sleep(60)", r"did not open .* within 1 seconds"),
        ("say(ValueError('no\\nsuch model'), 7)", r"cannot open .*net\.onnx: no such model"),
    ],
)
def test_a_reader_that_is_brought_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    monkeypatch.setitem(rehearsal._OPEN, ONNX_RUNTIME, code)
    monkeypatch.setattr(rehearsal, "_SECONDS", 1)
    with pytest.raises(UnusableInput, match=words):
        open_foreign(_model(tmp_path / "net.onnx"))


def test_where_no_process_can_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for executable in ("", "/no/such/python"):
        monkeypatch.setattr("sys.executable", executable)
        assert open_foreign(_model(tmp_path / "net.onnx")) is not None


@pytest.fixture
def ir(tmp_path: Path) -> Path:
    return write_openvino(tmp_path / "net.xml", write_onnx(tmp_path / "net.onnx"))


def _xml(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_an_ir_that_cannot_be(ir: Path, subtests: pytest.Subtests) -> None:
    honest, weights = ir.read_text(), ir.with_suffix(".bin").read_bytes()
    assert check_ir(ir) == [ir, ir.with_suffix(".bin")]
    bomb = '<!DOCTYPE net [<!ENTITY a "x"><!ENTITY b "&a;&a;&a;">]><net>&b;</net>'
    for text, words in [
        (bomb, "defines names of its own"),
        ("<net>" + "<a>" * 100_000, "nests more than 200 levels deep"),
        ("<html></html>", "is XML of another kind"),
        (honest[: len(honest) // 2], "is damaged or no OpenVINO IR"),
        ("", "is empty"),
        (honest.replace('offset="0"', f'offset="{1 << 40}"', 1), "and that file has"),
        (honest.replace('offset="0"', 'offset="-1"', 1), "and that file has"),
        (honest.replace('element_type="f32" shape="', 'element_type="f32" shape="9,', 1), "does not take"),
    ]:
        with subtests.test(words):
            assert text != honest
            ir.write_text(text)
            with pytest.raises(UnusableInput, match=words):
                open_foreign(ir)
    ir.write_text(honest)
    ir.with_suffix(".bin").write_bytes(weights[:-1])
    with pytest.raises(UnusableInput, match="and that file has"):
        open_foreign(ir)


@pytest.mark.parametrize("how", ["pipe", "outside", "device", "circle", "folder", "none"])
def test_weights_of_an_ir_that_are_no_file_of_its_own(ir: Path, how: str) -> None:
    weights = ir.with_suffix(".bin")
    secret = ir.parent.parent / "secret.bin"
    shutil.move(weights, secret)
    if how == "pipe":
        os.mkfifo(weights)
    elif how == "folder":
        weights.mkdir()
    elif how != "none":
        weights.symlink_to({"outside": secret, "device": Path("/dev/zero"), "circle": weights}[how])
    words = "is a pipe|outside its own folder|is a device|in a circle|is a folder|are not beside it"
    with pytest.raises(UnusableInput, match=words):
        open_foreign(ir)
    secret.unlink()


@pytest.fixture(scope="module")
def honest_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coreml(tmp_path_factory.mktemp("honest") / "net.mlpackage")


@pytest.fixture
def package(tmp_path: Path, honest_package: Path) -> Path:
    (tmp_path / "secret").write_bytes(bytes(100))
    return Path(shutil.copytree(honest_package, tmp_path / "net.mlpackage"))


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("/dev/zero", "names a file outside its own folder"),
        ("/etc/passwd", "names a file outside its own folder"),
        ("../../secret", "names a file outside its own folder"),
        ("../..", "names a file outside its own folder"),
        ("", "is a folder where a file is needed"),
        (None, "cannot be read"),
        (["a"], "cannot be read"),
        ("a\0", "its name holds a zero byte|embedded null|cannot be read"),
        ("../Manifest.json", "is no Core ML model"),
    ],
)
def test_a_manifest_that_names_something_else(package: Path, place: object, words: str) -> None:
    listed = json.loads((package / "Manifest.json").read_text())
    listed["itemInfoEntries"][listed["rootModelIdentifier"]]["path"] = place
    (package / "Manifest.json").write_text(json.dumps(listed))
    with pytest.raises(UnusableInput, match=words):
        open_program(package)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "nests thousands of levels deep"),
        ("[]", "names no model"),
        ("{}", "names no model"),
        ('{"itemInfoEntries": 3, "rootModelIdentifier": 3}', "names no model"),
        ('{"itemInfoEntries": {"a": {"path": "x"}}, "rootModelIdentifier": []}', "names no model"),
        (" " * (2 << 20), "more than it can need"),
    ],
)
def test_a_manifest_that_is_none(package: Path, text: str, words: str) -> None:
    (package / "Manifest.json").write_text(text)
    with pytest.raises(UnusableInput, match=words):
        open_program(package)


@pytest.mark.parametrize("name", ["Manifest.json", "model.mlmodel", "weight.bin", "unknown"])
@pytest.mark.parametrize("how", ["pipe", "outside", "device"])
def test_a_part_of_a_package_that_is_no_file_of_its_own(package: Path, name: str, how: str) -> None:
    part = next(package.rglob(name), package / "Data" / name)
    part.unlink(missing_ok=True)
    if how == "pipe":
        os.mkfifo(part)
    else:
        part.symlink_to(package.parent / "secret" if how == "outside" else "/dev/zero")
    with pytest.raises(UnusableInput, match=r"is a pipe|outside its own folder"):
        open_program(package)


def test_a_package_that_is_a_link_is_read(package: Path) -> None:
    (package.parent / "link.mlpackage").symlink_to(package.name)
    assert open_program(package.parent / "link.mlpackage").operations


def test_weights_of_a_package_beyond_their_file(
    package: Path, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    from coremltools.proto import Model_pb2

    specification = next(package.rglob("model.mlmodel"))
    honest = specification.read_bytes()

    def changed(offset: int | None, sizes: int | None) -> None:
        spec = Model_pb2.Model()
        spec.ParseFromString(honest)
        (function,) = spec.mlProgram.functions.values()
        (block,) = function.block_specializations.values()
        for operation in block.operations:
            value = operation.attributes["val"]
            if operation.type == "const" and value.WhichOneof("value") == "blobFileValue":
                if offset is not None:
                    value.blobFileValue.offset = offset
                for dimension in value.type.tensorType.dimensions if sizes else ():
                    dimension.constant.size = sizes or 0
        specification.write_bytes(spec.SerializeToString())

    for offset, sizes, words in [
        (1 << 62, None, "ends before offset"),
        (65, None, "has no weight at offset 65"),
        (None, 1 << 40, "is not .* x fp32"),
    ]:
        with subtests.test(str(offset)):
            changed(offset, sizes)
            with pytest.raises(UnusableInput, match=words):
                open_program(package)
    specification.write_bytes(honest)
    monkeypatch.setattr(memory, "_SMALL", 0)
    monkeypatch.setattr(memory, "free_bytes", lambda: 10)
    with pytest.raises(UnusableInput, match="of memory are free"):
        open_program(package)
