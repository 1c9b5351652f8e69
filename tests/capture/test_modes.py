"""A network that runs other operators in another mode is told of, and an ordinary one is not."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import reparamkit as rk
from reparamkit.capture.export import capture
from reparamkit.capture.modes import other_modes
from tests.nets import Net, noise, randomised

X = noise(2, 3, 8, 9, dtype=torch.float32)
TOLD = "the folded network stands for evaluation without gradients"


def _twice_if(odd: Callable[[Any, Tensor], bool]) -> Callable[[Any, Tensor], Tensor]:
    return lambda s, x: s.conv(x) * (2 if odd(s, x) else 1)


def _notes(forward: Callable[[Any, Tensor], Any], x: Tensor = X) -> str:
    net = randomised(Net(forward, conv=nn.Conv2d(3, 4, 3, padding=1), norm=nn.BatchNorm2d(4)))
    return "\n".join(note for note in capture(net, (x,)).notes if TOLD in note)


SEEN: dict[str, tuple[Callable[[Any, Tensor], Any], str]] = {
    "grad mode": (_twice_if(lambda s, x: torch.is_grad_enabled()), "when gradients are recorded"),
    "requires_grad": (_twice_if(lambda s, x: x.requires_grad), "for inputs that require gradients"),
    "of what it computes": (
        lambda s, x: (lambda y: y * 2 if y.requires_grad else y)(s.conv(x)),
        "when gradients are recorded",
    ),
    "memory format": (
        _twice_if(lambda s, x: x.is_contiguous(memory_format=torch.channels_last)),
        "for inputs in channels-last memory",
    ),
    "contiguous": (_twice_if(lambda s, x: not x.is_contiguous()), "for inputs that are not contiguous"),
    "a stride": (_twice_if(lambda s, x: x.stride(-1) != 1), "for inputs that are not contiguous"),
    "the stride of a sample": (
        _twice_if(lambda s, x: x.stride(0) != x[0].numel()),
        "for inputs that are not contiguous",
    ),
    "an offset": (
        _twice_if(lambda s, x: x.storage_offset() > 0),
        "for inputs that are a part of larger ones in memory",
    ),
    "autocast": (_twice_if(lambda s, x: torch.is_autocast_enabled("cpu")), "inside autocast"),
    "the training flag": (_twice_if(lambda s, x: bool(s.training)), "in training mode"),
    "a switched dropout": (
        lambda s, x: F.dropout(s.conv(x), 0.5, training=s.training),
        "in training mode",
    ),
    "the default type": (
        _twice_if(lambda s, x: torch.get_default_dtype() == torch.float64),
        "with float64 as the default number type",
    ),
}


@pytest.mark.parametrize("name", SEEN)
def test_another_mode_is_told(name: str) -> None:
    forward, words = SEEN[name]
    assert words in _notes(forward)


@pytest.mark.parametrize(
    "odd",
    [
        lambda s, x: not x.is_contiguous(),
        lambda s, x: x.stride(-1) != 1,
        lambda s, x: x.stride(0) == 1,
    ],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_another_layout_of_a_matrix_is_told(odd: Callable[[Any, Tensor], bool], batch: int) -> None:
    net = randomised(Net(lambda s, x: s.fc(x) * (2 if odd(s, x) else 1), fc=nn.Linear(3, 4)))
    notes = capture(net, (noise(batch, 3, dtype=torch.float32),)).notes
    assert any(TOLD in note and "for inputs that are not contiguous" in note for note in notes)


@pytest.mark.parametrize("shape", [(1, 1, 5, 1), (2, 1, 5, 5), (3, 1, 1, 4), (1, 3, 4, 1)])
def test_channels_last_is_told_where_axes_of_one_lie_otherwise(shape: tuple[int, ...]) -> None:
    channels = nn.Conv2d(shape[1], 4, 1)
    net = randomised(Net(lambda s, x: s.conv(x) * (2 if x.stride(1) == 1 else 1), conv=channels))
    notes = capture(net, (noise(*shape, dtype=torch.float32),), dynamic=False).notes
    assert any(TOLD in note and "for inputs in channels-last memory" in note for note in notes)


def _residual(s: Any, x: Tensor) -> Tensor:
    y = F.relu(s.norm(s.conv(x)), inplace=True)
    y += s.conv(x)
    return F.relu_(y).mean((2, 3))


ORDINARY: dict[str, Callable[[Any, Tensor], Any]] = {
    "conv, norm, relu": lambda s, x: s.norm(s.conv(x)).relu(),
    "in place": _residual,
    "flattened": lambda s, x: s.norm(s.conv(x)).flatten(1),
    "reshaped": lambda s, x: s.conv(x).reshape(x.shape[0], 4, -1).transpose(1, 2),
    "attention": lambda s, x: F.scaled_dot_product_attention(x, x, x),
    "interpolated": lambda s, x: F.interpolate(s.conv(x), scale_factor=2.0, mode="bilinear"),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_of_an_ordinary_network_nothing_is_told(name: str) -> None:
    assert not _notes(ORDINARY[name])


def test_of_torch_s_own_layers_nothing_is_told() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.3)).eval()
    assert not any(TOLD in note for note in capture(net, (X,)).notes)


def test_the_note_comes_with_the_fold() -> None:
    net = randomised(Net(SEEN["grad mode"][0], conv=nn.Conv2d(3, 4, 3)))
    assert any("when gradients are recorded (mul with other arguments)" in n for n in rk.fold(net, X).notes)


def test_inputs_of_a_mode_hold_the_same_numbers() -> None:
    tensors = [
        X,
        noise(2, 3, 4, 5, 6),
        noise(4, 5),
        noise(3),
        noise(0, 3),
        torch.tensor(2.0),
        torch.arange(6),
    ]
    modes = {mode.name: mode for group in other_modes("cpu") for mode in group}
    for mode in itertools.chain(*other_modes("cpu")):
        for tensor in tensors:
            given = mode.inputs(tensor.clone())
            assert torch.equal(given.detach(), tensor)
            assert given.dtype == tensor.dtype
    assert (
        modes["for inputs in channels-last memory"].inputs(X).is_contiguous(memory_format=torch.channels_last)
    )
    others = [mode.inputs for mode in itertools.chain(*other_modes("cpu")) if "not contiguous" in mode.name]
    assert len(others) == 2
    assert not any(inputs(X).is_contiguous() for inputs in others)
    assert not any(inputs(X[:, :, :1]).is_contiguous() for inputs in others)
    assert modes["for inputs that are a part of larger ones in memory"].inputs(X).storage_offset() > 0
