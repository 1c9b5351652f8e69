"""Real inputs and saved probes and outputs: read, written, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reparamkit.compare.float64.reference import Reference
from reparamkit.compare.inputs.data_files import load_samples
from reparamkit.compare.inputs.input_spec import parse
from reparamkit.compare.inputs.probes import Probe, thorough_probes
from reparamkit.compare.saved import input_hash, load_outputs, load_probes, save_outputs, save_probes
from reparamkit.errors import UntrustedPickle, UnusableInput
from tests.compare.files import IMAGE, small
from tests.compare.nets import Lambda
from tests.loading.files import Bomb

A, B = np.ones((1, 2), np.float32), np.zeros((1, 3), np.int64)


def test_npz_by_name_and_by_number(tmp_path: Path) -> None:
    np.savez(tmp_path / "n.npz", ids=B, image=A)
    (sample,) = load_samples(tmp_path / "n.npz", ["image", "ids"])
    assert [tuple(value.shape) for value in sample.args] == [(1, 2), (1, 3)]
    assert sample.kwargs == {}
    np.savez(tmp_path / "p.npz", A, B, *[A] * 9)
    (sample,) = load_samples(tmp_path / "p.npz", [])
    assert [tuple(value.shape) for value in sample.args] == [(1, 2), (1, 3), *[(1, 2)] * 9]
    (sample,) = load_samples(tmp_path / "n.npz", ["image", "other"], ["ids"])
    assert list(sample.kwargs) == ["ids"]
    np.savez(tmp_path / "gap.npz", ids=B)
    (sample,) = load_samples(tmp_path / "gap.npz", ["image", "ids"])
    assert sample.args == ()
    assert list(sample.kwargs) == ["ids"]


def test_npy_and_byte_orders(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(4, dtype=">f4").reshape(2, 2))
    (sample,) = load_samples(tmp_path / "x.npy", ["x"])
    assert sample.args[0].tolist() == [[0, 1], [2, 3]]
    np.save(tmp_path / "s.npy", np.float32(3))
    assert load_samples(tmp_path / "s.npy", ["x"])[0].args[0].shape == ()


@pytest.mark.parametrize(
    ("held", "samples"),
    [
        (IMAGE, 1),
        ((IMAGE, IMAGE), 1),
        ({"b": IMAGE, "a": IMAGE}, 1),
        ([IMAGE, IMAGE, IMAGE], 3),
        ([(IMAGE,), {"a": IMAGE}], 2),
    ],
)
def test_pt(tmp_path: Path, held: object, samples: int) -> None:
    torch.save(held, tmp_path / "x.pt")
    found = load_samples(tmp_path / "x.pt", ["a", "b"])
    assert len(found) == samples
    assert all(torch.equal(value, IMAGE) for sample in found for value in sample.args)
    assert len({sample.label for sample in found}) == samples


def test_a_folder_in_the_order_of_names(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        np.save(tmp_path / f"{number:03d}.npy", np.full((1,), number, np.float32))
    (tmp_path / "notes.txt").write_text("no input")
    assert [int(sample.args[0]) for sample in load_samples(tmp_path, ["x"])] == [1, 2, 10]


def _pickled(path: Path) -> None:
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("x.npz", lambda p: np.savez(p, wrong=A), "the arrays 'wrong'; the network's inputs are image, ids"),
        ("x.npz", lambda p: np.savez(p, image=A, extra=A), "the arrays 'image', 'extra'"),
        ("x.npz", lambda p: np.savez(p), "holds no arrays"),
        ("x.npz", lambda p: p.write_bytes(b"PK\x03\x04 no zip"), "its directory is missing or damaged"),
        ("x.npz", lambda p: p.write_bytes(b""), "cannot be read"),
        ("x.npz", lambda p: p.write_bytes(b"\x80\x04pickle"), "it is no .npz archive"),
        ("x.npy", _pickled, "holds Python objects"),
        ("x.npy", lambda p: np.save(p, np.array(["a"])), "has the type <U1, which is no input"),
        ("x.pt", lambda p: torch.save([], p), "an empty list"),
        ("x.pt", lambda p: torch.save({"image": 3}, p), "holds a dict that is no sample"),
        ("x.pt", lambda p: torch.save(3, p), "holds a int that is no sample"),
        ("x.pt", lambda p: p.write_bytes(b"nothing"), "is no file of torch.save, or damaged"),
        ("x.txt", lambda p: p.write_text("1 2 3"), r"is no file of inputs: give one of \.npz"),
    ],
)
def test_what_is_refused(tmp_path: Path, name: str, write: Any, words: str) -> None:
    write(tmp_path / name)
    with pytest.raises(UnusableInput, match=words):
        load_samples(tmp_path / name, ["image", "ids"])


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match="there is no file or folder"):
        load_samples(tmp_path / "no", [])
    with pytest.raises(UnusableInput, match="holds no inputs"):
        load_samples(tmp_path, [])


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    torch.save(Bomb(tmp_path / "marker"), tmp_path / "x.pt")
    with pytest.raises(UntrustedPickle):
        load_samples(tmp_path / "x.pt", ["x"])
    assert not (tmp_path / "marker").exists()


# Saved probes and outputs


def test_probes_come_back_as_they_were(tmp_path: Path) -> None:
    inputs = (IMAGE, torch.tensor([[3, 4]]), IMAGE.bfloat16(), IMAGE.half(), torch.tensor([True, False]))
    planned = thorough_probes(inputs, {"key": IMAGE}, seed=5)
    save_probes(tmp_path / "p.npz", planned, ["a", "b", "c", "d", "e"], 5)
    found = load_probes(tmp_path / "p.npz")
    assert found is not None
    assert [(probe.name, probe.group) for probe in found] == [(probe.name, probe.group) for probe in planned]
    for before, after in zip(planned, found, strict=True):
        assert input_hash(before) == input_hash(after)
        assert after.inputs()[0][2].dtype is torch.bfloat16
        assert list(after.inputs()[1]) == ["key"]
    with np.load(tmp_path / "p.npz") as archive:
        assert "000 example/a" in archive.files
    np.savez(tmp_path / "other.npz", x=A)
    assert load_probes(tmp_path / "other.npz") is None


def test_nested_inputs_cannot_be_saved(tmp_path: Path) -> None:
    planned = thorough_probes(([IMAGE],), {}, seed=0)
    with pytest.raises(UnusableInput, match="not plain tensors"):
        save_probes(tmp_path / "p.npz", planned, ["a"], 0)


def test_the_hash_knows_bytes_shape_and_dtype() -> None:
    def hashed(tensor: torch.Tensor) -> str:
        return input_hash(Probe("p", "example", 0, (tensor,), {}, fixed=True))

    zeros = torch.zeros(2, 3)
    others = [torch.zeros(3, 2), torch.zeros(2, 3).int(), torch.zeros(2, 3).double(), zeros + 1e-30]
    assert len({hashed(tensor) for tensor in (zeros, *others)}) == 5
    assert hashed(zeros) == hashed(torch.zeros(3, 2).t())


def _recorded() -> Reference:
    return Reference(small(), (IMAGE,), planned=thorough_probes((IMAGE,), {}, seed=0))


def test_outputs_judge_as_the_reference_does(tmp_path: Path) -> None:
    recorded = _recorded()
    save_outputs(tmp_path / "o.npz", recorded, "small", ["image"], None)
    held = load_outputs(tmp_path / "o.npz")
    assert (held.reference, held.names, held.seed, held.described) == ("small", ["image"], 0, None)
    again = held.recorded([record.probe for record in recorded.records])
    candidate = small()
    with torch.no_grad():
        candidate.head.bias[2] += 1e-6
    assert again.judge(candidate).outputs == recorded.judge(candidate).outputs
    assert again.oracle == "float64"
    assert again.precision is torch.float32


def test_integers_and_ties_are_kept(tmp_path: Path) -> None:
    def tied(self: Lambda, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.conv(x)
        return torch.stack([y[:, 0] * 3 / 3, y[:, 0]], 1).argmax(1), torch.complex(y, y)

    recorded = Reference(Lambda(tied), (IMAGE,))
    save_outputs(tmp_path / "o.npz", recorded, "tied", ["x"], parse(["1x3x12x10:float32"]))
    held = load_outputs(tmp_path / "o.npz")
    assert held.described == parse(["1x3x12x10:float32"])
    again = held.recorded([record.probe for record in recorded.records])
    verdict = again.judge(Lambda(tied))
    assert verdict.passed
    assert any("(ties)" in note for note in verdict.notes)


def test_other_inputs_are_refused(tmp_path: Path) -> None:
    recorded = _recorded()
    save_outputs(tmp_path / "o.npz", recorded, "small", ["image"], None)
    held = load_outputs(tmp_path / "o.npz")
    with pytest.raises(UnusableInput, match="hash on the probe 'example' is another"):
        held.recorded(thorough_probes((IMAGE + 1,), {}, seed=0))
    with pytest.raises(UnusableInput, match="for the probe 'normal 3', and the inputs given have none"):
        held.recorded(thorough_probes((IMAGE,), {}, seed=0))


def _rewritten(path: Path, change: Any) -> None:
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    meta = json.loads(arrays["reparamkit"].tobytes())
    change(meta, arrays)
    arrays["reparamkit"] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda meta, arrays: arrays.pop("output 0.0"), "is damaged"),
        (lambda meta, arrays: meta.pop("records"), "is damaged"),
        (lambda meta, arrays: meta["records"][0]["outputs"][0].update(dtype="load"), "is damaged"),
        (lambda meta, arrays: meta.update(seed=float("inf")), "is damaged"),
        (lambda meta, arrays: meta.update(seed=1 << 80), "is damaged"),
        (lambda meta, arrays: meta.update(names="image"), "is damaged"),
        (lambda meta, arrays: meta.update(notes=[3]), "is damaged"),
        (lambda meta, arrays: meta.update(precision="int64"), "is damaged"),
        (lambda meta, arrays: meta.update(described=[{}]), "is damaged"),
        (lambda meta, arrays: meta["records"][0].pop("hash"), "is damaged"),
        (lambda meta, arrays: meta["records"][0].update(outputs=[]), "is damaged"),
        (lambda meta, arrays: meta["records"][0]["probe"].update(sizes={"n": -1}), "is damaged"),
        (lambda meta, arrays: meta["records"][0]["probe"].update(axes=[[0, 1]]), "is damaged"),
        (lambda meta, arrays: meta["records"][0]["outputs"][0].update(noise="nan"), "is damaged"),
        (lambda meta, arrays: arrays.update({"undecided 0.0": np.zeros(3, bool)}), "is damaged"),
        (lambda meta, arrays: meta.update(records=[]), "holds no outputs"),
        (lambda meta, arrays: meta.update(format="outputs 9"), "of the format 'outputs 9'"),
        (lambda meta, arrays: meta.update(format="probes 1"), "is a file of probes"),
        (lambda meta, arrays: meta.pop("format"), "what it says of itself cannot be read"),
    ],
)
def test_damaged_outputs(tmp_path: Path, change: Any, words: str) -> None:
    save_outputs(tmp_path / "o.npz", _recorded(), "small", ["image"], None)
    _rewritten(tmp_path / "o.npz", change)
    with pytest.raises(UnusableInput, match=words):
        load_outputs(tmp_path / "o.npz")


def test_no_outputs_at_all(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match="there is no file"):
        load_outputs(tmp_path / "o.npz")
    np.savez(tmp_path / "o.npz", x=A)
    with pytest.raises(UnusableInput, match="--save-outputs did not write it"):
        load_outputs(tmp_path / "o.npz")
