"""What is done to an exported program before coremltools sees it: one function for each gap of coremltools.

A program comes in torch's TRAINING dialect, of which coremltools takes nothing; with an empty table
`run_decompositions` turns it into the ATEN dialect and decomposes only what would otherwise keep it from
being functional.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx
from torch.export import ExportedProgram

from reparamkit.lower.coreml.names import name_operators
from reparamkit.lower.coreml.toolbox import CannotConvert, reason_of
from reparamkit.quiet import quiet

aten = torch.ops.aten


def prepared(program: ExportedProgram, taken: Sequence[str]) -> ExportedProgram:
    """The program in the dialect that coremltools takes, with its gaps worked around; a new one.

    Args:
        taken: names that no operator may have.

    Raises:
        CannotConvert: torch cannot bring it into that dialect.
    """
    try:
        with quiet(), torch.no_grad():
            made: ExportedProgram = program.run_decompositions({})
            for mend in MENDS:
                mend(made.graph)
            made.graph.eliminate_dead_code()
            made.graph.lint()
    except Exception as error:
        raise CannotConvert(reason_of(error)) from error
    name_operators(made, taken)
    return made


def aliases(graph: fx.Graph) -> None:
    """coremltools knows no `alias` (and some copies), which mean nothing in a functional graph."""
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target in _SAME_VALUE:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def assertions(graph: fx.Graph) -> None:
    """Guards on sizes say what the example's capture assumed; a package states its sizes itself."""
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and node.target in _ASSERTIONS and not node.users:
            graph.erase_node(node)


_SAME_VALUE = frozenset(
    {
        aten.alias.default,
        aten.detach.default,
        aten.lift_fresh_copy.default,
        aten.lift_fresh.default,
    }
)
_ASSERTIONS = frozenset(
    {
        aten._assert_scalar.default,
        aten._assert_tensor_metadata.default,
        aten.sym_constrain_range.default,
        aten.sym_constrain_range_for_size.default,
    }
)

MENDS = (aliases, assertions)
