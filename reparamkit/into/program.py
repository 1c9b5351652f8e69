"""`fold_program`: a pass from one `ExportedProgram` to another, for torch's own pipelines.

export ──▶ fold_program ──▶ prepare_pt2e / AOTInductor / ExecuTorch
"""

from __future__ import annotations

from typing import Any

from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind

from reparamkit.api import fold
from reparamkit.compare.profile import EXCHANGEABLE, judge_candidate
from reparamkit.errors import CannotCapture, UnusableInput
from reparamkit.lower.exported import free_axes
from reparamkit.lower.pt2 import GuardedRunner
from reparamkit.support.surroundings import undisturbed


@undisturbed()
def fold_program(
    exported: ExportedProgram,
    example_inputs: Any = None,
    *,
    merge_siblings: bool = False,
    allow_untold: bool = False,
) -> ExportedProgram:
    """Fold an exported program into another one with the same signature.

    Inputs and outputs keep their names, order and structure, and the sizes that were free are free within
    the same bounds. Every fold is proven in float64, and the program that is returned is compared with the
    one that was given, at other sizes too.

    Args:
        exported: what `torch.export.export` returned. Never changed.
        example_inputs: as for `fold`; by default those that the program was exported with.
        merge_siblings: as for `fold`.
        allow_untold: return the program where it cannot be told whether it is right, too.

    Raises:
        UnusableInput: no example inputs, weights that are not finite, or it cannot be told whether the result
            is right.
        CannotCapture: the folded program cannot be exported with all sizes free that are free now.
        NotEquivalent: the result is not the same function.
    """
    if not isinstance(exported, ExportedProgram):
        raise UnusableInput(
            f"a {type(exported).__name__} is no ExportedProgram: give what torch.export.export returned, "
            "or fold a module with reparamkit.fold"
        )
    folded = fold(exported, example_inputs, merge_siblings=merge_siblings)
    program = folded.lowering.all_free
    _keep_sizes(exported, program)
    _keep_names(exported, program)
    recorded = folded.network.reference
    runner = GuardedRunner(program.module())
    refused = {
        record.probe.name
        for record in recorded.records
        if record.probe.sizes and not runner.accepts(*record.probe.inputs())
    }
    verdict = judge_candidate(
        recorded, runner, EXCHANGEABLE, keep=lambda record: record.probe.name not in refused
    )
    verdict.require("the folded program is", allow_untold=allow_untold)
    return program


def _keep_sizes(exported: ExportedProgram, program: ExportedProgram) -> None:
    """Give free sizes the bounds that they had.

    torch.export writes down as smallest size what it can prove, and that may be 0.
    """
    before, _ = free_axes(exported)
    after, _ = free_axes(program)
    lost = [(i, axis) for i, axes in before.items() for axis in axes if axis not in after.get(i, {})]
    if lost:
        where = ", ".join(f"axis {axis} of input {i}" for i, axis in lost)
        raise CannotCapture(f"the folded program cannot be exported with the size of {where} free")
    bounds = {str(symbol): values for symbol, values in exported.range_constraints.items()}
    now = {str(symbol): symbol for symbol in program.range_constraints}
    for i, axes in before.items():
        for axis, symbol in axes.items():
            own = now.get(after[i][axis])
            if own is not None and symbol in bounds:
                program.range_constraints[own] = program.range_constraints[own] & bounds[symbol]


def _keep_names(exported: ExportedProgram, program: ExportedProgram) -> None:
    """Call inputs and outputs as they were called."""
    inputs = zip(_plain(exported, "inputs"), _plain(program, "inputs"), strict=True)
    outputs = zip(_plain(exported, "outputs"), _plain(program, "outputs"), strict=True)
    wanted = {new: old for old, new in [*inputs, *outputs] if old != new}
    kept = {*_plain(program, "inputs"), *_plain(program, "outputs")} - wanted.keys()
    wanted = {new: old for new, old in wanted.items() if old not in kept}
    nodes: dict[str, fx.Node] = {node.name: node for node in program.graph.nodes}
    in_the_way = [name for name in wanted.values() if name in nodes and name not in wanted]
    for name in in_the_way:
        _rename(program, nodes[name], f"{name}_folded")
    for new in wanted:
        _rename(program, nodes[new], f"{new}_renamed")
    for new, old in wanted.items():
        _rename(program, nodes[new], old)
    if wanted:
        program.graph_module.recompile()


def _rename(program: ExportedProgram, node: fx.Node, name: str) -> None:
    before = node.name
    node._rename(name)
    if node.op == "placeholder":
        node.target = node.name
    for spec in [*program.graph_signature.input_specs, *program.graph_signature.output_specs]:
        if spec.arg.name == before:
            spec.arg.name = node.name


def _plain(program: ExportedProgram, side: str) -> list[str]:
    """The names of the inputs or outputs that are the caller's, those that are values of the graph."""
    signature = program.graph_signature
    if side == "inputs":
        return [name for name in signature.user_inputs if isinstance(name, str)]
    return [
        spec.arg.name
        for spec in signature.output_specs
        if spec.kind == OutputKind.USER_OUTPUT and isinstance(getattr(spec.arg, "name", None), str)
    ]
