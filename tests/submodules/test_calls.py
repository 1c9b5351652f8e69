"""How the parts are called."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from tests.nets import assert_same, randomised
from tests.submodules.gates import Block, Gate, assert_folds, image, keeps, left, taken

pytestmark = pytest.mark.usefixtures("no_grad")


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
    folded = assert_folds(model())
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
    folded = assert_folds(Caller())
    assert taken(folded) == ["trunk"]
    assert not keeps(folded, "trunk")


@pytest.mark.diagonal(1)
@pytest.mark.parametrize("other", [{"scale": 3.0}, {"skip": torch.ones(1, dtype=torch.float64)}])
def test_a_call_that_the_graph_does_not_answer(other: dict[str, Any]) -> None:
    """The example never passes `scale` or `skip`; a graph that was captured without must not answer."""
    folded = assert_folds(Caller(other))
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
    folded = assert_folds(Caller({"scale": 3.0}, both=True))
    assert taken(folded) == ["trunk.block"]
    assert "called with different arguments that are not tensors" in left(folded)["trunk"]


def test_a_constant_that_the_code_passes_keeps_the_part_whole() -> None:
    class Passing(Caller):
        def forward(self, x: Tensor) -> Any:
            return self.trunk((x, x), more={"z": x}, scale=3.0 if x.mean() > 0 else 5.0)

    folded = assert_folds(Passing())
    assert taken(folded) == ["trunk"]
    assert keeps(folded, "trunk")
    assert folded.parts[0].reason == "its own layers stay too: it takes arguments that are not tensors"


def test_the_same_call_in_other_words() -> None:
    class Words(Gate):
        def forward(self, x: Tensor) -> Any:
            return self.trunk(x) * 2 if x.mean() > 0 else self.trunk(x=x)

    folded = assert_folds(Words())
    assert taken(folded) == ["trunk"]
    assert not keeps(folded, "trunk")
