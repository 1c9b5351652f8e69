"""Commands as users type them, in bash, with `reparamkit` and `python` of this environment on the path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_LAUNCHER = """\
#!{python}
import sys
sys.path.insert(1, {root!r})
if any(word.startswith(("timm:", "torchvision:", "transformers:", "hf-hub:")) for word in sys.argv):
    from tests.timm_import import import_timm
    import_timm()
from reparamkit.cli import main
sys.argv[0] = "reparamkit"
main()
"""
"""timm imports torchvision, whose compiled operators are not everywhere (`tests.timm_import`)."""


def environment(folder: Path) -> dict[str, str]:
    """The variables of a shell in which `reparamkit` is the command; what it needs is put into the folder."""
    folder.mkdir(exist_ok=True)
    launcher = folder / "reparamkit"
    launcher.write_text(_LAUNCHER.format(python=sys.executable, root=str(ROOT)))
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    for file in (launcher, python):
        file.chmod(0o755)
    path = os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "160", "PYTHONWARNINGS": "ignore"}


def bash(
    script: list[str], folder: Path, variables: dict[str, str], seconds: float = 600
) -> subprocess.CompletedProcess[str]:
    """Run bash in a folder with these arguments."""
    return subprocess.run(
        ["bash", *script],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
