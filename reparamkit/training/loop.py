"""The training loop: updates, validation, checkpoints, until the epochs are over or somebody asks it to stop.

    for each epoch      for each update     forward and backward of its micro-batches, clip, step,
                                            schedules, average
                        validate            the weights, and their average
                        write               metrics, then the checkpoints last, best, best_ema

Everything that decides what comes next (weights, average, optimizer, schedules, scaler, random states,
position, sums of this epoch) is in the checkpoint, and the order of the images depends on seed and epoch
alone: on one process a run that goes on is the run that was never interrupted, bit by bit.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from reparamkit.errors import UnusableInput
from reparamkit.loading.door.run_folders import LAST
from reparamkit.support.text import one_line
from reparamkit.training.checkpoint import About, Checkpoint, write_checkpoint
from reparamkit.training.config import DataSettings
from reparamkit.training.curves import Row
from reparamkit.training.data import Batch, Data, training_batches
from reparamkit.training.data.loader import Place, updates_per_epoch
from reparamkit.training.progress import Progress
from reparamkit.training.random_state import random_state, restore_random_state
from reparamkit.training.records import Records
from reparamkit.training.schedules import CosineWeightDecay
from reparamkit.training.stop import StopRequest
from reparamkit.training.task import Best, Task

Say = Callable[[str], object]


class NotFinite(UnusableInput):
    """The loss or a weight is no number any more."""


@dataclass
class Position:
    """Where a run is.

    Attributes:
        epoch: whole epochs that are over.
        update: updates of the next one.
        sums: of this epoch: loss, images, correct ones, updates, seconds.
    """

    epoch: int = 0
    update: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 5)


@dataclass
class Outcome:
    """How a run ended: its rows, the best ones, and the signal that stopped it, if one did."""

    history: list[Row]
    best: dict[str, Row]
    stopped: int | None
    position: Position


@dataclass
class Loop:
    """A run, ready to start or to go on.

    Attributes:
        accelerator: devices, precision, processes.
        task: the network, its loss and its validation.
        model: the network as the accelerator prepared it.
        describe: what a checkpoint at a position with these scores says of itself.
    """

    accelerator: Accelerator
    task: Task
    model: Any
    optimizer: Optimizer
    learning_rate: LambdaLR
    weight_decay: CosineWeightDecay | None
    average: AveragedModel | None
    data: Data
    settings: DataSettings
    size: int
    folder: Path
    describe: Callable[[Position, Row], About]
    title: str
    say: Say
    warn: Say
    bar: bool
    position: Position = field(default_factory=Position)
    history: list[Row] = field(default_factory=list)
    best: dict[str, Row] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._updates = updates_per_epoch(self.data, self.settings)
        self._is_main = self.accelerator.is_main_process
        self._reported: set[str] = set()

    def run(self) -> Outcome:
        """Train until the epochs are over, or until a signal asks for an end.

        Raises:
            NotFinite: the loss or a weight is no number; the checkpoints are those of before.
            UnusableInput: a corrupt image that is fatal, a full disk, images that the network rejects.
        """
        with contextlib.ExitStack() as stack:
            stop = stack.enter_context(StopRequest())
            records = (
                stack.enter_context(Records(self.folder, self.position.epoch + 1)) if self._is_main else None
            )
            while self.position.epoch < self.settings.epochs:
                if not self._epoch(stop):
                    return Outcome(self.history, self.best, stop.signal or 0, self.position)
                row = self._row()
                self.history.append(row)
                self.position = Position(self.position.epoch + 1)
                if records is not None:
                    records.write(self.history)
                self._keep(row)
                self.say(_sentence(row, self.settings.epochs))
            if records is not None and self.history:
                records.draw(self.history, self.title)
        return Outcome(self.history, self.best, None, self.position)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on where the checkpoint was written.

        Raises UnusableInput where it is another network's.
        """
        state = checkpoint.state()
        network = self.accelerator.unwrap_model(self.model)
        try:
            network.load_state_dict(checkpoint.weights("raw"), strict=True)
            if self.average is not None:
                self.average.module.load_state_dict(checkpoint.weights("ema"), strict=True)
                self.average.n_averaged.fill_(state["averaged"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            text = one_line(error)
            raise UnusableInput(f"{checkpoint.folder} is a checkpoint of another network: {text}") from error
        self.learning_rate.load_state_dict(state["learning_rate"])
        if self.weight_decay is not None:
            self.weight_decay.load_state_dict(state["weight_decay"])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.position = Position(state["epoch"], state["update"], list(state["sums"]))
        self.history, self.best = list(state["history"]), dict(state["best"])
        states = state["random"]
        if len(states) == self.accelerator.num_processes:
            restore_random_state(states[self.accelerator.process_index])
        else:
            self.warn(
                f"{checkpoint.folder} was written by {len(states)} processes, and there are "
                f"{self.accelerator.num_processes}: random numbers are drawn anew"
            )

    def _epoch(self, stop: StopRequest) -> bool:
        """The updates that are left of this epoch; False where the run is to stop, which is written then."""
        place = Place(self.accelerator.process_index, self.accelerator.num_processes)
        self.model.train()
        started = time.monotonic()
        batches = training_batches(
            self.data, self.settings, self.size, self.position.epoch, self.position.update, place
        )
        with Progress(self._bar(), self._updates, self.position.update, enabled=self.bar) as bar:
            for update in batches:
                stopping = self._update(update, stop)
                now = time.monotonic()
                self.position.sums[4] += now - started
                started = now
                loss, images, correct, updates, seconds = self.position.sums
                bar.step(loss / updates, correct / images, images / seconds)
                if stopping:
                    self._write(LAST)
                    return False
                self._write_within_epoch()
        return True

    def _bar(self) -> str:
        return f"epoch {self.position.epoch + 1}/{self.settings.epochs}"

    def _update(self, batches: list[Batch], stop: StopRequest) -> bool:
        """One update; True where some process was asked to stop."""
        accelerator = self.accelerator
        sums = torch.zeros(4, dtype=torch.float64)
        for place, batch in enumerate(batches):
            self._report(batch)
            last = place == len(batches) - 1
            with contextlib.nullcontext() if last else accelerator.no_sync(self.model):
                images, labels = self._on_device(batch)
                loss, correct = self.task.loss(self.model, images, labels)
                accelerator.backward(loss / len(batches))
            sums[0] += loss.detach().double().cpu() / len(batches)
            sums[1] += len(labels)
            sums[2] += float("nan") if correct is None else correct.double().cpu()
        sums[3] = stop.signal is not None
        loss_sum, images_seen, correct_sum, stopping = self._summed(sums).tolist()
        mean = loss_sum / accelerator.num_processes
        if mean != mean or abs(mean) == float("inf"):
            raise self._not_finite(f"the loss became {mean}")
        if self.settings.clip_grad is not None:
            accelerator.clip_grad_norm_(self.model.parameters(), self.settings.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.learning_rate.step()
        if self.weight_decay is not None:
            self.weight_decay.step()
        if self.average is not None:
            self.average.update_parameters(accelerator.unwrap_model(self.model))
        self.position.update += 1
        for entry, value in enumerate((mean, images_seen, correct_sum, 1.0)):
            self.position.sums[entry] += value
        return bool(stopping > 0)

    def _on_device(self, batch: Batch) -> tuple[Tensor, Tensor]:
        images = batch.images.to(self.accelerator.device, non_blocking=True)
        if self.settings.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return images, batch.labels.to(self.accelerator.device, non_blocking=True)

    def _report(self, batch: Batch) -> None:
        for reason in batch.corrupt:
            if reason not in self._reported:
                self._reported.add(reason)
                self.warn(f"skipped: {reason}")

    def _summed(self, values: Tensor) -> Tensor:
        if self.accelerator.num_processes == 1:
            return values
        summed: Tensor = self.accelerator.reduce(values.to(self.accelerator.device), reduction="sum")
        return summed.cpu()

    def _row(self) -> Row:
        """Train figures and validation scores of the epoch that is over."""
        loss, images, correct, updates, seconds = self.position.sums
        row: Row = {"epoch": self.position.epoch + 1}
        # The groups of layer-wise decay have smaller rates; the largest is what was asked for.
        row["lr"] = max(group["lr"] for group in self.optimizer.param_groups)
        row["weight_decay"] = max(group["weight_decay"] for group in self.optimizer.param_groups)
        row["train_loss"] = loss / updates
        if correct == correct:
            row["train_top1"] = correct / images
        row |= self.task.validate(self.accelerator.unwrap_model(self.model))
        if self.average is not None:
            averaged = self.task.validate(self.average.module)
            row |= {f"ema_{name}": value for name, value in averaged.items()}
        row["seconds"] = seconds
        row["images_per_second"] = images / seconds
        return row

    def _write_within_epoch(self) -> None:
        every = self.settings.checkpoint_every
        if every is not None and self.position.update % every == 0 and self.position.update < self._updates:
            self._write(LAST)

    def _keep(self, row: Row) -> None:
        """Write those checkpoints that this row makes the best, then the last.

        In this order a run that is killed in between meets the row again, and no best one is missed.
        """
        better = [best for best in self.task.best if self._beats(best, row)]
        for best in better:
            self.best[best.folder] = row
        for folder in (*(best.folder for best in better), LAST):
            self._write(folder)

    def _beats(self, best: Best, row: Row) -> bool:
        return best.column in row and best.is_better(row, self.best.get(best.folder))

    def _write(self, folder: str) -> None:
        network = self.accelerator.unwrap_model(self.model)
        self._check_weights(network)
        states = gather_object([random_state()])
        failure = [""]
        if self._is_main:
            state = {
                "optimizer": self.optimizer.state_dict(),
                "learning_rate": self.learning_rate.state_dict(),
                "weight_decay": None if self.weight_decay is None else self.weight_decay.state_dict(),
                "scaler": None if self.accelerator.scaler is None else self.accelerator.scaler.state_dict(),
                "averaged": 0 if self.average is None else int(self.average.n_averaged),
                "random": states,
                "epoch": self.position.epoch,
                "update": self.position.update,
                "sums": self.position.sums,
                "history": self.history,
                "best": self.best,
            }
            row = self.history[-1] if self.history else {}
            about = self.describe(self.position, row)
            ema = None if self.average is None else self.average.module.state_dict()
            try:
                write_checkpoint(self.folder / folder, about, network.state_dict(), ema, state)
            except UnusableInput as error:
                failure = [str(error)]
        self._agree(failure)

    def _agree(self, failure: list[str]) -> None:
        """Raise in every process what went wrong in the one that writes."""
        if self.accelerator.num_processes > 1:
            from accelerate.utils import broadcast_object_list

            broadcast_object_list(failure)
        if failure[0]:
            raise UnusableInput(f"{failure[0]}. Free some space and go on with --resume")

    def _check_weights(self, network: torch.nn.Module) -> None:
        """A checkpoint of weights that are no numbers would replace a good one."""
        with torch.no_grad():
            spoilt = [
                name
                for name, value in network.state_dict().items()
                if value.is_floating_point() and not bool(value.isfinite().all())
            ]
        if spoilt:
            raise self._not_finite(f"the weights {spoilt[0]} became NaN or infinite")

    def _not_finite(self, what: str) -> NotFinite:
        last = self.folder / LAST
        kept = f"; {last} is the last good checkpoint" if last.exists() else "; no checkpoint was written yet"
        return NotFinite(
            f"{what} at update {self.position.update + 1} of epoch {self.position.epoch + 1}{kept}. "
            "Try a smaller --lr, a longer --warmup-epochs or --clip-grad 1"
        )


def _sentence(row: Row, epochs: int) -> str:
    parts = [f"epoch {int(row['epoch'])}/{epochs}: training loss {row['train_loss']:.4f}"]
    parts.append(f"validation loss {row['loss']:.4f}")
    if "top1" in row:
        parts.append(f"top-1 {row['top1']:.2%}")
    if "ema_top1" in row:
        parts.append(f"of the average {row['ema_top1']:.2%}")
    parts.append(f"{row['images_per_second']:.0f} images/s")
    return ", ".join(parts)
