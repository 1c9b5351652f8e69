"""What cannot be told ends in 2, from `fold` as from `check`, and is written where that is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.cli.running import Run
from tests.compare.nets import randomised

HERE = "tests.cli.test_untold"
SHAPE = ("--input", "2x3x16x16")


class Saturated(nn.Module):
    """A convolution with a norm, and a sigmoid at its ends."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        randomised(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.conv(x)))

    def last(self, y: torch.Tensor) -> torch.Tensor:
        return (y * 1e9).sigmoid()


class Constant(Saturated):
    def last(self, y: torch.Tensor) -> torch.Tensor:
        return 0 * y + 1


class Dropping(Saturated):
    def last(self, y: torch.Tensor) -> torch.Tensor:
        return F.dropout(y, 0.5, training=True)


WHY = {
    "Saturated": "is saturated",
    "Constant": "does not depend on the input",
    "Dropping": "the network is random: it gives other outputs",
}


@pytest.mark.parametrize("name", WHY)
def test_nothing_is_written_without_being_asked_for(run: Run, tmp_path: Path, name: str) -> None:
    told = run("fold", f"{HERE}:{name}", *SHAPE, "--dynamic", "none", "-o", "n.pt2", "-o", "n.onnx")
    assert told.status == 2, told
    said = told.err.strip().splitlines()[-1]
    assert said.startswith("reparamkit: error: n.onnx was not written") or "n.pt2 was not written" in said
    assert WHY[name] in said
    assert "--allow-untold" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["Saturated", "Dropping"])
def test_it_is_written_where_that_is_asked_for(run: Run, tmp_path: Path, name: str) -> None:
    written = run("fold", f"{HERE}:{name}", *SHAPE, "--dynamic", "none", "-o", "n.pt2", "--allow-untold")
    assert written.status == 0, written
    assert (tmp_path / "n.pt2").exists()
    assert written.out.count(f"cannot tell: {'nothing' if name == 'Saturated' else 'the network'}") == 2
    checked = run("check", f"{HERE}:{name}", "n.pt2", *SHAPE)
    assert checked.status == 2, checked
    assert WHY[name] in checked.out


def build() -> nn.Module:
    return nn.Conv2d(3, 4, 3)


def test_a_source_that_draws_new_weights(run: Run) -> None:
    told = run("check", f"{HERE}:build", f"{HERE}:build", *SHAPE)
    assert told.status == 2, told
    assert f"{HERE}:build draws new weights at each call" in told.out
