"""What expanding does for a small network: plain against each kind of block, on scikit-learn's digits.

    python tests/benchmarks/expand_digits.py [--epochs 15] [--seeds 5] [--rate 0.05] [--train 0.5]

All start from the same function: a network is drawn, and each kind expanded from it, with the same batches in
the same order, the same optimizer and as many epochs. Nothing is tuned for the one or the other. The accuracy
is that of the folded network on images that were not trained on; the difference to plain is taken seed by
seed, and its spread is the standard deviation over the seeds. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

import reparamkit as rk
from reparamkit.training.expand.kinds import KINDS

BATCH = 64


def network() -> nn.Module:
    """Six 3x3 convolutions with batch norm and a classifier: (N, 1, 8, 8) -> (N, 10)."""
    layers: list[nn.Module] = []
    for inputs, outputs, stride in (
        (1, 16, 1),
        (16, 16, 1),
        (16, 32, 2),
        (32, 32, 1),
        (32, 64, 2),
        (64, 64, 1),
    ):
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


@dataclass
class Data:
    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def digits(share: float, seed: int) -> Data:
    """Another split for each seed, every class in its proportion; values between −1 and 1."""
    found = load_digits()
    split = train_test_split(
        found.images, found.target, train_size=share, stratify=found.target, random_state=seed
    )
    images, test_images = (torch.tensor(part, dtype=torch.float32)[:, None] / 8 - 1 for part in split[:2])
    labels, test_labels = (torch.tensor(part) for part in split[2:])
    return Data(images, labels, test_images, test_labels)


def train(model: nn.Module, data: Data, epochs: int, rate: float, seed: int) -> float:
    """Train in place with SGD, momentum and a cosine schedule. Returns the mean loss of the last epoch."""
    order = torch.Generator().manual_seed(seed)
    steps = len(data.images) // BATCH * epochs
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses: list[float] = []
    model.train()
    for _ in range(epochs):
        losses.clear()
        for chosen in torch.randperm(len(data.images), generator=order).split(BATCH):
            if len(chosen) < BATCH:
                continue
            loss = F.cross_entropy(model(data.images[chosen]), data.labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    model.eval()
    return statistics.mean(losses)


@dataclass
class Outcome:
    accuracy: float
    loss: float
    seconds: float
    parameters: int
    changed: int
    """How many predictions on the test images differ between the trained and the folded network."""


def outcome(model: nn.Module, data: Data, options: argparse.Namespace, seed: int) -> Outcome:
    parameters = sum(p.numel() for p in model.parameters())
    started = time.perf_counter()
    loss = train(model, data, options.epochs, options.rate, seed)
    seconds = (time.perf_counter() - started) / options.epochs
    folded = rk.fold(model, data.test_images[:8]).module
    with torch.no_grad():
        before, after = (net(data.test_images).argmax(1) for net in (model, folded))
    accuracy = (after == data.test_labels).float().mean().item()
    return Outcome(100 * accuracy, loss, seconds, parameters, int((before != after).sum()))


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):6.2f} ± {statistics.stdev(values):4.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--train", type=float, default=0.5, help="share of the images that is trained on")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[Outcome]] = {name: [] for name in ("plain", *KINDS)}
    for seed in range(options.seeds):
        data = digits(options.train, seed)
        torch.manual_seed(seed)
        start = network()
        for name, outcomes in found.items():
            net = copy.deepcopy(start)
            if name != "plain":
                net = rk.expand(net, data.images[:256], name, seed=seed)
            outcomes.append(outcome(net, data, options, seed))
    plain = found["plain"]
    print(
        f"{len(data.images)} training and {len(data.test_images)} test images, {options.epochs} epochs, rate "
        f"{options.rate}, {options.seeds} seeds\n"
    )
    print("| | parameters | test accuracy % | against plain, by seed | last loss | s / epoch | changed |")
    print("|---|---|---|---|---|---|---|")
    for name, outcomes in found.items():
        accuracy = [each.accuracy for each in outcomes]
        difference = [each.accuracy - base.accuracy for each, base in zip(outcomes, plain, strict=True)]
        cells = (
            name,
            f"{outcomes[0].parameters:,}",
            spread(accuracy),
            "" if name == "plain" else spread(difference),
            f"{statistics.mean(each.loss for each in outcomes):.4f}",
            f"{statistics.median(each.seconds for each in outcomes):.2f}",
            str(sum(each.changed for each in outcomes)),
        )
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
