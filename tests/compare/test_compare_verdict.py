"""Limits, evidence and data: when the answer is the same, different, or cannot tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from reparamkit.compare.compare import compare
from reparamkit.compare.criteria import Criteria
from reparamkit.compare.profile import Profile
from reparamkit.errors import UnusableInput
from tests.compare.comparing import SHAPE, outcome, run
from tests.compare.files import (
    IMAGE,
    small,
    spoilt,
    write_onnx,
)
from tests.compare.nets import Lambda
from tests.compare.test_compare_fit import Two

# Limits


@pytest.mark.parametrize(
    ("kept", "broken"),
    [
        ({"atol": 0.1}, {"atol": 1e-5}),
        ({"rtol": 0.1}, {"rtol": 1e-5}),
        ({"psnr": 30}, {"psnr": 100}),
        ({"cosine": 0.99}, {"cosine": 0.999999999}),
        ({"top1": 0.5}, None),
        ({"atol": 0.1, "cosine": 0.99}, {"atol": 0.1, "cosine": 0.999999999}),
    ],
)
def test_limits_decide_in_place_of_the_budget(
    kept: dict[str, float], broken: dict[str, float] | None
) -> None:
    found = run(small(), spoilt(), profile=Profile(criteria=Criteria(**kept))).comparison
    assert found.status == "same", found.reason
    assert found.rule == f"limits given: {Criteria(**kept).stated()}, on every probe"
    if broken is not None:
        status, reason = outcome(small(), spoilt(), profile=Profile(criteria=Criteria(**broken)))
        assert status == "different"
        assert "allowed 1e-05" in reason or "wanted" in reason


def test_one_probe_that_breaks_a_limit_is_enough_and_named() -> None:
    found = run(small(), spoilt(), profile=Profile(criteria=Criteria(atol=1e-3))).comparison
    assert found.status == "different"
    failing = [probe for probe in found.probes if not probe.passed]
    assert 0 < len(failing) < len(found.probes)
    assert all("max abs is" in probe.failure and repr(probe.name) in probe.failure for probe in failing)


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e-3])
def test_an_absolute_limit_grows_with_the_output(scale: float) -> None:
    """The probe `large` is 32 times as large, and so is what is off there: a limit means the usual size."""
    reference = Lambda(lambda self, x: self.conv(x) * scale)
    off = Lambda(lambda self, x: self.conv(x) * scale * (1 + 1e-4))
    usual = float(reference(torch.randn(1, 3, 12, 10)).detach().abs().max()) * 1e-4
    assert outcome(reference, off, profile=Profile(criteria=Criteria(atol=3 * usual)))[0] == "same"
    status, reason = outcome(reference, off, profile=Profile(criteria=Criteria(atol=usual / 3)), where=False)
    assert status == "different"
    assert "max abs is" in reason


def test_an_absolute_limit_does_not_shrink_with_the_output() -> None:
    """On the probe `tiny` an error of the usual size is within the limit."""
    reference = Lambda(lambda self, x: self.conv(x) - self.conv.bias.view(1, 4, 1, 1))
    off = Lambda(lambda self, x: self.conv(x) - self.conv.bias.view(1, 4, 1, 1) + 1e-4)
    assert outcome(reference, off, profile=Profile(criteria=Criteria(atol=2e-4)))[0] == "same"
    found = run(reference, off, profile=Profile(criteria=Criteria(atol=5e-5)), where=False).comparison
    assert found.status == "different"
    failing = {probe.group for probe in found.probes if not probe.passed}
    assert {"normal", "tiny"} <= failing
    assert "large" not in failing


def test_an_absolute_limit_still_finds_what_is_wrong_on_large_values_alone() -> None:
    clamped = Lambda(lambda self, x: self.conv(x).clamp(-6, 6))
    found = run(
        Lambda(lambda self, x: self.conv(x)),
        clamped,
        profile=Profile(criteria=Criteria(atol=1e-2)),
        where=False,
    )
    assert found.comparison.status == "different"
    failing = [probe for probe in found.comparison.probes if not probe.passed]
    assert [probe.name for probe in failing] == ["large"]
    assert "by which the output is larger)" in failing[0].failure


def test_other_classes_break_the_limit_on_classes() -> None:
    swapped = small()
    with torch.no_grad():
        swapped.head.weight.copy_(swapped.head.weight[[1, 0, 2, 3, 4]])
        swapped.head.bias.copy_(swapped.head.bias[[1, 0, 2, 3, 4]] + torch.tensor([9.0, 0, 0, 0, 0]))
    status, reason = outcome(small(), swapped, profile=Profile(criteria=Criteria(top1=0.99)))
    assert status == "different"
    assert "top-1 agreement is 0, wanted 0.99" in reason


def test_a_limit_that_says_nothing_cannot_tell() -> None:
    a_map = Lambda(lambda self, x: self.conv(x))
    assert outcome(a_map, a_map, profile=Profile(criteria=Criteria(top1=0.9)))[0] == "cannot tell"


def test_a_limit_on_integers() -> None:
    labels = Lambda(lambda self, x: (self.conv(x) * 100).round().long())
    off = Lambda(lambda self, x: (self.conv(x) * 100).round().long() + 1)
    assert outcome(labels, off)[0] == "different"
    assert outcome(labels, off, profile=Profile(criteria=Criteria(atol=1)))[0] == "same"
    assert outcome(labels, off, profile=Profile(criteria=Criteria(atol=0.5)))[0] == "different"


# Evidence


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda self, x: self.conv(x) * float("nan"), "is NaN or infinite everywhere, on every probe"),
        (lambda self, x: self.conv(x)[:, :0], "is empty on every probe"),
        (lambda self, x: torch.ones(3), "does not depend on the input: no probe changes it"),
        (lambda self, x: (self.conv(x).mean((2, 3)) * 1e9).softmax(1), "is saturated"),
        (lambda self, x: (self.conv(x) * 1e9).sigmoid(), "is saturated"),
        (lambda self, x: (self.conv(x) * 1e9).tanh(), "is saturated"),
        (lambda self, x: (self.conv(x) * 1e12).sin(), "so noisy"),
        (lambda self, x: (), "the reference has no outputs"),
        (
            lambda self, x: (torch.ones(3), (self.conv(x) * 1e9).sigmoid()),
            "'0' does not depend on the input: no probe changes it; output '1' is saturated",
        ),
        (
            lambda self, x: (self.conv(x), self.conv(x) * float("nan")),
            "output '1' is NaN or infinite everywhere",
        ),
    ],
)
def test_what_is_no_evidence_is_never_the_same(function: Any, words: str) -> None:
    status, reason = outcome(Lambda(function), Lambda(function))
    assert status == "cannot tell"
    assert words in reason


def test_an_output_without_evidence_beside_one_with_is_said() -> None:
    mixed = Lambda(lambda self, x: {"map": self.conv(x), "anchors": torch.ones(3), "none": x[:0]})
    found = run(mixed, mixed).comparison
    assert found.status == "same"
    assert set(found.blind) == {"anchors", "none"}
    outputs = {entry["name"]: entry for entry in found.as_dict()["outputs"]}
    assert outputs["map"]["evidence"]
    assert outputs["anchors"]["why_no_evidence"].startswith("does not depend on the input")


def test_nan_in_the_candidate_alone_is_different(subtests: pytest.Subtests) -> None:
    reference = Lambda(lambda self, x: self.conv(x))
    candidate = Lambda(lambda self, x: self.conv(x) * float("nan"))
    for criteria in (None, Criteria(atol=1e9), Criteria(cosine=-1), Criteria(top1=0)):
        with subtests.test(str(criteria)):
            found = run(reference, candidate, profile=Profile(criteria=criteria)).comparison
            assert found.status == "different"
            assert "is nan in the candidate" in found.reason
            assert found.as_dict()["outputs"][0]["probes"][0]["metrics"]["max_abs"] == "inf"


def test_a_constant_candidate_of_a_living_reference_is_different() -> None:
    reference = Lambda(lambda self, x: self.conv(x))
    assert outcome(reference, Lambda(lambda self, x: torch.zeros_like(self.conv(x))))[0] == "different"


def test_constant_inputs_through_an_instance_norm_do_not_fail_by_luck() -> None:
    """There the variance is rounding noise alone, and the norm makes it large."""

    def normed(self: Lambda, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.instance_norm(x + self.conv(x).mean((2, 3))[:, :3, None, None])

    def reordered(self: Lambda, x: torch.Tensor) -> torch.Tensor:
        y = x + self.conv(x).mean((3, 2))[:, :3, None, None]
        centred = y - y.transpose(2, 3).mean((2, 3)).reshape(-1, 3, 1, 1)
        return centred / (centred.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()

    status, reason = outcome(Lambda(normed), Lambda(reordered))
    assert status == "same", reason


# Data and saved outputs


def test_real_data_are_tried_too(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=IMAGE.numpy().astype(np.float64) * 200)
    found = run(small(), small(), data=tmp_path / "a.npz").comparison
    assert found.status == "same"
    assert found.probes[0].name == "sample a.npz"
    assert found.inputs[0].kind == "data"
    assert any("float64 and were rounded to float32" in note for note in found.notes)

    class Picky(type(small())):  # type: ignore[misc]
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            y = super().forward(image)
            return y + 1e-2 * (image.abs().amax() > 150) * (image.abs().amax() < 900)

    picky = Picky()
    picky.load_state_dict(small().state_dict())
    assert outcome(small(), picky.eval())[0] == "same"
    assert outcome(small(), picky.eval(), data=tmp_path / "a.npz")[0] == "different"


def test_several_samples_of_several_sizes(tmp_path: Path) -> None:
    torch.save([IMAGE, IMAGE[..., :8], IMAGE[..., :6, :]], tmp_path / "s.pt")
    found = run(small(), small(), data=tmp_path / "s.pt").comparison
    assert found.status == "same"
    assert [probe.name for probe in found.probes][:3] == [f"sample s.pt[{i}]" for i in range(3)]


def test_data_under_the_candidate_s_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", pixels=IMAGE.numpy())
    candidate = write_onnx(tmp_path / "n.onnx", free=False, name="pixels")
    assert outcome(small(), candidate, data=tmp_path / "x.npz")[0] == "same"
    status, reason = outcome(small(), small(), data=tmp_path / "x.npz")
    assert status == "cannot tell"
    assert "holds the arrays 'pixels'; the network's inputs are image" in reason


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.ones((1, 4, 12, 10), np.float32), "the model rejects the example inputs"),
        (np.ones((3,), np.float32), "the model rejects the example inputs"),
        (np.ones((1, 3, 12, 10), np.int64), "the model rejects the example inputs"),
    ],
)
def test_data_that_do_not_fit(tmp_path: Path, array: np.ndarray, words: str) -> None:
    np.savez(tmp_path / "x.npz", image=array)
    status, reason = outcome(small(), small(), data=tmp_path / "x.npz")
    assert status == "cannot tell"
    assert words in reason


def test_inputs_are_given_once(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", IMAGE.numpy())
    status, reason = outcome(small(), small(), data=tmp_path / "x.npy", described=SHAPE)
    assert status == "cannot tell"
    assert "inputs are given twice" in reason
    with pytest.raises(UnusableInput, match="nothing to compare with"):
        compare(None, small())


def test_the_seed_draws_other_inputs() -> None:
    hashes = {run(small(), small(), seed=seed).comparison.inputs_hash for seed in (0, 0, 1)}
    assert len(hashes) == 2


def test_example_inputs_as_the_api_takes_them() -> None:
    nested = Lambda(lambda self, pair: self.conv(pair[0]) + pair[1]["a"])
    inputs = ([IMAGE, {"a": torch.ones(1)}],)
    assert outcome(nested, nested, inputs=inputs)[0] == "same"
    assert outcome(Two(), Two(), inputs={"left": torch.ones(2), "right": torch.ones(2)})[0] == "same"


def test_training_mode_and_unusable_subjects(tmp_path: Path, subtests: pytest.Subtests) -> None:
    found = run(small().train(), small().train()).comparison
    assert found.status == "same"
    assert sum("training mode" in note for note in found.notes) == 2
    (tmp_path / "bad.onnx").write_bytes(b"no")
    for bad in (3, tmp_path / "bad.onnx", tmp_path / "none.onnx", "no_such_model", tmp_path):
        with subtests.test(str(bad)):
            for pair in ((small(), bad), (bad, small())):
                assert outcome(*pair)[0] == "cannot tell"
