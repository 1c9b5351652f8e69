"""`.pte` files: what they hold and say, what ExecuTorch refuses, the same bytes for the same fold."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from reparamkit.errors import CannotWrite, MissingExtra, UnusableInput
from reparamkit.lower import executorch as lower_executorch
from reparamkit.runners import executorch as runs_executorch
from reparamkit.runners.executorch import ExecuTorchRunner
from tests.compare.files import IMAGE, small
from tests.nets import Net, noise, randomised

pytest.importorskip("executorch", reason="ExecuTorch, of the extra [executorch], is not installed")


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.narrow = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 5)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        y = torch.relu(self.wide(image) + self.narrow(image))
        return {"map": y, "scores": self.head(y.mean((2, 3)))}


def _folded(module: nn.Module, inputs: Any, **options: Any) -> rk.Folded:
    return rk.fold(module, inputs, **options)


def test_a_file_holds_what_was_folded_and_says_what_it_takes(tmp_path: Path) -> None:
    network = randomised(Branches())
    handlers, level = list(logging.getLogger().handlers), logging.getLogger().level
    (saved,) = _folded(network, torch.randn(2, 3, 12, 10)).save(tmp_path / "net.pte")
    assert (logging.getLogger().handlers, logging.getLogger().level) == (handlers, level)
    assert saved.equivalence.passed
    assert saved.operators["Conv2d"] == 1
    assert not any("norm" in name.lower() for name in saved.operators)
    assert "image: 1..4x3x1..24x1..20" in saved.notes[-1]
    runner = ExecuTorchRunner(tmp_path / "net.pte")
    assert runner.precision == "float32"
    (spec,) = runner.declared
    assert (spec.name, spec.shape, spec.dtype) == ("image", ("batch", 3, "height", "width"), torch.float32)
    assert spec.usual == (2, 3, 12, 10)
    assert runner.ranges == {"batch": (1, 4), "height": (1, 24), "width": (1, 20)}
    for shape in ((1, 3, 12, 10), (4, 3, 24, 20), (3, 3, 7, 9)):
        image = noise(*shape, dtype=torch.float32)
        assert runner.accepts((image,), {})
        values = dict(runner.run((image,), {}))
        for name, expected in network(image).items():
            assert torch.allclose(values[name], expected, atol=1e-5), (shape, name)
    assert not runner.accepts((torch.randn(5, 3, 12, 10),), {})
    assert not runner.accepts((torch.randn(1, 4, 12, 10),), {})
    with pytest.raises(RuntimeError, match="maximum capacity of 5760 elements"):
        runner.run((torch.randn(5, 3, 24, 20),), {})


def test_the_gelu_that_tanh_approximates_is_kept_from_xnnpack(tmp_path: Path) -> None:
    """XNNPACK's delegate computes the exact one for it, which is off by 7e-5."""
    gelu = nn.Sequential(nn.Linear(8, 8), nn.GELU(approximate="tanh"), nn.Linear(8, 4))
    (saved,) = _folded(gelu.eval(), noise(3, 8, dtype=torch.float32), dynamic=False).save(
        tmp_path / "net.pte"
    )
    assert saved.equivalence.passed
    assert (saved.operators["gelu"], saved.operators["FullyConnected"]) == (1, 2)
    assert "which run 2 of 3 operators, and GELU is not one of them; " in saved.notes[-1]


@pytest.mark.slow
def test_the_portable_kernels_run_it_alone(tmp_path: Path) -> None:
    folded = _folded(small(), IMAGE, dynamic=False)
    (saved,) = folded.save(tmp_path / "net.pte", executorch_backend="portable")
    assert saved.operators["convolution"] == 2
    assert saved.notes[-1].startswith("for ExecuTorch's portable kernels; image: 1x3x12x10; ")
    assert rk.check(small(), tmp_path / "net.pte", IMAGE).passed


@pytest.mark.slow
def test_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.pte", "b.pte"):
        _folded(randomised(Branches()), torch.zeros(2, 3, 12, 10)).save(tmp_path / name)
    assert (tmp_path / "a.pte").read_bytes() == (tmp_path / "b.pte").read_bytes()
    assert str(Path(torch.__file__).parent).encode() not in (tmp_path / "a.pte").read_bytes()


class Options(nn.Module):
    """What is no tensor comes in, what is none goes out."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

    def forward(self, x: Tensor, both: bool = True, scale: Any = None, count: int = 2, *, pair: Any) -> Any:
        y = self.layers(x) * pair["k"]
        return {"a": (y, None, count), "m": y.argmax(1), "t": y > 0, "n": (y.sum() > 0).half()}


@pytest.mark.slow
def test_inputs_and_outputs_of_every_kind(tmp_path: Path) -> None:
    network = randomised(Options())
    inputs = {"x": noise(2, 3, 8, 8, dtype=torch.float32), "both": True, "scale": None, "count": 3}
    inputs["pair"] = {"k": torch.tensor([2.0])}
    (saved,) = _folded(network, inputs, dynamic=False).save(tmp_path / "net.pte")
    assert saved.equivalence.passed
    runner = ExecuTorchRunner(tmp_path / "net.pte")
    assert [spec.name for spec in runner.declared] == ["x", "pair_k"]
    values = dict(runner.run((), inputs))
    assert list(values) == ["a_0", "a_2", "m", "t", "n"]
    assert (int(values["a_2"]), values["m"].dtype, values["t"].dtype) == (3, torch.int64, torch.bool)
    assert values["n"].dtype is torch.float16


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(tmp_path: Path, dtype: torch.dtype) -> None:
    network = small().to(dtype)
    (saved,) = _folded(network, IMAGE.to(dtype), dynamic=False).save(tmp_path / "net.pte")
    assert saved.equivalence.passed
    assert ExecuTorchRunner(tmp_path / "net.pte").precision == str(dtype).removeprefix("torch.")


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.runs: Tensor
        self.register_buffer("runs", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.runs.add_(1)
        return x + self.runs


class Shifting(Counting):
    """It writes into a part of what it holds."""

    def forward(self, x: Tensor) -> Tensor:
        self.runs[:1].mul_(2).add_(x.sum())
        return x + self.runs


@pytest.mark.parametrize(
    ("module", "inputs", "words"),
    [
        pytest.param(
            Net(lambda s, x: torch.fft.rfft(x).abs()),
            noise(2, 8, dtype=torch.float32),
            "mismatched dtypes: Operator: ",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            Net(lambda s, x: s.c(x), c=nn.Conv3d(2, 3, 3)),
            noise(1, 2, 5, 5, 5, dtype=torch.float32),
            "cannot run what it makes of this network: Expect input tensor to be 3-D or 4-D, but got, 5 (",
            marks=pytest.mark.slow,
        ),
        (
            Net(lambda s, x: torch.sort(x)[0]),
            noise(2, 3, dtype=torch.float32),
            "cannot run what it makes of this network: kernel 'aten::sort.values' not found",
        ),
        pytest.param(
            Net(lambda s, x: torch.nn.functional.pad(x, (-1, 1))),
            noise(2, 3, dtype=torch.float32),
            "Padding values must be non-negative, but got pad[0] = -1 (aten::constant_pad_nd.out)",
            marks=pytest.mark.slow,
        ),
        (Counting(), noise(1, 2, dtype=torch.float32), "would keep what the network writes into 'runs'"),
        (Shifting(), noise(1, 2, dtype=torch.float32), "would keep what the network writes into 'runs'"),
    ],
)
def test_what_executorch_cannot_do_is_said_in_its_words(
    tmp_path: Path, module: nn.Module, inputs: Tensor, words: str
) -> None:
    path = tmp_path / "net.pte"
    path.write_bytes(b"older")
    with pytest.raises(CannotWrite) as raised:
        _folded(module.eval(), inputs, dynamic=False).save(path)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert str(Path(torch.__file__).parent) not in str(raised.value)
    assert path.read_bytes() == b"older"
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.pte"]


@pytest.mark.slow
def test_sizes_that_xnnpack_cannot_keep_free_are_fixed_and_told(tmp_path: Path) -> None:
    network = randomised(nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3)))
    (saved,) = _folded(network, noise(1, 2, 9, dtype=torch.float32)).save(tmp_path / "net.pte")
    assert "the batch size alone is free" in saved.notes[0]
    assert "XNNPACK reshape only supports 1 dynamic dimension" in saved.notes[0]
    assert "--executorch-backend portable does without XNNPACK" in saved.notes[0]


def test_a_wrong_file_never_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folded = _folded(small(), IMAGE, dynamic=False)
    lowered = lower_executorch.lowered

    def spoiling(program: Any, *others: Any) -> bytes:
        with torch.no_grad():
            program.state_dict["second.weight"][3, 1, 1, 1] *= 1.05
        return lowered(program, *others)

    monkeypatch.setattr(lower_executorch, "lowered", spoiling)
    with pytest.raises(rk.NotEquivalent, match=r"net\.pte was not written: the file is not equivalent"):
        folded.save(tmp_path / "net.pte")
    assert not list(tmp_path.iterdir())


def test_bad_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folded = _folded(small(), IMAGE, dynamic=False)
    with pytest.raises(
        UnusableInput, match="'vulkan' is no backend of ExecuTorch's here: say xnnpack or portable"
    ):
        folded.save(tmp_path / "net.pte", executorch_backend="vulkan")
    with pytest.raises(
        UnusableInput, match=r"a backend of ExecuTorch's is for a \.pte, and no output is one"
    ):
        folded.save(tmp_path / "net.pt2", executorch_backend="portable")
    monkeypatch.setattr(runs_executorch, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="needs the package 'executorch'"):
        folded.save(tmp_path / "net.pte")
    assert not list(tmp_path.iterdir())
