"""Sizes read off values that stay, where they were read off others.

    c = conv(x),  y = bn(c),  n = c.shape[2],  pad(y, n % 2)    ──▶    n = y.shape[2]

torch.export reads a size off the first tensor that has it. A value that is read for its size alone could not
become part of a fold, though a later one of the same size is there in any case.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from reparamkit.hosts.fx.read import FxHost

aten = torch.ops.aten


def read_sizes_off_what_stays(host: FxHost) -> bool:
    """Let sizes of values that may go be read off the last value before that has the same size, and stays.

    Returns whether any is; the host is one of another graph then.
    """
    readings = [node for node in host.program.graph.nodes if node.target is aten.sym_size.int]
    if not any(_may_go(host, node.args[0]) for node in readings):
        return False
    places: dict[Any, tuple[fx.Node, int]] = {}
    changes = False
    for node in host.program.graph.nodes:
        if node.target is aten.sym_size.int and _may_go(host, node.args[0]):
            size = node.meta.get("val")
            elsewhere = places.get(size.node.expr) if isinstance(size, torch.SymInt) else None
            if elsewhere is not None:
                node.args, changes = elsewhere, True
        elif isinstance(node.meta.get("val"), Tensor) and host.remains(node):
            for axis, size in enumerate(node.meta["val"].shape):
                if isinstance(size, torch.SymInt):
                    places[size.node.expr] = node, axis
    return changes


def _may_go(host: FxHost, value: Any) -> bool:
    return host.id_of(value) is not None and not host.remains(value)
