"""Long sums in another order: the same functions, and the rounding error that a back end may show in them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import reparamkit as rk
from reparamkit.compare.float64.in_turn import LONG, SumInTurn
from reparamkit.compare.float64.recorded import FLOOR_ULPS
from reparamkit.compare.float64.reference import Reference
from reparamkit.compare.judge import judge
from reparamkit.compare.saved import load_outputs, save_outputs
from reparamkit.models.random_weights import randomize
from reparamkit.runners.base import NamedTensors
from reparamkit.runners.onnxruntime import OnnxRuntimeRunner
from reparamkit.runners.torch import TorchRunner
from tests.compare.nets import Lambda
from tests.nets import noise

SUMS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x.mean((2, 3)),
    "mean of all": lambda x: x.mean(),
    "mean, axes kept": lambda x: x.mean((-1, -2), keepdim=True),
    "sum": lambda x: x.sum((2, 3)),
    "sum of one axis": lambda x: x.flatten(2).sum(-1),
    "sum of all": lambda x: x.sum(),
    "variance": lambda x: x.var((2, 3)),
    "variance, uncorrected": lambda x: x.var((2, 3), correction=0, keepdim=True),
    "deviation": lambda x: x.std((0, 2, 3)),
    "variance and mean": lambda x: torch.cat(torch.var_mean(x, (2, 3)), 1),
    "softmax": lambda x: x.flatten(2).softmax(-1),
    "log softmax": lambda x: x.flatten(2).log_softmax(-1),
    "layer norm": lambda x: F.layer_norm(x, x.shape[2:]),
    "layer norm, affine": lambda x: F.layer_norm(x, x.shape[1:], x[0].abs(), x[0]),
    "group norm": lambda x: F.group_norm(x, 2, x[0, :, 0, 0], x[0, :, 0, 1]),
    "instance norm": lambda x: F.instance_norm(x),
    "instance norm, affine": lambda x: F.instance_norm(x, weight=x[0, :, 0, 0], bias=x[0, :, 0, 1]),
    "pooling of all": lambda x: F.adaptive_avg_pool2d(x, 1),
    "pooling to two": lambda x: F.adaptive_avg_pool2d(x, 2),
    "pooling": lambda x: F.avg_pool2d(x, 20, 10),
    "pooling in three axes": lambda x: F.avg_pool3d(x[:, None], (2, 40, 40)),
    "norm": lambda x: torch.linalg.vector_norm(x, dim=(2, 3)),
    "normalised": lambda x: F.normalize(x.flatten(2), dim=-1),
}
SHORT: dict[str, Callable[[Tensor], Tensor]] = {
    "over channels": lambda x: x.mean(1),
    "small windows": lambda x: F.avg_pool2d(x, 3),
    "padded": lambda x: F.avg_pool2d(x, 21, padding=10),
    "uneven": lambda x: F.adaptive_avg_pool2d(x, 7),
    "over nothing": lambda x: x[:0].mean((2, 3)),
}


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_the_same_function(name: str, dtype: torch.dtype) -> None:
    x = noise(2, 4, 40, 40, dtype=dtype)
    plain = SUMS[name](x)
    with SumInTurn() as mode:
        result = SUMS[name](x)
    assert mode.terms >= LONG
    assert result.dtype is plain.dtype
    assert result.shape == plain.shape
    exact = SUMS[name](x.double())
    u = torch.finfo(dtype).eps / 2
    terms = x.abs().sum().item() if name.startswith("sum") else float(exact.abs().max())
    assert float((result.double() - exact).abs().max()) < 40 * mode.terms**0.5 * u * max(terms, 1e-30)


@pytest.mark.parametrize("name", SHORT)
def test_short_sums_and_others_stay(name: str) -> None:
    x = noise(2, 4, 40, 40, dtype=torch.float32)
    with SumInTurn() as mode:
        result = SHORT[name](x)
    assert mode.terms == 0
    assert torch.equal(result, SHORT[name](x))


def test_the_terms_are_added_one_after_the_other() -> None:
    x = noise(1, 2, 20, 20, dtype=torch.float32)
    totals = []
    for channel in x[0].flatten(1).numpy():
        total = np.float32(0)
        for term in channel:
            total = np.float32(total + term)
        totals.append(total)
    with SumInTurn():
        result = x.sum((2, 3))
    assert result[0].tolist() == totals


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


@pytest.fixture(scope="module")
def large() -> tuple[nn.Module, Tensor]:
    x = noise(1, 3, 160, 160, dtype=torch.float32)
    return randomize(Pooled(), seed=0, sample=x).eval(), x


class InOrder(nn.Module):
    """The same network, whose mean goes through its terms from first to last."""

    def __init__(self, net: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, x: Tensor) -> Tensor:
        y = self.net.get_submodule("body")(x).flatten(2)
        totals = np.add.accumulate(y.numpy(), -1)
        mean = torch.from_numpy(totals[..., -1]) / y.shape[-1]
        return self.net.get_submodule("head")(mean) * self.scale


def test_another_order_of_a_long_mean_is_no_difference(large: tuple[nn.Module, Tensor]) -> None:
    net, x = large
    reference = Reference(net, (x,))
    narrow = reference.budgets()
    verdict = reference.judge(InOrder(net))
    assert verdict.passed, verdict.summary()
    assert any("adds up 25,600 terms at a time" in note for note in verdict.notes)
    # of the scale; the sum of 25,600 terms of one sign in turn is off by 3e-6 or so
    in_turn = reference.with_records(reference.in_another_order()[0], reference.precision, FLOOR_ULPS)
    assert narrow.budget(0, "normal") < in_turn.budgets().budget(0, "normal") < 5e-5
    assert reference.budgets().budget(0, "normal") == narrow.budget(0, "normal")  # for the next candidate


def test_a_difference_beyond_it_is_one(large: tuple[nn.Module, Tensor]) -> None:
    net, x = large
    reference = Reference(net, (x,))
    narrow = reference.budgets().budget(0, "normal")
    for _ in range(2):
        assert reference.judge(InOrder(net, 1 + 2e-4)).differs
        assert reference.budgets().budget(0, "normal") == narrow  # it is told by the reference's own order
        assert not any("terms at a time" in note for note in reference.notes)
    assert reference.judge(InOrder(net)).passed
    assert reference.judge(InOrder(net, 1 + 2e-4)).differs


class Divided(nn.Module):
    """A mean that divides by another number, a variance with a correction, an epsilon, a small branch."""

    def __init__(
        self, more: int = 0, correction: int = 0, epsilon: float = 1e-3, branch: float = 1e-5
    ) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3, padding=1)
        self.beside = nn.Conv2d(3, 8, 1)
        self.more, self.correction, self.epsilon, self.branch = more, correction, epsilon, branch

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = F.relu(self.body(x)).flatten(2)
        if self.branch:
            y = y + self.branch * self.beside(x).flatten(2)
        mean = y.sum(2, keepdim=True) / (y.shape[2] + self.more)
        variance = y.var(2, keepdim=True, correction=self.correction)
        return mean, (y - y.mean(2, keepdim=True))[..., :50] / (variance + self.epsilon).sqrt()


OTHERS: dict[str, dict[str, Any]] = {
    "divisor": {"more": -1},
    "correction": {"correction": 1},
    "epsilon": {"epsilon": 1.0005e-3},
    "branch": {"branch": 0.0},
}


class ByHand(nn.Module):
    """Another network with its long sums one after the other."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Any:
        with SumInTurn():
            return self.net(x)


def _divided(**settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return Divided(**settings).eval()


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("wrapped", [False, True])
def test_another_function_does_not_hide_in_the_order_of_sums(other: str, wrapped: bool) -> None:
    reference = Reference(_divided(), (noise(1, 3, 208, 208, dtype=torch.float32),))
    assert reference.judge(ByHand(_divided())).passed
    candidate = _divided(**OTHERS[other])
    verdict = reference.judge(ByHand(candidate) if wrapped else candidate)
    assert verdict.differs
    wide, said = reference.in_another_order()
    assert said
    wide_budgets = reference.with_records(wide, reference.precision, FLOOR_ULPS).budgets()
    assert judge(TorchRunner(candidate), wide, wide_budgets, structured=True).passed  # there is room for it


def _saved_once(net: nn.Module, x: Tensor, path: Path) -> Path:
    rk.fold(net, x, dynamic=False).save(path)
    return path


@pytest.mark.parametrize("other", OTHERS)
def test_nor_does_it_in_a_file(other: str, tmp_path: Path) -> None:
    x = noise(1, 3, 160, 160, dtype=torch.float32)
    right, wrong = _divided(), _divided(**OTHERS[other])
    path = _saved_once(wrong, x, tmp_path / "wrong.onnx")
    assert rk.check(right, path, x).differs
    assert rk.check(path, right, x).differs
    path = _saved_once(right, x, tmp_path / "right.onnx")
    assert rk.check(right, path, x).passed
    assert rk.check(path, right, x).passed


@pytest.mark.parametrize("other", OTHERS)
def test_nor_where_the_reference_is_gone(other: str, tmp_path: Path) -> None:
    x = noise(1, 3, 160, 160, dtype=torch.float32)
    reference = Reference(_divided(), (x,))
    save_outputs(tmp_path / "o.npz", reference, "net", ["x"], None)
    saved = load_outputs(tmp_path / "o.npz").recorded([record.probe for record in reference.records])
    assert saved.judge(ByHand(_divided())).passed
    assert saved.judge(_divided(**OTHERS[other])).differs
    assert saved.narrowed(lambda record: record.probe.group == "normal").judge(ByHand(_divided())).passed


class Closed:
    """A back end that says nothing of its sums."""

    name, structured = "a back end", True

    def __init__(self, net: nn.Module, lanes: int, of_variances: int = 1) -> None:
        self.runner, self.lanes = TorchRunner(net), (lanes, of_variances)

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NamedTensors:
        with SumInTurn(*self.lanes):
            return self.runner.run(args, kwargs)


def test_nor_does_it_where_the_candidate_has_no_float64(tmp_path: Path) -> None:
    reference = Reference(_divided(), (noise(1, 3, 160, 160, dtype=torch.float32),))
    lanes = (8, 1)
    assert reference.judge(Closed(_divided(), *lanes)).passed
    hidden = reference.judge(Closed(_divided(branch=0.0), *lanes))
    assert not hidden.passed
    assert "a back end does not say in which" in hidden.untold
    assert reference.judge(Closed(_divided(more=9), *lanes)).differs
    save_outputs(tmp_path / "o.npz", reference, "net", ["x"], None)
    saved = load_outputs(tmp_path / "o.npz").recorded([record.probe for record in reference.records])
    assert saved.judge(Closed(_divided(branch=0.0), *lanes)).untold


@pytest.mark.parametrize("name", SUMS)
def test_the_sums_of_a_file_are_all_told(name: str, tmp_path: Path) -> None:
    """A right file with every kind of sum passes, and none of them is left in an order of its own."""
    x = noise(1, 3, 160, 160, dtype=torch.float32)
    net = Lambda(lambda net, x: SUMS[name](net.conv(x).relu()))
    path = _saved_once(net, x, tmp_path / "net.onnx")
    assert rk.check(net, path, x).passed
    assert rk.check(path, net, x).passed
    exact = OnnxRuntimeRunner(path).with_exact_sums()
    assert exact is not None
    assert exact.complete


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("count_include_pad", [False, True])
def test_windows_along_one_axis_after_the_other(
    ceil_mode: bool, count_include_pad: bool, tmp_path: Path
) -> None:
    x = noise(1, 3, 65, 83, dtype=torch.float32)
    net = nn.AvgPool2d((18, 19), (7, 9), (3, 8), ceil_mode, count_include_pad)
    exact = OnnxRuntimeRunner(_saved_once(net, x, tmp_path / "net.onnx")).with_exact_sums()
    assert exact is not None
    assert exact.complete
    ((_, values),) = exact.runner.run((x,), {})
    torch.testing.assert_close(values.double(), net(x.double()), rtol=0, atol=1e-6)


def test_a_network_without_long_sums_keeps_its_budgets() -> None:
    x = noise(1, 3, 8, 8, dtype=torch.float32)
    net = randomize(Pooled(), seed=0, sample=x).eval()
    reference = Reference(net, (x,))
    before = reference.budgets().budget(0, "normal")
    assert reference.judge(InOrder(net, 1.001)).differs
    assert reference.budgets().budget(0, "normal") == before
    assert reference.in_another_order() == (reference.records, "")


def test_an_onnx_file_with_a_long_mean(large: tuple[nn.Module, Tensor], tmp_path: Path) -> None:
    net, x = large
    path = tmp_path / "net.onnx"
    folded = rk.fold(net, x, dynamic=False)
    (saved,) = folded.save(path)
    assert saved.equivalence.passed
    assert rk.check(net, path, x).passed
    assert rk.check(path, net, x).passed
    with torch.no_grad():
        wrong = copy.deepcopy(net)
        wrong.get_parameter("head.weight").mul_(1.001)
    assert rk.check(path, wrong, x).differs


def _as_others_write_it(path: Path, target: Path, opset: int) -> None:
    """With GlobalAveragePool, and its axes nowhere."""
    model = onnx.load(path)
    (mean,) = [node for node in model.graph.node if node.op_type == "ReduceMean"]
    pool = onnx.helper.make_node("GlobalAveragePool", [mean.input[0]], ["pooled"])
    flat = onnx.helper.make_node("Flatten", ["pooled"], [mean.output[0]])
    nodes = [*model.graph.node]
    at = nodes.index(mean)
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:at], pool, flat, *nodes[at + 1 :]])
    model.opset_import[0].version = opset
    model.ir_version = 8
    onnx.save(model, target)


@pytest.mark.parametrize("opset", [13, 18])
def test_the_sums_of_an_onnx_reference(large: tuple[nn.Module, Tensor], tmp_path: Path, opset: int) -> None:
    net, x = large
    rk.fold(net, x, dynamic=False).save(tmp_path / "own.onnx")
    path = tmp_path / "net.onnx"
    _as_others_write_it(tmp_path / "own.onnx", path, opset)
    runner = OnnxRuntimeRunner(path)
    exact = runner.with_exact_sums()
    assert exact is not None
    assert exact.complete
    (_, rounded), (_, wide) = runner.run((x,), {})[0], exact.runner.run((x,), {})[0]
    truth = copy.deepcopy(net).double()(x.double()).detach()
    assert float((wide - truth).abs().max()) <= float((rounded - truth).abs().max())
    assert rk.check(path, net, x).passed


def test_a_file_without_sums(tmp_path: Path) -> None:
    x = noise(1, 3, 8, 8, dtype=torch.float32)
    path = tmp_path / "net.onnx"
    rk.fold(nn.Conv2d(3, 4, 3).eval(), x, dynamic=False).save(path)
    assert OnnxRuntimeRunner(path).with_exact_sums() is None


class _Forgetful(nn.Module):
    """A copy of it has other weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x.mean((2, 3)))
        return result

    def __setstate__(self, state: dict[str, object]) -> None:
        super().__setstate__(state)
        with torch.no_grad():
            self.layer.weight.mul_(1.001)


def test_what_a_copy_loses_is_no_matter_of_order() -> None:
    network = _Forgetful().eval()
    weight = network.layer.weight.detach().clone()
    reference = Reference(network, (noise(2, 4, 160, 160, dtype=torch.float32),))
    assert reference.in_another_order() == (reference.records, "")
    assert torch.equal(network.layer.weight, weight)
