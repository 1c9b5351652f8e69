"""Files of a network that was folded in parts: what can be written, and what is never left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from tests.nets import assert_same, randomised
from tests.submodules.gates import Block, Gate, image


def folded(model: nn.Module | None = None) -> rk.Folded:
    return rk.fold(randomised(model or Gate()).double(), image())


def test_a_pt_is_read_back_and_is_the_network(tmp_path: Path) -> None:
    found = folded()
    first, second = found.save(tmp_path / "a.pt", str(tmp_path / "b.pt"))
    assert found.saved == [first, second]
    assert first.equivalence.passed
    assert first.operators == {"Conv2d": 1}
    assert first.notes == ()
    loaded = torch.load(tmp_path / "a.pt", weights_only=False)
    assert type(loaded) is Gate
    for sign in (1, -1):
        x = image(3, 4, 6, 5, sign=sign, seed=4)
        with torch.no_grad():
            assert_same(randomised(Gate()).double()(x), loaded(x))


@pytest.mark.parametrize("name", ["net.pt2", "net.onnx"])
def test_what_has_to_be_exported_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        rk.CannotCapture, match=r"network as a whole cannot be exported: its control flow.*\.pt$"
    ):
        folded().save(tmp_path / "first.pt", tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_other_suffixes(tmp_path: Path) -> None:
    with pytest.raises(
        rk.UnusableInput, match=r"names no format \(supported: .onnx, .mlpackage, .pte, .pt2, .pt, .py\)"
    ):
        folded().save(tmp_path / "net.tflite")


def test_what_cannot_be_pickled_says_so(tmp_path: Path) -> None:
    class Local(Gate):
        pass

    (tmp_path / "net.pt").write_text("old")
    with pytest.raises(
        rk.UnusableInput, match=r"net\.pt: the network \(a .*Local\) cannot be pickled: .*Local"
    ):
        folded(Local()).save(tmp_path / "net.pt")
    assert [f.read_text() for f in tmp_path.iterdir()] == ["old"]


class Forgetful(Block):
    """Comes out of a file with other weights than it went in with."""

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(1.001)


class Unreadable(Block):
    """Cannot be read back."""

    def __setstate__(self, state: Any) -> None:
        raise RuntimeError("not today")


@pytest.mark.parametrize(
    ("trunk", "error", "words"),
    [
        (Forgetful, rk.NotEquivalent, "was not written: the file is not equivalent"),
        (Unreadable, rk.UnusableInput, "the file cannot be read again: .*not today"),
    ],
)
def test_a_file_that_does_not_hold_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trunk: type[Block], error: type[Exception], words: str
) -> None:
    state = trunk.__setstate__
    monkeypatch.delattr(trunk, "__setstate__")  # a fold copies the network
    found = folded(Gate(trunk()))
    monkeypatch.setattr(trunk, "__setstate__", state, raising=False)
    (tmp_path / "net.pt").write_text("old")
    with pytest.raises(error, match=words):
        found.save(tmp_path / "net.pt")
    assert [f.read_text() for f in tmp_path.iterdir()] == ["old"]
    assert found.saved == []


def test_a_class_of_main_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import __main__

    main = type("Main", (Gate,), {"__module__": "__main__"})
    monkeypatch.setattr(__main__, "Main", main, raising=False)
    (saved,) = folded(main()).save(tmp_path / "net.pt")
    assert saved.notes == (
        "Main is defined in __main__: only a script that defines it too can read the file",
    )


def test_a_network_that_was_captured_whole_goes_into_a_pt_too(tmp_path: Path) -> None:
    found = folded(Block())
    pt, pt2 = found.save(tmp_path / "a.pt", tmp_path / "b.pt2")
    assert pt.equivalence.passed
    assert pt2.equivalence.passed
    assert pt.operators == {"Conv2d": 1}
    x: Tensor = image(3, 4, 6, 5)
    with torch.no_grad():
        loaded = torch.load(tmp_path / "a.pt", weights_only=False)
        assert_same(randomised(Block()).double()(x), loaded(x))
