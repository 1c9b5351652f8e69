"""What is done to an exported program before coremltools sees it: one function for each gap of coremltools.

A program comes in torch's TRAINING dialect, of which coremltools takes nothing; with an empty table
`run_decompositions` turns it into the ATEN dialect and decomposes only what would otherwise keep it from
being functional.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx
from torch._decomp import get_decompositions
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind

from reparamkit.lower.coreml.constants import fold_constants
from reparamkit.lower.coreml.names import name_operators
from reparamkit.lower.coreml.ranks import add_call, flat_linear, merged_axes, unbound_early
from reparamkit.lower.coreml.toolbox import CannotConvert, reason_of
from reparamkit.support.quiet import quiet

aten = torch.ops.aten


def prepared(program: ExportedProgram, taken: Sequence[str]) -> ExportedProgram:
    """The program in the dialect that coremltools takes, with its gaps worked around; a new one.

    Args:
        taken: names that no operator may have.

    Raises:
        CannotConvert: torch cannot bring it into that dialect, or Core ML has no such arguments.
    """
    try:
        with quiet(), torch.no_grad():
            decomposed = program.run_decompositions({})
            _check_arguments(decomposed)
            _without_constants(decomposed)
            fold_constants(decomposed)
            decomposed = _taken_apart(decomposed)
            for mend in MENDS:
                mend(decomposed.graph)
            decomposed.graph.eliminate_dead_code()
            decomposed.graph.lint()
    except CannotConvert:
        raise
    except Exception as error:
        raise CannotConvert(reason_of(error)) from error
    name_operators(decomposed, taken)
    return decomposed


def _check_arguments(program: ExportedProgram) -> None:
    """Find out whether Core ML can have inputs and outputs such as these at all.

    Raises:
        CannotConvert: the network writes into its buffers or inputs, an input has no axes, an output is no
            tensor.
    """
    for spec in program.graph_signature.output_specs:
        if spec.kind is not OutputKind.USER_OUTPUT:
            raise CannotConvert(
                f"the network changes {spec.target!r} while it runs, and a package keeps nothing between runs"
            )
        if isinstance(spec.arg, ConstantArgument) and spec.arg.value is not None:
            raise CannotConvert(f"the network returns {spec.arg.value!r}, which is no tensor")
    for node in program.graph.nodes:
        if node.op != "placeholder" or node.name not in program.graph_signature.user_inputs:
            continue
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor) and not value.ndim:
            raise CannotConvert(
                f"Core ML has no inputs without axes, and {node.name!r} is one: give it one axis"
            )


def _without_constants(program: ExportedProgram) -> None:
    """Leave out arguments that are no tensors, whose values capture settled, and a `None` that comes back."""
    signature, graph = program.graph_signature, program.graph
    settled = {
        spec.arg.name
        for spec in signature.input_specs
        if spec.kind is InputKind.USER_INPUT and isinstance(spec.arg, ConstantArgument)
    }
    for node in list(graph.nodes):
        if node.op == "placeholder" and node.name in settled and not node.users:
            graph.erase_node(node)
    signature.input_specs[:] = [spec for spec in signature.input_specs if spec.arg.name not in settled]
    output = graph.output_node()
    pairs = list(zip(signature.output_specs, output.args[0], strict=True))
    kept = [(spec, value) for spec, value in pairs if isinstance(value, fx.Node)]
    signature.output_specs[:] = [spec for spec, _ in kept]
    output.args = (tuple(value for _, value in kept),)


def _taken_apart(program: ExportedProgram) -> ExportedProgram:
    """What coremltools does not know is taken apart where torch knows how."""
    for _ in range(_ROUNDS):
        unknown = {
            node.target for node in program.graph.nodes if node.op == "call_function" and not _is_known(node)
        }
        table = get_decompositions([*unknown])
        if not table:
            break
        program = program.run_decompositions(table)
    return program


def _is_known(node: fx.Node) -> bool:
    """Whether coremltools has a translation, or a function below does."""
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY
    from coremltools.converters.mil.frontend.torch.utils import sanitize_op_kind

    if not isinstance(node.target, torch._ops.OpOverload):
        return True
    if node.target in _SAME_VALUE | _ASSERTIONS:
        return True
    return sanitize_op_kind(node.target._name) in _TORCH_OPS_REGISTRY


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


def distinct_outputs(graph: fx.Graph) -> None:
    """coremltools names a value after the output that it is, which cannot be two of them, nor an input.

    A copy would be taken for superfluous; a number negated twice is the same number.
    """
    output = graph.output_node()
    results = []
    for value in output.args[0]:  # type: ignore[union-attr]
        if isinstance(value, fx.Node) and (value.op == "placeholder" or value in results):
            with graph.inserting_before(output):
                twice = aten.logical_not if value.meta["val"].dtype is torch.bool else aten.neg
                value = add_call(graph, value, twice.default, value)
                value = add_call(graph, value, twice.default, value)
        results.append(value)
    output.args = (tuple(results),)


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

_ROUNDS = 4
"""One operator taken apart may leave another that has to be."""

MENDS = (aliases, assertions, unbound_early, flat_linear, merged_axes, distinct_outputs)
