"""A network as if in a lower precision, and the budget that comes of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reparamkit.compare.allowance import FLOOR_ULPS, FLOOR_ULPS_WEIGHTS, allowance, weights_allowance
from reparamkit.compare.float64.reference import Reference
from reparamkit.compare.float64.rounding import RoundedTwin, rounded
from reparamkit.compare.inputs.probes import thorough_probes
from tests.compare.files import IMAGE, small
from tests.compare.nets import Lambda

LOWER = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", LOWER)
def test_rounded_values_are_those_of_the_lower_type(dtype: torch.dtype) -> None:
    values = rounded(IMAGE, dtype)
    assert values.dtype is torch.float32
    assert torch.equal(values, IMAGE.to(dtype).float())
    assert rounded(torch.tensor([1, 2]), dtype).dtype is torch.int64
    assert rounded(IMAGE.to(dtype), dtype).dtype is dtype


@pytest.mark.parametrize("dtype", LOWER)
def test_a_chain_of_single_operations_is_the_lower_type_s_own(dtype: torch.dtype) -> None:
    """Additions and products of two numbers are rounded once each way, so both come out the same."""

    def chain(self: Lambda, x: torch.Tensor) -> torch.Tensor:
        y = x * x + x
        y[0, 0] += 0.1  # into a view
        y.mul_(1.7)
        z = y.transpose(2, 3)
        z += 1 / 3
        return y.reshape(-1) - 0.3 * x.reshape(-1)

    twin = RoundedTwin(Lambda(chain), dtype).run((IMAGE,), {})
    with torch.no_grad():
        own = chain(Lambda(chain), IMAGE.to(dtype))
    ulp = torch.finfo(dtype).eps * own.float().abs().max()
    assert twin.dtype is torch.float32
    assert torch.equal(twin, rounded(twin, dtype))
    assert float((twin - own.float()).abs().max()) <= ulp / 2


@pytest.mark.parametrize("dtype", LOWER)
def test_the_noise_is_of_the_size_of_the_real_one(dtype: torch.dtype) -> None:
    with torch.no_grad():
        exact = small().double()(IMAGE.double())
        own = (small().to(dtype)(IMAGE.to(dtype)).double() - exact).abs().max()
    twin = (RoundedTwin(small(), dtype).run((IMAGE,), {}).double() - exact).abs().max()
    assert 0.1 < float(twin / own) < 10
    untouched = small()
    RoundedTwin(untouched, dtype).run((IMAGE,), {})
    assert all(torch.equal(a, b) for a, b in zip(untouched.parameters(), small().parameters(), strict=True))


def _reference(network: nn.Module) -> Reference:
    return Reference(network, (IMAGE,), planned=thorough_probes((IMAGE,), {}, seed=0))


@pytest.mark.parametrize("dtype", LOWER)
def test_the_budget_by_its_formula(dtype: torch.dtype) -> None:
    reference = _reference(small())
    found = allowance(reference, str(dtype)[6:])
    budgets = found.recorded.budgets()
    twin = RoundedTwin(small(), dtype)
    normal = [record for record in reference.records if record.probe.group == "normal"]
    error = max(
        float((twin.run(*r.probe.inputs()).double() - r.truths[0].values).abs().max()) for r in normal
    )
    scale = max(record.truths[0].scale for record in normal)
    expected = 4 * error / scale + FLOOR_ULPS * torch.finfo(dtype).eps
    assert budgets.budget(0, "normal") == pytest.approx(expected)
    assert found.rule is None


def test_precisions_that_need_no_allowance() -> None:
    reference = _reference(small())
    for precision in ("float32", "float64"):
        found = allowance(reference, precision)
        assert found.recorded is reference
        assert found.stated.startswith("error budget: four times the reference's own rounding error")


def test_integers_that_rounding_changes_are_ties() -> None:
    def labels(self: Lambda, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return torch.stack([y[:, 0], y[:, 0] * (1 + 1e-5 * x[:, 0].sign())], 1).argmax(1)

    reference = _reference(Lambda(labels))
    found = allowance(reference, "float16")
    before = [record.truths[0].undecided for record in reference.records]
    after = [record.truths[0].undecided for record in found.recorded.records]
    assert sum(int(each.sum()) for each in before if each is not None) < sum(
        int(each.sum()) for each in after if each is not None
    )


def test_what_cannot_be_run_rounded_is_scaled() -> None:
    def picky(self: Lambda, x: torch.Tensor) -> torch.Tensor:
        if float(x.flatten()[0]) == float(x.flatten()[0].half()) != 0 and x.dtype is torch.float32:
            raise ValueError("too round")
        return F.relu(self.conv(x))

    found = allowance(_reference(Lambda(picky)), "float16")
    assert "scaled by 8192 from its precision to float16" in found.stated
    assert "(it cannot be run rounded: ValueError: too round)" in found.stated


@pytest.mark.parametrize("dtype", LOWER)
def test_the_budget_of_the_weights_alone(dtype: torch.dtype) -> None:
    reference = _reference(small())
    found = weights_allowance(reference, str(dtype)[6:])
    assert found is not None
    error = scale = 0.0
    twin = RoundedTwin(small(), dtype)
    for record in reference.records:
        if record.probe.group == "normal":
            moved = twin.run(*record.probe.inputs(), results=False).double() - record.truths[0].values
            error, scale = max(error, float(moved.abs().max())), max(scale, record.truths[0].scale)
    expected = 4 * error / scale + FLOOR_ULPS_WEIGHTS * torch.finfo(dtype).eps
    assert found.recorded.budgets().budget(0, "normal") == pytest.approx(expected)
    whole = allowance(reference, str(dtype)[6:]).recorded.budgets()
    assert found.recorded.budgets().budget(0, "normal") < whole.budget(0, "normal")


def _stored(network: nn.Module, factor: float = 1.0) -> nn.Module:
    """Weights as a float16 file holds them, to compute with in float64."""
    with torch.no_grad():
        next(iter(network.parameters())).mul_(factor)
    return network.half().double()


def test_weights_that_are_rounded_pass_and_wrong_ones_do_not() -> None:
    found = weights_allowance(_reference(small()), "float16")
    assert found is not None

    def judged(network: nn.Module) -> bool:
        candidate = Lambda(lambda self, x: network(x.double()))
        return found.recorded.judge(candidate, same_dtypes=False).passed

    assert judged(_stored(small()))
    assert not judged(_stored(small(), 1.01))


def test_other_precisions_have_no_budget_for_weights_alone() -> None:
    reference = _reference(small())
    assert [weights_allowance(reference, name) for name in ("float32", "float64", "int8")] == [None] * 3
