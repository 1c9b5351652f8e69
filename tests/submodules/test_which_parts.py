"""Which parts of a network fold that does not as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor, nn

from reparamkit.submodules.replacement import Absent
from tests.submodules.gates import Block, Gate, Stages, assert_folds, left, taken

pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.mark.parametrize("kind", [nn.ModuleList, nn.Sequential])
def test_containers_that_are_iterated(kind: Callable[..., nn.Module]) -> None:
    stages = [Block(), nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)), nn.ReLU()]
    folded = assert_folds(Stages(kind(stages) if kind is nn.ModuleList else kind(*stages)))
    assert taken(folded) == ["trunk.0", "trunk.1"]
    expected = {} if kind is nn.ModuleList else {"trunk": "it is not called itself"}
    assert {where: reason[:23] for where, reason in left(folded).items()} == expected


def test_a_dict_of_modules() -> None:
    folded = assert_folds(Stages(nn.ModuleDict({"a": Block(), "b": Block()})))
    assert taken(folded) == ["trunk.a", "trunk.b"]
    assert left(folded) == {}


def test_the_parts_of_a_part_that_branches() -> None:
    folded = assert_folds(nn.Sequential(Gate(Gate()), Block()))
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

    assert taken(assert_folds(Late())) == ["trunk"]


class Choice(Gate):
    """One of two modules, by the sign."""

    def forward(self, x: Tensor) -> Any:
        return self.trunk(x) if x.mean() > 0 else self.get_submodule("other")(x)


def test_a_part_that_the_example_does_not_reach() -> None:
    folded = assert_folds(Choice(other=Block()))
    assert taken(folded) == ["trunk"]
    assert left(folded) == {"other": "the example does not reach it"}
    assert isinstance(folded.module.get_submodule("other.wide.1"), nn.BatchNorm2d)


def test_a_module_under_two_names() -> None:
    block = Block()
    folded = assert_folds(Choice(block, other=block))
    assert taken(folded) == ["trunk"]
    assert left(folded) == {}
    assert folded.module.get_submodule("other") is folded.module.get_submodule("trunk")
    assert folded.before["conv2d"] == 2


def test_a_module_inside_two_others() -> None:
    """One holder folds with it, the other branches: it keeps it, and it is folded there on its own."""
    block = Block()
    folded = assert_folds(Stages(nn.ModuleList([nn.Sequential(block, nn.ReLU()), Gate(block)])))
    assert taken(folded) == ["trunk.0", "trunk.1.trunk"]
    assert isinstance(folded.module.get_submodule("trunk.0.0"), Absent)
    assert not isinstance(folded.module.get_submodule("trunk.1.trunk"), Absent)
