"""Networks that decide by comparing numbers: where two are nearly the same, rounding decides."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.compare.nets import randomised

IMAGE = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))


class _Stem(nn.Module):
    """Two convolutions with norms, the second strided: (N, 3, H, W) -> tokens (N, H·W/4, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        self.skip = nn.BatchNorm2d(channels)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 2, padding=1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return self.second(F.gelu(y + self.skip(y))).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """A softmax so steep that it is nearly an argmax: two tokens that are nearly as good change places."""

    def __init__(self, steepness: float = 8.0) -> None:
        super().__init__()
        self.stem, self.steepness = _Stem(16), steepness
        self.q, self.k, self.v = (nn.Linear(16, 16) for _ in range(3))
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x)
        weights = (self.steepness * self.q(y) @ self.k(y).transpose(1, 2)).softmax(-1)
        return self.head(weights @ self.v(y))


class Detector(nn.Module):
    """The best of all places by their scores, with their boxes: a tie goes to either."""

    def __init__(self, kept: int = 12) -> None:
        super().__init__()
        self.stem, self.kept = _Stem(16), kept
        self.score, self.box = nn.Linear(16, 5), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.stem(x)
        scores, labels = self.score(y).max(-1)
        best, places = scores.topk(self.kept, 1)
        boxes = self.box(y).gather(1, places[..., None].expand(-1, -1, 4)).sigmoid()
        return {"scores": best, "labels": labels.gather(1, places), "boxes": boxes}


class Masks(nn.Module):
    """Places above a threshold, and the mean over them: one at the threshold belongs to it or not."""

    def __init__(self, threshold: float = 0.1) -> None:
        super().__init__()
        self.stem, self.threshold = _Stem(16), threshold
        self.mask, self.value = nn.Linear(16, 4), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.stem(x)
        mask = self.mask(y) > self.threshold
        weights = mask.to(y.dtype) / mask.sum(1, keepdim=True).clamp_min(1)
        return mask, weights.transpose(1, 2) @ self.value(y)


class Codebook(nn.Module):
    """The nearest of a few vectors in place of each token, as vector quantisation does it."""

    def __init__(self, entries: int = 32) -> None:
        super().__init__()
        self.stem = _Stem(16)
        self.codes = nn.Parameter(torch.randn(entries, 16))
        self.head = nn.Linear(16, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        nearest = torch.cdist(self.stem(x), self.codes[None]).argmin(-1)
        return self.head(self.codes[nearest])


KINDS: dict[str, type[nn.Module]] = {
    "attention": Attention,
    "detector": Detector,
    "masks": Masks,
    "codebook": Codebook,
}


def deciding(kind: str, seed: int) -> nn.Module:
    """One of `KINDS` with weights drawn from a seed, in evaluation mode."""
    torch.manual_seed(seed)
    return randomised(KINDS[kind](), seed)
