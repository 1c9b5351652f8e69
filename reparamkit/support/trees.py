"""What torch says of the structure of arguments and results, however old it is."""

from __future__ import annotations

from typing import Any

from torch.utils import _pytree
from torch.utils._pytree import TreeSpec


def parts(spec: TreeSpec) -> list[TreeSpec]:
    """The structures right inside this one, in order."""
    known: Any = spec
    children: list[TreeSpec] = known.children() if hasattr(spec, "children") else known.children_specs
    return children


def leaf() -> TreeSpec:
    """The structure of a value that is no container."""
    known: Any = _pytree
    spec: TreeSpec = known.treespec_leaf() if hasattr(_pytree, "treespec_leaf") else known.LeafSpec()
    return spec
