from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from reparamkit.models import create, randomize


class Mixed(nn.Module):
    """One of every kind of parameter that `randomize` treats differently."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 64, 3)
        self.up = nn.ConvTranspose2d(64, 64, 2, stride=2, groups=2)
        self.bn2d = nn.BatchNorm2d(64)
        self.sync = nn.SyncBatchNorm(64)
        self.untracked = nn.BatchNorm2d(64, track_running_stats=False)
        self.layer_norm = nn.LayerNorm(64)
        self.group_norm = nn.GroupNorm(4, 64)
        self.bn1d = nn.BatchNorm1d(64)
        self.bn3d = nn.BatchNorm3d(64)
        self.linear = nn.Linear(64, 64)
        self.layer_scale = nn.Parameter(torch.full((64, 1, 1), 1e-5))
        self.table = nn.Parameter(torch.zeros(1, 32, 64))

    def forward(self, x: Tensor) -> Tensor:
        x = self.group_norm(self.bn2d(self.up(self.conv(x)))) * self.layer_scale
        x = self.layer_norm(x.mean((2, 3)))
        out: Tensor = self.linear(self.bn1d(x))
        return out


def test_equal_seeds_give_equal_weights_and_others_do_not() -> None:
    first, again, other = (randomize(Mixed(), seed).state_dict() for seed in (3, 3, 4))
    for name, value in first.items():
        assert torch.equal(value, again[name]), name
        assert not torch.equal(value, other[name]) or name.endswith("num_batches_tracked"), name


def test_double_precision_models_get_the_same_values() -> None:
    single, double = randomize(Mixed()).state_dict(), randomize(Mixed().double()).state_dict()
    for name, value in single.items():
        assert torch.equal(value.double(), double[name].double()), name


def test_nothing_stays_at_its_initial_value() -> None:
    before = {name: value.clone() for name, value in Mixed().state_dict().items()}
    after = randomize(Mixed()).state_dict()
    for name, value in after.items():
        assert not torch.isclose(value.double(), before[name].double(), rtol=1e-6, atol=1e-9).any(), name


@pytest.mark.parametrize("norm", ["bn1d", "bn2d", "bn3d", "sync"])
def test_batch_norms_get_statistics_that_a_fold_cannot_ignore(norm: str) -> None:
    state = randomize(Mixed()).get_submodule(norm).state_dict()
    assert 5 < (state["weight"] < 0).sum() < 32
    assert state["weight"].abs().min() > 0.1
    assert state["running_var"].min() > 0.1
    assert state["running_mean"].std() > 0.1
    assert state["bias"].std() > 0.1


def test_layer_scales_have_weight() -> None:
    scale = randomize(Mixed()).layer_scale
    assert scale.abs().min() >= 0.2
    assert (scale < 0).any()


def test_convolutions_preserve_variance() -> None:
    model = randomize(Mixed())
    x = torch.randn(2, 64, 16, 16, generator=torch.Generator().manual_seed(0))
    assert 0.8 < model.up(x).std() < 1.2
    assert 0.8 < model.linear(x.flatten(2).mT).std() < 1.2


def test_the_global_random_state_is_left_alone() -> None:
    model = Mixed()
    before = torch.get_rng_state()
    randomize(model, sample=torch.ones(2, 3, 8, 8))
    create("mobileone_s0", num_classes=2)
    assert torch.equal(before, torch.get_rng_state())


def test_modes_survive() -> None:
    model = Mixed()
    model.bn2d.eval()
    randomize(model, sample=torch.ones(2, 3, 8, 8))
    assert model.training
    assert not model.bn2d.training
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_sample_sets_the_statistics_near_its_own() -> None:
    x = 5 + 3 * torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.BatchNorm2d(16))
    randomize(model, sample=x).eval()
    first, last = model[1], model[3]
    assert isinstance(first, nn.BatchNorm2d)
    assert isinstance(last, nn.BatchNorm2d)
    for norm, given in ((first, model[0](x)), (last, model[:3](x))):
        plain = torch.nn.functional.batch_norm(given, norm.running_mean, norm.running_var)
        assert plain.mean((0, 2, 3)).abs().max() < 2
        assert 0.3 < plain.std() < 1.3


@pytest.mark.parametrize("name", ["mobileone_s0", "mobileone_s1", "repvgg_a0"])
def test_deep_networks_stay_in_range_and_sensitive_to_their_input(name: str) -> None:
    x = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        y = create(name)(x)
    assert 1e-2 < y.std() < 1e2
    assert (y[0] - y[1]).std() > 1e-2 * y.std()


def test_a_shared_parameter_is_drawn_once() -> None:
    first, second = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
    second.weight = first.weight
    alone = randomize(nn.Linear(8, 8, bias=False))
    randomize(nn.Sequential(first, second))
    assert torch.equal(first.weight, alone.weight)
