"""What a network keeps from one call to the next, which an ONNX file forgets.

A buffer that is written in every call and read before it makes an output depend on the calls before. One that
is only written, or filled anew before it is read, does not.
"""

from __future__ import annotations

from torch import fx
from torch.export import ExportedProgram

from reparamkit.errors import CannotWrite


def require_no_memory(program: ExportedProgram) -> None:
    """Refuse a program whose outputs depend on what it has written into its buffers in earlier calls.

    Raises:
        CannotWrite: they do, with the name of a buffer.
    """
    signature = program.graph_signature
    lifted = {**signature.inputs_to_buffers, **signature.inputs_to_parameters}
    written = {*signature.buffers_to_mutate.values()}
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op == "call_function" and schema is not None and schema.is_mutable:
            written |= {lifted[value.name] for value in node.all_input_nodes[:1] if value.name in lifted}
    for name in sorted(written & {lifted.get(node.name, "") for node in _behind_outputs(program)}):
        raise CannotWrite(
            f"an ONNX file cannot keep what the network writes into {name!r} for the next call, which its "
            "outputs depend on: take that out of its forward, or make it an input and an output"
        )


def _behind_outputs(program: ExportedProgram) -> set[fx.Node]:
    """All nodes that outputs are computed from."""
    outputs = set(program.graph_signature.user_outputs)
    waiting = [node for node in program.graph.nodes if node.name in outputs]
    found: set[fx.Node] = set()
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += node.all_input_nodes
    return found
