"""A fold asks torch nothing of symbolic sizes: an answer would settle one of them for good."""

from __future__ import annotations

from typing import Any

import pytest

from reparamkit.capture.export import capture
from reparamkit.capture.program import Program
from reparamkit.errors import CannotCapture
from reparamkit.hosts.fx.fold import fold_program
from reparamkit.lower.exported import axis_names
from tests.engine.state.networks import NETWORKS

pytestmark = pytest.mark.filterwarnings(
    "ignore:RNN module weights are not part of single contiguous chunk",
    "ignore:.*LeafSpec:FutureWarning",
)
# A copy whose value is of fewer axes is spelt with torch's own expand.
ALWAYS = ("broadcast copy", "masked write")


def _assumed(program: Program) -> list[Any]:
    environments = {
        id(environment): environment
        for node in program.exported.graph.nodes
        for size in getattr(node.meta.get("val"), "shape", ())
        if (environment := getattr(getattr(size, "node", None), "shape_env", None)) is not None
    }
    return [guard.expr for environment in environments.values() for guard in environment.guards]


@pytest.mark.parametrize(
    "name", [n if n in ALWAYS else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS]
)
def test_a_fold_leaves_free_sizes_free(name: str) -> None:
    network, inputs = NETWORKS[name]()
    try:
        program = capture(network, inputs, {}, dynamic="auto")
    except CannotCapture:
        return  # refused, which other tests look at
    assert isinstance(program, Program)
    free, assumed = axis_names(program.exported), _assumed(program)
    fold_program(program.copy(), example=(inputs, {}))
    assert axis_names(program.exported) == free
    assert _assumed(program) == assumed
