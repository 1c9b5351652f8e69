"""Networks and files side by side."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from torch import nn

import reparamkit as rk
from reparamkit import UnusableInput
from reparamkit.cli import app as cli
from reparamkit.training import Data, Validation, train
from reparamkit.training import validate as validate_any
from reparamkit.training.data.sources import Pairs
from tests.training.small import DATA, FAST, NET, data


def validate(*arguments: Any, **options: Any) -> Validation:
    return validate_any(*arguments, model=NET, **options)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network, and its folded form in three files."""
    folder = tmp_path_factory.mktemp("run")
    train(NET, out=folder, **(FAST | {"epochs": 4, "lr": 5e-3}))
    folded = rk.fold(rk.load(folder, model=NET), dynamic="batch")
    folded.save(*(folder / f"net.{suffix}" for suffix in ("onnx", "mlpackage", "pt2")))
    return folder


def logits_of(run: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """By hand: images normalised, the network called."""
    samples = data().valid
    images = np.stack([samples[i][0] for i in range(len(samples))])
    x = (torch.from_numpy(images).float() / 255)[:, None].expand(-1, 3, -1, -1)
    network: Any = rk.load(run, model=NET).model
    with torch.no_grad():
        return network((x - 0.3) / 0.4), torch.tensor([samples[i][1] for i in range(len(samples))])


@pytest.mark.slow
def test_scores_are_those_of_the_logits(run: Path) -> None:
    logits, labels = logits_of(run)
    row = validate(run, DATA).rows[0]
    probabilities = logits.double().softmax(1).numpy()
    assert row.images == 60
    assert row.top1 == pytest.approx(accuracy_score(labels, probabilities.argmax(1)))
    assert row.loss == pytest.approx(log_loss(labels, probabilities, labels=range(10)), rel=1e-6)


def test_a_network_its_fold_and_its_files_agree(run: Path) -> None:
    names = [run, *(run / f"net.{suffix}" for suffix in ("onnx", "mlpackage", "pt2"))]
    result = validate(names, DATA, batch_size=25)
    assert [row.name for row in result.rows] == [str(run), f"{run} (folded)", *map(str, names[1:])]
    assert [row.runner for row in result.rows] == [
        "torch",
        "torch",
        "ONNX Runtime",
        "Core ML program, evaluated",
        "torch.export",
    ]
    for row in result.rows:
        assert row.differing == ()
        assert row.top1 == result.rows[0].top1
        assert row.loss == pytest.approx(result.rows[0].loss, rel=1e-5)
        assert row.images_per_second > 0


@pytest.mark.slow
def test_a_file_with_an_end_to_its_batch_gets_pieces(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("executorch", reason="ExecuTorch, of the extra [executorch], is not installed")
    source = rk.load(run, model=NET)
    rk.fold(source, source.example_inputs).save(tmp_path / "net.pte")
    own, row = validate([run, tmp_path / "net.pte"], DATA, batch_size=25, fold=False).rows
    assert row.runner == "ExecuTorch"
    assert (row.top1, row.differing) == (own.top1, ())


def test_predictions_that_differ_are_counted_and_named(run: Path) -> None:
    network = rk.load(run, model=NET).model
    assert isinstance(network, nn.Module)
    with torch.no_grad():
        network.get_parameter("head.bias")[3] += 3
    logits, labels = logits_of(run)
    other = logits.clone()
    other[:, 3] += 3
    expected = (logits.argmax(1) != other.argmax(1)).nonzero().flatten().tolist()
    assert expected
    row = validate([run, network], DATA, fold=False).rows[1]
    assert [one.image for one in row.differing] == [f"number {index}" for index in expected]
    assert {one.prediction for one in row.differing} == {"3"}
    assert row.differing[0].label == str(int(labels[expected[0]]))


def test_the_command_prints_a_table_and_writes_csv_and_json(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table, document = tmp_path / "v.csv", tmp_path / "v.json"
    arguments = ["validate", str(run), str(run / "net.onnx"), "--data", DATA, "--model", NET]
    monkeypatch.setattr(sys, "argv", ["reparamkit", *arguments, "--csv", str(table), "--json", str(document)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert "top-1" in printed
    assert "(folded)" in printed
    rows = json.loads(document.read_text())["rows"]
    assert [row["name"] for row in rows] == [str(run), f"{run} (folded)", str(run / "net.onnx")]
    assert {"name", "top1", "top5", "loss", "images_per_second", "calibration_error", "differ"} <= rows[
        0
    ].keys()
    with table.open() as file:
        lines = list(csv.DictReader(file))
    assert [float(line["top1"]) for line in lines] == [row["top1"] for row in rows]


def test_real_labels_count_any_right_class_and_leave_out_images_without_one(
    run: Path, tmp_path: Path
) -> None:
    logits, _ = logits_of(run)
    decisions = logits.argmax(1).tolist()
    labels = [[(decision + 1) % 10, decision] for decision in decisions]
    labels[0], labels[1] = [], [(decisions[1] + 1) % 10]
    file = tmp_path / "real.json"
    file.write_text(json.dumps(labels))
    row = validate(run, DATA, real_labels=file, fold=False).rows[0]
    assert row.top1 == pytest.approx(58 / 59)
    file.write_text(json.dumps({str(index): classes for index, classes in enumerate(labels)}))
    assert validate(run, DATA, real_labels=file, fold=False).rows[0].top1 == pytest.approx(58 / 59)


def test_valid_labels_choose_among_the_logits(run: Path, tmp_path: Path) -> None:
    """Data of three classes, which the network knows as 7, 2 and 5."""
    whole = data().valid
    chosen = [7, 2, 5]
    kept = [i for i in range(len(whole)) if whole[i][1] in chosen]
    pairs = Pairs(np.stack([whole[i][0] for i in kept]), np.array([chosen.index(whole[i][1]) for i in kept]))
    part = Data("part", ["seven", "two", "five"], pairs, pairs, (0.3,) * 3, (0.4,) * 3)
    file = tmp_path / "classes.txt"
    file.write_text("7\n2\n5\n")
    logits, labels = logits_of(run)
    among = torch.tensor(chosen)[logits[kept][:, chosen].argmax(1)]
    expected = (among == labels[kept]).double().mean().item()
    assert validate(run, part, valid=file, fold=False).rows[0].top1 == pytest.approx(expected)
    with pytest.raises(UnusableInput, match="tells 10 classes apart and the data has 3; --valid-labels says"):
        validate(run, part, fold=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"real_labels": "no.json"}, "cannot be read: No such file"),
        ({"real_labels": "words.txt"}, "are no JSON"),
        ({"real_labels": "short.json"}, "have nothing of image 2"),
        ({"valid": "words.txt"}, "have to be one class index a line"),
        ({"valid": "short.json"}, "have to be one class index a line"),
        ({"valid": "three.txt"}, "are 3 classes, and the data has 10"),
        ({"weights": "best"}, "has no best weights; it has raw, ema"),
        ({"input_size": 5}, "does not run on images of"),
    ],
)
def test_one_line_says_what_is_wrong(run: Path, tmp_path: Path, arguments: dict[str, Any], said: str) -> None:
    (tmp_path / "words.txt").write_text("one two")
    (tmp_path / "short.json").write_text("[[1], [2]]")
    (tmp_path / "three.txt").write_text("1\n2\n3\n")
    files = {
        name: tmp_path / value if name in ("real_labels", "valid") else value
        for name, value in arguments.items()
    }
    with pytest.raises(UnusableInput) as caught:
        validate(run, DATA, fold=False, **files)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_folds_from_the_command_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "net.pt2"
    monkeypatch.setattr(
        sys, "argv", ["reparamkit", "fold", str(run), "-o", str(output), "--dynamic", "batch", "--model", NET]
    )
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 0
    assert "the average of the weights, after 4 epochs" in capsys.readouterr().out
    for folder in ("last", "best", "best_ema"):
        inputs = rk.load(run / folder, model=NET).example_inputs
        assert inputs is not None
        assert inputs[0].shape == (1, 3, 8, 8)
    with pytest.raises(
        UnusableInput, match=r"is a checkpoint of tests\.training\.small:net, not of repnets_toy"
    ):
        rk.load(run, model="repnets_toy")


def test_a_checkpoint_whose_network_has_changed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tests.training.small as small

    monkeypatch.setattr(small, "net", small.plain)
    with pytest.raises(UnusableInput, match=r"is a checkpoint of another tests\.training\.small:net"):
        rk.load(run, model=NET)


def test_a_checkpoint_runs_no_code_that_nobody_named(run: Path, tmp_path: Path) -> None:
    for opened in (lambda: rk.load(run), lambda: validate_any(run, DATA)):
        with pytest.raises(rk.UntrustedPickle, match=r"is code; name it yourself, --model tests\.training"):
            opened()
    assert rk.load(run, trust_pickle=True).name == "tests_training_small_net"


def test_images_are_prepared_as_in_training(tmp_path: Path) -> None:
    """The central crop and the share that was held back are the checkpoint's."""
    trained = train("repnets_toy", "digits", out=tmp_path, epochs=1, input_size=16, crop=0.7, valid_share=0.4)
    row = validate_any(tmp_path / "last", "digits", weights="raw", fold=False).rows[0]
    assert row.images == 719
    assert row.top1 == pytest.approx(trained.history[-1]["top1"])
    assert row.loss == pytest.approx(trained.history[-1]["loss"], rel=1e-6)
