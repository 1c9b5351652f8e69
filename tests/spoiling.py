"""A fold that goes wrong after all that the engine proves: only the comparison of the whole can notice."""

from __future__ import annotations

import pytest
from torch import fx

from reparamkit.hosts.fx import fold as folding
from reparamkit.hosts.fx import in_place
from reparamkit.hosts.fx.captured import Captured, Changes


def spoil(monkeypatch: pytest.MonkeyPatch, factor: float = 1.001) -> None:
    """Every number of every folded layer is multiplied by `factor`."""
    require_same = in_place.require_same

    def wrong(captured: Captured, module: fx.GraphModule, changes: Changes) -> bool:
        held = require_same(captured, module, changes)
        for node in module.graph.nodes:
            for parameter in (
                module.get_submodule(node.target).parameters() if node.op == "call_module" else ()
            ):
                parameter.data.mul_(factor)
        return held

    monkeypatch.setattr(folding, "require_same", wrong)
