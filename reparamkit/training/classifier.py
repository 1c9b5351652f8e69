"""A classifier as the loop trains it: augmentation, loss, teacher, validation."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from reparamkit.training.augment import Augmentation, normalised
from reparamkit.training.config import Config
from reparamkit.training.data import Data, validation_batches
from reparamkit.training.data.loader import Place
from reparamkit.training.losses import base_loss, distilled
from reparamkit.training.metrics import evaluate
from reparamkit.training.networks import logits_of
from reparamkit.training.task import Best, Call


class Classifier:
    """What `train` trains; see `reparamkit.training.task.Task`."""

    def __init__(
        self,
        module: nn.Module,
        config: Config,
        data: Data,
        size: int,
        accelerator: Accelerator,
        teacher: nn.Module | None,
    ) -> None:
        self.module = module
        self.best: tuple[Best, ...] = (Best("best", "top1", True, "loss"),)
        if config.ema > 0:
            self.best = (*self.best, Best("best_ema", "ema_top1", True, "ema_loss"))
        self._config, self._data, self._size = config, data, size
        self._accelerator, self._teacher = accelerator, teacher
        self._augment = Augmentation(config, data.mean, data.std, len(data.classes))

    def loss(self, call: Call, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        config = self._config
        x, target = self._augment(images, labels)
        if config.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        logits = logits_of(call(x)).float()
        loss = base_loss(logits, target, config.label_smoothing)
        if self._teacher is not None:
            with torch.no_grad(), self._accelerator.autocast():
                teacher = logits_of(self._teacher(x)).float()
            loss = distilled(loss, logits, teacher, config.distillation, config.alpha, config.tau)
        correct = None if target.ndim == 2 else (logits.argmax(1) == labels).sum()
        return loss, correct

    def validate(self, module: nn.Module) -> dict[str, float]:
        was_training = module.training
        module.eval()
        try:
            with torch.no_grad():
                scores = evaluate(
                    lambda x: logits_of(module(x)).float(), self._validation(), self._over_processes
                )
        finally:
            module.train(was_training)
        return {
            "loss": scores.loss,
            "top1": scores.top1,
            "top5": scores.top5,
            "calibration_error": scores.calibration_error,
        }

    def _validation(self) -> Iterator[tuple[Tensor, Tensor]]:
        accelerator, config = self._accelerator, self._config
        batches = validation_batches(
            self._data.valid,
            self._data.columns,
            self._size,
            max(1, config.batch_size // accelerator.num_processes),
            crop=config.crop,
            corrupt=config.corrupt,
            workers=config.workers,
            place=Place(accelerator.process_index, accelerator.num_processes),
        )
        for batch in batches:
            images = batch.images.to(accelerator.device, non_blocking=True).float() / 255
            x = normalised(images, self._data.mean, self._data.std)
            if config.channels_last:
                x = x.contiguous(memory_format=torch.channels_last)
            yield x, batch.labels

    def _over_processes(self, sums: Tensor) -> Tensor:
        if self._accelerator.num_processes == 1:
            return sums
        summed: Tensor = self._accelerator.reduce(sums.to(self._accelerator.device), reduction="sum")
        return summed.cpu()
