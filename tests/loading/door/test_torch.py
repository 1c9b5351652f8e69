"""Files of torch that ask for more than they hold; that torch's readers give it is proven where it can be."""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
import warnings
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from reparamkit.compare.inputs.data_files import load_samples
from reparamkit.errors import UnusableInput
from reparamkit.loading.door import memory
from reparamkit.loading.door.pickle_survey import survey
from reparamkit.loading.source import load
from reparamkit.loading.weights import load_weights_only
from tests.loading.files import tamper, tamper_json, write_exported, write_scripted

DEEP = b"\x80\x02)" + b"\x85" * 2_000_000 + b"."
MEMO = b"\x80\x02]r\xff\xff\xff\x0f."


def _survey(stream: bytes, records: dict[str, int] | None = None) -> None:
    survey(io.BytesIO(stream), len(stream), "x", records)


def _chain(count: int) -> bytes:
    """Lists that are put into each other from the outside in: each is held before it nests."""
    stream = b"\x80\x02]q\x00"
    for number in range(count):
        memo = b"r" + struct.pack("<I", number + 1)
        stream += b"j" + struct.pack("<I", number) + b"]" + memo + b"a" + b"0"
    return stream + b"."


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (DEEP, "nests more than 1000 levels deep"),
        (b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".", "nests more than 1000 levels deep"),
        (b"\x80\x02" + b"}" * 1 + b")" + b"\x85" * 5000 + b"K\x01s.", "nests more than 1000 levels deep"),
        (_chain(5000), "nests more than 1000 levels deep"),
        (MEMO, "remembers more values than it has bytes"),
        (b"\x80\x02]p99999999\n.", "remembers more values than it has bytes"),
        (b"\x80\x02)" + b"2\x86" * 40 + b".", "refers to its own values until"),
        (b"\x80\x02" + b"B\xff\xff\xff\x7f.", "is no whole pickle"),
        (b"\x80\x04\x8e" + b"\xff" * 8 + b".", "is no whole pickle"),
        (b"\x80\x02K\x01", "is no whole pickle"),
        (b"\x80\x02h\x05.", "is no whole pickle"),
        (b"\x80\x02e.", "is no whole pickle"),
        (b"nothing", "is no whole pickle"),
        (b"", "is no whole pickle"),
    ],
)
def test_pickles_out_of_bounds(stream: bytes, words: str) -> None:
    with pytest.raises(UnusableInput) as raised:
        _survey(stream)
    assert words in str(raised.value)


def test_what_torch_writes_is_within_bounds(tmp_path: Path) -> None:
    many = {f"layer.{number}": torch.zeros(2) for number in range(3000)}
    nested: object = torch.ones(1)
    for _ in range(100):
        nested = [nested, {"a": (1,)}]
    for number, held in enumerate([many, list(many.values()), [1] * 50_000, nested]):
        for zipped in (True, False):
            path = tmp_path / f"{number}.pt"
            torch.save(held, path, _use_new_zipfile_serialization=zipped)
            load_weights_only(path)


def _ended(code: str, path: Path) -> int:
    """How a process ends that reads a file as torch does."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30)); "
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{limit}import torch; {code}", str(path)],
        capture_output=True,
        check=False,
    ).returncode


def test_a_scripted_file_that_ends_the_process(tmp_path: Path) -> None:
    path = write_scripted(tmp_path / "net.pt")
    tamper(path, "constants.pkl", lambda content: DEEP)
    assert _ended("import sys; torch.jit.load(sys.argv[1])", path) < 0
    for trust in (False, True):
        with pytest.raises(UnusableInput, match="nests more than 1000 levels deep"):
            load(path, trust_pickle=trust)


@pytest.mark.parametrize("record", ["data.pkl", "constants.pkl", "code/__torch__/x.py.debug_pkl"])
@pytest.mark.parametrize("stream", [DEEP, MEMO, b"nothing"])
def test_pickles_in_a_scripted_file(tmp_path: Path, record: str, stream: bytes) -> None:
    path = write_scripted(tmp_path / "net.pt")
    tamper(path, record, lambda content: stream)
    with pytest.raises(UnusableInput, match=rf"in its entry '{record}',"):
        load(path)


def test_a_scripted_file_that_reads_beyond_its_storage(tmp_path: Path) -> None:
    """torch 2.13 takes the storage's length from the pickle, and the tensor reads on in memory."""
    path = write_scripted(tmp_path / "net.pt")

    def longer(content: bytes) -> bytes:
        first = re.search(rb"K(.)tQ", content, re.S)
        assert first is not None
        return content[: first.start()] + b"J\x00\x00\x10\x00tQ" + content[first.end() :]

    tamper(path, "data.pkl", longer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.load(path)
    sizes = [value.untyped_storage().nbytes() for value in module.state_dict().values()]
    assert max(sizes) == 4 << 20 > path.stat().st_size
    with pytest.raises(UnusableInput, match=r"asks for a storage of 1,048,576 elements \(FloatStorage\)"):
        load(path)


@pytest.mark.parametrize("number", [b"J\xff\xff\xff\xff", b"J\xff\xff\xff\x7f", b"K\xff"])
def test_places_in_the_source_that_are_not_there(tmp_path: Path, number: bytes) -> None:
    path = write_scripted(tmp_path / "net.pt")
    with zipfile.ZipFile(path) as archive:
        record = next(name for name in archive.namelist() if name.endswith("debug_pkl"))

    def elsewhere(content: bytes) -> bytes:
        lists = [match.start() for match in re.finditer(rb"\](?:q.)?\(?K", content, re.S)]
        place = content.index(b"K", lists[0])
        return content[:place] + number + content[place + 2 :]

    tamper(path, record.partition("/")[2], elsewhere)
    with pytest.raises(UnusableInput, match="it names places in the source that are not there"):
        load(path)


def _sparse(size: int) -> torch.Tensor:
    return torch.sparse_coo_tensor(torch.tensor([[0], [0]]), [1.0], (size, size), check_invariants=True)


def test_tensors_that_are_larger_than_their_storage(tmp_path: Path, subtests: pytest.Subtests) -> None:
    one = torch.ones(1)
    for held, words in [
        (one.expand(1 << 50), "declares tensors of 4,194,304 GiB"),
        ([one, {"a": one.expand(1 << 25, 1 << 25)}], "declares tensors of"),
        (_sparse(1 << 25), "declares tensors of"),
        (torch.empty(1 << 40, device="meta"), "a tensor without values"),
    ]:
        with subtests.test(str(held)):
            torch.save(held, tmp_path / "x.pt")
            with pytest.raises(UnusableInput, match=words):
                load_samples(tmp_path / "x.pt", ["x"])


def test_weights_with_a_key_that_cannot_be_hashed(tmp_path: Path) -> None:
    """Python's hash of a tuple goes as deep as the tuple, without looking where it steps."""
    torch.save({"a": torch.ones(1)}, tmp_path / "w.pt")
    deep = b"\x80\x02})" + b"\x85" * 500_000 + b"K\x01s."
    tamper(tmp_path / "w.pt", "data.pkl", lambda content: deep)
    with pytest.raises(UnusableInput, match="nests more than 1000 levels deep"):
        load(tmp_path / "w.pt", model="tests.loading.door.nets:tiny")


def _instead(stream: bytes, content: bytes) -> bytes:
    return stream


def test_an_exported_file_out_of_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_exported(tmp_path / "net.pt2")
    honest = path.read_bytes()
    for record, stream in (
        ("models/model.json", b"[" * 100_000),
        ("data/weights/model_weights_config.json", b"{" * 9),
    ):
        path.write_bytes(honest)
        tamper(path, record, partial(_instead, stream))
        with pytest.raises(UnusableInput, match="cannot read"):
            load(path)
    path.write_bytes(honest)

    def huge(config: Any) -> None:
        entry = next(iter(config["config"].values()))["tensor_meta"]
        entry["sizes"] = [{"as_int": 1 << 25}, {"as_int": 1 << 25}]
        entry["strides"] = [{"as_int": 0}, {"as_int": 0}]

    tamper_json(path, "data/weights/model_weights_config.json", huge)
    with pytest.raises(UnusableInput, match=r"declares tensors of|cannot read"):
        load(path)
    path.write_bytes(honest)
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02].")
        archive.writestr("a/data/0", bytes(200_000_000))
    tamper(path, "data/sample_inputs/model.pt", lambda content: inner.getvalue())
    with pytest.raises(UnusableInput, match="as a zip bomb does"):
        load(path)


def test_memory_is_asked_for_before_weights_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.zeros(20 << 20, dtype=torch.uint8)}, tmp_path / "w.pt")
    monkeypatch.setattr(memory, "free_bytes", lambda: 10 << 20)
    with pytest.raises(UnusableInput, match="10 MiB of memory are free"):
        load_weights_only(tmp_path / "w.pt")
