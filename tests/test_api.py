"""The public calls as they are documented: what goes in, what comes out, what is refused and what is kept."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

import reparamkit as rk
from reparamkit.compare.compare import compare
from tests.loading.files import write_scripted, write_traced
from tests.nets import Net, assert_same, noise, randomised
from tests.spoiling import spoil

FREE = ({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},)
F32 = 2e-5
"""Relative difference of two float32 runs that are the same function."""


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


class Block(nn.Module):
    """A convolution, a pointwise convolution and an identity, each with a batch norm, in 1 to 3 dims."""

    def __init__(self, channels: int = 4, dims: int = 2) -> None:
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
        norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1]
        self.wide = nn.Sequential(conv(channels, channels, 3, padding=1, bias=False), norm(channels))
        self.narrow = nn.Sequential(conv(channels, channels, 1, bias=False), norm(channels))
        self.skip = norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.wide(x) + self.narrow(x) + self.skip(x))


class Branchy(nn.Module):
    """Two blocks of three branches each, and what `end` makes of the result."""

    def __init__(self, end: Callable[[Tensor], Any] = torch.Tensor.contiguous, dims: int = 2) -> None:
        super().__init__()
        self.first = Block(dims=dims)
        self.second = Block(dims=dims)
        self.end = end

    def forward(self, x: Tensor) -> Any:
        return self.end(self.second(self.first(x)))


class Two(nn.Module):
    """Two inputs, the second by keyword and optional."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = Block(), Block()

    def forward(self, x: Tensor, *, other: Tensor | None = None) -> Tensor:
        y: Tensor = self.left(x)
        return y if other is None else y + self.right(other)


class Flattened(nn.Module):
    """A classifier that reads its batch size as a Python number."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = Block(), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.adaptive_avg_pool2d(self.body(x), 1)
        result: Tensor = self.head(y.reshape(int(x.shape[0]), -1))
        return result


class Classifier(Flattened):
    """The same with a symbolic batch size."""

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.adaptive_avg_pool2d(self.body(x), 1)
        result: Tensor = self.head(y.reshape(x.shape[0], -1))
        return result


class OneIsSpecial(Branchy):
    """A network that doubles its answer for a batch of one."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return y * 2 if x.shape[0] == 1 else y


class Choosy(Branchy):
    """Control flow on the data."""

    def forward(self, x: Tensor) -> Any:
        return self.first(x) if x.sum() > 0 else self.second(x)


@dataclasses.dataclass
class Features:
    """An output that nobody has told torch.export about."""

    fine: Tensor
    coarse: Tensor


@dataclasses.dataclass
class SavedFeatures:
    """Another one: registering is for good, so each test needs its own."""

    fine: Tensor
    coarse: Tensor


ENDS: dict[str, Callable[[Tensor], Any]] = {
    "tensor": lambda y: y,
    "tuple": lambda y: (y, y.mean((2, 3))),
    "dict": lambda y: {"fine": y, "coarse": y.mean((2, 3))},
    "nested": lambda y: {"maps": [y, (y.mean((2, 3)),)]},
    "dataclass": lambda y: Features(y, y.mean((2, 3))),
}


def image(*shape: int, seed: int = 1) -> Tensor:
    return noise(*(shape or (1, 4, 9, 8)), seed=seed, dtype=torch.float32)


def net(model: nn.Module | None = None) -> nn.Module:
    return randomised(model or Branchy())


def run_onnx(path: Path, *inputs: Tensor) -> list[Tensor]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    fed = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
    return [torch.from_numpy(np.asarray(y)) for y in session.run(None, fed)]


# What a fold says


def test_the_findings() -> None:
    model = net()
    folded = rk.fold(model, image())
    assert isinstance(folded, rk.Folded)
    assert [f.where for f in folded.folds] == ["first", "second"]
    for fold in folded.folds:
        assert isinstance(fold, rk.Fold)
        assert sum(fold.operators.values()) == 7
        assert {op.split(".")[1]: n for op, n in fold.operators.items()} == {
            "conv2d": 2,
            "batch_norm": 3,
            "add": 2,
        }
        (path,) = fold.layers
        assert path.startswith(f"{fold.where}.")
        assert fold.layers[path] == "Conv2d 4 -> 4, 3x3"
        assert 0 <= fold.error < 1e-10
        layer = folded.module.get_submodule(path)
        assert isinstance(layer, nn.Conv2d)
        assert layer.bias is not None
        assert "2 conv2d" in str(fold)
    assert folded.refusals == ()
    assert (folded.before["conv2d"], folded.before["batch_norm"], folded.before["add"]) == (4, 6, 4)
    assert folded.after["conv2d"] == 2
    assert folded.after.get("batch_norm", 0) == folded.after.get("add", 0) == 0
    assert folded.sizes == "free batch and spatial sizes"
    assert folded.notes == ()
    assert folded.saved == []


def test_the_verdict() -> None:
    verdict = rk.fold(net(), image()).equivalence
    assert verdict is not None
    assert verdict.passed
    assert verdict.oracle == "float64"
    assert verdict.e0 is not None
    assert 0 < verdict.e0 < 1e-5
    assert 0 < verdict.e1 <= verdict.budget
    assert math.isclose(verdict.budget, 4 * verdict.e0 + verdict.floor)
    probed = {entry.probe for entry in verdict.outputs}
    assert "example" in probed
    assert any("batch=" in probe and "height=" in probe for probe in probed)
    assert verdict.as_dict()["passed"] is True
    assert verdict.summary().startswith("equivalent: error ")


def test_refusals_name_the_node_and_the_reason() -> None:
    def end(y: Tensor) -> Tensor:
        return y * y

    folded = rk.fold(net(Branchy(end)), image())
    (refusal,) = folded.refusals
    assert isinstance(refusal, rk.Refusal)
    assert (refusal.node, refusal.operator) == ("mul", "aten.mul.Tensor")
    assert "both depend on the network's input" in refusal.reason
    assert "'mul' stays" in str(refusal)


def test_inspect_finds_the_same_and_changes_nothing() -> None:
    model = net()
    before = copy.deepcopy(model.state_dict())
    found, folded = rk.inspect(model, image()), rk.fold(model, image())
    assert isinstance(found, rk.Inspection)
    assert found.folds == folded.folds
    assert (found.refusals, found.before, found.after) == (folded.refusals, folded.before, folded.after)
    assert (found.sizes, found.notes) == (folded.sizes, folded.notes)
    assert not hasattr(found, "module")
    assert_same(before, model.state_dict(), 0)


def test_verify_false_leaves_the_whole_network_out_and_proves_each_fold() -> None:
    folded = rk.fold(net(), image(), verify=False)
    assert folded.equivalence is None
    assert all(0 < f.error < 1e-10 for f in folded.folds)


# Inputs and outputs


@pytest.mark.parametrize("form", [lambda x: x, lambda x: (x,), lambda x: [x], lambda x: {"x": x}])
def test_forms_of_input(form: Callable[[Tensor], Any]) -> None:
    model, given = net(), form(image())
    folded = rk.fold(model, given)
    assert len(folded.folds) == 2
    assert folded.equivalence is not None
    assert folded.equivalence.passed
    x = image(3, 4, 6, 7, seed=2)
    assert_same(model(x), folded.module(x=x) if isinstance(given, dict) else folded.module(x), F32)


@pytest.mark.parametrize("kind", ENDS)
def test_forms_of_output(kind: str) -> None:
    model = net(Branchy(ENDS[kind]))
    folded = rk.fold(model, image())
    assert len(folded.folds) == 2
    assert folded.equivalence is not None
    assert folded.equivalence.passed
    outputs = {entry.output for entry in folded.equivalence.outputs}
    assert len(outputs) == (1 if kind == "tensor" else 2)
    x = image(3, 4, 6, 7, seed=2)
    expected, found = model(x), folded.module(x)
    assert type(found) is type(expected)
    if kind == "dataclass":
        expected, found = vars(expected), vars(found)
    assert_same(expected, found, F32)


def test_an_unregistered_dataclass_goes_to_files(tmp_path: Path) -> None:
    model = net(Branchy(lambda y: SavedFeatures(y, y.mean((2, 3)))))
    rk.fold(model, image()).save(tmp_path / "net.pt2", tmp_path / "net.onnx")
    x = image(3, 4, 6, 7, seed=2)
    expected = model(x)
    found = torch.export.load(tmp_path / "net.pt2").module()(x)
    assert isinstance(found, SavedFeatures)
    assert_same(vars(expected), vars(found), F32)
    assert_same([expected.fine, expected.coarse], run_onnx(tmp_path / "net.onnx", x), F32)
    names = [o.name for o in onnxruntime.InferenceSession(tmp_path / "net.onnx").get_outputs()]
    assert names == ["fine", "coarse"]


def test_several_inputs_and_keywords(tmp_path: Path) -> None:
    model = net(Two())
    inputs = {"x": image(), "other": image(seed=3)}
    folded = rk.fold(model, inputs)
    assert [f.where for f in folded.folds] == ["left", "right"]
    x, other = image(3, 4, 6, 7, seed=4), image(3, 4, 6, 7, seed=5)
    expected = model(x, other=other)
    assert_same(expected, folded.module(x=x, other=other), F32)
    folded.save(tmp_path / "net.pt2", tmp_path / "net.onnx")
    assert_same(expected, torch.export.load(tmp_path / "net.pt2").module()(x=x, other=other), F32)
    assert_same([expected], run_onnx(tmp_path / "net.onnx", x, other), F32)
    assert not torch.allclose(expected, model(x)), "the second input has to matter"


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (None, "example inputs are needed.*got nothing"),
        ("1x3x8x8", "example inputs are needed.*got a str"),
        ({0: torch.zeros(1)}, "keyword arguments, but 0 is not a string"),
        (torch.zeros(1, 5, 8, 8), r"rejects the example inputs \(\[1, 5, 8, 8\] float32\).*5 channels"),
        (torch.zeros(1, 4, 8, 8).double(), "rejects the example inputs.*Double"),
        ((torch.zeros(1, 4, 8, 8), torch.zeros(2)), r"\(\[1, 4, 8, 8\] float32, \[2\] float32\): TypeError"),
        ({"y": torch.zeros(1, 4, 8, 8)}, r"rejects the example inputs .*unexpected keyword argument 'y'"),
    ],
)
@pytest.mark.parametrize("call", [rk.fold, rk.inspect])
def test_inputs_that_the_model_cannot_take(call: Callable[..., Any], inputs: Any, words: str) -> None:
    with pytest.raises(rk.UnusableInput, match=words) as caught:
        call(net(), inputs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("thing", ["mobileone_s0", nn.ReLU, None, 3])
def test_what_is_no_model(thing: Any) -> None:
    with pytest.raises(rk.UnusableInput, match=r"is not a model: give an nn\.Module"):
        rk.fold(thing, image())


def test_a_torchscript_model_that_rejects_its_inputs(tmp_path: Path) -> None:
    with pytest.raises(rk.UnusableInput, match=r"rejects the example inputs \(\[1, 5, 8, 8\] float32\)"):
        rk.fold(scripted(tmp_path), image(1, 5, 8, 8))


# Sizes


@pytest.mark.parametrize("model", [Branchy, Classifier])
def test_a_batch_of_one_stands_for_every_batch_and_size(tmp_path: Path, model: type[nn.Module]) -> None:
    original = net(model())
    folded = rk.fold(original, image(1, 4, 9, 8))
    assert folded.sizes == "free batch and spatial sizes"
    folded.save(tmp_path / "net.pt2", tmp_path / "net.onnx")
    loaded = torch.export.load(tmp_path / "net.pt2").module()
    for shape in [(1, 4, 9, 8), (3, 4, 13, 6), (2, 4, 5, 5), (1, 4, 6, 7)]:
        x = image(*shape, seed=7)
        expected = original(x)
        assert_same(expected, folded.module(x), F32)
        assert_same(expected, loaded(x), F32)
        assert_same([expected], run_onnx(tmp_path / "net.onnx", x), F32)


def test_a_batch_of_one_that_the_network_makes_a_number_stays_one(tmp_path: Path) -> None:
    original = net(Flattened())
    folded = rk.fold(original, image(1, 4, 9, 8))
    assert folded.sizes == "free spatial sizes"
    assert len(folded.notes) == 1
    folded.save(tmp_path / "net.pt2", tmp_path / "net.onnx")
    loaded = torch.export.load(tmp_path / "net.pt2").module()
    for shape in [(1, 4, 9, 8), (1, 4, 13, 6)]:
        x = image(*shape, seed=7)
        expected = original(x)
        assert_same(expected, folded.module(x), F32)
        assert_same(expected, loaded(x), F32)
        assert_same([expected], run_onnx(tmp_path / "net.onnx", x), F32)
    with pytest.raises(AssertionError, match="Guard failed"):
        loaded(image(2, 4, 9, 8))


def test_a_network_that_treats_a_batch_of_one_in_its_own_way(tmp_path: Path) -> None:
    original = net(OneIsSpecial())
    x = image()
    assert torch.allclose(original(x) * 1.0, original(torch.cat([x, x]))[:1] * 2, rtol=1e-4)
    folded = rk.fold(original, x)
    assert any("batch of one in its own way" in note for note in folded.notes)
    folded.save(tmp_path / "net.pt2")
    loaded = torch.export.load(tmp_path / "net.pt2").module()
    assert_same(original(x), folded.module(x), F32)
    assert_same(original(x), loaded(x), F32)
    larger = image(1, 4, 12, 11, seed=2)
    assert_same(original(larger), folded.module(larger), F32)
    with pytest.raises(AssertionError, match="Guard failed"):
        loaded(torch.cat([x, x]))


@pytest.mark.parametrize(
    ("dynamic", "sizes", "probe"),
    [("batch", "free batch size", "batch=3"), (False, "fixed sizes", None)],
)
def test_fewer_free_sizes(tmp_path: Path, dynamic: Any, sizes: str, probe: str | None) -> None:
    original = net()
    folded = rk.fold(original, image(2, 4, 9, 8), dynamic=dynamic)
    assert folded.sizes == sizes
    (saved,) = folded.save(tmp_path / "net.pt2")
    probes = " ".join(entry.probe for entry in saved.equivalence.outputs)
    assert (probe in probes) if probe else ("=" not in probes)
    assert "height" not in probes
    loaded = torch.export.load(tmp_path / "net.pt2").module()
    more = image(5, 4, 9, 8, seed=2)
    if dynamic:
        assert_same(original(more), loaded(more), F32)
    else:
        with pytest.raises(AssertionError, match="Guard failed"):
            loaded(more)


def test_the_shapes_of_torch_export_are_taken() -> None:
    shapes = ({2: Dim("h", min=4, max=64)},)
    folded = rk.fold(net(), image(2, 4, 8, 8), dynamic=shapes)
    assert folded.sizes == "free spatial sizes"
    with pytest.raises(rk.UnusableInput, match='none of "auto", "batch", False'):
        rk.fold(net(), image(), dynamic="everything")


# Files


def test_several_files_at_once(tmp_path: Path) -> None:
    original = net()
    folded = rk.fold(original, image())
    saved = folded.save(tmp_path / "a.pt2", str(tmp_path / "b.onnx"), tmp_path / "c.pt2")
    assert [s.path for s in saved] == [tmp_path / "a.pt2", tmp_path / "b.onnx", tmp_path / "c.pt2"]
    assert folded.saved == saved
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a.pt2", "b.onnx", "c.pt2"]
    assert all(s.equivalence.passed for s in saved)
    assert saved[0].operators["conv2d"] == saved[1].operators["Conv"] == 2
    x = image(3, 4, 6, 7, seed=2)
    assert_same(original(x), torch.export.load(tmp_path / "c.pt2").module()(x), F32)
    assert_same([original(x)], run_onnx(tmp_path / "b.onnx", x), F32)


@pytest.mark.parametrize(
    ("held", "number"),
    [
        (torch.tensor([1.5]), lambda held: held.item()),
        (torch.tensor([1.5, -2.0]), lambda held: held.sum().item() ** 2),
        (torch.tensor([3]), lambda held: held.item()),
        (torch.tensor([1.5, -2.0]), lambda held: sum(held.tolist())),
    ],
)
def test_a_number_taken_out_of_a_tensor_bounds_no_size(
    tmp_path: Path, held: Tensor, number: Callable[[Tensor], Any]
) -> None:
    network = randomised(
        Net(lambda s, x: s.norm(s.conv(x)) * number(s.held), conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4))
    )
    network.register_buffer("held", held)
    image = noise(2, 3, 8, 9, dtype=torch.float32)
    folded = rk.fold(network, image)
    folded.save(tmp_path / "net.onnx", tmp_path / "net.pt2")
    assert rk.check(torch.export.load(tmp_path / "net.pt2"), network, image).passed


def test_save_without_verify_verifies_the_file(tmp_path: Path) -> None:
    (saved,) = rk.fold(net(), image(), verify=False).save(tmp_path / "net.pt2")
    assert saved.equivalence.passed
    assert saved.equivalence.oracle == "float64"


def test_a_saved_file_can_be_folded_again_and_nothing_is_left_to_fold(tmp_path: Path) -> None:
    original = net()
    rk.fold(original, image()).save(tmp_path / "net.pt2")
    again = rk.fold(rk.load(tmp_path / "net.pt2"), image(seed=4))
    assert again.folds == ()
    assert again.before == again.after
    assert again.sizes == "free batch and spatial sizes"
    assert_same(original(image()), again.module(image()), F32)


@pytest.mark.parametrize("name", ["net.tflite", "net", "missing/net.pt2"])
def test_places_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(rk.UnusableInput, match="cannot write"):
        rk.fold(net(), image(), verify=False).save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


# A fold that is wrong


def test_a_wrong_fold_is_not_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch)
    with pytest.raises(rk.NotEquivalent, match="the folded network is not equivalent") as caught:
        rk.fold(net(), image())
    verdict = caught.value.equivalence
    assert verdict is not None
    assert not verdict.passed
    assert verdict.e1 > verdict.budget
    assert 1e-4 < verdict.e1 < 1e-2


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_a_wrong_fold_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    spoil(monkeypatch)
    folded = rk.fold(net(), image(), verify=False)
    target = tmp_path / f"net{suffix}"
    for old in (None, b"old"):
        if old is not None:
            target.write_bytes(old)
        with pytest.raises(rk.NotEquivalent, match=r"was not written: the file is not equivalent") as caught:
            folded.save(target)
        assert caught.value.equivalence is not None
        assert [f.read_bytes() for f in tmp_path.iterdir()] == ([] if old is None else [old])
    assert folded.saved == []


def test_an_error_beyond_rounding_is_small_enough_to_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, 1 + 3e-5)
    with pytest.raises(rk.NotEquivalent):
        rk.fold(net(), image())


# The model that was handed in


def test_the_model_is_untouched(tmp_path: Path) -> None:
    model = net()
    model.get_parameter("first.wide.0.weight").requires_grad_(False)
    twin = copy.deepcopy(model)
    modules, tensors = dict(model.named_modules()), dict(model.state_dict(keep_vars=True))
    x = image()
    kept = x.clone()
    folded = rk.fold(model, x)
    folded.save(tmp_path / "net.pt2")
    with torch.no_grad():
        for parameter in folded.module.parameters():
            parameter.zero_()
    assert_same(twin.state_dict(), model.state_dict(), 0)
    assert dict(model.named_modules()) == modules
    assert all(value is tensors[name] for name, value in model.state_dict(keep_vars=True).items())
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in twin.parameters()]
    assert not any(m.training or m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(x, kept)


def test_the_global_state_of_torch_is_untouched() -> None:
    model = net()
    state, threads, grad = torch.get_rng_state(), torch.get_num_threads(), torch.is_grad_enabled()
    torch.set_num_threads(2)
    try:
        rk.fold(model, image())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.is_grad_enabled() == grad


class Counting(Branchy):
    """A network that counts its calls in a buffer."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        return super().forward(x)


def test_a_model_that_writes_to_its_buffers_is_untouched() -> None:
    model = net(Counting())
    folded = rk.fold(model, image())
    assert model.get_buffer("calls").item() == 0
    assert folded.module.get_buffer("calls").item() == 0
    folded.module(image())
    assert folded.module.get_buffer("calls").item() == 1


class Remembering(Branchy):
    """A network that counts its calls, and keeps what it saw, in attributes of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.last: Tensor | None = None
        self.seen: dict[str, list[Any]] = {"shapes": []}
        self.held = torch.zeros(3)

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        self.last = x * 2
        self.seen["shapes"].append(x.shape)
        self.seen[f"call {self.calls}"] = []
        if not torch.compiler.is_compiling():
            self.held.add_(1)
        return super().forward(x)


def test_attributes_that_a_forward_changes_are_untouched(tmp_path: Path) -> None:
    model, other = randomised(Remembering()), randomised(Remembering())
    shapes = model.seen["shapes"]
    folded = rk.fold(model, image())
    assert len(folded.folds) == 2
    folded.save(tmp_path / "net.pt2")
    rk.inspect(model, image())
    rk.check(model, other, image())
    compare(model, other, inputs=image())
    for each in (model, other):
        assert (each.calls, each.last, each.seen) == (0, None, {"shapes": []})
        assert torch.equal(each.held, torch.zeros(3))
    assert model.seen["shapes"] is shapes


def test_attributes_are_given_back_where_the_fold_fails() -> None:
    model = randomised(Remembering())
    with pytest.raises(rk.UnusableInput):
        rk.fold(model, image()[:, :1])
    assert (model.calls, model.last, model.seen) == (0, None, {"shapes": []})


# What is printed of a result


def test_a_result_says_in_a_few_lines_what_it_is() -> None:
    model = net()
    folded, found = rk.fold(model, image()), rk.inspect(model, image())
    verdict, comparison = rk.check(model, folded.module, image()), compare(model, model, inputs=image())
    assert str(folded).splitlines()[:2] == str(found).splitlines()[:2]
    assert str(folded).splitlines()[0].startswith("folds: 2")
    assert f"batch_norm {found.before['batch_norm']} -> 0" in str(folded)
    assert "equivalent: error" in str(folded)
    for result in (folded, found, verdict, comparison, comparison.comparison):
        assert repr(result).startswith(f"<{type(result).__name__}: ")
        assert len(repr(result)) < 500


class Overwriting(Branchy):
    """A network that changes its input in place."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x.add_(1))


def test_example_inputs_that_the_model_changes_in_place_are_untouched() -> None:
    model, x = net(Overwriting()), image()
    kept = x.clone()
    rk.fold(model, x)
    assert torch.equal(x, kept)


def test_training_mode_is_said_once_and_kept() -> None:
    model = net().train()
    model.get_submodule("first").eval()
    flags = [m.training for m in model.modules()]
    state = copy.deepcopy(model.state_dict())
    for found in (rk.fold(model, image()), rk.inspect(model, image())):
        assert len(found.folds) == 2
        assert [n for n in found.notes if "training mode" in n] == [
            "the model was in training mode; a copy in eval mode was folded (call model.eval() first)"
        ]
    assert [m.training for m in model.modules()] == flags
    assert_same(state, model.state_dict(), 0)
    folded = rk.fold(model, image())
    x = image(2, 4, 6, 7, seed=3)
    assert_same(copy.deepcopy(model).eval()(x), folded.module(x), F32)


def test_a_model_in_training_mode_that_cannot_be_copied() -> None:
    class Stubborn(Branchy):
        def __deepcopy__(self, memo: Any) -> Any:
            raise RuntimeError("no copies")

    with pytest.raises(rk.UnusableInput, match=r"training mode and cannot be copied: call model\.eval\(\)"):
        rk.fold(net(Stubborn()).train(), image())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("form", ["module", "exported"])
def test_weights_that_are_no_numbers_are_named(value: float, form: str) -> None:
    model: Any = net()
    model.first.wide[0].weight[0, 0, 0, 0] = value
    model.second.skip.running_mean[1] = value
    if form == "exported":
        model = torch.export.export(model, (image(),))
    with pytest.raises(rk.UnusableInput, match="NaN or infinite weights") as caught:
        rk.fold(model, image())
    assert "first.wide.0.weight" in str(caught.value)
    assert "second.skip.running_mean" in str(caught.value)
    assert "narrow" not in str(caught.value)


def test_many_broken_weights_are_counted() -> None:
    model = net()
    for parameter in model.parameters():
        parameter.fill_(math.nan)
    with pytest.raises(rk.UnusableInput, match=r"and 11 more; nothing"):
        rk.fold(model, image())


def test_control_flow_on_the_data(capfd: pytest.CaptureFixture[str]) -> None:
    class Bare(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if x.sum() > 0 else x

    with pytest.raises(rk.CannotCapture, match="its control flow depends on the data") as caught:
        rk.fold(net(Bare()), image())
    assert "rk.fold(model.backbone, x)" in str(caught.value)
    assert "torch.cond or torch.where" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(rk.fold(net(Choosy()), image()).folds) == 1
    assert capfd.readouterr() == ("", "")


# What the folded module survives


def test_the_module_is_an_ordinary_module() -> None:
    original = net()
    module = rk.fold(original, image()).module
    x = image(2, 4, 6, 7, seed=2)
    expected = original(x)
    assert_same(expected, copy.deepcopy(module)(x), F32)
    assert_same(expected, pickle.loads(pickle.dumps(module))(x), F32)
    module.train()
    assert_same(expected, module(x), F32)
    module.eval()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    for parameter in module.parameters():
        parameter.zero_()
    module.load_state_dict(state)
    assert_same(expected, module(x), F32)
    double = copy.deepcopy(module).to(torch.float64)
    assert_same(expected.double(), double(x.double()), F32)
    exported = torch.export.export(module, (x,), dynamic_shapes=FREE)
    assert_same(expected, exported.module()(x), F32)
    again = rk.fold(module, image())
    assert again.folds == ()
    assert_same(expected, again.module(x), F32)
    with torch.enable_grad():
        module(x).sum().backward()
    assert all(p.grad is not None for p in module.parameters())


# Other models


@pytest.mark.parametrize(
    ("dims", "shape", "kind", "window"),
    [(1, (1, 4, 9), nn.Conv1d, (3,)), (3, (1, 4, 5, 6, 4), nn.Conv3d, (3, 3, 3))],
)
def test_other_numbers_of_dimensions(
    tmp_path: Path, dims: int, shape: tuple[int, ...], kind: type[nn.Conv1d], window: tuple[int, ...]
) -> None:
    original = net(Branchy(dims=dims))
    folded = rk.fold(original, image(*shape))
    assert len(folded.folds) == 2
    layers = [m for m in folded.module.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)]
    assert [type(m) for m in layers] == [kind, kind]
    assert all(m.kernel_size == window for m in layers)
    x = image(3, 4, *(n + 2 for n in shape[2:]), seed=3)
    folded.save(tmp_path / "net.pt2", tmp_path / "net.onnx")
    expected = original(x)
    assert_same(expected, folded.module(x), F32)
    assert_same(expected, torch.export.load(tmp_path / "net.pt2").module()(x), F32)
    assert_same([expected], run_onnx(tmp_path / "net.onnx", x), F32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_number_types(tmp_path: Path, dtype: torch.dtype) -> None:
    original = net().to(dtype)
    folded = rk.fold(original, image().to(dtype))
    assert len(folded.folds) == 2
    assert folded.equivalence is not None
    assert folded.equivalence.passed
    assert {p.dtype for p in folded.module.parameters()} == {dtype}
    folded.save(tmp_path / "net.pt2")
    x = image(2, 4, 6, 7, seed=2).to(dtype)
    exact = copy.deepcopy(original).double()(x.double())
    scale = exact.abs().max()
    for module in (folded.module, torch.export.load(tmp_path / "net.pt2").module()):
        found = module(x)
        assert found.dtype == dtype
        assert (found.double() - exact).abs().max() / scale < 20 * torch.finfo(dtype).eps


def test_float16_goes_to_onnx(tmp_path: Path) -> None:
    original = net().half()
    rk.fold(original, image().half()).save(tmp_path / "net.onnx")
    x = image(2, 4, 6, 7, seed=2).half()
    (found,) = run_onnx(tmp_path / "net.onnx", x)
    assert found.dtype == torch.float16
    assert_same(original(x), found, 1e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_what_onnx_runtime_cannot_run_is_not_written(tmp_path: Path, dtype: torch.dtype) -> None:
    folded = rk.fold(net().to(dtype), image().to(dtype))
    with pytest.raises(rk.UnusableInput, match="ONNX Runtime"):
        folded.save(tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_exported_program() -> None:
    original = net()
    program = torch.export.export(original, (image(2, 4, 9, 8),), dynamic_shapes=FREE)
    for inputs in (None, image(1, 4, 9, 8), image(4, 4, 7, 7)):
        folded = rk.fold(program, inputs)
        assert len(folded.folds) == 2
        assert folded.sizes == "free batch and spatial sizes"
        x = image(3, 4, 6, 7, seed=2)
        assert_same(original(x), folded.module(x), F32)


def test_a_pt2_with_a_free_batch_given_one_image(tmp_path: Path) -> None:
    original = net()
    program = torch.export.export(original, (image(2, 4, 9, 8),), dynamic_shapes=FREE)
    torch.export.save(program, tmp_path / "net.pt2")
    folded = rk.fold(rk.load(tmp_path / "net.pt2"), image(1, 4, 9, 8))
    folded.save(tmp_path / "out.pt2", tmp_path / "out.onnx")
    x = image(3, 4, 6, 7, seed=2)
    assert_same(original(x), torch.export.load(tmp_path / "out.pt2").module()(x), F32)
    assert_same([original(x)], run_onnx(tmp_path / "out.onnx", x), F32)


def test_an_exported_program_rejects_what_it_was_not_made_for() -> None:
    program = torch.export.export(net(), (image(2, 4, 9, 8),))
    with pytest.raises(rk.UnusableInput, match="rejects the example inputs"):
        rk.fold(program, image(1, 4, 9, 8))


def scripted(folder: Path) -> rk.Source:
    return rk.load(write_scripted(folder / "net.pt", net(nn.Sequential(Block(), Block()))))


def traced(folder: Path) -> rk.Source:
    return rk.load(write_traced(folder / "net.pt"))


@pytest.mark.parametrize("make", [scripted, traced])
def test_torchscript(tmp_path: Path, make: Callable[[Path], rk.Source]) -> None:
    source = make(tmp_path)
    assert isinstance(source.model, torch.jit.ScriptModule)
    x = noise(1, 3 if make is traced else 4, 8, 8, dtype=torch.float32)
    expected = source.model(x)
    for given in (source, source.model):
        folded = rk.fold(given, x)
        assert len(folded.folds) == 2
        assert folded.after.get("batch_norm", 0) == 0
        assert folded.equivalence is not None
        assert folded.equivalence.passed
        assert_same(expected, folded.module(x), F32)
        folded.save(tmp_path / "out.pt2", tmp_path / "out.onnx")
        assert_same(expected, torch.export.load(tmp_path / "out.pt2").module()(x), F32)
        assert_same([expected], run_onnx(tmp_path / "out.onnx", x), F32)


def test_torchscript_whose_forward_has_defaults(tmp_path: Path) -> None:
    """torch's own converter takes no default arguments; the error has to say what to do instead."""
    source = rk.load(write_scripted(tmp_path / "net.pt"))
    with pytest.raises(
        rk.CannotCapture, match=r"cannot be converted.*fold the nn\.Module that it was made from"
    ):
        rk.fold(source, noise(1, 3, 8, 8, dtype=torch.float32))


def test_torchscript_says_one_thing_about_its_sizes(tmp_path: Path) -> None:
    folded = rk.fold(scripted(tmp_path), image())
    free = "fixed" not in folded.sizes
    assert free != any("fixed sizes" in note for note in folded.notes), (folded.sizes, folded.notes)


def test_nothing_to_fold(tmp_path: Path) -> None:
    folded = rk.fold(nn.ReLU().eval(), image())
    assert (folded.folds, folded.refusals) == ((), ())
    assert folded.equivalence is not None
    assert folded.equivalence.passed
    folded.save(tmp_path / "net.pt2")
    assert_same(torch.relu(image()), torch.export.load(tmp_path / "net.pt2").module()(image()), 0)


# load


def test_load_knows_the_inputs_of_a_reference_model_and_of_a_pt2(tmp_path: Path) -> None:
    source = rk.load("repvgg_a0")
    assert isinstance(source, rk.Source)
    assert (source.name, source.path) == ("repvgg_a0", None)
    assert source.example_inputs is not None
    assert source.example_inputs[0].shape == (1, 3, 224, 224)
    program = torch.export.export(net(), (image(2, 4, 9, 8),), dynamic_shapes=FREE)
    torch.export.save(program, tmp_path / "net.pt2")
    for path in (tmp_path / "net.pt2", str(tmp_path / "net.pt2")):
        opened = rk.load(path)
        assert (opened.name, opened.path) == ("net", tmp_path / "net.pt2")
        assert isinstance(opened.model, ExportedProgram)
        assert opened.example_inputs is not None
        assert_same(image(2, 4, 9, 8), opened.example_inputs[0], 0)
    assert len(rk.fold(rk.load(tmp_path / "net.pt2")).folds) == 2


def test_load_of_a_callable_needs_inputs_for_a_fold() -> None:
    source = rk.load("tests.test_api:net")
    assert source.name == "net"
    with pytest.raises(rk.UnusableInput, match="example inputs are needed"):
        rk.fold(source)
    assert len(rk.fold(source, image()).folds) == 2


def test_the_notes_of_a_source_reach_the_findings(tmp_path: Path) -> None:
    torch.save({"state_dict": net().state_dict()}, tmp_path / "w.pt")
    source = rk.load(tmp_path / "w.pt", model="tests.test_api:Branchy")
    folded = rk.fold(source, image())
    assert "the weights were found under 'state_dict'" in folded.notes
    assert_same(net()(image()), folded.module(image()), F32)


# check


def test_check_passes_what_is_the_same(tmp_path: Path) -> None:
    original = net()
    folded = rk.fold(original, image())
    folded.save(tmp_path / "net.onnx", tmp_path / "net.pt2")
    for candidate in (
        folded.module,
        tmp_path / "net.onnx",
        str(tmp_path / "net.pt2"),
        copy.deepcopy(original),
    ):
        verdict = rk.check(original, candidate, image(2, 4, 9, 8))
        assert isinstance(verdict, rk.Equivalence)
        assert verdict.passed, verdict.summary()
        assert rk.assert_equivalent(original, candidate, image(2, 4, 9, 8)).passed


@pytest.mark.parametrize("name", ["first.wide.1.running_mean", "second.narrow.0.weight", "second.skip.bias"])
def test_check_fails_what_is_not(name: str) -> None:
    original = net()
    other = copy.deepcopy(original)
    dict(other.state_dict())[name].flatten()[0] += 1e-3
    verdict = rk.check(original, other, image())
    assert not verdict.passed
    assert verdict.e1 > verdict.budget
    assert verdict.summary().startswith("not equivalent: ")
    with pytest.raises(rk.NotEquivalent, match="not equivalent") as caught:
        rk.assert_equivalent(original, other, image())
    assert caught.value.equivalence is not None
    assert not caught.value.equivalence.passed


@pytest.mark.parametrize("inputs", [image(), (image(),), {"x": image()}])
def test_check_takes_inputs_in_every_form(inputs: Any) -> None:
    assert rk.check(net(), net(), inputs).passed
    assert not rk.check(net(), randomised(Branchy(), seed=9), inputs).passed


def test_check_of_other_outputs() -> None:
    verdict = rk.check(net(), net(Branchy(lambda y: y[:, :3])), image())
    assert not verdict.passed
    assert math.isinf(verdict.e1)
    assert verdict.reason
    with pytest.raises(rk.UnusableInput, match="example inputs are needed"):
        rk.check(net(), net(), None)


def test_a_nan_is_never_equivalent() -> None:
    other = net()
    other.get_parameter("second.skip.bias")[0] = math.nan
    assert not rk.check(net(), other, image()).passed


def test_siblings_are_merged_where_that_is_asked_for() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 2, 1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.left(x).relu(), self.right(x).sigmoid()

    model, x = Heads().eval(), torch.randn(2, 3, 8, 8)
    assert not rk.fold(model, x).folds
    folded = rk.fold(model, x, merge_siblings=True)
    assert folded.equivalence is not None
    assert folded.equivalence.passed
    assert "2 siblings as one Conv2d 3 -> 6" in str(folded.folds[0])
    assert folded.after["conv2d"] == 1
    assert rk.inspect(model, x, merge_siblings=True).after == folded.after
