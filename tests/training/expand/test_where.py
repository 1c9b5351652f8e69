"""Which convolutions become blocks, and what is said of those that do not."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import reparamkit as rk
from reparamkit.training.expand import ExpandedConv
from tests.training.expand.nets import Plain, UNet, batch, error64, random_net


def expanded_names(model: nn.Module, **options: Any) -> list[str]:
    return [one.where for one in rk.expansion_report(rk.expand(model, batch(), **options)).expanded]


SELECTORS: dict[str, tuple[Any, list[str]]] = {
    "none": (None, ["down.0", "deep.0.0", "deep.1.0", "join.0"]),
    "name": ("deep.0.0", ["deep.0.0"]),
    "parent": ("deep", ["deep.0.0", "deep.1.0"]),
    "pattern": ("de*", ["deep.0.0", "deep.1.0"]),
    "pattern with one letter": ("deep.?.0", ["deep.0.0", "deep.1.0"]),
    "pattern with a choice": ("deep.[1-3].0", ["deep.1.0"]),
    "regular expression": (re.compile(r"^(down|join)"), ["down.0", "join.0"]),
    "function": (lambda name, conv: conv.in_channels == 16, ["deep.1.0", "join.0"]),
    "list": (["down", re.compile("join")], ["down.0", "join.0"]),
    "tuple": (("join", "join.0"), ["join.0"]),
    "generator": ((name for name in ("join", "down")), ["down.0", "join.0"]),
}


@pytest.mark.parametrize("case", SELECTORS)
def test_selectors(case: str) -> None:
    where, names = SELECTORS[case]
    assert expanded_names(random_net(UNet()), where=where) == names


BAD: dict[str, tuple[Any, str]] = {
    "near": ("deep.0.1", r"where='deep.0.1' means no convolution: did you mean '.*deep.0.0'"),
    "a layer of another kind": ("down.1", "means no convolution: did you mean 'down.0'"),
    "far": ("zzz*", "means no convolution: there are 'down.0', 'deep.0.0'"),
    "one of several": (["down", "qqq"], "where='qqq' means no convolution"),
    "regular expression": (re.compile("^x"), r"where='\^x' means no convolution"),
    "number": (3, "where=3: it is a name, a pattern"),
    "a module": (nn.Identity(), "it is a name, a pattern"),
    "empty": ([], "where is empty"),
}


@pytest.mark.parametrize("case", BAD)
def test_selectors_that_mean_nothing(case: str) -> None:
    where, message = BAD[case]
    with pytest.raises(rk.UnusableInput, match=message):
        rk.expand(random_net(UNet()), batch(), where=where)


def test_only_what_was_asked_for_is_reported() -> None:
    report = rk.expansion_report(rk.expand(random_net(Plain()), batch(), where=["wide", "point"]))
    assert [one.where for one in report.expanded] == ["wide"]
    assert [one.where for one in report.left] == ["point"]
    assert "repvgg needs a kernel larger than one tap (mobileone has" in report.left[0].reason


OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "kind": ({"kind": "repvg"}, "there is no kind 'repvg' .*did you mean 'repvgg'"),
    "no kind": ({"kind": None}, "there is no kind None"),
    "branches": ({"branches": 0}, "branches=0: it is a number of branches"),
    "a fraction": ({"branches": 1.5}, "branches=1.5"),
    "a truth": ({"branches": True}, "branches=True"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options_that_mean_nothing(case: str) -> None:
    options, message = OPTIONS[case]
    with pytest.raises(rk.UnusableInput, match=message):
        rk.expand(random_net(Plain()), batch(), **options)


class Around(nn.Module):
    """A convolution that can become a block, and another after it."""

    def __init__(self, other: nn.Module) -> None:
        super().__init__()
        self.good = nn.Conv2d(3, 4, 3, padding=1)
        self.other = other

    def forward(self, x: Tensor) -> Any:
        return self.other(self.good(x))


class Own(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input * 2)


class Standardised(nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight - weight.mean(), bias)


def frozen() -> nn.Module:
    return nn.Conv2d(4, 4, 3).requires_grad_(False)


def patched() -> nn.Module:
    conv: Any = nn.Conv2d(4, 4, 3)
    forward = conv.forward
    conv.forward = lambda x: forward(x) * 3
    return nn.Sequential(conv)


def with_state_hooks() -> nn.Module:
    conv = nn.Conv2d(4, 4, 3)
    conv.register_state_dict_post_hook(lambda module, state, prefix, metadata: None)
    return conv


class Unbatched(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.conv(each) for each in x])


class Container(nn.Module):
    """Uses a convolution for its weight alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.conv.weight, self.conv.bias)


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x


class Reads(nn.Module):
    """Uses the weight of a convolution beside calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + F.conv2d(x, self.conv.weight, padding=1)


class Holds(nn.Module):
    """Calls a convolution by another way than its name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3)
        self.layers = [self.conv]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class SharesWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x))


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.ones(4, 4, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel)


def squeeze() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1))


LEFT: dict[str, tuple[Callable[[], nn.Module], str, str, str]] = {
    "transposed": (lambda: nn.ConvTranspose2d(4, 4, 2), "repvgg", "other", "it is a transposed convolution"),
    "own forward": (lambda: Own(4, 4, 3), "repvgg", "other", "its class, Own, has a forward of its own"),
    "own weight": (lambda: Standardised(4, 4, 3), "dbb", "other", "its class, Standardised, has"),
    "patched": (patched, "acb", "other.0", "its class, Conv2d, has a forward of its own"),
    "frozen": (frozen, "repvgg", "other", "its weight is frozen: call requires_grad_"),
    "spectral norm": (
        lambda: parametrizations.spectral_norm(nn.Conv2d(4, 4, 3)),
        "repvgg",
        "other",
        r"its weight is computed each time \(SpectralNorm\): remove that first",
    ),
    "pruned": (
        lambda: prune.l1_unstructured(nn.Conv2d(4, 4, 3), "weight", 0.5),
        "repvgg",
        "other",
        r"its weight is computed each time \(L1Unstructured\)",
    ),
    "state hooks": (with_state_hooks, "repvgg", "other", "it has hooks on its state dict"),
    "no batch": (Unbatched, "repvgg", "other.conv", "it is called without a batch axis"),
    "not called": (Unused, "repvgg", "other.conv", "the network does not call it on the example"),
    "weight read": (Reads, "repvgg", "other.conv", "the network's code reads its weight"),
    "held": (Holds, "repvgg", "other.conv", "the network calls it by another way than its name"),
    "shared weight": (SharesWeight, "dbb", "other.one", "its weight is also 'other.two.weight'"),
    "functional": (Functional, "repvgg", "other", "it is a function of parameters and no module"),
    "1x1": (lambda: nn.Conv2d(4, 4, 1), "dbb", "other", "dbb needs a kernel larger than one tap"),
    "a line": (lambda: nn.Conv2d(4, 4, (1, 3)), "acb", "other", "acb needs a kernel .* on two axes"),
    "one pixel": (squeeze, "mobileone", "other.1", "it reads one pixel of each channel"),
}


@pytest.mark.parametrize("case", LEFT)
def test_what_is_left_alone_has_a_reason(case: str) -> None:
    other, kind, where, reason = LEFT[case]
    torch.manual_seed(0)
    model, x = Around(other()).eval(), batch()
    expanded = rk.expand(model, x, kind)
    report = rk.expansion_report(expanded)
    assert [one.where for one in report.expanded] == ["good"]
    reasons = {one.where: one.reason for one in report.left}
    assert re.search(reason, reasons[where])
    assert re.search(f"{re.escape(where)}: .* left as it is: {reason}", str(report))
    assert report.error < 1e-12
    if case not in ("patched", "pruned"):  # which copy.deepcopy does not copy as they are
        assert error64(model, expanded, x) < 1e-12
    assert not any("does not run in float64" in note for note in report.notes) or case == "patched"
    if case != "functional":  # where is for modules
        words = f"nothing in the network can be expanded into {kind} blocks: .*{reason}"
        with pytest.raises(rk.NothingExpanded, match=words):
            rk.expand(model, x, kind, where="other")


def test_a_network_without_convolutions() -> None:
    with pytest.raises(ValueError, match=r"nothing in the network .*: it has no convolutions"):
        rk.expand(nn.Linear(3, 3), torch.ones(2, 3))


def test_a_convolution_that_only_holds_a_weight_is_captured() -> None:
    expanded = rk.expand(random_net(Container()), batch())
    assert [one.where for one in rk.expansion_report(expanded).expanded] == ["conv.conv"]
    assert rk.fold(expanded, batch()).after == {"conv2d": 1}


def test_functions_beside_modules_that_have_no_block_are_no_reason_to_capture() -> None:
    model = random_net(nn.Sequential(nn.Conv2d(3, 4, 1), Functional()))
    words = r"nothing in the network .*: 0: dbb needs .*; 1: it is a function of parameters and no module"
    with pytest.raises(rk.NothingExpanded, match=words):
        rk.expand(model, batch(), "dbb")


def test_one_value_per_channel() -> None:
    with pytest.raises(rk.NothingExpanded, match="one value for each channel on the example: give a larger"):
        rk.expand(nn.Conv2d(3, 4, 3), batch(1, 3, 3, 3))


def test_one_branch_is_no_block() -> None:
    conv = nn.Conv2d(3, 4, 1)
    with pytest.raises(rk.NothingExpanded, match="ask for two branches or more"):
        rk.expand(conv, batch(), "mobileone", branches=1)
    block = rk.expand(conv, batch(), "mobileone", 2)
    assert isinstance(block, ExpandedConv)
    assert [name for name, _ in block.branches()] == ["rbr_conv.0", "rbr_conv.1"]


def test_what_is_no_model_and_what_are_no_inputs(subtests: pytest.Subtests) -> None:
    for model, inputs, message in (
        ("resnet18", batch(), "a str is not a model"),
        (Plain(), None, "example inputs are needed"),
        (Plain(), batch(2, 4, 8, 8), r"rejects the example inputs \(\[2, 4, 8, 8\]\)"),
        (nn.Conv2d(3, 4, 3, device="meta"), batch(), "has a shape and no values"),
        (nn.LazyConv2d(4, 3), batch(), "has no shape yet"),
    ):
        with subtests.test(str(model)), pytest.raises(rk.UnusableInput, match=message):
            rk.expand(model, inputs)  # type: ignore[arg-type]
    broken = Plain()
    with torch.no_grad():
        broken.stem.weight[0] = torch.nan
    with pytest.raises(rk.UnusableInput, match=r"NaN or infinite weights: stem\.weight"):
        rk.expand(broken, batch())


def test_a_network_that_was_not_expanded_has_no_report() -> None:
    with pytest.raises(rk.UnusableInput, match=r"rk\.expand did not make this Plain"):
        rk.expansion_report(Plain())
