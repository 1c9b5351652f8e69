"""Every source that cannot be opened gives one line that says what was found and what to do."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from reparamkit.errors import UntrustedPickle, UnusableInput
from reparamkit.loading.source import load
from tests.loading import files

HERE = "tests.loading.files"


def assert_refused(source: str | Path, **options: Any) -> str:
    """The message of the refusal, which has to be one line of readable length."""
    with pytest.raises(UnusableInput) as caught:
        load(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert "Traceback" not in message
    assert len(message) < 1200
    return message


def zip_of(path: Path, entries: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


SAFETENSORS = struct.pack("<Q", 48) + b'{"w":{"dtype":"F32","shape":[1],"data":[0,4]}}  ' + bytes(4)
BYTES = {
    "empty": (b"", "is empty (0 bytes)"),
    "zeros": (bytes(9000), "is a file of zeros"),
    "text": (b"hello there\nworld", "is a text file, beginning 'hello there'"),
    "long text": ("ä".encode() * 5000, "is a text file"),
    "html": (b"<!DOCTYPE html><html>404</html>", "is an HTML page, as a failed download leaves it"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "noise": (b"\x01\xff\xfe\x00\x93 abc", "is of no known format (its first bytes are 01 ff fe 00"),
    "safetensors": (SAFETENSORS, "is damaged: shape or place of 'w' are no sizes"),
    "onnx": (b"\x08\x0a\x12\x07pytorch\x1a\x032.0", "an ONNX model already"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    "tflite": (b"\x1c\0\0\0TFL3", "a TensorFlow Lite model"),
    "gzip": (gzip.compress(b"x"), "a gzip file; unpack it first"),
    "text pickle": (pickle.dumps({"a": [1]}, protocol=0), "a pickle in text form"),
    "cut pickle": (pickle.dumps({"a": 1})[:-3], "begins like a pickle and is damaged"),
    "empty zip": (b"PK\x05\x06" + bytes(18), "a zip archive without a file in it"),
    "start of a zip": (b"PK\x03\x04" + bytes(40), "its directory is missing or damaged"),
}


@pytest.mark.parametrize("kind", BYTES)
def test_content_that_is_no_model(tmp_path: Path, kind: str) -> None:
    content, expected = BYTES[kind]
    path = tmp_path / "net.pt"
    path.write_bytes(content)
    message = assert_refused(path)
    assert message.startswith(f"{path} ")
    assert expected in message


@pytest.mark.parametrize("write", [files.write_exported, files.write_scripted])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_truncated_archive(tmp_path: Path, write: Callable[[Path], Path], kept: float) -> None:
    path = write(tmp_path / "net.pt")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    assert "truncated" in assert_refused(path)


def test_truncated_legacy_weights(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(files.net().state_dict(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-200])
    assert "cannot be read as weights" in assert_refused(path, model=f"{HERE}:Net")


def test_a_zip_bomb_is_not_decompressed(tmp_path: Path) -> None:
    path = zip_of(
        tmp_path / "bomb.pt",
        [("bomb/data.pkl", b"x"), ("bomb/data/0", bytes(100 << 20))],
        zipfile.ZIP_DEFLATED,
    )
    message = assert_refused(path)
    assert "would expand from" in message
    assert "to 100 MiB, as a zip bomb does" in message


def test_a_zip_that_overlaps_itself(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "net.pt", [("net/data.pkl", b"x" * 300)])
    content = path.read_bytes()
    at = content.index(b"PK\x01\x02")
    enlarged = struct.pack("<II", 5000, 5000)
    path.write_bytes(content[: at + 20] + enlarged + content[at + 28 :])
    assert "overlap or reach beyond the file's end" in assert_refused(path)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning:zipfile")
@pytest.mark.parametrize("second", ["net/data.pkl", "net/DATA.PKL"])
def test_two_entries_of_one_name(tmp_path: Path, second: str) -> None:
    path = zip_of(tmp_path / "net.pt", [("net/data.pkl", b"x"), (second, b"y")])
    assert "two entries of the name" in assert_refused(path)


def test_an_entry_that_leaves_its_folder(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "net.pt", [("net/../../up", b"x")])
    assert "an entry that leaves its folder, 'net/../../up'" in assert_refused(path)


def test_a_zip_of_something_else(tmp_path: Path) -> None:
    assert "holds no model (a.txt, b.txt)" in assert_refused(
        zip_of(tmp_path / "a.zip", [("a.txt", b""), ("b.txt", b"")])
    )
    nested = zip_of(tmp_path / "b.zip", [("f/a.txt", b"x"), ("f/b.txt", b"")])
    assert "holds no model (a.txt, b.txt)" in assert_refused(nested)
    assert "NumPy" in assert_refused(zip_of(tmp_path / "a.npz", [("w.npy", b"")]))


def test_an_exported_package_without_a_program(tmp_path: Path) -> None:
    path = zip_of(
        tmp_path / "net.pt2",
        [("net/archive_format", b"pt2"), ("net/.data/version", b"6"), ("net/version", b"6")],
    )
    assert "holds no exported program" in assert_refused(path)


def test_an_exported_program_of_another_schema_or_with_a_missing_weight(tmp_path: Path) -> None:
    path = files.write_exported(tmp_path / "net.pt2")
    files.tamper_json(path, "models/model.json", lambda program: program["schema_version"].update(major=1))
    message = assert_refused(path)
    assert "cannot read" in message
    assert "schema version" in message
    files.tamper(path, "models/model.json", lambda content: b"{")
    assert "cannot read: JSONDecodeError" in assert_refused(path)
    old = files.write_old_exported(tmp_path / "old.pt2")
    with zipfile.ZipFile(old) as archive:
        kept = [(name, archive.read(name)) for name in archive.namelist() if "constants" not in name]
    assert "its entry 'serialized_constants.pt' is missing" in assert_refused(zip_of(old, kept))


def test_a_damaged_torchscript_archive(tmp_path: Path) -> None:
    path = files.write_scripted(tmp_path / "net.pt")
    files.tamper(path, "data.pkl", lambda content: b"garbage")
    for trust in (False, True):
        assert "in its entry 'data.pkl', is damaged: it is no whole pickle" in assert_refused(
            path, trust_pickle=trust
        )


def test_weights_without_a_model(tmp_path: Path) -> None:
    torch.save(files.net().state_dict(), tmp_path / "w.pt")
    message = assert_refused(tmp_path / "w.pt")
    assert "holds weights alone (9 tensors)" in message
    assert "pass --model" in message


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    state = files.net().state_dict()
    del state["conv.bias"]
    state["extra.weight"] = torch.ones(1)
    state["norm.weight"] = torch.ones(7)
    torch.save(state, tmp_path / "w.pt")
    message = assert_refused(tmp_path / "w.pt", model=f"{HERE}:Net")
    assert "1 missing from the weights: conv.bias" in message
    assert "1 not in the model: extra.weight" in message
    assert "norm.weight is 7 in the weights and 4 in the model" in message


def test_a_file_of_torch_save_without_weights(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "loss": [0.5]}, tmp_path / "w.pt")
    message = assert_refused(tmp_path / "w.pt")
    assert "no weights found" in message
    assert "'epoch', 'loss'" in message


def test_model_is_refused_where_the_file_has_its_network(tmp_path: Path) -> None:
    address = "tests.loading.files:net"
    said = f"leave out --model ({address})"
    assert said in assert_refused(files.write_exported(tmp_path / "a.pt2"), model=address)
    assert said in assert_refused(files.write_scripted(tmp_path / "a.pt"), model=address)
    torch.save(files.net(), tmp_path / "b.pt")
    assert said in assert_refused(tmp_path / "b.pt", model=address, trust_pickle=True)
    assert "there is no file 'mobileone_s0'" in assert_refused("mobileone_s0", model=address)


def test_a_model_name_that_is_neither(tmp_path: Path) -> None:
    torch.save(files.net().state_dict(), tmp_path / "w.pt")
    message = assert_refused(tmp_path / "w.pt", model="mobileone_s9")
    assert "--model 'mobileone_s9' is not the name of a reference model" in message
    assert "package.module:callable" in message
    assert "did you mean mobileone_s" in message


def test_a_pickle_whose_code_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "raw.pkl"
    path.write_bytes(b"\x80\x02cno_such_module\nNet\n.")
    assert "needs code which cannot be imported here: No module named" in assert_refused(
        path, trust_pickle=True
    )


def test_a_folder_a_fifo_and_a_dangling_link(tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(b"")
    assert f"is a folder; give a file of a model, for instance {tmp_path / 'net.pt2'}" in assert_refused(
        tmp_path
    )
    os.mkfifo(tmp_path / "fifo")
    assert "is a pipe, no regular file" in assert_refused(tmp_path / "fifo")
    (tmp_path / "link.pt").symlink_to("gone.pt")
    assert "is a link to gone.pt, which does not exist" in assert_refused(tmp_path / "link.pt")


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(b"PK\x03\x04")

    def denied(name: Path, *args: Any, **kwargs: Any) -> int:
        raise PermissionError(13, "Permission denied", str(name))

    monkeypatch.setattr("reparamkit.loading.door.files.os.open", denied)
    assert assert_refused(path) == f"{path} cannot be read: Permission denied"


def test_a_string_that_is_nothing() -> None:
    assert assert_refused("nofile.pt") == "no such file 'nofile.pt'"
    message = assert_refused("nothing")
    assert "'nothing' is no file and not the name of a reference model" in message
    assert "package.module:callable" in message
    assert "did you mean mobileone_s" in assert_refused("mobileone_s9")
    # longer than a file system admits
    assert "is no file and not the name" in assert_refused("a" + ".b" * 300)


@pytest.mark.parametrize(
    ("code", "address", "expected"),
    [
        (
            "",
            "no_such_module_here:build",
            "No module named 'no_such_module_here', here or installed",
        ),
        (
            "1 / 0\ndef build(): ...",
            "bad_a:build",
            "importing bad_a raised ZeroDivisionError: division by zero",
        ),
        ("import sys; sys.exit(3)\ndef build(): ...", "bad_b:build", "importing bad_b raised SystemExit: 3"),
        ("from torch import nn\nclass Mine(nn.ReLU): pass", "bad_c:Net", "no 'Net'; it defines Mine"),
        ("def build(): raise KeyError('w')", "bad_d:build", "raised KeyError: 'w' when it was called"),
        ("def build(n): ...", "bad_e:build", "missing 1 required positional argument"),
        (
            "def build(): return {}",
            "bad_f:build",
            "returned a builtins.dict; it has to return a torch.nn.Module",
        ),
        ("def build(): ...", "bad_g:build", "returned None"),
        ("build = 3", "bad_h:build", "is a builtins.int; it has to be a torch.nn.Module"),
    ],
)
def test_a_callable_that_gives_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, address: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if code:
        Path(f"{address.partition(':')[0]}.py").write_text(code)
    assert expected in assert_refused(address)


def test_a_pickle_of_more_than_weights_names_what_it_refers_to(tmp_path: Path) -> None:
    torch.save(files.net(), tmp_path / "net.pt")
    with pytest.raises(UntrustedPickle, match=r"is a pickled module, and a pickle can run code .*files\.Net"):
        load(tmp_path / "net.pt")
    torch.save({"state_dict": files.net().state_dict(), "args": Path("x")}, tmp_path / "w.pt")
    with pytest.raises(
        UntrustedPickle, match=r"a pickle of more than weights.*pathlib\.PosixPath.*--trust-pickle"
    ):
        load(tmp_path / "w.pt")
