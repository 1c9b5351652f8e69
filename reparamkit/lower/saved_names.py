"""Names of outputs in files."""

from __future__ import annotations

from collections.abc import Sequence


def plain_names(outputs: Sequence[str]) -> list[str]:
    """Names for a file's outputs from places in a Python structure ("map.0" becomes "map_0")."""
    plain = [name.replace(".", "_") for name in outputs]
    return [f"output_{name}" if name[0].isdigit() else name for name in plain]
