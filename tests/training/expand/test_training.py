"""How an expanded network starts to train."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import reparamkit as rk
from reparamkit.training.expand import ExpandedConv
from reparamkit.training.expand.kinds import KINDS
from tests.training.expand.nets import Plain, UNet, batch, error64, random_net

NETS = {"plain": Plain, "unet": UNet}


def both(net: str, kind: str) -> tuple[nn.Module, nn.Module, Tensor]:
    model, x = random_net(NETS[net]()), batch(8, 3, 16, 16)
    return model, rk.expand(model, x, kind), x


def branches(model: nn.Module) -> dict[str, nn.Module]:
    return {
        f"{where}.{name}": branch
        for where, block in model.named_modules()
        if isinstance(block, ExpandedConv)
        for name, branch in block.branches()
    }


def taken_away(name: str, parameter: Tensor) -> bool:
    """Whether a batch norm behind takes away, or divides out, in training mode what the parameter changes.

    So it does with the bias of a plain convolution, and with a kernel of one number for each channel.
    """
    kernel = parameter.ndim > 1 and parameter[0].numel() == 1
    return kernel or name.rpartition(".")[2] == "bias"


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("kind", KINDS)
def test_training_starts_from_the_same_function(net: str, kind: str) -> None:
    model, expanded, x = both(net, kind)
    plain, value = copy.deepcopy(model).train()(x), copy.deepcopy(expanded).train()(x)
    assert (value - plain).abs().max() < 3e-3 * plain.abs().max()


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_running_statistics_are_those_of_what_goes_through(net: str, kind: str) -> None:
    _, expanded, x = both(net, kind)
    expanded.train()
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Any:
        return lambda module, args: seen.__setitem__(name, args[0].detach().transpose(0, 1).flatten(1))

    norms = {
        f"{where}.{name}": module
        for where, branch in branches(expanded).items()
        for name, module in branch.named_modules()
        if isinstance(module, _BatchNorm)
    }
    statistics = {
        name: [norm.get_buffer(statistic).clone() for statistic in ("running_mean", "running_var")]
        for name, norm in norms.items()
    }
    hooks = [norm.register_forward_pre_hook(note(name)) for name, norm in norms.items()]
    expanded(x)
    for hook in hooks:
        hook.remove()
    assert norms
    for name, (mean, variance) in statistics.items():
        deviation = seen[name].std(1, correction=0)
        assert (seen[name].mean(1) - mean).abs().max() < 0.02 * deviation.max(), name
        held = (variance + norms[name].eps).sqrt()
        assert torch.allclose(held, (deviation**2 + norms[name].eps).sqrt(), rtol=0.02), name


@pytest.mark.diagonal(5)
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [False, True])
def test_every_branch_gets_a_gradient(net: str, kind: str, training: bool) -> None:
    _, expanded, x = both(net, kind)
    expanded.train(training)
    value = expanded(x)
    (value * torch.linspace(-1, 1, value.numel()).view_as(value)).sum().backward()
    largest = max(float(p.grad.abs().max()) for p in expanded.parameters() if p.grad is not None)
    found = branches(expanded)
    assert len(found) >= 2 * len(rk.expansion_report(expanded).expanded)
    for name, branch in found.items():
        for last, parameter in branch.named_parameters():
            assert parameter.grad is not None
            size = float(parameter.grad.abs().max())
            assert size > (0 if training and taken_away(last, parameter) else 1e-6 * largest), (
                f"{name}.{last}"
            )


@pytest.mark.parametrize("kind", KINDS)
def test_no_two_branches_are_alike(kind: str) -> None:
    _, expanded, x = both("plain", kind)
    expanded.train()
    expanded(x).square().sum().backward()
    for name, block in expanded.named_modules():
        if isinstance(block, ExpandedConv):
            kernels = [p for n, p in block.named_parameters() if n.endswith("conv.weight")]
            for i, one in enumerate(kernels):
                for other in kernels[:i]:
                    if one.shape == other.shape:
                        assert not torch.allclose(one, other, rtol=0.05), name
                        assert one.grad is not None
                        assert other.grad is not None
                        assert not torch.allclose(one.grad, other.grad, rtol=0.01), name


@pytest.mark.diagonal(2)
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_step_changes_every_branch_and_still_folds(net: str, kind: str) -> None:
    model, expanded, x = both(net, kind)
    operators = rk.fold(model, x).after
    expanded.train()
    optimizer = torch.optim.SGD(expanded.parameters(), lr=0.05)
    before = copy.deepcopy(expanded)
    value = expanded(x)
    (value * torch.linspace(-1, 1, value.numel()).view_as(value)).mean().backward()
    optimizer.step()
    old = branches(before)
    for name, branch in branches(expanded).items():
        for last, parameter in branch.named_parameters():
            if not taken_away(last, parameter):
                assert not torch.equal(parameter, old[name].get_parameter(last)), f"{name}.{last}"
    expanded.eval()
    folded = rk.fold(expanded, x)
    assert folded.after == operators
    assert max(fold.error for fold in folded.folds) < 1e-10
    assert error64(before, expanded, x) > 1e-6


def test_a_step_moves_the_sum_about_as_far_as_the_one_kernel() -> None:
    """In evaluation mode, where norms are constants, and on the kernels alone."""
    conv, x = nn.Conv2d(6, 8, 3, padding=1, bias=False).eval(), batch(4, 6, 9, 8)
    target = batch(4, 8, 9, 8, seed=1)
    for kind in KINDS:
        expanded = rk.expand(conv, x, kind)
        moved = []
        for net in (copy.deepcopy(conv), expanded):
            (net(x) - target).square().mean().backward()
            before = net(x).detach()
            with torch.no_grad():
                for name, parameter in net.named_parameters():
                    if parameter.ndim > 1 and "conv1" not in name:
                        assert parameter.grad is not None
                        parameter.sub_(1e-3 * parameter.grad)
            moved.append((net(x) - before).norm().item())
        assert 0.4 < moved[1] / moved[0] < 2.5, kind


def test_statistics_of_evaluation_mode_where_training_mode_does_not_run() -> None:
    class OnlyEvaluates(Plain):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise RuntimeError("targets are missing")
            return super().forward(x)

    model = random_net(OnlyEvaluates())
    expanded = rk.expand(model, batch())
    notes = rk.expansion_report(expanded).notes
    assert any("does not run on the example (RuntimeError: targets are missing)" in note for note in notes)
    assert error64(model, expanded, batch()) < 1e-12


def test_what_training_mode_skips_has_the_statistics_of_evaluation_mode() -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return x if self.training else self.second(x)

    expanded = rk.expand(random_net(Skips()), batch())
    assert [one.where for one in rk.expansion_report(expanded).expanded] == ["first", "second"]


def test_a_module_that_runs_twice_has_the_statistics_of_both_calls() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.conv(x) * 5 + 2)

    model, x = random_net(Twice()), batch()
    expanded = rk.expand(model, x)
    identity: Any = expanded.get_submodule("conv.rbr_identity")
    seen = torch.cat([x, model.get_submodule("conv")(x) * 5 + 2]).transpose(0, 1).flatten(1)
    assert torch.allclose(identity.running_mean, seen.mean(1), atol=5e-3)
    assert torch.allclose(identity.running_var, seen.var(1), rtol=5e-3)


def test_the_batch_norms_of_the_network_are_as_they_were() -> None:
    model, expanded, _ = both("plain", "dbb")
    state = expanded.state_dict()
    for name, value in model.state_dict().items():
        if "norm" in name:
            assert torch.equal(state[name], value)


def test_the_random_state_is_left_alone() -> None:
    model = random_net(Plain())
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    rk.expand(model, batch())
    assert torch.equal(torch.rand(3), expected)


def test_the_seed_draws_other_shares() -> None:
    model, x = random_net(Plain()), batch()
    one, same, other = (rk.expand(model, x, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert not torch.equal(one["wide.rbr_1x1.conv.weight"], other["wide.rbr_1x1.conv.weight"])
