"""What real networks bring along: ties, hooks, computed weights, other types, functions for modules."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import reparamkit as rk
from reparamkit.training.expand import ExpandedConv
from reparamkit.training.expand.kinds import KINDS
from tests.training.expand.nets import Plain, UNet, batch, error64, random_net


def tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_not_touched_and_shares_nothing(kind: str) -> None:
    model, x = random_net(Plain()).train(), batch()
    before, image = copy.deepcopy(model), x.clone()
    modules = list(model.named_modules())
    expanded = rk.expand(model, x, kind)
    assert [(n, m) for n, m in model.named_modules()] == modules
    assert all(part.training for part in model.modules())
    assert torch.equal(x, image)
    for name, value in before.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    storages = {t.untyped_storage().data_ptr() for t in tensors(model)}
    assert not storages & {t.untyped_storage().data_ptr() for t in tensors(expanded)}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in expanded.modules())


@pytest.mark.diagonal(1)
@pytest.mark.parametrize("kind", KINDS)
def test_an_ordinary_module(kind: str) -> None:
    model, x = random_net(Plain()), batch()
    expanded = rk.expand(model, x, kind)
    value = expanded(x)
    archive = io.BytesIO()
    torch.save(expanded, archive)
    archive.seek(0)
    copies = [
        copy.deepcopy(expanded),
        pickle.loads(pickle.dumps(expanded)),
        torch.load(archive, weights_only=False),
    ]
    for other in copies:
        assert torch.equal(other(x), value)
        assert rk.expansion_report(other) == rk.expansion_report(expanded)
        assert rk.fold(other, x).after == rk.fold(model, x).after


def test_a_state_dict_restores_the_network() -> None:
    """In another one, too, whose activations are larger: the norms' ε depends on them."""
    model, x = random_net(Plain()), batch()
    expanded = rk.expand(model, x, "dbb")
    other = rk.expand(random_net(Plain(), seed=1), 100 * x, "dbb", seed=3)
    assert other.get_submodule("stem.dbb_1x1.bn").eps != expanded.get_submodule("stem.dbb_1x1.bn").eps
    other.load_state_dict(expanded.state_dict(), strict=True)
    assert torch.equal(other(x), expanded(x))
    assert error64(model, other, x) < 1e-12
    assert all(isinstance(value, Tensor) for value in expanded.state_dict().values())
    names = {name.rpartition(".")[0] for name in expanded.state_dict() if name.startswith("wide.")}
    assert {
        "wide.dbb_origin.conv",
        "wide.dbb_1x1.bn",
        "wide.dbb_1x1_kxk.idconv1",
        "wide.dbb_avg.avgbn",
    } <= names
    assert torch.equal(expanded.state_dict()["stem_norm.weight"], model.state_dict()["stem_norm.weight"])


@pytest.mark.parametrize("training", [False, True])
def test_each_module_keeps_its_mode(training: bool) -> None:
    model = random_net(Plain()).train(training)
    model.get_submodule("wide").train(not training)
    expanded = rk.expand(model, batch())
    assert expanded.training is training
    assert expanded.get_submodule("stem.rbr_dense.bn").training is training
    assert expanded.get_submodule("wide.rbr_dense.bn").training is not training


@pytest.mark.slow
def test_a_module_under_two_names_stays_one() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 3)
            self.one = nn.Conv2d(4, 4, 3, padding=1)
            self.rest = nn.Sequential(nn.ReLU(), self.one)

        def forward(self, x: Tensor) -> Tensor:
            return self.rest(self.one(self.stem(x)))

    model, x = random_net(Tied()), batch()
    for where in (None, "one", "rest"):
        expanded = rk.expand(model, x, where=where)
        assert expanded.one is expanded.get_submodule("rest.1")
        assert isinstance(expanded.one, ExpandedConv)
        entry = rk.expansion_report(expanded).expanded[-1]
        assert (entry.where, entry.also) == ("one", ("rest.1",))
        assert error64(model, expanded, x) < 1e-12
        optimizer = torch.optim.SGD(expanded.train().parameters(), lr=0.1)
        expanded(x).square().mean().backward()
        optimizer.step()
        assert expanded.one is expanded.get_submodule("rest.1")
        assert rk.fold(expanded.eval(), x).after == rk.fold(model, x).after


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_weight_norm_is_taken_off(old: bool) -> None:
    normed = nn.utils.weight_norm if old else parametrizations.weight_norm
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), normed(nn.Conv2d(4, 6, 3)))
    x = batch()
    state = copy.deepcopy(dict(model.state_dict()))
    model(x)  # after which the older one holds a weight with a history
    expected = model.eval()(x)
    expanded = rk.expand(model, x)
    report = rk.expansion_report(expanded)
    assert [one.where for one in report.expanded] == ["0", "2"]
    assert any("weight_norm was taken off" in note for note in report.notes)
    assert report.error < 1e-12
    assert torch.allclose(expanded(x), expected, rtol=1e-4, atol=1e-5)
    assert not any("weight_g" in name or "original0" in name for name, _ in expanded.named_parameters())
    assert torch.equal(model(x), expected)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    rk.expand(model, x, where="0")
    assert not hasattr(rk.expand(model, x, where="2").get_submodule("0"), "kind")


def test_hooks_go_along() -> None:
    model, x = random_net(Plain()), batch()
    seen: list[str] = []

    def after(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        seen.append(type(module).__name__)
        return output * 2

    def before(module: nn.Module, args: Any, kwargs: Any) -> Any:
        return tuple(x + 1 for x in args), kwargs

    model.get_submodule("wide").register_forward_hook(after)
    model.get_submodule("wide").register_forward_pre_hook(before, with_kwargs=True)
    expanded = rk.expand(model, x)
    assert seen == []  # what a hook remembers is put back
    assert error64(model, expanded, x) < 1e-12
    expanded(x)
    assert seen[-1] == "ExpandedConv"
    assert len(model.get_submodule("wide")._forward_hooks) == 1


def test_a_hook_that_reads_the_weight_keeps_its_convolution() -> None:
    model, x = random_net(Plain()), batch()
    model.get_submodule("wide").register_forward_hook(lambda m, args, out: out + m.weight.sum())
    expanded = rk.expand(model, x)
    left = {one.where: one.reason for one in rk.expansion_report(expanded).left}
    assert left["wide"] == "the network's code reads its weight"
    assert type(expanded.wide) is nn.Conv2d
    assert len(expanded.wide._forward_hooks) == 1
    assert error64(model, expanded, x) < 1e-12


def test_code_that_reads_the_numbers_of_a_convolution_goes_on() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            conv = self.conv
            assert (conv.padding, conv.dilation, conv.groups, conv.padding_mode) == (
                (1, 1),
                (1, 1),
                1,
                "zeros",
            )
            return conv(input=x) / (
                conv.in_channels * conv.kernel_size[0] * conv.stride[1] + conv.get_parameter("bias").sum()
            )

    model = random_net(Reads())
    assert error64(model, rk.expand(model, batch()), batch()) < 1e-12


def test_a_lone_convolution() -> None:
    conv = nn.Conv2d(3, 4, 3).eval()
    block = rk.expand(conv, batch())
    assert isinstance(block, ExpandedConv)
    assert error64(conv, block, batch()) < 1e-14
    assert rk.expansion_report(block).expanded[0].where == ""
    with pytest.raises(rk.UnusableInput, match="nothing in the network"):
        rk.expand(block, batch())


def test_blocks_are_not_expanded_again() -> None:
    model, x = random_net(Plain()), batch()
    first = rk.expand(model, x, "repvgg", where="wide")
    second = rk.expand(first, x, "dbb")
    assert [one.where for one in rk.expansion_report(second).expanded] == ["stem", "deep"]
    assert rk.expansion_report(second).kind == "dbb"
    assert second.get_submodule("wide").kind == "repvgg"
    assert error64(model, second, x) < 1e-12
    assert rk.fold(second, x).after == rk.fold(model, x).after


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions(kind: str, dtype: torch.dtype) -> None:
    model, x = random_net(Plain()).to(dtype), batch().to(dtype)
    expanded = rk.expand(model, x, kind)
    assert all(t.dtype is dtype for t in tensors(expanded) if t.is_floating_point())
    assert error64(model, expanded, x) < 1e-12
    plain, value = copy.deepcopy(model).train()(x), expanded.train()(x)
    bar = {torch.float64: 1e-6, torch.float16: 0.1, torch.bfloat16: 0.3}[dtype]
    assert (value - plain).abs().max() < bar * plain.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_kernels_of_zeros_and_of_many_branches(kind: str) -> None:
    conv, x = nn.Conv2d(3, 3, 3, padding=1), batch()
    with torch.no_grad():
        conv.weight.zero_()
    block = rk.expand(conv, x, kind, branches=7)
    dense = [p for n, p in block.named_parameters() if n.endswith("conv.weight") and p.shape[-2:] == (3, 3)]
    assert len(dense) >= 7
    assert len({tuple(kernel.flatten().tolist()) for kernel in dense}) == len(dense)
    assert error64(conv, block, x) < 1e-14


def test_channels_last_is_kept() -> None:
    model = random_net(Plain())
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    expanded = rk.expand(model, batch())
    weight = expanded.get_submodule("wide.rbr_dense.conv").get_parameter("weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    assert error64(model, expanded, batch()) < 1e-12


def test_statistics_that_overflow_leave_the_convolution() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)).half()
    with torch.no_grad():
        model.get_parameter("0.weight").mul_(3000)
    with pytest.raises(rk.NothingExpanded, match="the statistics of its branches overflow in float16"):
        rk.expand(model, batch().half(), "dbb", where="0")


def test_a_network_that_cannot_run_in_float64() -> None:
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            if x.dtype is not torch.float32:
                raise TypeError("float32 only")
            return self.conv(x)

    report = rk.expansion_report(rk.expand(random_net(Single()), batch()))
    assert any("does not run in float64 (TypeError: float32 only)" in note for note in report.notes)
    assert 0 < report.error < 1e-12


def test_dropout_and_random_depth() -> None:
    class Random(Plain):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(super().forward(x), 0.5, self.training)

    model, x = random_net(Random()).train(), batch()
    expanded = rk.expand(model, x)
    torch.manual_seed(1)
    plain = copy.deepcopy(model)(x)
    torch.manual_seed(1)
    assert (expanded(x) - plain).abs().max() < 3e-3 * plain.abs().max()


def test_inputs_by_keyword_and_outputs_of_any_form() -> None:
    class Forms(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, image: Tensor, scale: float = 1.0) -> dict[str, Any]:
            y = self.conv(image) * scale
            return {"map": y, "pair": (y.argmax(), None), "name": "a"}

    model = random_net(Forms())
    expanded = rk.expand(model, {"image": batch(), "scale": 2.0})
    assert torch.allclose(expanded(batch())["map"], model(batch())["map"], atol=1e-5)


def test_wrapped_models() -> None:
    model, x = random_net(Plain()), batch()
    expanded = rk.expand(nn.DataParallel(model), x)
    assert type(expanded) is Plain
    assert "the model inside DataParallel was taken" in rk.expansion_report(expanded).notes


def test_a_model_that_cannot_be_copied() -> None:
    class NoCopy(Plain):
        def __deepcopy__(self, memo: Any) -> Any:
            raise RuntimeError("no")

    with pytest.raises(rk.UnusableInput, match="cannot be copied: RuntimeError: no"):
        rk.expand(NoCopy(), batch())


def test_a_network_that_wants_its_own_class() -> None:
    class Insists(Plain):
        def forward(self, x: Tensor) -> Tensor:
            if not isinstance(self.wide, nn.Conv2d):
                raise TypeError("wide is no Conv2d")
            return super().forward(x)

    model = random_net(Insists())
    with pytest.raises(rk.UnusableInput, match=r"wide is no Conv2d\); say with `where`"):
        rk.expand(model, batch())
    assert error64(model, rk.expand(model, batch(), where="stem"), batch()) < 1e-12


@pytest.mark.slow
def test_a_reference_model() -> None:
    model = rk.models.create("fastvit_t8")
    x = batch(2, 3, 64, 64)
    expanded = rk.expand(model, x, "replk", where="network.0.0.convffn.conv.conv")
    assert rk.expansion_report(expanded).expanded[0].branches == ("lkb_origin", "small_conv")
    assert error64(model, expanded, x) < 1e-10


def test_a_unet_in_three_and_one_axes() -> None:
    for conv, x, kinds in (
        (nn.Conv1d(3, 4, 3, padding=1), batch(4, 3, 20), ("repvgg", "mobileone", "dbb", "replk")),
        (nn.Conv3d(3, 4, 3, padding=1), batch(2, 3, 5, 6, 7), KINDS),
    ):
        for kind in kinds:
            assert error64(conv, rk.expand(conv.eval(), x, kind), x) < 1e-13
    with pytest.raises(rk.NothingExpanded, match="acb needs a kernel larger than one tap on two axes"):
        rk.expand(nn.Conv1d(3, 4, 3), batch(4, 3, 20), "acb")


@pytest.mark.slow
def test_an_expanded_network_exports_and_compiles_to_files(tmp_path: Any) -> None:
    model, x = random_net(UNet()), batch()
    expanded = rk.expand(model, x, "dbb")
    program = torch.export.export(expanded, (x,))
    assert torch.allclose(program.module()(x), expanded(x), atol=1e-5)
    folded = rk.fold(expanded, x)
    folded.save(tmp_path / "net.pt2")
    assert rk.check(model, folded.module, x).passed
