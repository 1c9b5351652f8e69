"""The model that was handed in, its inputs and the state of torch are as they were."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from reparamkit.compare.compare import compare
from tests.api.networks import F32, Branchy, Choosy, image, net
from tests.nets import assert_same, randomised

pytestmark = pytest.mark.usefixtures("no_grad")


def test_the_model_is_untouched(tmp_path: Path) -> None:
    model = net()
    model.get_parameter("first.wide.0.weight").requires_grad_(False)
    twin = copy.deepcopy(model)
    modules, tensors = dict(model.named_modules()), dict(model.state_dict(keep_vars=True))
    x = image()
    kept = x.clone()
    folded = rk.fold(model, x)
    folded.save(tmp_path / "net.pt2")
    with torch.no_grad():
        for parameter in folded.module.parameters():
            parameter.zero_()
    assert_same(twin.state_dict(), model.state_dict(), 0)
    assert dict(model.named_modules()) == modules
    assert all(value is tensors[name] for name, value in model.state_dict(keep_vars=True).items())
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in twin.parameters()]
    assert not any(m.training or m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(x, kept)


def test_the_global_state_of_torch_is_untouched() -> None:
    model = net()
    state, threads, grad = torch.get_rng_state(), torch.get_num_threads(), torch.is_grad_enabled()
    torch.set_num_threads(2)
    try:
        rk.fold(model, image())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.is_grad_enabled() == grad


class Counting(Branchy):
    """A network that counts its calls in a buffer."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        return super().forward(x)


def test_a_model_that_writes_to_its_buffers_is_untouched() -> None:
    model = net(Counting())
    folded = rk.fold(model, image())
    assert model.get_buffer("calls").item() == 0
    assert folded.module.get_buffer("calls").item() == 0
    folded.module(image())
    assert folded.module.get_buffer("calls").item() == 1


class Remembering(Branchy):
    """A network that counts its calls, and keeps what it saw, in attributes of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.last: Tensor | None = None
        self.seen: dict[str, list[Any]] = {"shapes": []}
        self.held = torch.zeros(3)

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        self.last = x * 2
        self.seen["shapes"].append(x.shape)
        self.seen[f"call {self.calls}"] = []
        if not torch.compiler.is_compiling():
            self.held.add_(1)
        return super().forward(x)


def test_attributes_that_a_forward_changes_are_untouched(tmp_path: Path) -> None:
    model, other = randomised(Remembering()), randomised(Remembering())
    shapes = model.seen["shapes"]
    folded = rk.fold(model, image())
    assert len(folded.folds) == 2
    folded.save(tmp_path / "net.pt2")
    rk.inspect(model, image())
    rk.check(model, other, image())
    compare(model, other, inputs=image())
    for each in (model, other):
        assert (each.calls, each.last, each.seen) == (0, None, {"shapes": []})
        assert torch.equal(each.held, torch.zeros(3))
    assert model.seen["shapes"] is shapes


def test_attributes_are_given_back_where_the_fold_fails() -> None:
    model = randomised(Remembering())
    with pytest.raises(rk.UnusableInput):
        rk.fold(model, image()[:, :1])
    assert (model.calls, model.last, model.seen) == (0, None, {"shapes": []})


class Overwriting(Branchy):
    """A network that changes its input in place."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x.add_(1))


def test_example_inputs_that_the_model_changes_in_place_are_untouched() -> None:
    model, x = net(Overwriting()), image()
    kept = x.clone()
    rk.fold(model, x)
    assert torch.equal(x, kept)


def test_training_mode_is_said_once_and_kept() -> None:
    model = net().train()
    model.get_submodule("first").eval()
    flags = [m.training for m in model.modules()]
    state = copy.deepcopy(model.state_dict())
    for found in (rk.fold(model, image()), rk.inspect(model, image())):
        assert len(found.folds) == 2
        assert [n for n in found.notes if "training mode" in n] == [
            "the model was in training mode; a copy in eval mode was folded (call model.eval() first)"
        ]
    assert [m.training for m in model.modules()] == flags
    assert_same(state, model.state_dict(), 0)
    folded = rk.fold(model, image())
    x = image(2, 4, 6, 7, seed=3)
    assert_same(copy.deepcopy(model).eval()(x), folded.module(x), F32)


def test_a_model_in_training_mode_that_cannot_be_copied() -> None:
    class Stubborn(Branchy):
        def __deepcopy__(self, memo: Any) -> Any:
            raise RuntimeError("no copies")

    with pytest.raises(rk.UnusableInput, match=r"training mode and cannot be copied: call model\.eval\(\)"):
        rk.fold(net(Stubborn()).train(), image())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("form", ["module", "exported"])
def test_weights_that_are_no_numbers_are_named(value: float, form: str) -> None:
    model: Any = net()
    model.first.wide[0].weight[0, 0, 0, 0] = value
    model.second.skip.running_mean[1] = value
    if form == "exported":
        model = torch.export.export(model, (image(),))
    with pytest.raises(rk.UnusableInput, match="NaN or infinite weights") as caught:
        rk.fold(model, image())
    assert "first.wide.0.weight" in str(caught.value)
    assert "second.skip.running_mean" in str(caught.value)
    assert "narrow" not in str(caught.value)


def test_many_broken_weights_are_counted() -> None:
    model = net()
    for parameter in model.parameters():
        parameter.fill_(math.nan)
    with pytest.raises(rk.UnusableInput, match=r"and 11 more; nothing"):
        rk.fold(model, image())


def test_control_flow_on_the_data(capfd: pytest.CaptureFixture[str]) -> None:
    class Bare(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if x.sum() > 0 else x

    with pytest.raises(rk.CannotCapture, match="its control flow depends on the data") as caught:
        rk.fold(net(Bare()), image())
    assert "rk.fold(model.backbone, x)" in str(caught.value)
    assert "torch.cond or torch.where" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(rk.fold(net(Choosy()), image()).folds) == 1
    assert capfd.readouterr() == ("", "")
