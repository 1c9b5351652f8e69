"""The forms of a network, timed side by side: that each is what it says, and what is told where it is not."""

from __future__ import annotations

import csv
import io
import json
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import onnx
import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from reparamkit.benchmark import own_folds
from reparamkit.benchmark.backends import BACKENDS, torch_threads
from reparamkit.benchmark.bench import Bench, bench, multiply_accumulates
from reparamkit.benchmark.floor import node_times, share_of_layers
from reparamkit.benchmark.forms import FOLDED, HAND, ONNXSIM, ORIGINAL, Forms, NoSuchForm
from reparamkit.report.bench_document import bench_csv, bench_document
from reparamkit.support.memory import peak_added
from tests.nets import Net, noise, randomised


def _branches() -> nn.Module:
    parts = {"a": nn.Conv2d(3, 8, 3, padding=1), "b": nn.Conv2d(3, 8, 1)}
    norms = {"n": nn.BatchNorm2d(8), "m": nn.BatchNorm2d(8)}
    return randomised(Net(lambda s, x: (s.n(s.a(x)) + s.m(s.b(x))).relu(), **parts, **norms)).eval()


def _source(model: nn.Module, name: str = "net", *inputs: Tensor) -> rk.Source:
    return rk.Source(model, name, None, inputs or (noise(2, 3, 12, 10).float(),))


@pytest.fixture(scope="module")
def result() -> Bench:
    model = _branches().float()
    return bench([_source(model)], rounds=3, warmup=1)


def test_every_form_is_timed_on_every_back_end(result: Bench) -> None:
    rows = [(row.backend, row.form) for row in result.rows]
    assert rows == [
        *(("eager", form) for form in (ORIGINAL, FOLDED)),
        *(("onnxruntime", form) for form in (ORIGINAL, ONNXSIM, FOLDED)),
        *(("openvino", form) for form in (ORIGINAL, ONNXSIM, FOLDED)),
    ]
    assert all(row.timing is not None and row.timing.median > 0 for row in result.rows)
    assert all(not row.note for row in result.rows)


def test_counts_follow_from_the_layers(result: Bench) -> None:
    before = 2 * 12 * 10 * 8 * 3 * (9 + 1)
    for row in result.rows:
        assert row.macs == (before if row.form != FOLDED else 2 * 12 * 10 * 8 * 3 * 9)
        assert row.parameters == (8 * 27 + 8 + 8 * 3 + 8 + 4 * 8 if row.form != FOLDED else 8 * 27 + 8)
        assert (row.file_bytes is not None) == (row.backend != "eager")


def test_ratios_are_to_every_other_form(result: Bench) -> None:
    for row in result.rows:
        expected = {ORIGINAL, ONNXSIM} if row.backend != "eager" else {ORIGINAL}
        assert set(row.ratios) == expected - {row.form}


def test_a_floor_is_no_more_than_the_network(result: Bench) -> None:
    floors = {row.backend: row for row in result.rows if row.floor is not None}
    assert set(floors) == {"eager", "onnxruntime"}
    assert all(row.form == FOLDED and (row.over_floor or 0) >= 1 for row in floors.values())


def test_the_document_keeps_to_its_schema(result: Bench) -> None:
    schema = json.loads(
        resources.files("reparamkit.report").joinpath("schemas/bench-1.schema.json").read_text()
    )
    document = json.loads(json.dumps(bench_document(result)))
    jsonschema.validate(document, schema)
    assert {row["form"] for row in document["rows"]} == {ORIGINAL, ONNXSIM, FOLDED}


def test_the_table_has_a_line_for_each_row(result: Bench) -> None:
    lines = list(csv.DictReader(io.StringIO(bench_csv(result))))
    assert [(line["backend"], line["form"]) for line in lines] == [(r.backend, r.form) for r in result.rows]
    assert all(float(line["q1_ms"]) <= float(line["median_ms"]) <= float(line["q3_ms"]) for line in lines)


def test_the_file_of_the_original_is_not_simplified(tmp_path: Path) -> None:
    model = _branches().float()
    forms = Forms("net", model, (noise(1, 3, 8, 8).float(),), {}, tmp_path)
    counts = {
        form: [node.op_type for node in onnx.load(forms.file(form)).graph.node].count("Conv")
        for form in (ORIGINAL, ONNXSIM, FOLDED)
    }
    assert counts == {ORIGINAL: 2, ONNXSIM: 2, FOLDED: 1}


class Foldable(nn.Module):
    """Two layers that a library might fold by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x))
        return out


def _right(model: Any) -> nn.Module:
    weight = model.second.weight @ model.first.weight
    bias = model.second.weight @ model.first.bias + model.second.bias
    layer = nn.Linear(6, 4)
    layer.weight, layer.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
    return layer


def _wrong(model: Any) -> nn.Module:
    layer = _right(model)
    with torch.no_grad():
        layer.bias.add_(0.1)  # type: ignore[operator]
    return layer


def _failing(model: Any) -> nn.Module:
    raise RuntimeError("not today")


@pytest.mark.parametrize(
    ("fold", "note"),
    [(_right, ""), (_wrong, "another function"), (_failing, "own fold fails: RuntimeError: not today")],
)
def test_the_librarys_own_fold_is_timed_and_held_against_the_network(
    fold: Any, note: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(own_folds.OWN_FOLDS, __name__.partition(".")[0], fold)
    model = randomised(Foldable()).float().eval()
    rows = bench([_source(model, "net", noise(2, 6).float())], backends=["eager"], rounds=2, warmup=0).rows
    by_form = {row.form: row for row in rows}
    assert set(by_form) == {ORIGINAL, HAND, FOLDED}
    assert note in by_form[HAND].note
    assert (by_form[HAND].timing is None) == (fold is _failing)
    assert (HAND in by_form[FOLDED].ratios) == (fold is not _failing)


def test_a_network_without_a_fold_of_its_librarys_has_no_such_form(tmp_path: Path) -> None:
    forms = Forms("net", _branches(), (noise(1, 3, 8, 8),), {}, tmp_path)
    with pytest.raises(NoSuchForm, match="has no fold"):
        forms.module(HAND)


@pytest.mark.slow
def test_a_network_of_which_nothing_can_be_told_is_timed_and_that_is_said() -> None:
    """timm's networks with random weights end in norms of zeros."""
    norm = nn.BatchNorm2d(4)
    nn.init.zeros_(norm.weight)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), norm)
    source = _source(model.eval(), "net", noise(1, 3, 8, 8).float())
    rows = bench([source], backends=["eager", "onnxruntime"], rounds=1, warmup=0).rows
    assert all(row.timing is not None for row in rows)
    told = {row.form for row in rows if "cannot be told" in row.note}
    assert told == {FOLDED}


def test_the_network_is_left_as_it_was() -> None:
    model = randomised(Foldable()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    threads = torch.get_num_threads()
    bench([_source(model, "net", noise(2, 6).float())], backends=["eager"], rounds=1, warmup=0, threads=1)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.get_num_threads() == threads


def test_what_a_back_end_cannot_run_is_told_and_the_others_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Any:
        raise RuntimeError("no kernel\nfor this")

    from dataclasses import replace

    monkeypatch.setitem(BACKENDS, "openvino", replace(BACKENDS["openvino"], prepare=refuse))
    model = randomised(Foldable()).float()
    source = _source(model, "net", noise(2, 6).float())
    rows = bench([source], backends=["eager", "openvino"], rounds=1, warmup=0).rows
    refused = [row for row in rows if row.backend == "openvino"]
    assert {row.note for row in refused} == {"it does not run: RuntimeError: no kernel"}
    assert all(row.timing is None for row in refused)
    assert all(row.timing is not None for row in rows if row.backend == "eager")


def test_batch_and_size_take_the_place_of_the_examples() -> None:
    result = bench(
        [_source(_branches().float())], backends=["eager"], rounds=1, warmup=0, batch=3, size=(7, 9)
    )
    assert result.inputs == {"net": "3x3x7x9"}
    assert result.rows[0].macs == 3 * 7 * 9 * 8 * 3 * 10


def test_the_share_of_layers_is_of_layers_alone() -> None:
    class Busy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.small = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.small(x)
            wide = torch.ones(300, 300)
            return out + (wide @ wide).sum() * 0

    with torch_threads(1):
        share = share_of_layers(Busy(), (noise(1, 2).float(),), {})
    assert share is not None
    assert 0 < share < 0.5
    assert share_of_layers(nn.ReLU(), (noise(1, 2),), {}) is None


def test_the_profile_tells_layers_from_the_rest(tmp_path: Path) -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.conv = nn.Linear(16, 16), nn.Conv1d(5, 5, 3)

        def forward(self, x: Tensor) -> Tensor:
            q = self.q(x)
            out: Tensor = self.conv((q @ q.transpose(1, 2)).softmax(-1) @ x)
            return out

    forms = Forms("net", randomised(Mixed()).float(), (noise(2, 5, 16).float(),), {}, tmp_path)
    times = node_times(forms, FOLDED, 1)
    assert times.layers > 0
    assert times.over_floor > 1
    assert {"Softmax", "MatMul"} <= set(times.others) | {name.removeprefix("Fused") for name in times.others}
    assert not any("Conv" in name or "Gemm" in name for name in times.others)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of a process")
def test_memory_is_that_of_the_call() -> None:
    added = peak_added(lambda: bytearray(64 << 20))
    assert added is not None
    assert 60 << 20 < added < 90 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of a process")
def test_memory_that_was_freed_before_counts_again() -> None:
    above: list[bytearray] = []

    def call() -> None:
        blocks = [bytearray(100_000) for _ in range(300)]
        above.append(bytearray(90_000))  # above the others, so that the heap does not end below it
        assert blocks

    first, second = peak_added(call), peak_added(call)
    assert first is not None
    assert second is not None
    assert second > 25_000_000


def test_macs_of_attention_are_counted() -> None:
    q = noise(1, 2, 5, 8)
    attention = Net(lambda s, x: nn.functional.scaled_dot_product_attention(x, x, x))
    assert multiply_accumulates(attention, (q,), {}) == 2 * 5 * 5 * 8 * 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backends": ["tflite"]}, "there is no back end 'tflite'; there are eager, compile"),
        ({"threads": 0}, "--threads has to be at least 1"),
        ({"rounds": 0}, "--rounds has to be at least 1"),
        ({"batch": -1}, "--batch has to be at least 1"),
    ],
)
def test_bad_options_are_told(options: dict[str, Any], words: str) -> None:
    with pytest.raises(rk.UnusableInput, match=words):
        bench([_source(_branches())], **options)


def test_a_network_without_an_example_is_told() -> None:
    with pytest.raises(rk.UnusableInput, match="does not say what its inputs look like"):
        bench([rk.Source(_branches(), "net", None, None)])
