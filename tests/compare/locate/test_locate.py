"""Where two networks begin to differ: a mistake in one block is found in that block and in no other."""

from __future__ import annotations

import copy
import warnings
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from reparamkit.compare.adapt import Adapted
from reparamkit.compare.compare import compare
from reparamkit.compare.float64.reference import Reference
from reparamkit.compare.locate.locating import locate
from reparamkit.compare.locate.location import Location
from reparamkit.compare.network import Network, open_network
from tests.compare.injecting import FORMS, IMAGE, KINDS, SITES, injected, subject
from tests.compare.nets import Net, folded, net, randomised

SMALL = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(4))


@cache
def recorded(name: str) -> tuple[Network, Reference]:
    original = open_network(subject(name).original)
    return original, Reference(original.runner, (IMAGE,), {})


def where(name: str, layer: str, kind: str, form: str, folder: Path) -> Location:
    ours, reference = recorded(name)
    candidate = Adapted(open_network(injected(name, layer, kind, form, folder)), ["x"], (IMAGE,), {})
    verdict = reference.judge(candidate)
    assert not verdict.passed
    return locate(reference, ours.runner, candidate, "float32", verdict)


def between(
    original: nn.Module, candidate: nn.Module, inputs: torch.Tensor = SMALL, **options: float
) -> Location:
    ours, theirs = open_network(original), open_network(candidate)
    reference = Reference(ours.runner, (inputs,), {})
    adapted = Adapted(theirs, ["x"], (inputs,), {})
    verdict = reference.judge(adapted)
    assert not verdict.passed
    return locate(reference, ours.runner, adapted, theirs.precision, verdict, **options)


def assert_found(found: Location, block: str, others: list[str]) -> None:
    assert found.found, found.text()
    assert found.reason == ""
    assert found.place == block or found.place.startswith(f"{block}."), found.text()
    assert not any(found.place == other or found.place.startswith(f"{other}.") for other in others)
    assert found.error is not None
    assert found.before is not None
    assert found.before < 1e-4 < found.error
    assert 2 < len(found.growth) <= 30
    agreeing = [step.agrees for step in found.growth]
    turn = agreeing.index(False)
    assert all(agreeing[:turn])
    assert found.error in [step.error for step in found.growth]
    assert not agreeing[-1]


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SITES)
def test_a_mistake_is_found_in_its_own_block(name: str, form: str, tmp_path: Path) -> None:
    sites = SITES[name]
    for place, (block, layer) in enumerate(sites.items()):
        kind = _kind(layer, place + FORMS.index(form))
        found = where(name, f"{block}.{layer}", kind, form, tmp_path)
        assert_found(found, block, [other for other in sites if other != block])
        if form == "onnx":
            path = block.replace(".", "/")
            assert found.nodes[0].startswith(f"Conv /{path}/")
        if form == "bare onnx":
            assert found.nodes[0].startswith("Conv n")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SITES)
def test_every_kind_of_mistake_in_every_form(name: str, form: str, kind: str, tmp_path: Path) -> None:
    sites = SITES[name]
    for block, layer in sites.items():
        if _has_taps(layer, block) or kind != "shifted":
            found = where(name, f"{block}.{layer}", kind, form, tmp_path)
            assert_found(found, block, [other for other in sites if other != block])


def _has_taps(layer: str, block: str) -> bool:
    return layer not in ("convffn.fc2", "pw2.conv") and block != "stage4.1"


def _kind(layer: str, number: int) -> str:
    kinds = [kind for kind in KINDS if kind != "shifted" or "reparam" in layer]
    return kinds[number % len(kinds)] if layer != "reparam_conv" or number % 4 != 2 else "scaled"


def _spoilt(block: str, factor: float = 1.1, fold: bool = True) -> Net:
    candidate = folded(net()) if fold else copy.deepcopy(net())
    with torch.no_grad():
        part = getattr(candidate, block)
        layer = part if isinstance(part, (nn.Conv2d, nn.Linear)) else next(part.children())
        layer.weight.view(-1)[31] *= factor
    return candidate


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("block", ["stem", "first", "second", "head"])
def test_one_element_of_one_weight(block: str, fold: bool) -> None:
    found = between(net(), _spoilt(block, fold=fold))
    assert found.found, found.text()
    assert found.place.split(".")[0] == block


def test_the_sentence() -> None:
    found = between(net(), _spoilt("second"))
    assert found.text().startswith("first differs at second (convolution second.0): error ")
    assert " of the value's rms, before it " in found.text()
    assert found.text().endswith(f", on the probe {found.probe!r}")


def test_a_traced_candidate_has_no_names_of_its_own() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(_spoilt("second"), SMALL)
    found = between(net(), traced)
    assert found.found
    assert found.place == "second"


def test_float64_and_float16() -> None:
    original = net().double()
    candidate = copy.deepcopy(original)
    with torch.no_grad():
        candidate.get_parameter("second.wide.weight").view(-1)[3] *= 1 + 1e-9
    assert between(original, candidate, SMALL.double()).place == "second.wide"
    half = folded(net())
    with torch.no_grad():
        half.get_parameter("second.0.weight").mul_(1.3)
    found = compare(net(), half.half(), inputs=SMALL).comparison.location
    assert found is not None
    assert found.place == "second"
    assert found.before is not None
    assert found.before > 1e-5


def test_an_operator_without_weights() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x + 1e-4)

    found = between(net(), Shifted())
    assert found.nodes == ("add",)
    assert found.found


class Shared(nn.Module):
    """In-place operators, and one layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b, self.c = (
            nn.Conv2d(3, 8, 3),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Conv2d(8, 8, 3, padding=1),
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.b(self.a(x).relu_()).relu_()
        y = self.b(y).relu_()
        y += self.c(y)
        return self.head(y.relu_().mean((2, 3)))


@pytest.mark.parametrize("layer", ["a", "c", "head"])
def test_values_that_are_written_into(layer: str) -> None:
    candidate = Shared()
    with torch.no_grad():
        getattr(candidate, layer).weight.mul_(1.01)
    assert between(Shared().eval(), candidate.eval()).place == layer


class Gated(nn.Module):
    """A gate that is 1 whatever goes into it: its value agrees although what it was made from does not."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)
        self.gate, self.head = nn.Linear(8, 8), nn.Linear(8, 5)
        nn.init.constant_(self.gate.bias, 40.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.b(self.a(x).relu())
        gate = torch.sigmoid(self.gate(y.mean((2, 3))))
        return self.head(self.c(y * gate[:, :, None, None]).relu().mean((2, 3)))


@pytest.mark.parametrize("layer", ["a", "b", "c"])
def test_a_value_that_agrees_clears_only_what_is_seen_through_it(layer: str) -> None:
    candidate = Gated()
    with torch.no_grad():
        getattr(candidate, layer).weight.mul_(1.01)
    assert between(Gated().eval(), candidate.eval()).place == layer


def test_two_mistakes_in_a_row_are_not_called_one_place() -> None:
    candidate = _spoilt("first")
    with torch.no_grad():
        candidate.get_parameter("second.0.weight").mul_(1.01)
    found = between(net(), candidate)
    assert not found.found
    assert found.place == ""
    assert found.nodes == ()
    assert "no single place explains it" in found.reason
    assert "first.0" in found.reason
    assert "relu" in found.after
    assert found.text().startswith("where it first differs is not known: no single place")


def test_the_first_of_two_mistakes_with_layers_between_them() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.ModuleList(nn.Conv2d(3 if i == 0 else 8, 8, 3, padding=1) for i in range(8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = layer(x).relu()
            return x

    for pair in ((1, 5), (2, 6)):
        candidate = Deep()
        with torch.no_grad():
            for index in pair:
                candidate.get_parameter(f"layers.{index}.weight").mul_(1.01)
        found = between(randomised(Deep()), candidate.eval())
        assert found.place == f"layers.{pair[0]}"


def test_it_gives_up_in_time_and_says_so() -> None:
    found = between(net(), _spoilt("second"), seconds=0.0)
    assert not found.found
    assert found.reason == "the time for it was used up"


def test_another_network_altogether_is_no_place() -> None:
    other = randomised(Net(), 7)
    found = between(net(), other)
    # All weights differ: nothing behind the first layer can be proven, and the first is where it begins.
    assert found.place in ("", "stem")


def test_nothing_is_changed() -> None:
    original, candidate = net(), _spoilt("second")
    before = [{k: v.clone() for k, v in part.state_dict().items()} for part in (original, candidate)]
    identities = [id(parameter) for part in (original, candidate) for parameter in part.parameters()]
    between(original, candidate)
    after = [part.state_dict() for part in (original, candidate)]
    for left, right in zip(before, after, strict=True):
        assert all(torch.equal(left[name], right[name]) for name in left)
    assert identities == [id(parameter) for part in (original, candidate) for parameter in part.parameters()]
    assert not torch.nn.modules.module._global_forward_pre_hooks
    assert not torch.nn.modules.module._global_forward_hooks
