"""Probes: what they are made of, and how other sizes are found."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from reparamkit.compare.compare import compare
from reparamkit.compare.float64.reference import Reference
from reparamkit.compare.inputs.probes import Probe, probes
from reparamkit.compare.inputs.sizes import FreeSizes, other_sizes, special_sizes
from reparamkit.errors import UnusableInput
from reparamkit.support.inputs import normalise_inputs, tensor_leaves
from tests.compare.nets import Lambda, folded, net

IMAGE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
AXES = {0: {0: "batch", 2: "height", 3: "width"}}


def _by_name(probe_list: list[Probe], name: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return next(probe.inputs() for probe in probe_list if probe.name == name)


def test_normal_probes_have_zero_mean_and_the_example_s_magnitude() -> None:
    example = torch.rand(4, 3, 32, 32) * 10
    chosen = probes((example,), {}, seed=0)
    assert [probe.name for probe in chosen] == ["example", "normal 1", "normal 2", "large", "impulses"]
    (value,), _ = _by_name(chosen, "normal 1")
    rms = float(example.square().mean().sqrt())
    assert abs(float(value.mean())) < 0.05 * rms
    assert float(value.std()) == pytest.approx(rms, rel=0.05)
    assert float((value < 0).float().mean()) == pytest.approx(0.5, abs=0.05)
    (large,), _ = _by_name(chosen, "large")
    assert float(large.std()) == pytest.approx(32 * rms, rel=0.05)
    (zeros,), _ = _by_name(probes((torch.zeros(8, 64),), {}, seed=0), "normal 1")
    assert float(zeros.std()) == pytest.approx(1, rel=0.1)


def test_impulses_sit_at_the_corners_and_in_the_centre() -> None:
    (value,), _ = _by_name(probes((torch.zeros(2, 3, 9, 7),), {}, seed=0), "impulses")
    places = value.abs().sum((0, 1)).nonzero().tolist()
    assert places == [[0, 0], [4, 3], [8, 6]]


def test_probes_are_reproducible_and_fresh() -> None:
    for left, right in zip(probes((IMAGE,), {}, seed=3), probes((IMAGE,), {}, seed=3), strict=True):
        first, second = left.inputs()[0][0], right.inputs()[0][0]
        assert torch.equal(first, second)
        assert first.data_ptr() != second.data_ptr()
        assert first.data_ptr() != IMAGE.data_ptr()
    other = _by_name(probes((IMAGE,), {}, seed=4), "normal 1")[0][0]
    assert not torch.equal(other, _by_name(probes((IMAGE,), {}, seed=3), "normal 1")[0][0])


def test_integers_keep_their_values_and_booleans_their_places() -> None:
    ids = torch.tensor([[5, 7, 11, 13, 17]])
    mask = torch.tensor([True, False, True])
    chosen = probes((ids,), {"mask": mask, "scale": 2.0}, seed=0)
    assert [probe.name for probe in chosen] == ["example", "normal 1", "normal 2"]
    (rolled,), kwargs = _by_name(chosen, "normal 1")
    assert sorted(rolled.flatten().tolist()) == [5, 7, 11, 13, 17]
    assert not torch.equal(rolled, ids)
    assert torch.equal(kwargs["mask"], mask)
    assert kwargs["scale"] == 2.0
    bigger = probes((ids,), {}, seed=0, dynamic_axes={0: {1: "length"}})[-1]
    assert set(bigger.inputs()[0][0].flatten().tolist()) <= {5, 7, 11, 13, 17}


def test_axes_of_one_symbol_change_together() -> None:
    inputs = (IMAGE, torch.randn(2, 1, 32, 32))
    axes = {0: {0: "b", 2: "s"}, 1: {0: "b", 2: "s", 3: "t"}}
    for probe in probes(inputs, {}, seed=0, dynamic_axes=axes):
        (left, right), _ = probe.inputs()
        assert left.shape[0] == right.shape[0]
        assert left.shape[2] == right.shape[2]
        assert left.shape[3] == 32
        assert left.dtype is torch.float32


def test_small_sizes_that_are_equal_get_different_ones() -> None:
    """A toy example's height and width too: a net that takes no map of 3 by 3 still takes one of these."""
    proposals = [p for _, p in other_sizes({"batch": 2, "height": 8, "width": 8}, {"height": (5, None)})]
    assert all(p["height"] != p["width"] for p in proposals[:2])
    assert all(p["height"] > 8 or p["width"] > 8 for p in proposals[:2])
    assert len(proposals) > 2


def test_other_sizes_of_a_large_example_cost_less_than_it_does() -> None:
    sizes = {"height": 256, "width": 224}
    proposals = [p for name, p in other_sizes(sizes) if name == "another size"]
    assert all(p["height"] * p["width"] < 0.4 * 256 * 224 for p in proposals[:2])
    assert proposals[0]["height"] % 32 == proposals[0]["width"] % 32 == 0
    assert proposals[1]["height"] % 2 == 1
    # For networks that take no small ones.
    assert any(min(p.values()) >= 192 and p["height"] % 32 == p["width"] % 32 == 0 for p in proposals[2:])
    assert any(p == {symbol: 2 * size for symbol, size in sizes.items()} for p in proposals)


def test_other_sizes_stay_in_range_and_differ_from_the_example() -> None:
    sizes = {"batch": 2, "height": 224, "width": 224}
    ranges = {"batch": (1, 4), "height": (32, 300), "width": (32, None)}
    proposals = [proposal for _, proposal in other_sizes(sizes, ranges)]
    assert proposals
    for proposal in proposals:
        assert proposal != sizes
        assert 1 <= proposal["batch"] <= 4
        assert 32 <= proposal["height"] <= 300
        assert proposal["width"] >= 32
    assert proposals[0]["height"] != proposals[0]["width"]
    assert {"batch": 3, "height": 224, "width": 224} in proposals
    assert list(other_sizes({"batch": 1}, {"batch": (1, 1)})) == []


def test_a_network_is_compared_at_another_batch_and_size() -> None:
    original = net()
    reference = Reference(original, (IMAGE,), free=FreeSizes(AXES))
    tried = [record.probe.sizes for record in reference.records if record.probe.sizes]
    ordinary, special = tried[:2], tried[2:]
    assert all(size["batch"] != 2 and size["height"] != 32 and size["width"] != 32 for size in ordinary)
    assert [{symbol for symbol, size in sizes.items() if size == 1} for sizes in special] == [
        {"batch"},
        {"height"},
        {"width"},
        {"batch", "height", "width"},
        set(),
    ]
    assert len(set(special[-1].values())) == 1
    assert all(size <= 10 for sizes in special for size in sizes.values())
    assert reference.judge(folded(original)).passed


def test_a_candidate_that_is_right_at_the_example_s_size_only_fails() -> None:
    pooled = Lambda(lambda self, x: self.conv(x).mean((2, 3)))
    fixed = Lambda(lambda self, x: self.conv(x).sum((2, 3)) / 1024)
    assert Reference(pooled, (IMAGE,)).judge(fixed).passed
    assert not Reference(pooled, (IMAGE,), free=FreeSizes(AXES)).judge(fixed).passed
    crashing = Lambda(lambda self, x: self.conv(x).reshape(2, 4, 1024).mean(2))
    verdict = Reference(pooled, (IMAGE,), free=FreeSizes(AXES)).judge(crashing)
    assert not verdict.passed
    assert "the candidate fails on the probe 'another size (batch=3" in verdict.reason


def test_sizes_that_the_reference_rejects_are_passed_over() -> None:
    def multiple(self: Lambda, x: torch.Tensor) -> torch.Tensor:
        return F.pixel_unshuffle(self.conv(x), 32)

    reference = Reference(Lambda(multiple), (IMAGE,), free=FreeSizes(AXES))
    tried = [record.probe.sizes for record in reference.records if record.probe.sizes]
    assert len(tried) == 4
    assert all(size["height"] % 32 == 0 and size["width"] % 32 == 0 for size in tried)
    assert tried[2] == {"batch": 1, "height": 32, "width": 32}
    assert tried[3] == {"batch": 32, "height": 32, "width": 32}
    stubborn = Lambda(lambda self, x: self.conv(x).reshape(2, 4, 1024))
    reference = Reference(stubborn, (IMAGE,), free=FreeSizes({0: {0: "batch"}}))
    assert reference.judge(stubborn).passed
    assert "free axes were compared at the example's size only (tried another size" in reference.notes[-1]


def test_sizes_that_the_exported_guards_reject_are_passed_over() -> None:
    from reparamkit.compare.float64.reference import inputs_accepted_by

    original = net()
    dynamic = torch.export.Dim("batch", max=64)
    program = torch.export.export(original, (IMAGE,), dynamic_shapes=({0: dynamic},))
    reference = Reference(original, (IMAGE,), free=FreeSizes(AXES, accepts=inputs_accepted_by(program)))
    tried = [record.probe.sizes for record in reference.records if record.probe.sizes]
    assert tried == [{"batch": batch, "height": 32, "width": 32} for batch in (3, 1, 32)]
    assert reference.judge(program).passed


ONES = {
    "batch": lambda self, x: self.conv(x) * (1.005 if x.shape[0] == 1 else 1),
    "height": lambda self, x: self.conv(x) + (0.001 if x.shape[2] == 1 else 0),
    "all": lambda self, x: self.conv(x) * (2 if x.shape[0] * x.shape[2] * x.shape[3] == 1 else 1),
    "equal": lambda self, x: self.conv(x) + (0.001 if x.shape[0] == x.shape[2] == x.shape[3] else 0),
    "integers": lambda self, x: self.conv(x).argmax(1) + (7 if x.shape[3] == 1 else 0),
    "booleans": lambda self, x: (self.conv(x) > 0) != (x.shape[2] == 1),
}


@pytest.mark.parametrize("kind", ONES)
def test_what_differs_at_a_size_of_one_or_at_equal_ones_is_found(kind: str) -> None:
    """As a capture forgets it that was made with sizes of two and more, each another one."""
    plain = {
        "integers": lambda self, x: self.conv(x).argmax(1),
        "booleans": lambda self, x: self.conv(x) > 0,
    }.get(kind, lambda self, x: self.conv(x))
    original, captured = Lambda(ONES[kind]), Lambda(plain)
    assert Reference(original, (IMAGE,)).judge(captured).passed
    assert Reference(original, (IMAGE,), free=FreeSizes(AXES)).judge(captured).differs
    assert Reference(captured, (IMAGE,), free=FreeSizes(AXES)).judge(copy.deepcopy(captured)).passed
    found = compare(original, captured, inputs=IMAGE, where=False).comparison
    assert found.status == "different"


def test_special_sizes() -> None:
    sizes = {"batch": 2, "height": 224, "width": 224}
    found = special_sizes(sizes, {"batch": (2, 8), "height": (32, None), "width": (2, None)})
    assert found == {
        "batch of one": [{"batch": 1, "height": 32, "width": 33}, {"batch": 1, "height": 224, "width": 224}],
        "width of one": [{"batch": 2, "height": 224, "width": 1}],
    }
    assert special_sizes({"batch": 1}) == {}
    free = special_sizes({"batch": 1, "length": 20})
    assert free["length of one"] == [
        *({"batch": size, "length": 1} for size in (3, 8, 16, 32)),
        {"batch": 1, "length": 1},
    ]
    assert free["sizes of one"] == [{"batch": 1, "length": 1}]
    assert free["equal sizes"][0] == {"batch": 3, "length": 3}


def test_widening_twice_adds_nothing() -> None:
    reference = Reference(net(), (IMAGE,))
    reference.widen(FreeSizes(AXES))
    count = len(reference.records)
    reference.widen(FreeSizes(AXES))
    assert len(reference.records) == count


def _rows(self: Lambda, x: torch.Tensor, step: int = 40) -> torch.Tensor:
    """Of few rows there is nothing to pool."""
    if x.shape[2] < 80:
        raise ValueError("too few rows")
    return F.adaptive_avg_pool2d(self.conv(x), (x.shape[2] // step, 1))


def test_a_size_inside_that_is_that_of_the_example_near_it_is_another_at_some_probe() -> None:
    image = IMAGE.repeat(1, 1, 3, 1)[:, :, :84]
    told, untold = Reference(Lambda(_rows), (image,)), Reference(Lambda(_rows), (image,))
    told.widen(FreeSizes(AXES, inner=lambda sizes: [sizes["height"] // 40, sizes["width"], 7]))
    untold.widen(FreeSizes(AXES))
    constant = Lambda(lambda self, x: F.adaptive_avg_pool2d(self.conv(x), (2, 1)))
    assert untold.judge(constant).passed
    verdict = told.judge(constant)
    assert not verdict.passed
    assert "a larger size (batch=4, height=168, width=64)" in verdict.summary()
    assert told.judge(Lambda(_rows)).passed


def test_larger_sizes_are_tried_only_where_they_tell() -> None:
    names = []
    for inner in (lambda sizes: [sizes["height"] // 2], lambda sizes: [5], lambda sizes: []):
        reference = Reference(net(), (IMAGE,))
        reference.widen(FreeSizes(AXES, inner=inner))
        names.append([record.probe.name for record in reference.records])
    assert names[0] == names[1] == names[2]
    assert not any(name.startswith("a larger size") for name in names[0])


def test_networks_with_few_outputs_are_tried_more_often() -> None:
    scalar = Lambda(lambda self, x: self.conv(x).mean((1, 2, 3)))
    names = [record.probe.name for record in Reference(scalar, (IMAGE[:1],)).records]
    assert names.count("normal 8") == 1
    assert "normal 3" not in [
        record.probe.name for record in Reference(net(), (IMAGE.repeat(8, 1, 1, 1),)).records
    ]


def test_probes_that_the_reference_rejects_are_left_out_with_a_note() -> None:
    def positive_only(self: Lambda, x: torch.Tensor) -> torch.Tensor:
        if x.amax() > 100:
            raise ValueError("too bright")
        return self.conv(x)

    network = Lambda(positive_only)
    verdict = Reference(network, (IMAGE * 10,)).judge(network)
    assert verdict.passed
    assert "the probe 'large' was left out: the reference rejects it: ValueError: too bright" in verdict.notes


def test_inputs_are_normalised_in_one_way() -> None:
    assert normalise_inputs(IMAGE) == ((IMAGE,), {})
    assert normalise_inputs([IMAGE, None]) == ((IMAGE, None), {})
    assert normalise_inputs({"x": IMAGE}) == ((), {"x": IMAGE})
    for bad in (None, 3, "x"):
        with pytest.raises(UnusableInput, match="a tensor, a tuple of positional arguments, or a dict"):
            normalise_inputs(bad)
    names = [name for name, _ in tensor_leaves((IMAGE, [IMAGE]), {"y": {"a": IMAGE}})]
    assert names == ["0", "1.0", "y.a"]
