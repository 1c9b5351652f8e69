"""What a fold says it found, and that a wrong one is not handed out."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
from torch import Tensor, nn

import reparamkit as rk
from reparamkit.compare.compare import compare
from tests.api.networks import Branchy, image, net
from tests.nets import assert_same
from tests.spoiling import spoil

pytestmark = pytest.mark.usefixtures("no_grad")


def test_the_findings() -> None:
    model = net()
    folded = rk.fold(model, image())
    assert isinstance(folded, rk.Folded)
    assert [f.where for f in folded.folds] == ["first", "second"]
    for fold in folded.folds:
        assert isinstance(fold, rk.Fold)
        assert sum(fold.operators.values()) == 7
        assert {op.split(".")[1]: n for op, n in fold.operators.items()} == {
            "conv2d": 2,
            "batch_norm": 3,
            "add": 2,
        }
        (path,) = fold.layers
        assert path.startswith(f"{fold.where}.")
        assert fold.layers[path] == "Conv2d 4 -> 4, 3x3"
        assert 0 <= fold.error < 1e-10
        layer = folded.module.get_submodule(path)
        assert isinstance(layer, nn.Conv2d)
        assert layer.bias is not None
        assert "2 conv2d" in str(fold)
    assert folded.refusals == ()
    assert (folded.before["conv2d"], folded.before["batch_norm"], folded.before["add"]) == (4, 6, 4)
    assert folded.after["conv2d"] == 2
    assert folded.after.get("batch_norm", 0) == folded.after.get("add", 0) == 0
    assert folded.sizes == "free batch and spatial sizes"
    assert folded.notes == ()
    assert folded.saved == []


def test_the_verdict() -> None:
    verdict = rk.fold(net(), image()).equivalence
    assert verdict is not None
    assert verdict.passed
    assert verdict.oracle == "float64"
    assert verdict.e0 is not None
    assert 0 < verdict.e0 < 1e-5
    assert 0 < verdict.e1 <= verdict.budget
    assert math.isclose(verdict.budget, 4 * verdict.e0 + verdict.floor)
    probed = {entry.probe for entry in verdict.outputs}
    assert "example" in probed
    assert any("batch=" in probe and "height=" in probe for probe in probed)
    assert verdict.as_dict()["passed"] is True
    assert verdict.summary().startswith("equivalent: error ")


def test_refusals_name_the_node_and_the_reason() -> None:
    def end(y: Tensor) -> Tensor:
        return y * y

    folded = rk.fold(net(Branchy(end)), image())
    (refusal,) = folded.refusals
    assert isinstance(refusal, rk.Refusal)
    assert (refusal.node, refusal.operator) == ("mul", "aten.mul.Tensor")
    assert "both depend on the network's input" in refusal.reason
    assert "'mul' stays" in str(refusal)


def test_inspect_finds_the_same_and_changes_nothing() -> None:
    model = net()
    before = copy.deepcopy(model.state_dict())
    found, folded = rk.inspect(model, image()), rk.fold(model, image())
    assert isinstance(found, rk.Inspection)
    assert found.folds == folded.folds
    assert (found.refusals, found.before, found.after) == (folded.refusals, folded.before, folded.after)
    assert (found.sizes, found.notes) == (folded.sizes, folded.notes)
    assert not hasattr(found, "module")
    assert_same(before, model.state_dict(), 0)


def test_verify_false_leaves_the_whole_network_out_and_proves_each_fold() -> None:
    folded = rk.fold(net(), image(), verify=False)
    assert folded.equivalence is None
    assert all(0 < f.error < 1e-10 for f in folded.folds)


# A fold that is wrong


def test_a_wrong_fold_is_not_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch)
    with pytest.raises(rk.NotEquivalent, match="the folded network is not equivalent") as caught:
        rk.fold(net(), image())
    verdict = caught.value.equivalence
    assert verdict is not None
    assert not verdict.passed
    assert verdict.e1 > verdict.budget
    assert 1e-4 < verdict.e1 < 1e-2


@pytest.mark.diagonal(1)
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_a_wrong_fold_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    spoil(monkeypatch)
    folded = rk.fold(net(), image(), verify=False)
    target = tmp_path / f"net{suffix}"
    for old in (None, b"old"):
        if old is not None:
            target.write_bytes(old)
        with pytest.raises(rk.NotEquivalent, match=r"was not written: the file is not equivalent") as caught:
            folded.save(target)
        assert caught.value.equivalence is not None
        assert [f.read_bytes() for f in tmp_path.iterdir()] == ([] if old is None else [old])
    assert folded.saved == []


def test_an_error_beyond_rounding_is_small_enough_to_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, 1 + 3e-5)
    with pytest.raises(rk.NotEquivalent):
        rk.fold(net(), image())


# What is printed of a result


def test_a_result_says_in_a_few_lines_what_it_is() -> None:
    model = net()
    folded, found = rk.fold(model, image()), rk.inspect(model, image())
    verdict, comparison = rk.check(model, folded.module, image()), compare(model, model, inputs=image())
    assert str(folded).splitlines()[:2] == str(found).splitlines()[:2]
    assert str(folded).splitlines()[0].startswith("folds: 2")
    assert f"batch_norm {found.before['batch_norm']} -> 0" in str(folded)
    assert "equivalent: error" in str(folded)
    for result in (folded, found, verdict, comparison, comparison.comparison):
        assert repr(result).startswith(f"<{type(result).__name__}: ")
        assert len(repr(result)) < 500
