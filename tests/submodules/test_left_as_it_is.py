"""What a fold in parts leaves as it is, and what the folded module survives."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from tests.nets import assert_same, randomised
from tests.submodules.gates import Block, Gate, Stages, assert_folds, image, left, taken

pytestmark = pytest.mark.usefixtures("no_grad")


def test_hooks_go_on_being_called() -> None:
    seen: list[str] = []
    model = Gate(nn.Sequential(Block(), Block()))
    model.get_submodule("trunk.0.wide").register_forward_hook(lambda *_: seen.append("wide"))
    folded = assert_folds(model)
    assert taken(folded) == ["trunk.0.narrow", "trunk.1"]
    assert left(folded)["trunk"] == "'0.wide' in it has hooks"
    assert left(folded)["trunk.0"] == "'wide' in it has hooks"
    assert left(folded)["trunk.0.wide"] == "it has hooks"
    seen.clear()
    folded.module(image())
    assert seen == ["wide"]


def test_a_hook_that_changes_the_values() -> None:
    model = Gate()
    model.trunk.register_forward_pre_hook(lambda _, args: (args[0] * 3,))
    folded = assert_folds(model)
    assert taken(folded) == ["trunk.wide", "trunk.narrow"]


@pytest.mark.slow
def test_a_value_that_changes_while_a_part_runs() -> None:
    class Caching(Block):
        def __init__(self) -> None:
            super().__init__()
            self.calls: list[int] = []
            self.last = torch.zeros((), dtype=torch.float64)

        def forward(self, x: Tensor) -> Tensor:
            self.remember(super().forward(x))
            return self.last

        def remember(self, y: Tensor) -> None:
            self.last = y

    class Listing(Caching):
        def remember(self, y: Tensor) -> None:
            self.calls.append(1)
            object.__setattr__(self, "last", y)

    class Buffered(Block):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros((), dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            self.get_buffer("count").add_(1)
            return super().forward(x)

    for trunk, words in (
        (Caching(), "'it' keeps"),
        (Listing(), "it keeps a value that changes while it runs (calls)"),
        (Buffered(), "it keeps a value that changes while it runs (count)"),
    ):
        found = rk.inspect(randomised(Gate(trunk)).double(), image())
        assert taken(found) == ["trunk.wide", "trunk.narrow"], type(trunk)
        assert (
            words.replace("'it' keeps", "it keeps a value that changes while it runs (last)")
            in left(found)["trunk"]
        )


@pytest.mark.parametrize("positive", [True, False])
def test_an_attribute_that_the_code_around_sets(positive: bool) -> None:
    class Scaled(Block):
        factor = 1.0

        def __init__(self) -> None:
            super().__init__()
            self.factor = 2.0

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * self.factor

    class Setting(Gate):
        def forward(self, x: Tensor) -> Any:
            if bool(x.mean() > 0) == positive:
                self.trunk.factor = 2.0  # type: ignore[assignment]
            return self.trunk(x) if x.mean() > 0 else self.trunk(x) * 2

    folded = assert_folds(Setting(Scaled()))
    assert taken(folded) == ["trunk.wide", "trunk.narrow"]
    reason = left(folded)["trunk"]
    assert "(factor)" in reason if positive else "may set 'factor', which it has" in reason


def test_an_input_that_a_part_changes_in_place() -> None:
    class InPlace(Block):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.mul_(2))

    class Reusing(Gate):
        def forward(self, x: Tensor) -> Any:
            x = x + 0
            y = self.trunk(x)
            return y + x if x.mean() > 0 else y - x

    assert taken(assert_folds(Reusing(InPlace()))) == ["trunk"]


def test_torchscript_inside() -> None:
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        scripted = torch.jit.script(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)).double().eval())
    folded = assert_folds(Stages(nn.ModuleList([Block(), scripted])))
    assert taken(folded) == ["trunk.0"]
    assert left(folded) == {"trunk.1": "it is TorchScript"}


def test_nothing_folds_in_a_part() -> None:
    folded = assert_folds(Gate(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())))
    assert folded.folds == ()
    assert left(folded) == {"trunk": "nothing in it folds"}


@pytest.mark.parametrize("model", [Gate(nn.ReLU()), Gate(Gate(nn.Conv2d(4, 4, 1)))])
def test_where_no_part_can_be_captured_the_whole_error_stands(model: nn.Module) -> None:
    for call in (rk.fold, rk.inspect):
        with pytest.raises(
            rk.CannotCapture, match="cannot be captured as one graph: its control flow"
        ) as error:
            call(model.double().eval(), image())
        assert "torch.cond or torch.where" in str(error.value)


def test_a_model_that_cannot_be_copied() -> None:
    class Stubborn(Gate):
        def __deepcopy__(self, memo: Any) -> Any:
            raise RuntimeError("no copies")

    with pytest.raises(rk.CannotCapture, match=r"one graph: .*nor can it be copied.*no copies"):
        rk.fold(randomised(Stubborn()).double(), image())


def test_training_mode() -> None:
    model = randomised(Gate()).double().train()
    folded = rk.fold(model, image())
    assert model.training
    assert taken(folded) == ["trunk"]
    assert "training mode" in folded.notes[0]
    assert_same(copy.deepcopy(model).eval()(image()), folded.module(image()))


def test_random_numbers_are_left_as_they_were() -> None:
    class Noisy(Gate):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x) + torch.rand(()) * 0

    model = randomised(Noisy()).double()
    state = torch.get_rng_state()
    assert taken(rk.inspect(model, image())) == ["trunk"]
    assert torch.equal(state, torch.get_rng_state())


# What the folded module survives


def test_the_module_is_an_ordinary_module() -> None:
    original = randomised(Gate(nn.Sequential(Block(), Block()))).double()
    module = rk.fold(original, image()).module
    x, y = image(seed=3), image(sign=-1, seed=4)
    expected = original(x), original(y)
    duplicate = copy.deepcopy(module)
    read = pickle.loads(pickle.dumps(module))
    for other in (duplicate, read):
        assert_same(expected, (other(x), other(y)))
    state = {name: value.clone() for name, value in module.state_dict().items()}
    for parameter in module.parameters():
        parameter.zero_()
    assert_same(expected, (duplicate(x), duplicate(y)))
    assert not torch.allclose(module(x), expected[0])
    module.load_state_dict(state)
    assert_same(expected, (module(x), module(y)))
    module.train()
    assert_same(expected, (module(x), module(y)))
    single = copy.deepcopy(module).float()
    assert_same(expected[0].float(), single(x.float()), 1e-5)
    assert "folded into trunk.folded" in repr(module)
    part = torch.export.export(module.eval().get_submodule("trunk"), (x,))
    assert_same(original.get_submodule("trunk")(x), part.module()(x))


def test_folding_again_changes_nothing() -> None:
    once = rk.fold(randomised(Gate()).double(), image())
    again = rk.fold(once.module, image())
    assert again.folds == ()
    assert left(again) == {"trunk": "nothing in it folds"}
    for x in (image(), image(sign=-1)):
        assert_same(once.module(x), again.module(x), 0)


@pytest.mark.slow
def test_torch_compile() -> None:
    folded = assert_folds(Gate())
    compiled = torch.compile(folded.module, backend="eager")
    for x in (image(), image(sign=-1)):
        assert_same(folded.module(x), compiled(x))
