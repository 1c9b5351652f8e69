"""What probes look like, and that each shows the mistake that it is there for."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from reparamkit.compare.float64.reference import Reference
from reparamkit.compare.inputs import patterns
from reparamkit.compare.inputs.probes import size_probes, thorough_probes
from reparamkit.compare.inputs.sizes import thorough_sizes
from tests.compare.nets import Lambda

IMAGE = torch.randn(2, 3, 8, 6, generator=torch.Generator().manual_seed(1))


def test_a_checkerboard() -> None:
    board = patterns.checkerboard([1, 1, 3, 4])[0, 0]
    assert board.tolist() == [[1, -1, 1, -1], [-1, 1, -1, 1], [1, -1, 1, -1]]
    assert patterns.checkerboard([2, 3]).tolist() == [[1, -1, 1]] * 2
    assert patterns.checkerboard([1, 1, 2, 2, 2])[0, 0].tolist() == [[[1, -1], [-1, 1]]] * 2


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("impulse top left", [0, 0]),
        ("impulse top right", [0, 5]),
        ("impulse bottom left", [7, 0]),
        ("impulse bottom right", [7, 5]),
        ("impulse centre", [4, 2]),
    ],
)
def test_single_impulses(name: str, place: list[int]) -> None:
    values = patterns.pattern(name, [2, 3, 8, 6], torch.Generator().manual_seed(0))
    assert values.abs().sum((0, 1)).nonzero().tolist() == [place]
    assert len(set(values[..., place[0], place[1]].flatten().tolist())) == 6


def test_impulses_for_any_number_of_axes(subtests: pytest.Subtests) -> None:
    assert list(patterns.impulses(1)) == ["impulse at the start", "impulse at the end", "impulse centre"]
    assert list(patterns.impulses(3)) == ["impulse at the start", "impulse at the end", "impulse centre"]
    for shape in ([5], [2, 5], [1, 2, 5], [1, 2, 3, 4, 5], []):
        with subtests.test(str(shape)):
            for name in patterns.impulses(patterns.spatial_axes(shape)):
                values = patterns.pattern(name, shape, torch.Generator().manual_seed(0))
                assert list(values.shape) == shape


def test_the_probes_of_an_image() -> None:
    chosen = {probe.name: probe.inputs()[0][0] for probe in thorough_probes((IMAGE,), {}, seed=0)}
    assert list(chosen) == [
        *(
            "example",
            "normal 1",
            "normal 2",
            "large",
            "tiny",
            "constant",
            "negative constant",
            "checkerboard",
        ),
        *patterns.impulses(2),
    ]
    rms = float(IMAGE.square().mean().sqrt())
    assert torch.equal(chosen["example"], IMAGE)
    assert float(chosen["tiny"].abs().max()) < 0.01 * rms
    assert float(chosen["large"].std()) == pytest.approx(32 * rms, rel=0.15)
    assert chosen["constant"].unique().tolist() == [pytest.approx(rms)]
    assert torch.equal(chosen["negative constant"], -chosen["constant"])


def test_integers_without_a_description_are_rolled_only() -> None:
    names = [probe.name for probe in thorough_probes((torch.tensor([[4, 5, 6]]),), {}, seed=0)]
    assert names == ["example", "normal 1", "normal 2"]


class Shifted(nn.Module):
    """A conv, and a mistake that one kind of input alone wakes up."""

    def __init__(self, wrong: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.wrong = wrong
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        if self.wrong == "corner":
            return y + 1e-2 * ((x != 0).float().mean() < 0.05)
        if self.wrong == "epsilon":
            return y * (1 + 1e-3 * (x.abs().amax() < 0.1))
        if self.wrong == "clamp":
            return y.clamp(-20, 20)
        if self.wrong == "constant":
            return y + 1e-2 * (x.amax() == x.amin())
        return y


@pytest.mark.parametrize(
    ("wrong", "group"),
    [("corner", "impulses"), ("epsilon", "tiny"), ("clamp", "large"), ("constant", "constant")],
)
def test_each_probe_shows_its_mistake(wrong: str, group: str) -> None:
    reference = Reference(Shifted(""), (IMAGE,), planned=thorough_probes((IMAGE,), {}, seed=0))
    assert reference.judge(copy.deepcopy(Shifted(""))).passed
    verdict = reference.judge(Shifted(wrong))
    groups = {record.probe.name: record.probe.group for record in reference.records}
    failing = {groups[entry.probe] for entry in verdict.outputs if not entry.passed}
    assert failing == {group}


def test_kinds_of_size() -> None:
    found = thorough_sizes({"batch": 2, "height": 32, "width": 32}, {"batch"})
    first = {kind: proposals[0] for kind, proposals in found.items()}
    assert first == {
        "another batch": {"batch": 3, "height": 32, "width": 32},
        "batch of one": {"batch": 1, "height": 32, "width": 32},
        "another size": {"batch": 3, "height": 64, "width": 96},
        "odd size": {"batch": 2, "height": 33, "width": 35},
        "minimal size": {"batch": 2, "height": 1, "width": 1},
    }
    odd = thorough_sizes({"length": 33}, set())
    assert odd["even size"][0] == {"length": 34}
    assert "odd size" not in odd
    assert "another batch" not in odd
    assert list(thorough_sizes({"batch": 1}, {"batch"})) == ["another batch"]
    assert thorough_sizes({"batch": 4}, {"batch"}, {"batch": (4, 4)}) == {}
    within = thorough_sizes({"height": 32}, set(), {"height": (8, 40)})
    assert all(8 <= proposal["height"] <= 40 for proposals in within.values() for proposal in proposals)
    assert within["minimal size"][0] == {"height": 8}


def test_probes_of_other_sizes_have_them() -> None:
    axes = {0: {0: "batch", 2: "height", 3: "width"}}
    for kind, proposals in size_probes((IMAGE,), {}, seed=0, dynamic_axes=axes).items():
        probe = proposals[0]
        assert probe.name.startswith(f"{kind} (batch=")
        (value,), _ = probe.inputs()
        sizes = {"batch": value.shape[0], "height": value.shape[2], "width": value.shape[3]}
        assert sizes == probe.sizes


def test_the_smallest_size_that_works_is_taken() -> None:
    deep = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)).eval()
    axes = {0: {2: "height", 3: "width"}}
    reference = Reference(deep, (IMAGE,), planned=thorough_probes((IMAGE,), {}, seed=0))
    missed = reference.try_sizes(size_probes((IMAGE,), {}, seed=0, dynamic_axes=axes))
    assert missed == ["height of one", "width of one"]  # two kernels of three need five
    assert {record.probe.name for record in reference.records if record.probe.group == "minimal size"} == {
        "minimal size (height=5, width=5)"
    }


def test_a_size_without_numbers_is_passed_over() -> None:
    """The variance of one element is 0 / 0."""

    def spread(self: Lambda, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        centred = y - y.mean((2, 3), keepdim=True)
        return centred.square().sum((2, 3)) / (y[0, 0].numel() - torch.ones(()))

    axes = {0: {2: "height", 3: "width"}}
    reference = Reference(Lambda(spread), (IMAGE,), planned=thorough_probes((IMAGE,), {}, seed=0))
    assert reference.try_sizes(size_probes((IMAGE,), {}, seed=0, dynamic_axes=axes)) == []
    minimal = [record.probe for record in reference.records if record.probe.group == "minimal size"]
    assert [probe.sizes for probe in minimal] == [{"height": 2, "width": 2}]
