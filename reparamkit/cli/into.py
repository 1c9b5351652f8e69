"""`reparamkit fold … --into MODULE:CALLABLE`: the state dict of a class of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reparamkit.errors import UnusableInput
from reparamkit.into.outputs import check_target_suffix, is_folder
from reparamkit.lower.files import check_writable
from reparamkit.lower.formats import FORMATS

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from reparamkit.into.load import Loaded
    from reparamkit.loading.source import Source


def check(path: Path) -> None:
    """Raises UnusableInput where no state dict can be written to the path, before any long work."""
    check_target_suffix(path)
    check_writable(path)


def is_for_base(paths: Sequence[Path], adapter: Path | None) -> bool:
    """Whether the outputs are weights for the network that an adapter was put onto.

    Raises:
        UnusableInput: they are of both kinds.
    """
    graphs = [path for path in paths if path.suffix in {each.suffix for each in FORMATS}]
    if adapter is None or len(graphs) == len(paths):
        return False
    if graphs:
        others = ", ".join(str(path) for path in paths if path not in graphs)
        raise UnusableInput(
            f"{graphs[0]} holds a folded network, and {others} weights for the network as it was; ask for "
            f"them in two runs"
        )
    return True


def base_of(opened: Source, paths: Sequence[Path]) -> nn.Module:
    """The network that the adapter was put onto.

    Raises:
        UnusableInput: a folder is asked for, and it has none.
    """
    from reparamkit.into.pretrained import require_pretrained

    base = opened.base
    assert base is not None
    for path in paths:
        if is_folder(path):
            require_pretrained(base, path)
    return base


def target(address: str) -> nn.Module:
    """The network that --into names.

    Raises:
        UnusableInput: it is not of the form MODULE:CALLABLE, cannot be made, or is an exported program.
    """
    from torch import nn

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
        )
