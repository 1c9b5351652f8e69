"""What a run cannot use: one clear line, exit status 2, and nothing lost."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from reparamkit.cli import app as cli
from reparamkit.errors import UnusableInput, install_line
from reparamkit.training import disk, train, validate
from reparamkit.training.checkpoint import open_checkpoint
from tests.training.small import FAST, NET, ROOT, command, data, flags

SMALL: dict[str, Any] = {"batch_size": 4, "epochs": 1, "input_size": 16, "ema": 0.0}


def assert_refused(**arguments: Any) -> str:
    settings: dict[str, Any] = FAST | {"epochs": 1} | arguments
    with pytest.raises(UnusableInput) as caught:
        train(settings.pop("model", NET), **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes, six images each for training, two for validation."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 255, (20, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "pictures"


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """datasets keeps what it has read; not between tests."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def spoil(pictures: Path) -> Path:
    path = pictures / "train" / "dog" / "3.png"
    path.write_bytes(path.read_bytes()[:100])
    return path


def test_a_folder_of_classes_is_trained_on(tmp_path: Path, pictures: Path) -> None:
    trained = train("repnets_toy", str(pictures), out=tmp_path / "run", min_crop=0.5, **SMALL)
    about = open_checkpoint(tmp_path / "run").about
    assert about.classes == ["cat", "dog"]
    assert len(trained.history) == 1


def test_a_folder_without_classes(tmp_path: Path, pictures: Path) -> None:
    said = assert_refused(data=str(pictures / "train" / "cat"), out=tmp_path / "run")
    assert "has no classes: give it one folder of images for each class, such as" in said
    assert not (tmp_path / "run").exists()


def test_a_single_class(tmp_path: Path) -> None:
    (tmp_path / "one" / "cat").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "one" / "cat" / "1.png")
    said = assert_refused(data=str(tmp_path / "one"), out=tmp_path / "run")
    assert "has 1 class, and there is nothing to tell apart" in said


def test_a_folder_with_classes_and_no_images(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "none" / name).mkdir(parents=True)
    assert "cannot open" in assert_refused(data=str(tmp_path / "none"), out=tmp_path / "run")


def test_data_that_are_not_there(tmp_path: Path) -> None:
    assert "there are no data 'digit': give digits, a folder" in assert_refused(data="digit", out=tmp_path)
    assert "no module named" in assert_refused(data="nowhere.at:all", out=tmp_path).lower()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_image_is_named(tmp_path: Path, pictures: Path, workers: int) -> None:
    path = spoil(pictures)
    said = assert_refused(
        model="repnets_toy", data=str(pictures), out=tmp_path / "run", **SMALL, workers=workers
    )
    assert f"the image {path} cannot be read" in said
    assert "mend it, or leave such images out with --corrupt skip" in said


def test_a_corrupt_image_is_skipped_where_asked_for(tmp_path: Path, pictures: Path) -> None:
    path, said = spoil(pictures), list[str]()
    other = pictures / "val" / "cat" / "0.png"
    other.write_bytes(b"no image")
    settings = SMALL | {"epochs": 2, "corrupt": "skip"}
    trained = train("repnets_toy", str(pictures), out=tmp_path / "run", say=said.append, **settings)
    skipped = [text for text in said if text.startswith("skipped")]
    assert len(skipped) == 1
    assert str(path) in skipped[0]
    assert len(trained.history) == 2
    told = list[str]()
    train("repnets_toy", str(pictures), out=tmp_path / "apart", warn=told.append, **settings)
    assert told == skipped
    result = validate(tmp_path / "run", str(pictures), corrupt="skip", fold=False)
    assert result.rows[0].images == 3
    assert any(str(other) in note for note in result.notes)


def test_a_data_set_smaller_than_the_batch(tmp_path: Path) -> None:
    said = assert_refused(batch_size=500, out=tmp_path / "run")
    assert "has 120 training images, fewer than one batch of 500; give --batch-size 120 or less" in said


def test_labels_that_are_no_classes(tmp_path: Path) -> None:
    digits = data()
    digits.classes = digits.classes[:7]
    (tmp_path / "seven.txt").write_text("\n".join(map(str, range(7))))
    said = r"has the label [789], and its 7 classes are numbered from 0 to 6"
    with pytest.raises(UnusableInput, match=said):
        train("repnets_toy", out=tmp_path / "run", **(FAST | {"data": digits, "input_size": 16}))
    with pytest.raises(UnusableInput, match=said):
        validate("repnets_toy", digits, input_size=16, fold=False, valid=tmp_path / "seven.txt")


def test_a_checkpoint_of_another_model(tmp_path: Path) -> None:
    train(NET, out=tmp_path / "run", **(FAST | {"epochs": 1}))
    before = (tmp_path / "run" / "last" / "model.safetensors").read_bytes()
    said = assert_refused(model="repnets_toy", out=tmp_path / "run", resume=True)
    assert f"is a checkpoint of {NET}, not of repnets_toy" in said
    said = assert_refused(model="repnets_toy", finetune=str(tmp_path / "run"), out=tmp_path / "other")
    assert "are not those of repnets_toy" in said
    assert not (tmp_path / "other").exists()
    assert (tmp_path / "run" / "last" / "model.safetensors").read_bytes() == before


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    train(NET, out=tmp_path / "run", **(FAST | {"epochs": 1}))
    assert "holds a run already; go on with it by --resume" in assert_refused(out=tmp_path / "run")


def test_a_damaged_checkpoint(tmp_path: Path) -> None:
    train(NET, out=tmp_path / "run", **(FAST | {"epochs": 1}))
    weights = tmp_path / "run" / "last" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    said = assert_refused(out=tmp_path / "run", resume=True)
    assert "is damaged: model.safetensors is missing or has another length" in said
    (tmp_path / "run" / "last" / "checkpoint.json").write_text("{")
    assert "checkpoint.json is damaged" in assert_refused(out=tmp_path / "run", resume=True)


def test_a_teacher_of_other_classes(tmp_path: Path) -> None:
    said = assert_refused(
        teacher="tests.training.small:five_classes", distillation="soft", out=tmp_path / "run"
    )
    assert "the teacher tests.training.small:five_classes tells 5 classes apart and the data has 10" in said
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_knows_nothing(tmp_path: Path) -> None:
    said = assert_refused(teacher="repvgg_toy", distillation="hard", out=tmp_path / "run")
    assert "has random weights and teaches nothing" in said
    assert "there is no teacher 'nobody'" in assert_refused(
        teacher="nobody", distillation="hard", out=tmp_path
    )


def test_networks_that_are_not_there(tmp_path: Path) -> None:
    assert "did you mean repnets_toy" in assert_refused(model="repnet_toy", out=tmp_path / "run")
    assert "pretrain convnextv2_atto" in assert_refused(model="fcmae_atto", out=tmp_path / "run")
    assert "has no stochastic depth" in assert_refused(
        model="repvgg_toy", drop_path=0.1, out=tmp_path / "run"
    )
    assert "has no layer scale" in assert_refused(model="repvgg_toy", layer_scale=0.1, out=tmp_path / "run")
    assert "does not run on images of 3x2x2" in assert_refused(input_size=2, out=tmp_path / "run")


def test_float16_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "amp fp16 needs a GPU; a processor can do --amp bf16" in assert_refused(
        amp="fp16", out=tmp_path / "run"
    )


class Exploding(nn.Module):
    """Its logits become infinite after a number of updates."""

    def __init__(self, updates: int) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 64, 10)
        self.left = updates

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.left -= 1
        logits: torch.Tensor = self.layer(x.flatten(1))
        return logits if self.left >= 0 else logits * float("inf")


def test_a_loss_that_becomes_nan_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput) as caught:
        train(Exploding(8), out=tmp_path / "run", **FAST)
    last = tmp_path / "run" / "last"
    assert f"the loss became nan at update 4 of epoch 2; {last} is the last good checkpoint" in str(
        caught.value
    )
    checkpoint = open_checkpoint(last)
    assert checkpoint.about.epoch == 1
    assert all(value.isfinite().all() for value in checkpoint.weights("raw").values())


def test_weights_that_become_nan_replace_no_checkpoint(tmp_path: Path) -> None:
    """The last update of an epoch spoils them; no loss is there to show it."""

    class Spoilt(Exploding):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = super().forward(x)
            if self.training and self.left == 0:
                logits.register_hook(lambda gradient: gradient * float("nan"))
            return logits

    with pytest.raises(UnusableInput, match=r"the weights layer\.weight became NaN or infinite"):
        train(Spoilt(10), out=tmp_path / "run", **FAST)
    assert open_checkpoint(tmp_path / "run" / "last").about.epoch == 1


def test_a_full_disk_keeps_the_older_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(NET, out=tmp_path / "run", **(FAST | {"epochs": 1}))
    checkpoints = [tmp_path / "run" / name for name in ("last", "best", "best_ema")]
    before = {path: path.read_bytes() for folder in checkpoints for path in folder.iterdir()}

    def full(path: Path, content: bytes) -> None:
        path.write_bytes(content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("reparamkit.training.checkpoint.write_bytes", full)
    said = assert_refused(out=tmp_path / "run", resume=True, epochs=2)
    assert "cannot write the checkpoint" in said
    assert "the disk is full" in said
    assert "is the older one, unchanged. Free some space and go on with --resume" in said
    assert {path: path.read_bytes() for folder in checkpoints for path in folder.iterdir()} == before
    assert not list((tmp_path / "run").glob(".*"))


@pytest.mark.slow
def test_a_real_limit_on_files_ends_with_status_2_and_the_older_checkpoint(tmp_path: Path) -> None:
    train(NET, out=tmp_path / "run", **(FAST | {"epochs": 1}))
    before = (tmp_path / "run" / "last" / "training.pt").read_bytes()

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    finished = subprocess.run(
        command("train", NET, *flags(**(FAST | {"epochs": 2})), "--out", str(tmp_path / "run"), "--resume"),
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        preexec_fn=limited,
        check=False,
    )
    assert finished.returncode == 2, finished.stderr
    assert (
        finished.stderr.strip().splitlines()[-1].startswith("reparamkit: error: cannot write the checkpoint")
    )
    assert (tmp_path / "run" / "last" / "training.pt").read_bytes() == before


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot write into" in assert_refused(out=tmp_path / "file" / "run")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import importlib.util

    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "kornia" else there(name))
    for arguments in (["train", NET, "--out", str(tmp_path / "run")], ["validate", NET]):
        monkeypatch.setattr(sys, "argv", ["reparamkit", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert caught.value.code == 2
        assert install_line("train") in capsys.readouterr().err


def test_a_write_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match=r"cannot write .*: No such file"):
        disk.replace_text(tmp_path / "nowhere" / "x.txt", "")
