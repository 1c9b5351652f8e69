"""What is validated: networks and files, each as a function from images to logits.

Files are opened and run exactly as `reparamkit check` does (`reparamkit.compare.network`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import reparamkit as rk
from reparamkit.compare.network import Network, Opening, open_network
from reparamkit.errors import ReparamkitError, UnusableInput
from reparamkit.loading.door.run_folders import holds_checkpoint
from reparamkit.training.checkpoint import About, Checkpoint, open_checkpoint
from reparamkit.training.networks import logits_of
from reparamkit.training.restored import restored


@dataclass
class Validated:
    """One row of a validation.

    Attributes:
        name: as the user gave it; a folded network has " (folded)" behind it.
        runner: what runs it: "torch", "ONNX Runtime".
        predict: images (N, 3, S, S), normalised, to logits (N, K).
        takes_pixels: it normalises by itself: it is given pixels from 0 to 255.
        module: the network, where it is one of torch's.
        about: what its checkpoint says, where it comes from one.
        size: the side of the images that it takes, where it says so.
    """

    name: str
    runner: str
    predict: Callable[[Tensor], Tensor]
    takes_pixels: bool = False
    module: nn.Module | None = None
    about: About | None = None
    size: int | None = None
    notes: list[str] = field(default_factory=list)


def open_validated(
    given: str | Path | nn.Module,
    *,
    weights: str | None = None,
    trust_pickle: bool = False,
    model: str | None = None,
    model_args: str | None = None,
    key: str | None = None,
) -> Validated:
    """Open a checkpoint's folder, a network's name, or any file that `reparamkit check` runs.

    Args:
        given: what is to be validated.
        weights: of a checkpoint, "raw" or "ema"; by default the average's, if it has any.
        trust_pickle, model, model_args, key: as in `reparamkit.load`.

    Raises UnusableInput where it cannot be opened.
    """
    if isinstance(given, nn.Module):
        return _torch(type(given).__name__, given.eval())
    path = Path(given)
    if holds_checkpoint(path):
        checkpoint = open_checkpoint(path)
        source = restored(checkpoint, weights, code=_code(checkpoint, model), trusted=trust_pickle)
        assert isinstance(source.model, nn.Module)
        entry = _torch(str(given), source.model)
        entry.about, entry.size = checkpoint.about, checkpoint.about.input_size
        entry.notes = list(source.notes)
        return entry
    subject = open_network(str(given), how=Opening(model, trust_pickle, model_args, key))
    return _file(subject, _module_of(subject))


def _code(checkpoint: Checkpoint, model: str | None) -> str | None:
    """`model` where it says what this checkpoint runs; it may be meant for another file."""
    return model if model == checkpoint.about.model else None


def folded(entry: Validated, size: int) -> Validated:
    """The same network, folded.

    Raises ReparamkitError where it cannot be folded, or where the fold is not the same function.
    """
    assert entry.module is not None
    generator = torch.Generator().manual_seed(0)
    result = rk.fold(entry.module, torch.randn(1, 3, size, size, generator=generator))
    other = _torch(f"{entry.name} (folded)", result.module)
    other.about, other.size = entry.about, entry.size
    other.notes = [f"{other.name}: {_folds(result.before, result.after)}"]
    return other


def try_folded(entry: Validated, size: int) -> Validated | None:
    """As `folded`; None, with a note on the entry, where it cannot be folded."""
    try:
        return folded(entry, size)
    except rk.NotEquivalent:
        raise
    except ReparamkitError as error:
        entry.notes.append(f"{entry.name} cannot be folded: {error}")
        return None


def _folds(before: dict[str, int], after: dict[str, int]) -> str:
    return f"{sum(before.values())} operators became {sum(after.values())}"


def _torch(name: str, module: nn.Module) -> Validated:
    def predict(x: Tensor) -> Tensor:
        with torch.inference_mode():
            return logits_of(module(x)).float()

    return Validated(name, "torch", predict, module=module)


def _module_of(subject: Network) -> nn.Module | None:
    """The network behind a name or a pickle; an exported program is a file like any other."""
    if not subject.is_torch or subject.program is not None:
        return None
    module: Any = subject.runner.module  # type: ignore[attr-defined]
    return None if isinstance(module, torch.jit.ScriptModule) else module


def _file(subject: Network, module: nn.Module | None) -> Validated:
    spec = subject.declared[0] if subject.declared else None
    if subject.declared is not None and len(subject.declared) != 1:
        raise UnusableInput(
            f"{subject.label} takes {len(subject.declared)} inputs; a classifier takes images"
        )
    shape = spec.shape if spec is not None else None
    if shape is not None and (len(shape) != 4 or shape[1] not in (3, str(shape[1]))):
        raise UnusableInput(
            f"{subject.label} takes {'x'.join(map(str, shape))}, and images are N x 3 x height x width"
        )
    batch = shape[0] if shape is not None and isinstance(shape[0], int) else None
    most = subject.ranges.get(str(shape[0]), (1, None))[1] if shape is not None else None
    dtype = spec.dtype if spec is not None else None

    def once(x: Tensor) -> Tensor:
        outputs = subject.runner.run((x if dtype is None else x.to(dtype),), {})
        return logits_of(outputs[0][1]).float()

    def predict(x: Tensor) -> Tensor:
        if batch is None and most is not None and len(x) > most:
            return torch.cat([once(piece) for piece in torch.split(x, most)])
        if batch is None or len(x) == batch:
            return once(x)
        pieces = []
        for start in range(0, len(x), batch):
            piece = x[start : start + batch]
            missing = batch - len(piece)
            filled = torch.cat([piece, piece[-1:].expand(missing, -1, -1, -1)]) if missing else piece
            pieces.append(once(filled)[: len(piece)])
        return torch.cat(pieces)

    side = shape[-1] if shape is not None else None
    size = side if isinstance(side, int) else (spec.usual[-1] if spec is not None and spec.usual else None)
    program = getattr(subject.runner, "program", None)
    pixels = bool(program is not None and program.inputs and getattr(program.inputs[0], "image", None))
    return Validated(
        subject.label, subject.runner.name, predict, pixels, module, None, size, list(subject.notes)
    )
