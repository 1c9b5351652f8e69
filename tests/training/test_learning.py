"""Each part of the pipeline at work: a loss that falls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from reparamkit import UnusableInput, fold, load
from reparamkit.training import pretrain, train
from reparamkit.training.checkpoint import open_checkpoint
from reparamkit.training.run import Trained
from tests.timm_import import import_timm
from tests.training.small import FAST, NET

LEARNING = FAST | {"epochs": 6, "lr": 5e-3}


def assert_learns(trained: Trained) -> None:
    first, last = trained.history[0], trained.history[-1]
    assert last["train_loss"] < 0.9 * first["train_loss"]
    assert last["loss"] < first["loss"]
    assert last["top1"] > 0.4


@pytest.mark.diagonal(1)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"optimizer": "sgd", "lr": 0.1},
        {"weight_decay": 0.01, "weight_decay_end": 0.3},
        {"mixup": 0.5, "cutmix": 0.2, "epochs": 10},
        {"label_smoothing": 0.1, "clip_grad": 1.0, "accumulate": 2},
        {"channels_last": True, "amp": "bf16"},
        {"erasing": 0.2, "randaugment": 4, "min_crop": 0.7, "epochs": 10},
    ],
    ids=lambda settings: "-".join(settings) or "plain",
)
def test_the_loss_falls(tmp_path: Path, settings: dict[str, Any]) -> None:
    trained = train(NET, out=tmp_path, **(LEARNING | settings))
    assert_learns(trained)
    if "weight_decay_end" in settings:
        assert trained.history[-1]["weight_decay"] == pytest.approx(0.3)


def test_the_average_is_validated_and_kept(tmp_path: Path) -> None:
    trained = train(NET, out=tmp_path, **LEARNING)
    assert trained.history[-1]["ema_loss"] < trained.history[0]["ema_loss"]
    best = open_checkpoint(tmp_path / "best_ema")
    assert best.files == {"raw": "raw.safetensors", "ema": "model.safetensors"}
    assert best.about.scores["ema_top1"] == max(row["ema_top1"] for row in trained.history)
    assert open_checkpoint(tmp_path).folder == tmp_path / "best_ema"
    last = open_checkpoint(tmp_path / "last")
    for name, value in last.weights("raw").items():
        assert value.equal(trained.module.state_dict()[name])
    assert not last.weights("ema")["head.weight"].equal(last.weights("raw")["head.weight"])


@pytest.mark.diagonal(1)
@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_a_student_learns_from_a_trained_teacher(tmp_path: Path, kind: str) -> None:
    """With alpha 1 the labels say nothing: whatever the student knows, it has from the teacher."""
    train(NET, out=tmp_path / "teacher", **(LEARNING | {"epochs": 10}))
    settings = LEARNING | {
        "teacher": str(tmp_path / "teacher"),
        "distillation": kind,
        "alpha": 1.0,
        "seed": 1,
    }
    assert_learns(train(NET, out=tmp_path / "student", **settings))


def test_the_teacher_is_frozen_and_in_evaluation_mode(tmp_path: Path) -> None:
    from reparamkit.training.teacher import open_teacher

    train("repnets_toy", out=tmp_path, **(FAST | {"epochs": 1, "input_size": 16}))
    for name in (str(tmp_path), "tests.training.small:teacher"):
        teacher = open_teacher(name, 10, 16 if name == str(tmp_path) else 8, NET)
        assert not any(part.training for part in teacher.modules())
        assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_finetuning_with_another_head_starts_from_the_rest(tmp_path: Path) -> None:
    from reparamkit.training.networks import load_weights, open_network

    train("repnets_toy", out=tmp_path / "first", **(FAST | {"epochs": 1, "input_size": 16}))
    network = open_network("repnets_toy", 7).module
    head = network.get_parameter("linear.weight").clone()
    notes = load_weights(network, tmp_path / "first", "repnets_toy")
    stored = open_checkpoint(tmp_path / "first").weights()
    assert notes == (f"{tmp_path / 'first'}: its head tells other classes apart; linear starts anew",)
    assert network.get_parameter("linear.weight").equal(head)
    assert network.get_parameter("blocks.0.rbr_dense.conv.weight").equal(
        stored["blocks.0.rbr_dense.conv.weight"]
    )


def test_the_resolution_can_change(tmp_path: Path) -> None:
    settings = FAST | {"epochs": 1, "input_size": 16}
    train("repnets_toy", out=tmp_path / "small", **settings)
    larger = train(
        "repnets_toy",
        out=tmp_path / "large",
        **(settings | {"finetune": str(tmp_path / "small"), "input_size": 24, "lr": 1e-5}),
    )
    assert open_checkpoint(tmp_path / "large").about.input_size == 24
    first = open_checkpoint(tmp_path / "small" / "best_ema").weights()["linear.weight"]
    assert (larger.module.state_dict()["linear.weight"] - first).abs().max() < 1e-3


@pytest.mark.slow
def test_masked_pre_training_and_finetuning_of_its_encoder(tmp_path: Path) -> None:
    settings = {"batch_size": 20, "epochs": 2, "lr": 2e-3, "data": FAST["data"]}
    masked = pretrain("convnextv2_atto", out=tmp_path / "pre", input_size=64, decoder_width=32, **settings)
    losses = [row["loss"] for row in masked.history]
    assert losses[-1] < losses[0]
    with pytest.raises(UnusableInput, match="is a pre-trained encoder, which classifies nothing yet"):
        load(tmp_path / "pre")
    tuned = train(
        "convnextv2_atto",
        out=tmp_path / "tuned",
        input_size=32,
        finetune=str(tmp_path / "pre"),
        layer_decay=0.8,
        **(settings | {"lr": 4e-3}),
    )
    assert tuned.history[-1]["train_loss"] < tuned.history[0]["train_loss"]
    # The stem learns at 0.8^13 times the rate: it stays near where it was.
    stem = open_checkpoint(tmp_path / "pre").weights()["encoder.downsample_layers.0.0.weight"]
    moved = (tuned.module.state_dict()["downsample_layers.0.0.weight"] - stem).abs().max()
    assert 0 < moved < 0.05


def test_stochastic_depth_and_layer_scale(tmp_path: Path) -> None:
    from reparamkit.training.networks import open_network

    module = open_network("fastvit_toy", 10, drop_path=0.3, layer_scale=0.25).module
    rates = [part.rate for part in module.modules() if hasattr(part, "rate")]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert (module.get_parameter("network.0.0.layer_scale") == 0.25).all()
    assert (module.get_parameter("network.0.0.token_mixer.layer_scale") == 0.25).all()
    convnext = open_network("convnextv2_atto", 10)
    assert (convnext.module.get_parameter("stages.0.0.grn.gamma") == 0).all()


def test_a_module_is_trained_in_place_and_its_head_replaced(tmp_path: Path) -> None:
    from tests.training.small import Net

    module = Net(4)
    trained = train(module, out=tmp_path, **(FAST | {"epochs": 1}))
    assert trained.module is module
    assert module.head.out_features == 10
    assert not module.training
    assert torch.is_tensor(module(torch.zeros(1, 3, 8, 8)))


def test_a_network_of_timms_is_trained_and_folded(tmp_path: Path) -> None:
    import_timm()
    settings = FAST | {"epochs": 1, "input_size": 32}
    train("timm:test_resnet", out=tmp_path, **settings)
    folded = fold(load(tmp_path), dynamic=False)
    assert folded.after.get("batch_norm", 0) == 0
    with pytest.raises(UnusableInput, match="timm has no network 'test_resnot'; did you mean test_resnet"):
        train("timm:test_resnot", out=tmp_path / "other", **settings)
