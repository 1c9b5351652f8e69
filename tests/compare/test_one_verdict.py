"""One verdict for one pair, whoever asks: `rk.check`, the command line, pytest, `fold` and `save`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from reparamkit.compare.compare import compare
from reparamkit.compare.network import Network
from reparamkit.compare.profile import EXCHANGEABLE, judge_candidate
from reparamkit.pytest_plugin import AssertEquivalent
from reparamkit.runners.torch import TorchRunner
from tests.compare.nets import Lambda

SAME, DIFFERENT, CANNOT_TELL = "same", "different", "cannot tell"
IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))

Forward = Callable[[Lambda, Tensor], object]

NETWORKS: dict[str, Forward] = {
    "convolution": lambda s, x: s.conv(x),
    "relu": lambda s, x: s.conv(x).relu(),
    "sigmoid": lambda s, x: s.conv(x).sigmoid(),
    "softmax": lambda s, x: s.conv(x).softmax(1),
    "pooled": lambda s, x: s.conv(x).mean((2, 3)),
    "largest": lambda s, x: s.conv(x).amax((2, 3)),
    "classes": lambda s, x: s.conv(x).argmax(1),
    "mask": lambda s, x: s.conv(x) > 0,
    "two outputs": lambda s, x: (s.conv(x), s.conv(x).mean(1)),
    "a dict": lambda s, x: {"map": s.conv(x), "sum": s.conv(x).sum(1)},
    "residual": lambda s, x: s.conv(x)[:, :3] + x,
    "product": lambda s, x: s.conv(x) * s.conv(x).sigmoid(),
    "normalised": lambda s, x: torch.nn.functional.group_norm(s.conv(x), 1),
    "a channel of another scale": lambda s, x: s.conv(x) * torch.tensor([1e4, 1.0, 1.0, 1.0])[:, None, None],
    "upsampled": lambda s, x: torch.nn.functional.interpolate(s.conv(x), scale_factor=2.0),
    "reshaped": lambda s, x: s.conv(x).flatten(2).transpose(1, 2),
    "top": lambda s, x: s.conv(x).flatten(1).topk(3).values,
}

CANDIDATES: dict[str, tuple[Callable[[nn.Module], nn.Module], str]] = {
    "itself": (lambda net: net, SAME),
    "a bias that is off": (lambda net: _shifted(net), DIFFERENT),
    "a kernel spoilt in one place": (lambda net: _spoilt(net), DIFFERENT),
}

UNTOLD: dict[str, Forward] = {
    "constant": lambda s, x: s.conv(x) * 0.0 + 1.0,
    "saturated": lambda s, x: (s.conv(x) * 1e9).sigmoid(),
    "noise": lambda s, x: (s.conv(x) * 1e12).sin(),
}


def _shifted(net: nn.Module) -> nn.Module:
    with torch.no_grad():
        bias = next(parameter for parameter in net.parameters() if parameter.ndim == 1)
        bias.add_(0.05 * torch.arange(len(bias)))
    return net


def _spoilt(net: nn.Module) -> nn.Module:
    with torch.no_grad():
        weight = next(net.parameters())
        weight[:, 1, 0, 2] += 0.5 * weight.abs().max() * torch.tensor([1.0, -1.0, 1.0, -1.0])
    return net


def _pairs() -> list[tuple[str, nn.Module, nn.Module, str]]:
    pairs: list[tuple[str, nn.Module, nn.Module, str]] = []
    for name, forward in NETWORKS.items():
        for kind, (change, status) in CANDIDATES.items():
            original = Lambda(forward)
            pairs.append((f"{name}, {kind}", original, change(copy.deepcopy(original)), status))
    for name, forward in UNTOLD.items():
        original = Lambda(forward)
        pairs.append((name, original, copy.deepcopy(original), CANNOT_TELL))
    return pairs


PAIRS = _pairs()


def test_there_are_fifty() -> None:
    assert len(PAIRS) >= 50


def _in_turn() -> list[Any]:
    """Each network with one candidate in the fast part, the others in the slow one."""
    told = len(PAIRS) - len(UNTOLD)
    fast = {*range(0, told, len(CANDIDATES) + 1), *range(told, len(PAIRS))}
    return [
        pytest.param(*pair[1:], id=pair[0], marks=[] if place in fast else pytest.mark.slow)
        for place, pair in enumerate(PAIRS)
    ]


@pytest.mark.parametrize(("original", "candidate", "status"), _in_turn())
def test_everybody_says_the_same(
    original: nn.Module, candidate: nn.Module, status: str, assert_equivalent: AssertEquivalent
) -> None:
    said = {
        "compare": compare(original, candidate, inputs=IMAGE, where=False).comparison.status,
        "rk.check": _checked(original, candidate),
        "rk.assert_equivalent": _asserted(original, candidate),
        "the fixture": _with_fixture(assert_equivalent, original, candidate),
        "fold and save": _as_fold_judges(original, candidate),
    }
    assert set(said.values()) == {status}, said


@pytest.mark.parametrize("name", ["relu", "classes", "two outputs"])
@pytest.mark.parametrize("kind", CANDIDATES)
def test_the_command_line_and_the_files_say_so_too(name: str, kind: str, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from reparamkit.cli.app import app

    change, status = CANDIDATES[kind]
    original = Lambda(NETWORKS[name])
    candidate = change(copy.deepcopy(original))
    files = []
    for place, net in enumerate((original, candidate)):
        files.append(tmp_path / f"{place}.pt2")
        torch.export.save(torch.export.export(net, (IMAGE,)), files[-1])
    result = CliRunner().invoke(app, ["check", *map(str, files), "--no-locate"])
    assert result.exit_code == {SAME: 0, DIFFERENT: 1, CANNOT_TELL: 2}[status]
    assert _checked(files[0], files[1]) == status
    assert compare(files[0], files[1], where=False).comparison.status == status


def _checked(original: object, candidate: object) -> str:
    try:
        verdict = rk.check(original, candidate, IMAGE)
    except rk.UnusableInput as error:
        return str(error)[: len(CANNOT_TELL)]
    return SAME if verdict.passed else DIFFERENT


def _asserted(original: object, candidate: object) -> str:
    try:
        rk.assert_equivalent(original, candidate, IMAGE)
    except rk.NotEquivalent:
        return DIFFERENT
    except rk.UnusableInput:
        return CANNOT_TELL
    return SAME


def _with_fixture(assert_equivalent: AssertEquivalent, original: object, candidate: object) -> str:
    try:
        assert_equivalent(original, candidate, IMAGE, locate=False)
    except AssertionError as error:
        return str(error).partition(":")[0].lower()
    return SAME


def _as_fold_judges(original: nn.Module, candidate: nn.Module) -> str:
    opened = Network("original", TorchRunner(original))
    network = Network("candidate", TorchRunner(candidate), example=((IMAGE,), {}), original=opened)
    verdict = judge_candidate(network.reference, network.runner, EXCHANGEABLE, "float32")
    return CANNOT_TELL if verdict.untold else SAME if verdict.passed else DIFFERENT
