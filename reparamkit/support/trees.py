"""What torch says of the structure of arguments and results, however old it is."""

from __future__ import annotations

from typing import Any

from torch.utils._pytree import TreeSpec


def parts(spec: TreeSpec) -> list[TreeSpec]:
    """The structures right inside this one, in order."""
    known: Any = spec
    children: list[TreeSpec] = known.children() if hasattr(spec, "children") else known.children_specs
    return children
