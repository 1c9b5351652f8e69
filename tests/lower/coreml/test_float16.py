"""What float16 costs, and what stays in float32 for that."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from reparamkit.lower.coreml.float16 import Lost, first_choice, in_words, next_choice
from reparamkit.lower.coreml.options import CoreMlOptions
from reparamkit.mil.graph import MilProgram
from reparamkit.mil.program import open_program
from tests.lower.coreml.nets import IMAGE, branches, folded

AUTO = CoreMlOptions(precision="float16", keep_float32="auto")
PLAIN = CoreMlOptions(precision="float16")


class Wide(nn.Module):
    """One layer makes large numbers, of which the next ones keep what is small."""

    def __init__(self, offset: float, gain: float = 1.0) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.far = nn.Conv2d(8, 8, 1)
        self.back = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)
        self.offset, self.gain = offset, gain
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)) / 3)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.stem(image))
        x = torch.relu(self.far(x) * self.gain + self.offset)
        x = torch.relu(self.back(torch.tanh((x - self.offset) / self.gain)))
        return self.head(x.mean((2, 3)))


def in_float32(program: MilProgram) -> list[str]:
    """The layers that compute in float32."""
    return [
        operation.name
        for operation in program.operations
        if operation.kind in ("conv", "linear") and operation.outputs[0].dtype is torch.float32
    ]


def saved(model: nn.Module, path: Path, options: CoreMlOptions) -> tuple[Any, MilProgram]:
    (made,) = folded(model, IMAGE, dynamic=False, verify=False).save(path / "net.mlpackage", coreml=options)
    return made, open_program(path / "net.mlpackage")


@pytest.mark.slow
def test_the_layers_that_lose_most_are_named(tmp_path: Path) -> None:
    made, program = saved(branches(), tmp_path, PLAIN)
    (note,) = [note for note in made.notes if note.startswith("float16 loses most at")]
    assert re.match(r"float16 loses most at (stem|reparam_conv|head) \(\d+ % of the squared error\), ", note)
    assert in_float32(program) == []


@pytest.mark.slow
def test_they_stay_in_float32(tmp_path: Path) -> None:
    with pytest.raises(rk.NotEquivalent, match=r"float16 loses most at far \(\d+ % of the squared error\)"):
        saved(Wide(300.0), tmp_path, PLAIN)
    made, program = saved(Wide(300.0), tmp_path, AUTO)
    assert any("stay in float32, where float16 loses most: far (" in note for note in made.notes)
    kept = {each.name for each in program.operations if each.outputs[0].dtype is torch.float32}
    assert "far" in kept
    assert not {"stem", "back", "head"} & kept
    assert made.equivalence.passed


def test_what_leaves_the_range_of_float16_stays(tmp_path: Path) -> None:
    made, program = saved(Wide(0.0, 1e6), tmp_path, AUTO)
    assert any("(beyond its range)" in note for note in made.notes)
    assert "far" in in_float32(program)
    assert "back" not in in_float32(program)
    assert made.equivalence.passed


@pytest.mark.slow
def test_the_range_has_to_do_for_large_inputs_too(tmp_path: Path) -> None:
    made, program = saved(Wide(0.0, 4e3), tmp_path, AUTO)
    assert made.equivalence.passed
    assert any("(beyond its range)" in note for note in made.notes)
    assert "far" in in_float32(program)


def test_without_that_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises((rk.NotEquivalent, rk.UnusableInput), match=r"float16|float32"):
        saved(Wide(0.0, 1e6), tmp_path, PLAIN)
    assert list(tmp_path.iterdir()) == []


def test_weights_are_judged_by_themselves_too(tmp_path: Path) -> None:
    made, _ = saved(branches(), tmp_path, PLAIN)
    (note,) = [note for note in made.equivalence.notes if note.startswith("its weights as stored")]
    assert "the error of the reference with weights rounded to float16: error" in note


LOST = [Lost("a", 0.4, False, ("b",)), Lost("c", 0.3, False), Lost("b", 0.2, False), Lost("d", 0.1, False)]


def test_choices() -> None:
    assert first_choice(LOST) == ["a", "b"]
    assert first_choice([Lost("x", 0.5, True), Lost("y", 0.5, True), *LOST]) == ["x", "y"]
    assert first_choice([Lost("x", 1.0, True), *LOST], ["x"]) == ["a", "b"]
    assert first_choice([Lost("x", 0.0, False)]) == []
    many = [Lost(str(number), 0.01, False) for number in range(100)]
    assert first_choice(many) == ["0", "1", "2", "3", "4"]
    assert next_choice(LOST, ["a", "b"]) == ["c", "d"]
    assert next_choice(LOST, ["a", "b", "c", "d"]) == []
    assert next_choice(LOST, []) == ["a"]
    rounded_input = Lost("the input image", 0.9, False, ("a",))
    assert first_choice([rounded_input, Lost("a", 0.1, False)]) == ["a"]
    assert next_choice([rounded_input], ["a"]) == []


def test_words() -> None:
    assert in_words(LOST) == "a (40 % of the squared error), c (30 %), b (20 %) and 1 more"
    assert in_words([Lost("x", 1.0, True)]) == "x (beyond its range)"
