"""What the code around a part reads off it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from reparamkit.submodules.replacement import Absent
from tests.submodules.gates import Block, Gate, assert_folds, image, keeps, left, taken

pytestmark = pytest.mark.usefixtures("no_grad")


def test_plain_attributes_are_still_there() -> None:
    class Reading(Gate):
        def forward(self, x: Tensor) -> Any:
            y = self.trunk(x) * self.trunk.out_channels + self.trunk.stride
            return y if x.mean() > 0 and not self.trunk.training else y - 1

    folded = assert_folds(Reading())
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


@pytest.mark.diagonal(3)
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

    folded = assert_folds(Reading())
    assert taken(folded) == ["trunk"]
    assert keeps(folded, "trunk")
    assert folded.parts[0].reason.startswith("its own layers stay too: the code around it uses '")
    assert not keeps(assert_folds(Gate()), "trunk")


def test_a_name_that_belongs_to_another_part() -> None:
    """`features` and `wide` are read off one of the two only."""

    class Both(Gate):
        def forward(self, x: Tensor) -> Any:
            other: Any = self.other
            y = self.trunk(x) + self.get_parameter("scale")
            return y if x.mean() > 0 else other.features(y) + other.wide(y)

    model = Both(other=Block())
    model.register_parameter("scale", nn.Parameter(torch.ones(1)))
    folded = assert_folds(model)
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


@pytest.mark.diagonal(2)
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
    folded = assert_folds(Indexed(read, positive))
    assert taken(folded) == ["trunk.0"]
    assert left(folded)["trunk"].startswith("its layers are used one by one from outside ('")
    assert isinstance(folded.module.get_submodule("trunk.2"), nn.BatchNorm2d)


def test_a_container_that_is_only_called_folds_whole() -> None:
    folded = assert_folds(Gate(nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU())))
    assert taken(folded) == ["trunk"]
    assert [type(m) for m in folded.module.get_submodule("trunk").children()][:3] == [Absent] * 3


HIDDEN: dict[str, tuple[Callable[[Any, Tensor], Any], type[Exception]]] = {
    "called": (lambda self, x: getattr(self, "tr" + "unk")[0](x), RuntimeError),
    "iterated": (lambda self, x: [m(x) for m in getattr(self, "tr" + "unk")], RuntimeError),
    "read": (lambda self, x: getattr(self, "tr" + "unk")[0].weight, AttributeError),
    "indexed": (lambda self, x: getattr(self, "tr" + "unk")[0][0], TypeError),
}


@pytest.mark.diagonal(2)
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

    folded = assert_folds(Hiding())
    assert not keeps(folded, "trunk")
    read, error = HIDDEN[how]
    cast(Hiding, folded.module).reads.append(read)
    with pytest.raises(error, match=r"'trunk\.0' was folded into 'trunk\.folded'"):
        folded.module(image(sign=-1))


@pytest.mark.slow
def test_a_network_that_goes_through_its_own_modules() -> None:
    class Walking(Gate):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x.to(next(self.parameters()).dtype))

    folded = assert_folds(Walking())
    assert taken(folded) == ["trunk"]
    assert any("goes through its modules or weights (parameters)" in note for note in folded.notes)
    assert not any("goes through" in note for note in assert_folds(Gate()).notes)
