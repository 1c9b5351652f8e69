"""The folder of a run: the settings it was started with, and the checkpoint from which it goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from reparamkit.errors import UnusableInput
from reparamkit.loading.door.run_folders import LAST, MANIFEST, holds_checkpoint, recovered
from reparamkit.training.checkpoint import Checkpoint, open_checkpoint
from reparamkit.training.config import DataSettings

CONFIG = "config.yaml"

SettingsT = TypeVar("SettingsT", bound=DataSettings)


def settings_of(
    kind: type[SettingsT],
    folder: Path,
    config: str | Path | SettingsT | None,
    resume: bool,
    flags: dict[str, Any],
) -> SettingsT:
    """Defaults, overridden by those that the run was started with (on `resume`), by `config`, by `flags`.

    Raises UnusableInput for what is unknown or out of range.
    """
    older = kind.resolve(folder / CONFIG).as_dict() if resume and (folder / CONFIG).exists() else {}
    if isinstance(config, kind):
        given = config.as_dict()
    elif config is not None:
        given = kind.stated(Path(str(config)))
    else:
        given = {}
    return kind.resolve(None, **(older | given | {k: v for k, v in flags.items() if v is not None}))


def previous_checkpoint(folder: Path, resume: bool, say: Callable[[str], object]) -> Checkpoint | None:
    """The checkpoint that a run goes on from; None where it starts.

    Raises UnusableInput where there is a run already that nobody asked to go on with, or a damaged one.
    """
    if not resume:
        if holds_checkpoint(folder):
            raise UnusableInput(
                f"{folder} holds a run already; go on with it by --resume, or choose another --out"
            )
        return None
    last = recovered(folder / LAST) if folder.is_dir() else folder / LAST
    if not (last / MANIFEST).exists():
        say(f"there is no checkpoint in {folder} yet: starting")
        return None
    return open_checkpoint(last)
