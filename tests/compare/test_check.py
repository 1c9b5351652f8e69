"""`check` and `assert_equivalent`: what passes, what fails, and what cannot be told."""

from __future__ import annotations

import copy
import json
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from reparamkit.compare.check import assert_equivalent, check
from reparamkit.compare.compare import compare
from reparamkit.errors import NotEquivalent, UnusableInput
from tests.compare.nets import Block, Lambda, Net, folded, net, randomised

IMAGE = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_a_correct_fold_passes_by_its_own_rounding_error() -> None:
    original = net()
    verdict = check(original, folded(original), IMAGE)
    assert verdict.passed
    assert verdict.reason == ""
    assert verdict.oracle == "float64"
    assert verdict.e0 is not None
    assert 0 < verdict.e0 < 1e-5
    assert 0 < verdict.e1 <= verdict.budget
    assert verdict.budget == pytest.approx(4 * verdict.e0 + verdict.floor)
    assert verdict.floor == 8 * torch.finfo(torch.float32).eps
    assert verdict.summary().startswith("equivalent: error ")
    json.dumps(verdict.as_dict(), allow_nan=False)


def _break_weight(candidate: Net) -> None:
    candidate.get_parameter("first.0.weight").view(-1)[31] *= 1.01


def _drop_bias(candidate: Net) -> None:
    candidate.get_parameter("second.0.bias")[3] = 0


def _shift_padding(candidate: Net) -> None:
    conv = candidate.get_submodule("first.0")
    assert isinstance(conv, nn.Conv2d)
    conv.padding = (0, 0)
    candidate.first = nn.Sequential(nn.ZeroPad2d((2, 0, 1, 1)), candidate.first)


def _transpose_kernel(candidate: Net) -> None:
    weight = candidate.get_parameter("first.0.weight")
    weight.copy_(weight.transpose(2, 3).clone())


def _swap_channels(candidate: Net) -> None:
    weight = candidate.get_parameter("second.0.weight")
    weight.copy_(weight[[1, 0, *range(2, 16)]].clone())


@pytest.mark.parametrize(
    "mutate", [_break_weight, _drop_bias, _shift_padding, _transpose_kernel, _swap_channels]
)
def test_one_mistake_fails(mutate: Callable[[Net], None]) -> None:
    original = net()
    candidate = folded(original)
    with torch.no_grad():
        mutate(candidate)
    verdict = check(original, candidate, IMAGE)
    assert not verdict.passed
    assert verdict.e1 > verdict.budget
    assert "an error of" in verdict.reason
    assert verdict.summary() == f"not equivalent: {verdict.reason}"


def test_assert_equivalent_names_the_worst_place_in_words() -> None:
    original = net()
    candidate = folded(original)
    with torch.no_grad():
        _break_weight(candidate)
    with pytest.raises(
        NotEquivalent, match=r"output 'output'\[\d, \d\] is .* and should be .* where .* is allowed"
    ) as raised:
        assert_equivalent(original, candidate, IMAGE)
    assert raised.value.equivalence is not None
    assert not raised.value.equivalence.passed
    assert assert_equivalent(original, folded(original), IMAGE).passed


def test_a_mistake_that_inputs_in_zero_to_one_hide() -> None:
    """A channel that only negative inputs wake up: in [0, 1) its ReLU is shut, whatever the weight is."""
    original = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1)).eval()
    with torch.no_grad():
        original.get_parameter("0.weight")[1] = -1.0
        original.get_parameter("0.bias")[1] = 0.0
    candidate = copy.deepcopy(original)
    with torch.no_grad():
        candidate.get_parameter("0.weight")[1] *= 1.5
    positive = torch.rand(1, 3, 16, 16)
    assert torch.equal(original(positive), candidate(positive))
    assert not check(original, candidate, positive).passed


def test_an_error_at_the_border_alone_fails() -> None:
    """BN before a zero-padded conv, folded as if there were no padding."""
    torch.manual_seed(0)
    norm, conv = nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3, padding=1)
    original = randomised(nn.Sequential(norm, conv))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert conv.bias is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias - norm.running_mean * scale
    candidate = nn.Conv2d(3, 8, 3, padding=1).eval()
    with torch.no_grad():
        candidate.weight.copy_(conv.weight * scale[None, :, None, None])
        candidate.get_parameter("bias").copy_(
            conv.bias + (conv.weight * shift[None, :, None, None]).sum((1, 2, 3))
        )
    verdict = check(original, candidate, IMAGE)
    assert not verdict.passed
    worst = verdict.worst()
    assert worst is not None
    assert worst.index[2] in (0, 31) or worst.index[3] in (0, 31)


def test_deep_and_noisy_networks_are_not_held_to_a_fixed_tolerance() -> None:
    """Cancellation makes the reference itself 1e-4 off; a correct fold of it must not fail."""

    def cancelling(self: Lambda, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return (y + 1e3) - 1e3

    verdict = check(Lambda(cancelling), Lambda(lambda self, x: self.conv(x)), IMAGE)
    assert verdict.passed
    assert verdict.e0 is not None
    assert verdict.e0 > 1e-6


@dataclass
class Scores:
    logits: torch.Tensor
    extra: dict[str, torch.Tensor]


Pair = namedtuple("Pair", ["left", "right"])


@pytest.mark.parametrize(
    ("structure", "names"),
    [
        (lambda y: y, ["output"]),
        (lambda y: (y, [y * 2, None]), ["0", "1.0"]),
        (lambda y: {"logits": y, "map": {"a": y * 2}}, ["logits", "map.a"]),
        (lambda y: Scores(y, {"mask": y * 3}), ["logits", "extra.mask"]),
        (lambda y: Pair(y, y + 1), ["left", "right"]),
    ],
)
def test_output_structures(structure: Callable[..., Any], names: list[str]) -> None:
    reference = Lambda(lambda self, x: structure(self.conv(x)))
    good, bad = copy.deepcopy(reference), copy.deepcopy(reference)
    with torch.no_grad():
        bad.conv.weight[2, 1, 1, 1] += 1e-3
    verdict = check(reference, good, IMAGE)
    assert verdict.passed
    assert list(dict.fromkeys(entry.output for entry in verdict.outputs)) == names
    assert not check(reference, bad, IMAGE).passed


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda self, x: (self.conv(x),), r"outputs are 1 \(0\) in the candidate and 1 \(output\) in the"),
        (lambda self, x: [], "outputs are none in the candidate"),
        (lambda self, x: self.conv(x)[:, :, 1:], r"shape \(1, 4, 31, 32\) in the candidate and \(1, 4, 32"),
        (lambda self, x: self.conv(x) > 0, "is bool in the candidate and float32 in the reference"),
        (lambda self, x: self.conv(x) / (x[:, :1] > -99).sub(1), r"is (nan|inf|-inf) in the candidate"),
        (lambda self, x: self.missing(x), "the candidate fails on the probe 'example': AttributeError"),
    ],
)
def test_incomparable_candidates_fail_with_a_reason(function: Callable[..., Any], reason: str) -> None:
    import re

    reference = Lambda(lambda self, x: self.conv(x))
    candidate = Lambda(function)
    if "nan" in reason:
        candidate = Lambda(lambda self, x: self.conv(x).masked_fill(x[:, :1] > 0.5, float("nan")))
    verdict = check(reference, candidate, IMAGE)
    assert not verdict.passed
    assert verdict.e1 == float("inf")
    assert re.search(reason, verdict.reason), verdict.reason
    assert json.loads(json.dumps(verdict.as_dict(), allow_nan=False))["e1"] == "inf"


def test_floats_of_another_width_are_told_as_on_the_command_line() -> None:
    verdict = check(
        Lambda(lambda self, x: self.conv(x)), Lambda(lambda self, x: self.conv(x).double()), IMAGE
    )
    assert verdict.passed
    assert any("is float64 in the candidate and float32 in the reference" in note for note in verdict.notes)


def test_infinity_on_one_side_fails_and_on_both_agrees() -> None:
    def infinite(self: Lambda, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).masked_fill(x[:, :1] > 1, float("inf"))

    reference = Lambda(infinite)
    verdict = check(reference, Lambda(infinite), IMAGE)
    assert verdict.passed
    assert any("NaN or infinite in" in note for note in verdict.notes)
    opposite = Lambda(lambda self, x: self.conv(x).masked_fill(x[:, :1] > 1, -float("inf")))
    assert not check(reference, opposite, IMAGE).passed
    assert not check(reference, Lambda(lambda self, x: self.conv(x)), IMAGE).passed


@pytest.mark.parametrize(
    "function",
    [
        lambda self, x: self.conv(x) * float("nan"),
        lambda self, x: self.conv(x)[:, :0],
        lambda self, x: (),
    ],
)
def test_nothing_to_compare_cannot_be_told(function: Callable[..., Any]) -> None:
    reference = Lambda(function)
    with pytest.raises(UnusableInput, match="cannot tell"):
        check(reference, copy.deepcopy(reference), IMAGE)


def test_constant_outputs_are_no_evidence() -> None:
    partly = Lambda(lambda self, x: {"map": self.conv(x), "anchors": torch.ones(3) + 0 * x.sum()})
    verdict = check(partly, copy.deepcopy(partly), IMAGE)
    assert verdict.passed
    assert verdict.constant_outputs == ("anchors",)
    assert "output 'anchors' does not depend on the input" in verdict.notes[0]
    wholly = Lambda(lambda self, x: torch.ones(3))
    with pytest.raises(UnusableInput, match="output 'output' does not depend on the input"):
        check(wholly, copy.deepcopy(wholly), IMAGE)


def test_a_reference_whose_noise_drowns_everything_cannot_be_told() -> None:
    """Float32 and float64 land on different sides of a threshold everywhere: no fold could be caught."""
    chaotic = Lambda(lambda self, x: (self.conv(x) * 1e12).sin())
    with pytest.raises(UnusableInput, match="so noisy"):
        check(chaotic, copy.deepcopy(chaotic), IMAGE)


def test_integers_are_compared_exactly_and_ties_left_out() -> None:
    def labels(self: Lambda, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).argmax(1)

    reference = Lambda(labels)
    assert check(reference, Lambda(labels), IMAGE).passed
    shifted = Lambda(lambda self, x: self.conv(x).argmax(1).clamp(max=2))
    verdict = check(reference, shifted, IMAGE)
    assert not verdict.passed
    assert 0 < verdict.e1 < 1

    def tied(self: Lambda, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return torch.stack([y[:, 0] * 3 / 3, y[:, 0]], 1).argmax(1)

    verdict = check(Lambda(tied), Lambda(tied), IMAGE)
    assert any("(ties); they were left out" in note for note in verdict.notes)


def test_training_mode_is_judged_in_evaluation_mode_and_nothing_is_changed() -> None:
    original = net().train()
    candidate = folded(original)
    before = copy.deepcopy(original.state_dict())
    verdict = check(original, candidate, IMAGE)
    assert verdict.passed
    assert any("the reference is in training mode" in note for note in verdict.notes)
    assert original.training
    assert original.first.training
    assert all(torch.equal(before[key], value) for key, value in original.state_dict().items())
    assert all(parameter.requires_grad for parameter in original.parameters())
    assert next(original.parameters()).dtype is torch.float32


def test_a_model_that_writes_into_its_input_spoils_nothing() -> None:
    example = IMAGE.clone()
    reference = Lambda(lambda self, x: self.conv(x.relu_()))
    assert check(reference, copy.deepcopy(reference), example).passed
    assert torch.equal(example, IMAGE)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions_have_a_floor_of_their_own(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    block = randomised(Block(8))
    assert isinstance(block, Block)
    original, candidate = copy.deepcopy(block).to(dtype), copy.deepcopy(block).to(dtype).folded().eval()
    x = torch.randn(1, 8, 12, 12).to(dtype)
    verdict = check(original, candidate, x)
    assert verdict.passed, verdict.reason
    eps = torch.finfo(dtype).eps
    assert verdict.floor == (64 if dtype is torch.float64 else 8) * eps
    with torch.no_grad():
        candidate.get_parameter("0.weight").mul_(1 + 1e-11 if dtype is torch.float64 else 1.3)
    assert not check(original, candidate, x).passed


def test_the_seed_reproduces_the_numbers() -> None:
    original = net()
    candidate = folded(original)
    first, second = (check(original, candidate, IMAGE, seed=5) for _ in range(2))
    assert first == second
    assert first.seed == 5
    assert first.outputs != check(original, candidate, IMAGE, seed=6).outputs


def test_keyword_and_several_inputs() -> None:
    def fused(self: Lambda, image: torch.Tensor, mask: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        scale = torch.arange(1.0, 6.0, device=image.device).to(image.dtype)[ids]
        return self.conv(image) * mask * scale[:, None, None, None]

    inputs = {"image": IMAGE, "mask": torch.rand(1, 1, 32, 32) > 0.5, "ids": torch.tensor([4])}
    assert check(Lambda(fused), Lambda(fused), inputs).passed
    assert check(Lambda(fused), Lambda(fused), tuple(inputs.values())).passed
    inputs["ids"] = torch.tensor([[4]])
    with pytest.raises(UnusableInput, match="rejects the example inputs: "):
        check(Lambda(lambda self, image, mask: image), Lambda(fused), inputs)


def test_unusable_inputs_and_subjects() -> None:
    with pytest.raises(UnusableInput, match="example inputs are needed"):
        check(net(), net(), None)
    with pytest.raises(UnusableInput, match="1 is not a string"):
        check(net(), net(), {1: IMAGE})
    with pytest.raises(UnusableInput, match="cannot run a int"):
        check(net(), 3, IMAGE)
    with pytest.raises(UnusableInput, match="there is no file"):
        check(net(), "nowhere.onnx", IMAGE)
    with pytest.raises(UnusableInput, match="returns a str at 'name', which cannot be compared"):
        check(Lambda(lambda self, x: {"name": "a"}), net(), IMAGE)
    with pytest.raises(UnusableInput, match="the model rejects the example inputs: RuntimeError"):
        check(net(), net(), torch.randn(1, 5, 32, 32))


def test_an_exported_program_is_a_reference_and_a_candidate() -> None:
    original = net()
    program = torch.export.export(folded(original), (IMAGE,))
    verdict = check(program, original, IMAGE)
    assert verdict.passed
    assert verdict.oracle == "float64"
    assert check(original, program, IMAGE).passed


class Varying(nn.Module):
    """One output or two, as the data will have it."""

    def forward(self, x: torch.Tensor) -> object:
        return x if x.mean() > 0 else (x, x)


@pytest.mark.parametrize("sign", [1, -1])
def test_probes_on_which_there_are_other_outputs_are_left_out(sign: int) -> None:
    example = sign * torch.randn(2, 4, generator=torch.Generator().manual_seed(0)).abs()
    verdict = check(Varying(), Varying(), example)
    assert verdict.passed
    assert {entry.probe for entry in verdict.outputs} >= {"example"}
    left_out = [note for note in verdict.notes if "which outputs there are depends on the input" in note]
    assert left_out
    assert all("was left out" in note for note in left_out)
    one, two = "1 (output)", "2 (0, 1)"
    here, first = (two, one) if sign > 0 else (one, two)
    assert f"{here} here, {first} on the first one" in left_out[0]


def test_given_inputs_with_other_outputs_are_refused(tmp_path: Path) -> None:
    for number, sign in enumerate((1.0, -1.0)):
        np.save(tmp_path / f"{number}.npy", np.full((2, 4), sign, np.float32))
    found = compare(Varying(), Varying(), data=tmp_path).comparison
    assert found.status == "cannot tell"
    assert (
        "the model rejects the example inputs (sample 1.npy): which outputs there are depends" in found.reason
    )
