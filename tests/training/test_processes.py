"""Two processes do what one does: the same images make an update, and the weights come out alike."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from reparamkit.errors import UnusableInput
from reparamkit.training import train
from reparamkit.training.checkpoint import open_checkpoint
from reparamkit.training.config import Config
from reparamkit.training.data import training_batches
from reparamkit.training.data.loader import Place
from tests.training.small import FAST, ROOT, data, flags

STEADY = "tests.training.small:steady"


def test_each_update_is_made_of_the_same_images_however_many_processes_there_are() -> None:
    settings = Config.resolve(**(FAST | {"accumulate": 2, "min_crop": 0.5}))

    def images_of(place: Place, accumulate: int) -> list[Any]:
        chosen = Config.resolve(**(settings.as_dict() | {"accumulate": accumulate}))
        return [
            {
                int(index): image
                for batch in update
                for index, image in zip(batch.indices, batch.images, strict=True)
            }
            for update in training_batches(data(), chosen, 8, 3, place=place)
        ]

    whole = images_of(Place(0, 1), 1)
    parts = [images_of(Place(process, 3), 2) for process in range(3)]
    assert [len(update) for update in whole] == [24] * 5
    for number, update in enumerate(whole):
        together = {index: image for part in parts for index, image in part[number].items()}
        assert sorted(together) == sorted(update)
        assert all(image.equal(update[index]) for index, image in together.items())


def test_epochs_have_orders_of_their_own_and_no_image_comes_twice() -> None:
    settings = Config.resolve(**FAST)
    orders = [
        [int(i) for update in training_batches(data(), settings, 8, epoch) for b in update for i in b.indices]
        for epoch in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert len(set(orders[0])) == 120


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    settings = Config.resolve(**FAST)
    with pytest.raises(UnusableInput, match="24 images cannot be cut evenly among 5 processes"):
        next(training_batches(data(), settings, 8, 0, place=Place(0, 5)))


@pytest.mark.slow
@pytest.mark.parametrize("sync_bn", [True, False])
def test_two_processes_under_torchrun_agree_with_one(tmp_path: Path, sync_bn: bool) -> None:
    """With batch norms over both processes; without, in a network that has none."""
    model = STEADY if sync_bn else "tests.training.small:plain"
    # Adam would divide gradients that are zero but for rounding by themselves.
    settings = FAST | {"clip_grad": 1.0, "min_crop": 0.6, "optimizer": "sgd", "lr": 0.05}
    alone = train(model, out=tmp_path / "one", sync_bn=sync_bn, **settings)
    arguments = ["train", model, *flags(**settings), *(["--sync-bn"] if sync_bn else []), "--no-fold"]
    port = str(29500 + os.getpid() % 2000 + sync_bn)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    launcher += ["--master_port", port]
    finished = subprocess.run(
        [*launcher, "-m", "reparamkit", *arguments, "--out", str(tmp_path / "two")],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert "Warning" not in finished.stderr
    assert finished.stderr.count("epoch 2/2") == 1  # one process speaks
    together = open_checkpoint(tmp_path / "two" / "last")
    for name, value in together.weights("raw").items():
        torch.testing.assert_close(value, alone.module.state_dict()[name], rtol=1e-5, atol=1e-6, msg=name)
    last = alone.history[-1]
    for name in ("train_loss", "loss", "top1", "calibration_error"):
        assert together.about.scores[name] == pytest.approx(last[name], rel=1e-3)
    assert len(together.state()["random"]) == 2
