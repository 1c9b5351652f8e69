"""Networks that cannot be captured as a whole: what of them folds, what not and why, and that all is right.

Every network here branches on its data; each is compared with a copy of itself on both sides of the branch.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from reparamkit.submodules.replacement import Absent
from tests.nets import assert_same, noise, randomised
from tests.spoiling import spoil


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


class Block(nn.Module):
    """Two branches with a batch norm each."""

    out_channels = 4

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
        self.narrow = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4))
        self.stride = 1

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        result: Tensor = self.wide(x) + self.narrow(x)
        return result


class Gate(nn.Module):
    """A trunk, and another function of its output for either sign of the input's mean."""

    def __init__(self, trunk: nn.Module | None = None, **more: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk or Block()
        for name, module in more.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Any:
        y = self.trunk(x)
        return y * 2 if x.mean() > 0 else y - 1


def image(*shape: int, sign: int = 1, seed: int = 1) -> Tensor:
    """Noise of a mean with a sign."""
    x = noise(*(shape or (2, 4, 9, 8)), seed=seed)
    return x * (1 if float(x.mean()) > 0 else -1) * sign


def fold(model: nn.Module, inputs: Any = None, *, also: tuple[Any, ...] = (), **options: Any) -> rk.Folded:
    """Fold in float64, and compare on the example and `also`, each with either sign; nothing is touched."""
    model = randomised(model).double()
    twin = copy.deepcopy(model)
    tensors, plain = dict(model.state_dict(keep_vars=True)), [vars(m).copy() for m in model.modules()]
    state = torch.get_rng_state()
    inputs = image() if inputs is None else inputs
    folded = rk.fold(model, inputs, **options)
    assert torch.equal(state, torch.get_rng_state())
    assert_same(twin.state_dict(), model.state_dict(), 0)
    assert all(value is tensors[name] for name, value in model.state_dict(keep_vars=True).items())
    assert [vars(m) for m in model.modules()] == plain
    assert type(folded.module) is type(model)
    assert folded.equivalence is not None
    assert folded.equivalence.passed
    for example in (inputs, *also):
        for sign in (1, -1):
            args, kwargs = ((), example) if isinstance(example, dict) else ((example,), {})
            args, kwargs = torch.utils._pytree.tree_map(
                lambda v, sign=sign: v * sign if isinstance(v, Tensor) else v, (args, kwargs)
            )
            assert_same(twin(*args, **kwargs), folded.module(*args, **kwargs))
    return folded


def taken(found: rk.Folded | rk.Inspection) -> list[str]:
    return [part.where for part in found.parts if part.folded]


def left(found: rk.Folded | rk.Inspection) -> dict[str, str]:
    return {part.where: part.reason for part in found.parts if not part.folded}


def keeps(found: rk.Folded, path: str) -> bool:
    """Whether the part's own layers are still in it."""
    held = [child for name, child in found.module.get_submodule(path).named_children() if name != "folded"]
    assert len({isinstance(child, Absent) for child in held}) == 1
    return not isinstance(held[0], Absent)


# What a fold in parts says


def test_the_findings() -> None:
    folded = fold(Gate(), also=(image(3, 4, 6, 5),))
    assert folded.parts == (rk.Part("trunk", True, "", "free batch and spatial sizes"),)
    (done,) = folded.folds
    assert done.where == "trunk"
    assert done.layers == {"trunk.folded.reparam_conv": "Conv2d 4 -> 4, 3x3"}
    assert isinstance(folded.module.get_submodule("trunk.folded.reparam_conv"), nn.Conv2d)
    assert (folded.before["conv2d"], folded.before["batch_norm"], folded.before["add"]) == (2, 2, 1)
    assert folded.after == {"conv2d": 1, "relu": 1}
    assert folded.sizes == "in parts, free batch and spatial sizes"
    assert "cannot be captured as a whole: its control flow depends on the data" in folded.notes[0]
    assert "counted in the captured parts only" in folded.notes[1]
    assert len(folded.notes) == 2
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.module.modules())
    assert folded.equivalence is not None
    assert any("batch=3" in entry.probe for entry in folded.equivalence.outputs)


def test_inspect_finds_the_same() -> None:
    model = randomised(Gate()).double()
    found, folded = rk.inspect(model, image()), rk.fold(model, image())
    for name in ("folds", "refusals", "before", "after", "sizes", "notes", "undone", "parts"):
        assert getattr(found, name) == getattr(folded, name), name


def test_a_mobileone_trunk() -> None:
    trunk = rk.models.create("mobileone_s0")
    model = Gate(trunk).eval()
    x = noise(1, 3, 64, 64, dtype=torch.float32)
    folded = rk.fold(model, x, dynamic=False)
    assert taken(folded) == ["trunk"]
    assert (folded.before["batch_norm"], folded.after.get("batch_norm", 0)) == (226, 0)
    assert folded.after["conv2d"] == 43
    assert folded.sizes == "in parts, fixed sizes"
    for y in (x, -x):
        assert_same(model(y), folded.module(y), 2e-3)
    assert folded.folds[0].where == "trunk.stage0"


def test_refusals_are_named_by_their_place_in_the_network() -> None:
    class Squared(Block):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y * y

    folded = fold(Gate(Squared()))
    assert [r.where for r in folded.refusals] == ["trunk"]


# Which parts


class Stages(Gate):
    """Children that are iterated and not called."""

    def forward(self, x: Tensor) -> Any:
        trunk: Any = self.trunk
        for stage in trunk.values() if isinstance(trunk, nn.ModuleDict) else trunk:
            x = stage(x) if x.mean() > -100 else x - 1
        return x


@pytest.mark.parametrize("kind", [nn.ModuleList, nn.Sequential])
def test_containers_that_are_iterated(kind: Callable[..., nn.Module]) -> None:
    stages = [Block(), nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)), nn.ReLU()]
    folded = fold(Stages(kind(stages) if kind is nn.ModuleList else kind(*stages)))
    assert taken(folded) == ["trunk.0", "trunk.1"]
    expected = {} if kind is nn.ModuleList else {"trunk": "it is not called itself"}
    assert {where: reason[:23] for where, reason in left(folded).items()} == expected


def test_a_dict_of_modules() -> None:
    folded = fold(Stages(nn.ModuleDict({"a": Block(), "b": Block()})))
    assert taken(folded) == ["trunk.a", "trunk.b"]
    assert left(folded) == {}


def test_the_parts_of_a_part_that_branches() -> None:
    folded = fold(nn.Sequential(Gate(Gate()), Block()))
    assert taken(folded) == ["0.trunk.trunk", "1"]
    reasons = left(folded)
    assert list(reasons) == ["0", "0.trunk"]
    assert all("its control flow depends on the data" in reason for reason in reasons.values())


def test_a_condition_that_is_asked_late() -> None:
    class Late(Gate):
        def forward(self, x: Tensor) -> Any:
            def ask() -> Any:
                return y.mean() > 0.5 * x.mean() and x.sum() > 0

            y = self.trunk(x)
            found = (self.trunk(y) for _ in range(1) if ask())
            return next(found, y)

    assert taken(fold(Late())) == ["trunk"]


class Choice(Gate):
    """One of two modules, by the sign."""

    def forward(self, x: Tensor) -> Any:
        return self.trunk(x) if x.mean() > 0 else self.get_submodule("other")(x)


def test_a_part_that_the_example_does_not_reach() -> None:
    folded = fold(Choice(other=Block()))
    assert taken(folded) == ["trunk"]
    assert left(folded) == {"other": "the example does not reach it"}
    assert isinstance(folded.module.get_submodule("other.wide.1"), nn.BatchNorm2d)


def test_a_module_under_two_names() -> None:
    block = Block()
    folded = fold(Choice(block, other=block))
    assert taken(folded) == ["trunk"]
    assert left(folded) == {}
    assert folded.module.get_submodule("other") is folded.module.get_submodule("trunk")
    assert folded.before["conv2d"] == 2


def test_a_module_inside_two_others() -> None:
    """One holder folds with it, the other branches: it keeps it, and it is folded there on its own."""
    block = Block()
    folded = fold(Stages(nn.ModuleList([nn.Sequential(block, nn.ReLU()), Gate(block)])))
    assert taken(folded) == ["trunk.0", "trunk.1.trunk"]
    assert isinstance(folded.module.get_submodule("trunk.0.0"), Absent)
    assert not isinstance(folded.module.get_submodule("trunk.1.trunk"), Absent)


# How a part is called


class Twice(Gate):
    """The trunk twice, the second time at another size."""

    def forward(self, x: Tensor) -> Any:
        y = self.trunk(x)
        z = self.trunk(self.between(y))
        return z * 2 if x.mean() > 0 else z - 1

    def between(self, y: Tensor) -> Tensor:
        return y


class TwiceSmaller(Twice):
    def between(self, y: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(y, 2)


@pytest.mark.parametrize("model", [Twice, TwiceSmaller])
def test_a_part_that_is_called_twice(model: type[nn.Module]) -> None:
    folded = fold(model())
    assert taken(folded) == ["trunk"]
    assert folded.before["conv2d"] == 2


def test_sizes_that_one_graph_does_not_take() -> None:
    model = randomised(TwiceSmaller()).double()
    folded = rk.fold(model, image(), dynamic=False)
    assert taken(folded) == []
    reason = left(folded)["trunk"]
    assert "several sizes ([[2, 4, 9, 8]] and [[2, 4, 4, 4]]), which one graph does not take" in reason
    assert_same(model(image()), folded.module(image()))


def test_sizes_that_the_example_did_not_show() -> None:
    model = randomised(Gate()).double()
    folded = rk.fold(model, image(), dynamic=False)
    assert_same(model(image(sign=-1)), folded.module(image(sign=-1)))
    with pytest.raises(ValueError, match=r"'trunk' cannot be called like this: .*captured for other sizes"):
        folded.module(image(2, 4, 5, 5))


class Options(nn.Module):
    """Nested inputs and outputs, keywords, and arguments that are no tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block()

    def forward(
        self, pair: tuple[Tensor, Tensor], *, more: dict[str, Tensor], scale: float = 2.0, skip: Any = None
    ) -> dict[str, Any]:
        y = self.block(pair[0]) * scale + pair[1] + more["z"]
        return {"y": y if skip is None else y + skip, "all": [y, (pair[1],)], "size": y.shape[-1]}


class Caller(Gate):
    """Calls its trunk in one way, or with `other` in two."""

    def __init__(self, other: dict[str, Any] | None = None, both: bool = False) -> None:
        super().__init__(Options())
        self.other, self.both = other or {}, both

    def forward(self, x: Tensor) -> Any:
        if x.mean() > 0:
            found = self.trunk((x, x * 2), more={"z": x + 1})
            more = self.trunk((x, x), more={"z": x}, **self.other) if self.both else found
            return found, more
        found = self.trunk((x, x), more={"z": x}, **self.other)
        return found, found


def test_nested_inputs_and_outputs_and_keywords() -> None:
    folded = fold(Caller())
    assert taken(folded) == ["trunk"]
    assert not keeps(folded, "trunk")


@pytest.mark.parametrize("other", [{"scale": 3.0}, {"skip": torch.ones(1, dtype=torch.float64)}])
def test_a_call_that_the_graph_does_not_answer(other: dict[str, Any]) -> None:
    """The example never passes `scale` or `skip`; a graph that was captured without must not answer."""
    folded = fold(Caller(other))
    assert taken(folded) == ["trunk"]
    assert keeps(folded, "trunk")
    assert folded.parts[0].reason.startswith("its own layers stay too, for other calls: it was captured with")
    model = randomised(Caller(other)).double()
    folded = rk.fold(model, image(), verify=False)
    assert not keeps(folded, "trunk")
    assert_same(model(image()), folded.module(image()))
    with pytest.raises(ValueError, match="'trunk' cannot be called like this: it was captured with"):
        folded.module(image(sign=-1))


def test_a_call_with_another_constant_in_the_same_run() -> None:
    folded = fold(Caller({"scale": 3.0}, both=True))
    assert taken(folded) == ["trunk.block"]
    assert "called with different arguments that are not tensors" in left(folded)["trunk"]


def test_a_constant_that_the_code_passes_keeps_the_part_whole() -> None:
    class Passing(Caller):
        def forward(self, x: Tensor) -> Any:
            return self.trunk((x, x), more={"z": x}, scale=3.0 if x.mean() > 0 else 5.0)

    folded = fold(Passing())
    assert taken(folded) == ["trunk"]
    assert keeps(folded, "trunk")
    assert folded.parts[0].reason == "its own layers stay too: it takes arguments that are not tensors"


def test_the_same_call_in_other_words() -> None:
    class Words(Gate):
        def forward(self, x: Tensor) -> Any:
            return self.trunk(x) * 2 if x.mean() > 0 else self.trunk(x=x)

    folded = fold(Words())
    assert taken(folded) == ["trunk"]
    assert not keeps(folded, "trunk")


# What the code around a part reads off it


def test_plain_attributes_are_still_there() -> None:
    class Reading(Gate):
        def forward(self, x: Tensor) -> Any:
            y = self.trunk(x) * self.trunk.out_channels + self.trunk.stride
            return y if x.mean() > 0 and not self.trunk.training else y - 1

    folded = fold(Reading())
    assert taken(folded) == ["trunk"]
    assert not keeps(folded, "trunk")


READERS: dict[str, Callable[[Any, Tensor], Any]] = {
    "method": lambda self, x: self.trunk.features(x),
    "another name": lambda self, x: next(t.features(x) for t in (self.trunk,)),
    "forward": lambda self, x: self.trunk.forward(x) + self.trunk.wide(x),
    "weight": lambda self, x: x * self.trunk.wide[0].weight.mean(),
    "child": lambda self, x: self.trunk.wide(x),
    "method of a child": lambda self, x: self.trunk.narrow[0]._conv_forward(
        x, self.trunk.narrow[0].weight, None
    ),
    "function": lambda self, x: helper(self, x),
}


def helper(net: Any, x: Tensor) -> Any:
    """The code around a part, elsewhere."""
    return net.trunk.features(x)


@pytest.mark.parametrize("reached", [True, False], ids=["on the way of the example", "elsewhere"])
@pytest.mark.parametrize("how", READERS)
def test_what_is_read_off_a_part_is_what_was_there(how: str, reached: bool) -> None:
    class Reading(Gate):
        def __init__(self) -> None:
            super().__init__()
            self.read = READERS[how]

        def forward(self, x: Tensor) -> Any:
            y = self.trunk(x)
            if bool(x.mean() > 0) == reached:
                return y + self.read(self, x)
            return y

    folded = fold(Reading())
    assert taken(folded) == ["trunk"]
    assert keeps(folded, "trunk")
    assert folded.parts[0].reason.startswith("its own layers stay too: the code around it uses '")
    assert not keeps(fold(Gate()), "trunk")


def test_a_name_that_belongs_to_another_part() -> None:
    """`features` and `wide` are read off one of the two only."""

    class Both(Gate):
        def forward(self, x: Tensor) -> Any:
            other: Any = self.other
            y = self.trunk(x) + self.get_parameter("scale")
            return y if x.mean() > 0 else other.features(y) + other.wide(y)

    model = Both(other=Block())
    model.register_parameter("scale", nn.Parameter(torch.ones(1)))
    folded = fold(model)
    assert taken(folded) == ["trunk"]
    assert not keeps(folded, "trunk")


class Indexed(Gate):
    """A container that is called, and of which a layer is used by itself elsewhere."""

    def __init__(self, read: Callable[[Any, Tensor], Any], positive: bool) -> None:
        super().__init__(nn.Sequential(Block(), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)))
        self.read, self.positive = read, positive

    def forward(self, x: Tensor) -> Any:
        y = self.trunk(x)
        return y + self.read(self, x) if bool(x.mean() > 0) == self.positive else y


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize(
    "read",
    [
        lambda self, x: self.trunk[0](x),
        lambda self, x: self.trunk[:1](x),
        lambda self, x: next(layer(x) for layer in self.trunk),
        lambda self, x: x * len(self.trunk),
        lambda self, x: next(iter(self.trunk.children()))(x),
    ],
)
def test_a_container_whose_layers_are_used_one_by_one(read: Callable[..., Any], positive: bool) -> None:
    folded = fold(Indexed(read, positive))
    assert taken(folded) == ["trunk.0"]
    assert left(folded)["trunk"].startswith("its layers are used one by one from outside ('")
    assert isinstance(folded.module.get_submodule("trunk.2"), nn.BatchNorm2d)


def test_a_container_that_is_only_called_folds_whole() -> None:
    folded = fold(Gate(nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU())))
    assert taken(folded) == ["trunk"]
    assert [type(m) for m in folded.module.get_submodule("trunk").children()][:3] == [Absent] * 3


HIDDEN: dict[str, tuple[Callable[[Any, Tensor], Any], type[Exception]]] = {
    "called": (lambda self, x: getattr(self, "tr" + "unk")[0](x), RuntimeError),
    "iterated": (lambda self, x: [m(x) for m in getattr(self, "tr" + "unk")], RuntimeError),
    "read": (lambda self, x: getattr(self, "tr" + "unk")[0].weight, AttributeError),
    "indexed": (lambda self, x: getattr(self, "tr" + "unk")[0][0], TypeError),
}


@pytest.mark.parametrize("how", HIDDEN)
def test_what_was_folded_away_says_so(how: str) -> None:
    """Nothing foresees this use; it must not be answered by something else."""

    class Hiding(Gate):
        def __init__(self) -> None:
            super().__init__(nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)))
            self.reads: list[Callable[[Any, Tensor], Any]] = []

        def forward(self, x: Tensor) -> Any:
            y = self.trunk(x)
            return y if x.mean() > 0 else [read(self, x) for read in self.reads]

    folded = fold(Hiding())
    assert not keeps(folded, "trunk")
    read, error = HIDDEN[how]
    cast(Hiding, folded.module).reads.append(read)
    with pytest.raises(error, match=r"'trunk\.0' was folded into 'trunk\.folded'"):
        folded.module(image(sign=-1))


def test_a_network_that_goes_through_its_own_modules() -> None:
    class Walking(Gate):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x.to(next(self.parameters()).dtype))

    folded = fold(Walking())
    assert taken(folded) == ["trunk"]
    assert any("goes through its modules or weights (parameters)" in note for note in folded.notes)
    assert not any("goes through" in note for note in fold(Gate()).notes)


# What is left as it is


def test_hooks_go_on_being_called() -> None:
    seen: list[str] = []
    model = Gate(nn.Sequential(Block(), Block()))
    model.get_submodule("trunk.0.wide").register_forward_hook(lambda *_: seen.append("wide"))
    folded = fold(model)
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
    folded = fold(model)
    assert taken(folded) == ["trunk.wide", "trunk.narrow"]


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
                vars(self.trunk)["factor"] = 2.0
            return self.trunk(x) if x.mean() > 0 else self.trunk(x) * 2

    folded = fold(Setting(Scaled()))
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

    assert taken(fold(Reusing(InPlace()))) == ["trunk"]


def test_torchscript_inside() -> None:
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        scripted = torch.jit.script(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)).double().eval())
    folded = fold(Stages(nn.ModuleList([Block(), scripted])))
    assert taken(folded) == ["trunk.0"]
    assert left(folded) == {"trunk.1": "it is TorchScript"}


def test_nothing_folds_in_a_part() -> None:
    folded = fold(Gate(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())))
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


# What is wrong is not handed out


def test_a_part_that_folds_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, 1.0001)
    with pytest.raises(rk.NotEquivalent, match="the folded network is not equivalent"):
        rk.fold(randomised(Gate()).double(), image())


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


def test_torch_compile() -> None:
    folded = fold(Gate())
    compiled = torch.compile(folded.module, backend="eager")
    for x in (image(), image(sign=-1)):
        assert_same(folded.module(x), compiled(x))
