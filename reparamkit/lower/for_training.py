"""A network as it is trained: the whole module, pickled (`.pt`), or its weights (`.pth`, `.safetensors`).

Nothing is lowered. Every file is read back and holds the same numbers, bit by bit, before it appears.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor, nn

from reparamkit.errors import NotEquivalent, UnusableInput
from reparamkit.lower.files import staged
from reparamkit.lower.module import loaded_module, pickled


def save_for_training(module: nn.Module, paths: Sequence[Path]) -> list[tuple[str, str]]:
    """Write the files, and put them in place once all have been read back: all appear, or none.

    Returns:
        For each path what is true of the file.

    Raises:
        UnusableInput: it cannot be pickled or written; NotEquivalent: other numbers were read back.
    """
    results = []
    with ExitStack() as stack:
        stages = []
        for path in paths:
            write, compare, said = _format(module, path)
            stages.append(stack.enter_context(staged(path)))
            write(stages[-1].made)
            stages[-1].check_written()
            compare(stages[-1].made)
            results.append((str(path), said))
        for stage in stages:
            stage.commit()
    return results


def _format(module: nn.Module, path: Path) -> tuple[Callable[[Path], object], Callable[[Path], None], str]:
    """How a file of that suffix is written, read back and compared, and what is then true of it."""
    tensors = {name: value.detach().contiguous().clone() for name, value in module.state_dict().items()}
    size = f"{sum(value.numel() for value in module.parameters()) / 1e6:.2f} M parameters"
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file, save

        return (
            lambda target: target.write_bytes(save(tensors)),
            lambda target: _require_same(tensors, load_file(target), path),
            f"weights of {size}, read back bit by bit",
        )
    if path.suffix == ".pth":
        return (
            lambda target: torch.save(tensors, target),
            lambda target: _require_same(tensors, torch.load(target, weights_only=True), path),
            f"weights of {size}, read back bit by bit",
        )
    try:
        archive = pickled(module, path)
    except UnusableInput as error:
        raise UnusableInput(f"{error}; its weights can be written, as .pth or .safetensors") from error
    return (
        lambda target: target.write_bytes(archive.getbuffer()),
        lambda target: _require_same(tensors, loaded_module(target, path).state_dict(), path),
        f"the whole module, {size}, read back bit by bit; torch.load(..., weights_only=False) opens it",
    )


def _require_same(tensors: dict[str, Tensor], read: dict[str, Tensor], path: Path) -> None:
    same = tensors.keys() == read.keys() and all(
        value.dtype == read[name].dtype and torch.equal(value.cpu(), read[name].cpu())
        for name, value in tensors.items()
    )
    if not same:
        raise NotEquivalent(f"{path} was not written: what was read back holds other weights")
