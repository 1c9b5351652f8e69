"""`reparamkit fold … --into MODULE:CALLABLE`: the state dict of a class of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from reparamkit.into.load import Loaded


def check(path: Path) -> None:
    """Raises UnusableInput where no state dict can be written to the path, before any long work."""
    from reparamkit.into.load import check_target_suffix
    from reparamkit.lower.files import check_writable

    check_target_suffix(path)
    check_writable(path)


def target(address: str) -> nn.Module:
    """The network that --into names.

    Raises:
        UnusableInput: it is not of the form MODULE:CALLABLE, cannot be made, or is an exported program.
    """
    from torch import nn

    from reparamkit.errors import UnusableInput
    from reparamkit.loading.construct import construct, is_address

    if not is_address(address):
        raise UnusableInput(f"--into {address}: it has to be MODULE:CALLABLE, such as my.nets:build_deploy")
    try:
        target = construct(address)
    except UnusableInput as error:
        raise UnusableInput(f"--into {error}") from error
    if not isinstance(target, nn.Module):
        raise UnusableInput(f"--into {address}: weights go into a torch.nn.Module, not an exported program")
    return target


def show(loaded: Loaded, paths: Sequence[Path], console: Console) -> None:
    """One line for each file."""
    for path in paths:
        console.print(
            f"{path}: {len(loaded.state_dict())} tensors for {type(loaded.module).__name__}, "
            f"load_state_dict(strict=True); {loaded.equivalence.summary()}",
            soft_wrap=True,
            markup=False,
            highlight=False,
        )
