"""Files of safetensors: what they declare is checked before a tensor is made, and damage is named."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file

from reparamkit.errors import UnusableInput
from reparamkit.loading.door import memory
from reparamkit.loading.door.safetensors_file import check_safetensors, shards
from reparamkit.loading.safetensors_weights import read_shards

STATE = {
    "a.weight": torch.arange(6.0).reshape(2, 3),
    "a.bias": torch.ones(3, dtype=torch.float16),
    "scalar": torch.tensor(3),
    "empty": torch.ones(0, 4),
    "flags": torch.tensor([True, False]),
    "b": torch.ones(2, dtype=torch.bfloat16),
    "c": torch.ones(2, dtype=torch.float8_e4m3fn),
}


def of(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: Any = "F32", shape: Any = (2,), place: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(place)}


def test_every_type_is_read_as_it_is_stored(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.safetensors", metadata={"format": "pt"})
    read = read_shards([tmp_path / "w.safetensors"])
    assert read.keys() == STATE.keys()
    for name, value in STATE.items():
        assert read[name].dtype is value.dtype
        assert read[name].shape == value.shape
        assert torch.equal(read[name].float(), value.float())
    assert check_safetensors(tmp_path / "w.safetensors")["a.weight"].shape == (2, 3)


DAMAGED: dict[str, tuple[bytes, str]] = {
    "shorter than its length": (b"\x08\0\0", "its header would take"),
    "header beyond the end": (
        of({"a": entry()}, bytes(8), 1 << 40),
        "its header would take 1,099,511,627,776",
    ),
    "no JSON": (of(b"{nothing", bytes(8)), "it is no JSON"),
    "deep": (of(b'{"a":' + b"[" * 200_000, bytes(8)), "nests thousands of levels deep"),
    "a list": (of([1], bytes(8)), "no table of tensors"),
    "no entry": (of({"a": 3}), "says nothing of 'a'"),
    "negative place": (of({"a": entry(place=(-8, 0))}, bytes(8)), "are no sizes"),
    "place reversed": (of({"a": entry(place=(8, 0))}, bytes(8)), "are no sizes"),
    "shape of fractions": (of({"a": entry(shape=(1.5,))}, bytes(8)), "are no sizes"),
    "huge shape": (of({"a": entry(shape=(1 << 40, 1 << 40))}, bytes(8)), "has other bytes than its shape"),
    "too few bytes": (of({"a": entry()}, bytes(4)), "its tensors take 8 bytes, and there are 4"),
    "too many bytes": (of({"a": entry()}, bytes(12)), "its tensors take 8 bytes, and there are 12"),
    "overlap": (of({"a": entry(), "b": entry(place=(4, 12))}, bytes(12)), "begin at 4, not at 8"),
    "gap": (of({"a": entry(), "b": entry(place=(12, 20))}, bytes(20)), "begin at 12, not at 8"),
    "unknown type": (of({"a": entry("Q9")}, bytes(8)), "the type 'Q9', which is not read"),
    "many axes": (of({"a": entry(shape=(1,) * 65, place=(0, 4))}, bytes(4)), "are no sizes"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damage_is_named_and_the_library_agrees(tmp_path: Path, case: str) -> None:
    content, words = DAMAGED[case]
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(UnusableInput) as caught:
        check_safetensors(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(UnusableInput):
        read_shards([path])
    if case != "many axes":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        with pytest.raises((SafetensorError, OSError, ValueError)):
            load_file(path)


def test_every_cut_and_every_changed_byte_of_the_header_is_refused_or_read_whole(tmp_path: Path) -> None:
    whole = save({"a": torch.arange(4.0), "b": torch.ones(2, 2)})
    path = tmp_path / "w.safetensors"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(UnusableInput):
            read_shards([path])
    end = 8 + int.from_bytes(whole[:8], "little")
    for place in range(end):
        for change in (1, 0x80):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
            try:
                read = read_shards([path])
            except UnusableInput:
                continue
            assert sum(value.numel() * value.element_size() for value in read.values()) == len(whole) - end


def test_tensors_that_do_not_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({"a": torch.zeros(1 << 23)}, tmp_path / "w.safetensors")
    monkeypatch.setattr(memory, "free_bytes", lambda: 1 << 20)
    with pytest.raises(UnusableInput, match=r"has tensors of 32 MiB, and 1 MiB of memory are free"):
        read_shards([tmp_path / "w.safetensors"])


def _index(folder: Path, content: Any) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: "nothing", "it is no JSON"),
        (lambda folder: {"weights": {}}, "has no weight_map"),
        (lambda folder: {"weight_map": {"a": 3}}, "has no weight_map"),
        (lambda folder: {"weight_map": {"a": "gone.safetensors"}}, "names the shard 'gone.safetensors'"),
        (lambda folder: {"weight_map": {"a": "../outside.safetensors"}}, "outside its own folder"),
        (lambda folder: {"weight_map": {"a": str(folder.parent / "outside.safetensors")}}, "outside its own"),
    ],
)
def test_an_index_names_files_beside_it_and_no_others(
    tmp_path: Path, make: Callable[[Path], Any], words: str
) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    save_file({"a": torch.ones(1)}, tmp_path / "outside.safetensors")
    with pytest.raises(UnusableInput) as caught:
        shards(_index(folder, make(folder)))
    assert words in str(caught.value)


def test_shards_that_hold_a_name_twice(tmp_path: Path) -> None:
    for name in ("1.safetensors", "2.safetensors"):
        save_file({"a": torch.ones(1)}, tmp_path / name)
    with pytest.raises(UnusableInput, match=r"holds 'a', which another file of .* holds too"):
        read_shards([tmp_path / "1.safetensors", tmp_path / "2.safetensors"])
