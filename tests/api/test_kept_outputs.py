"""Some outputs are kept: the rest goes, with what only it needs, and the verdict is over what is kept."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from reparamkit.errors import CannotCapture, UnusableInput
from reparamkit.hosts.fx.fold import fold_program
from tests.nets import randomised

IMAGE = torch.randn(2, 3, 12, 10, generator=torch.Generator().manual_seed(1))


class Heads(nn.Module):
    """A trunk, a head, and auxiliary heads that only training needs."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, 5)
        self.aux = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1))
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, image: Tensor) -> Any:
        y = self.trunk(image)
        return {"scores": self.head(y.mean((2, 3))), "maps": (self.aux(y), None, self.last(y)), "size": 3}


@dataclasses.dataclass
class Answer:
    first: Tensor
    second: Tensor | None = None


class InAClass(Heads):
    def forward(self, image: Tensor) -> Any:
        given = super().forward(image)
        return Answer(given["scores"], given["maps"][0])


class InATuple(Heads):
    def forward(self, image: Tensor) -> Any:
        given = super().forward(image)
        return given["scores"], given["maps"][0]


def _network(kind: type[nn.Module] = Heads) -> nn.Module:
    return randomised(kind())


@pytest.mark.parametrize("keep", ["scores", ["scores"], ("scores",), 1])
def test_what_only_the_others_need_goes(keep: Any) -> None:
    network = _network()
    expected = network(IMAGE)["scores"]
    folded = rk.fold(network, IMAGE, outputs=keep)
    assert folded.equivalence is not None
    assert {entry.output for entry in folded.equivalence.outputs} == {"scores"}
    assert folded.after == {"conv2d": 1, "relu": 1, "mean": 1, "linear": 1}
    assert not any("aux" in name or "last" in name for name in folded.module.state_dict())
    assert "trunk.0.weight" in folded.module.state_dict()
    assert folded.notes == ("outputs dropped: maps.0, maps.2, size; with them went 3 conv2d, 1 batch_norm",)
    answer = folded.module(IMAGE)
    assert list(answer) == ["scores"]
    assert torch.allclose(answer["scores"], expected, atol=1e-5)
    # The network that was given stays as it was.
    assert list(network(IMAGE)) == ["scores", "maps", "size"]
    assert type(network) is Heads


@pytest.mark.parametrize(
    ("kind", "keep", "names"),
    [
        (Heads, "maps", ["maps.0", "maps.2"]),
        (Heads, ["maps_2", "scores"], ["scores", "maps.2"]),
        (Heads, 2, ["scores", "maps.0"]),
        (InATuple, 1, ["0"]),
        (InATuple, ["1"], ["1"]),
        (InATuple, "output_1", ["1"]),
        (InAClass, "second", ["second"]),
    ],
)
def test_names_of_every_kind(kind: type[nn.Module], keep: Any, names: list[str]) -> None:
    folded = rk.fold(_network(kind), IMAGE, dynamic=False, outputs=keep)
    assert list(folded.module(IMAGE)) == names
    assert folded.equivalence is not None
    assert folded.equivalence.passed


def _exported(network: nn.Module) -> Any:
    return torch.export.export(network, (IMAGE,))


def _traced(network: nn.Module) -> Any:
    return torch.fx.symbolic_trace(network).eval()


def _hooked(network: nn.Module) -> Any:
    def doubled(module: nn.Module, given: Any, output: Any) -> Any:
        return {"scores": 2 * output["scores"], "more": given[0]}

    network.register_forward_hook(doubled)
    return network


def _patched(network: nn.Module) -> Any:
    forward = network.forward
    vars(network)["forward"] = lambda image: {"scores": forward(image)["scores"], "more": image}
    return network


class Reluctant(Heads):
    def __init_subclass__(cls) -> None:
        raise TypeError("this class is final")


def _final(network: nn.Module) -> Any:
    network.__class__ = Reluctant
    return network


@pytest.mark.parametrize("prepare", [_exported, _traced, _hooked, _patched, _final])
def test_networks_of_every_kind(prepare: Callable[[nn.Module], Any]) -> None:
    network = _network()
    given = prepare(network)
    run = given.module() if prepare is _exported else given
    expected = run(IMAGE)["scores"]
    before = list(run(IMAGE))
    folded = rk.fold(given, IMAGE, dynamic=False, outputs="scores")
    assert folded.after["conv2d"] == 1
    assert torch.allclose(folded.module(IMAGE)["scores"], expected, atol=1e-5)
    assert not any("aux" in name for name in folded.module.state_dict())
    assert list(run(IMAGE)) == before


def test_only_what_is_kept_has_to_be_right(monkeypatch: pytest.MonkeyPatch) -> None:
    from reparamkit import api

    outcome = fold_program

    def spoiling(layer: str) -> Any:
        def spoilt(*given: Any, **options: Any) -> Any:
            made = outcome(*given, **options)
            weights = dict(made.module.named_parameters())
            if f"{layer}.weight" in weights:
                with torch.no_grad():
                    weights[f"{layer}.weight"].flatten()[3] += 0.1
            return made

        return spoilt

    monkeypatch.setattr(api, "fold_program", spoiling("head"))
    with pytest.raises(rk.NotEquivalent):
        rk.fold(_network(), IMAGE, dynamic=False, outputs="scores")
    monkeypatch.setattr(api, "fold_program", spoiling("last"))
    assert rk.fold(_network(), IMAGE, dynamic=False, outputs="scores").equivalence.passed  # type: ignore[union-attr]
    with pytest.raises(rk.NotEquivalent):
        rk.fold(_network(), IMAGE, dynamic=False, outputs=3)


def test_every_format_holds_what_is_kept(tmp_path: Path) -> None:
    folded = rk.fold(_network(), IMAGE, dynamic=False, outputs="maps.0")
    names = ["net.onnx", "net.pt2", "net.pt", "net.py"]
    for saved in folded.save(*(tmp_path / name for name in names)):
        assert saved.equivalence.passed
        assert not saved.operators.keys() & {"linear", "Linear", "Gemm"}, saved.path
    import onnx

    assert [value.name for value in onnx.load(tmp_path / "net.onnx").graph.output] == ["maps_0"]


def test_check_goes_by_what_the_file_has(tmp_path: Path) -> None:
    network = _network()
    folded = rk.fold(network, IMAGE, dynamic=False, outputs=["scores", "maps.2"])
    folded.save(tmp_path / "net.onnx", tmp_path / "net.pt2", output_names=["a", "b"])
    for candidate in (
        tmp_path / "net.onnx",
        tmp_path / "net.pt2",
        network,
        torch.export.export(network, (IMAGE,)),
    ):
        for reference in (network, torch.export.export(network, (IMAGE,))):
            assert rk.check(reference, candidate, IMAGE, outputs=["maps_2", "scores"]).passed, candidate
            assert rk.assert_equivalent(reference, candidate, IMAGE, outputs=["maps_2", "scores"]).passed
    assert not rk.check(network, tmp_path / "net.onnx", IMAGE).passed
    with pytest.raises(UnusableInput, match="the network has no output 'a'"):
        rk.check(network, tmp_path / "net.onnx", IMAGE, outputs=["a"])
    with pytest.raises(UnusableInput, match=r"net\.onnx runs under ONNX Runtime"):
        rk.check(tmp_path / "net.onnx", network, IMAGE, outputs=1)
    with torch.no_grad():
        network.get_parameter("last.weight")[1, 1, 0, 0] += 0.1
    assert not rk.check(network, tmp_path / "net.onnx", IMAGE, outputs=["scores", "maps.2"]).passed


def test_inspect_says_what_goes() -> None:
    inspection = rk.inspect(_network(), IMAGE, outputs="maps.2")
    assert inspection.before == {"conv2d": 2, "batch_norm": 1, "relu": 1}
    (note,) = inspection.notes
    assert note.startswith("outputs dropped: scores, maps.0, size; with them went 2 conv2d, ")


def test_all_outputs_are_none_dropped() -> None:
    network = _network(InATuple)
    for keep in (2, ["0", "1"], None):
        folded = rk.fold(network, IMAGE, dynamic=False, outputs=keep)
        assert not folded.notes
        assert isinstance(folded.module(IMAGE), tuple)


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (
            "nope",
            "no output 'nope': its outputs are scores, maps.0 (maps_0), maps.2 (maps_2), size",
        ),
        (["scores", "maps.1"], "the network has no output 'maps.1'"),
        (5, "the first 5 outputs cannot be kept: the network has 4 (scores, "),
        (0, "the first 0 outputs cannot be kept"),
        ([], "no output is to be kept: name some of scores, "),
        (1.0, "outputs to keep are a number or names, not a float"),
    ],
)
def test_outputs_that_there_are_not(keep: Any, words: str) -> None:
    with pytest.raises(UnusableInput) as raised:
        rk.fold(_network(), IMAGE, outputs=keep)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


class Choosy(Heads):
    def forward(self, image: Tensor) -> Any:
        return super().forward(image if image.sum() > 0 else -image)


def test_what_cannot_lose_outputs_is_told() -> None:
    with pytest.raises(
        CannotCapture, match="outputs can be dropped of a network that is captured as a whole"
    ):
        rk.fold(_network(Choosy), IMAGE, outputs="scores")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        script = torch.jit.trace(_network(InATuple), IMAGE)
    with pytest.raises(UnusableInput, match="outputs of a TorchScript network cannot be left out"):
        rk.fold(script, IMAGE, outputs=1)
