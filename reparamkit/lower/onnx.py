"""The `.onnx` file: exported, given readable names, simplified, checked.

torch.onnx (dynamo) translates the program, onnxsim simplifies it, onnx.checker reads it with strict shape
inference. Running it is the verification's part (`reparamkit.lower.writer`).

The file says nothing of the machine that made it: stack traces, which torch.onnx writes into every node, are
taken out. The module path of each node ("pkg.torch.onnx.name_scopes") stays.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import TensorArgument

from reparamkit.errors import CannotWrite, MissingExtra, UnusableInput
from reparamkit.lower.facts import entries
from reparamkit.lower.onnx_model import OLDEST_WRITTEN, PRODUCER, SCOPES, in_opset, name_nodes
from reparamkit.lower.state import require_no_memory
from reparamkit.lower.writer import FileWriter, Work
from reparamkit.runners.base import Runner
from reparamkit.runners.onnx_apart import nodes_of
from reparamkit.runners.onnxruntime import OnnxRuntimeRunner
from reparamkit.support.progress import phase
from reparamkit.support.quiet import quiet
from reparamkit.support.text import first_line
from reparamkit.support.version import __version__

if TYPE_CHECKING:
    import onnx

ONE_FILE_BYTES = 1_900_000_000
"""Weights beyond this go into a second file: one protobuf message holds less than 2 GiB."""

_KEPT_METADATA = frozenset({SCOPES, "pkg.torch.onnx.class_hierarchy"})


def save_onnx(
    program: ExportedProgram,
    path: Path,
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    axis_names: Mapping[str, str] | None = None,
    opset: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Write an exported program as ONNX, in one file while the weights take less than 1.9 GB.

    Args:
        input_names, output_names: one per tensor, in order; by default the program's own input names,
            and its outputs' names as torch.onnx gives them.
        axis_names: symbol -> readable name of a free axis. Sizes that are formulas of symbols are
            rewritten in the same names.
        opset: of the file; by default torch.onnx's own choice. Below `OLDEST_WRITTEN`, ONNX's own converter
            leads the file back, which it cannot for every operator.
        metadata: what the file says of itself, key -> text.

    Returns:
        Notes on steps that were left out; usually none.

    Raises:
        UnusableInput: torch.onnx cannot express the network, in that opset, or names repeat.
        OSError: the file cannot be written.
    """
    _require_tensor_outputs(program)
    require_no_memory(program)
    _distinct(input_names, "input")
    _distinct(output_names, "output")
    metadata = entries(None) if metadata is None else metadata
    written = opset if opset is None else max(opset, OLDEST_WRITTEN)
    notes: list[str] = []
    try:
        with phase("conversion"), quiet(), torch.no_grad():
            exported: Any = torch.onnx.export(
                program,
                (),
                None,
                dynamo=True,
                verbose=False,
                input_names=input_names,
                output_names=output_names,
                opset_version=written,
            )
    except Exception as error:
        raise CannotWrite(f"torch.onnx cannot export this network: {_cause(error)}") from error
    _rename_inner_values(exported.model.graph)
    if weight_bytes(program) > ONE_FILE_BYTES:
        notes.append("not simplified: with more than 2 GB of weights, ONNX needs a second file")
        if opset != written:
            raise CannotWrite(
                f"with more than 2 GB of weights, an .onnx is not led back to opset {opset}: give one from "
                f"{OLDEST_WRITTEN} on"
            )
        _save_in_two(exported, path, axis_names or {}, metadata)
        return tuple(notes)
    model = exported.model_proto
    del exported
    with phase("simplification"):
        model = _simplified(model, notes)
    _restore_zero_biases(model, program)
    _clean(model, axis_names or {}, metadata)
    name_nodes(model)
    if opset is not None:
        model = in_opset(model, opset)
    _check(model, notes)
    with path.open("wb") as file:
        file.write(model.SerializeToString())
    return tuple(notes)


def _require_tensor_outputs(program: ExportedProgram) -> None:
    for spec in program.graph_signature.output_specs:
        if not isinstance(spec.arg, TensorArgument) and getattr(spec.arg, "value", None) is not None:
            what = getattr(spec.arg, "value", spec.arg.name)
            raise CannotWrite(
                f"an ONNX file returns tensors, and one of the network's outputs is {what!r}: leave it out "
                "of what the forward returns"
            )


def _rename_inner_values(graph: Any) -> None:
    """Give another name to values and weights that are called as an input or output of the network is."""
    outer = [*graph.inputs, *graph.outputs]
    taken = {value.name for value in outer}
    values = [value for node in graph for value in node.outputs]
    weights = [*graph.initializers.values()]
    used = taken | {value.name for value in (*values, *weights)}
    for value in (*values, *weights):
        if value.name in taken and not any(value is other for other in outer):
            name = f"{value.name}_value"
            while name in used:
                name += "_"
            used.add(name)
            value.name = name
    graph.initializers.clear()
    graph.initializers.update({value.name: value for value in weights})


def operator_counts(path: Path) -> Counter[str]:
    """How many nodes of each operator an ONNX file holds, those in functions and subgraphs included."""
    return Counter(node.op_type for node in nodes_of(_load_graph(path)))


def remove_stale_weights(path: Path) -> None:
    """Remove the second files that older files of this name left, and that this one does not use."""
    pattern = re.compile(re.escape(path.name) + r"\.[0-9a-f]{16}\.data")
    stale = [other for other in path.parent.iterdir() if pattern.fullmatch(other.name)]
    if not stale:
        return
    used = {
        entry.value
        for tensor in _load_graph(path).graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for other in stale:
        if other.name not in used:
            other.unlink(missing_ok=True)


def weight_bytes(program: ExportedProgram) -> int:
    """The size of all parameters, buffers and constants of a program."""
    tensors = [*program.state_dict.values(), *program.constants.values()]
    return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, torch.Tensor))


def _simplified(model: onnx.ModelProto, notes: list[str]) -> onnx.ModelProto:
    import onnxsim

    try:
        with quiet():
            # certify looks for z3 and can take minutes; the verification runs the file instead.
            simplified: onnx.ModelProto = onnxsim.simplify(model, check_n=0, certify=False)[0]
    except Exception as error:
        notes.append(f"not simplified: onnxsim failed ({first_line(error)})")
        return model
    if _sizes(simplified) != _sizes(model):
        notes.append("not simplified: onnxsim changed the sizes of inputs or outputs")
        return model
    # onnxsim drops where a node comes from; a node that it kept still has its name.
    origins = {node.name: node.metadata_props for node in nodes_of(model) if node.name}
    for node in nodes_of(simplified):
        if node.name in origins and not node.metadata_props:
            node.metadata_props.extend(origins[node.name])
    return simplified


def _restore_zero_biases(model: onnx.ModelProto, program: ExportedProgram) -> None:
    """Give back the bias of a convolution that an optimiser dropped because it is all zeros.

    A graph whose convolutions all have one is what quantisers and later folds of the file expect.
    """
    import numpy as np
    import onnx

    biased = {
        node.name
        for node in program.graph.nodes
        if node.op == "call_function"
        and "conv" in str(node.target)
        and (node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")) is not None
    }
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "Conv" or (len(node.input) > 2 and node.input[2]) or node.input[1] not in weights:
            continue
        scopes = [entry.value for entry in node.metadata_props if entry.key == SCOPES]
        if not scopes or ast.literal_eval(scopes[0])[-1] not in biased:
            continue
        weight = weights[node.input[1]]
        zeros = np.zeros(weight.dims[0], onnx.helper.tensor_dtype_to_np_dtype(weight.data_type))
        name = f"{node.name}.bias"
        model.graph.initializer.append(onnx.numpy_helper.from_array(zeros, name))
        del node.input[2:]
        node.input.append(name)


def _sizes(model: onnx.ModelProto) -> list[tuple[str, int, list[int | str]]]:
    """Name, element type and size of every input and output."""
    return [
        (
            value.name,
            value.type.tensor_type.elem_type,
            [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim],
        )
        for value in [*model.graph.input, *model.graph.output]
    ]


def _clean(model: onnx.ModelProto, axis_names: Mapping[str, str], metadata: Mapping[str, str]) -> None:
    """Readable axes, no stack traces, no record of the simplifier, and what the file says of itself."""
    model.producer_name, model.producer_version = PRODUCER, __version__
    del model.metadata_props[:]
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    graph = model.graph
    del graph.metadata_props[:]
    graph.doc_string = ""
    for value in [*graph.input, *graph.output, *graph.value_info]:
        del value.metadata_props[:]
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = renamed(size.dim_param, axis_names)
    for tensor in graph.initializer:
        del tensor.metadata_props[:]
    for node in nodes_of(model):
        kept = [entry for entry in node.metadata_props if entry.key in _KEPT_METADATA]
        node.doc_string = ""
        del node.metadata_props[:]
        node.metadata_props.extend(kept)


def renamed(size: str, axis_names: Mapping[str, str]) -> str:
    """The size of an axis, a symbol or a formula of symbols, in readable names."""
    return re.sub(r"[A-Za-z_]\w*", lambda match: axis_names.get(match.group(), match.group()), size)


def _check(model: onnx.ModelProto, notes: list[str]) -> None:
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.shape_inference.InferenceError as error:
        onnx.checker.check_model(model)
        notes.append(f"onnx.checker could not infer every shape ({first_line(error)})")


def _save_in_two(
    exported: Any, path: Path, axis_names: Mapping[str, str], metadata: Mapping[str, str]
) -> None:
    """The graph under the file's name and the weights beside it, under a name that nothing else has."""
    import uuid

    import onnx

    weights = f"{path.name}.{uuid.uuid4().hex[:16]}.data"
    raw = path.with_name(f"{path.name}.raw")
    with quiet():
        exported.save(raw, external_data=True)
    model = onnx.load(raw)
    raw.unlink()
    raw.with_name(f"{raw.name}.data").unlink(missing_ok=True)
    _clean(model, axis_names, metadata)
    name_nodes(model)
    onnx.save(model, path, save_as_external_data=True, location=weights, size_threshold=1024)
    onnx.checker.check_model(str(path), full_check=True)


def _load_graph(path: Path) -> onnx.ModelProto:
    try:
        import onnx
    except ModuleNotFoundError:
        raise MissingExtra("onnx", "onnx", "reading ONNX") from None
    return onnx.load(path, load_external_data=False)


def _distinct(names: Sequence[str] | None, what: str) -> None:
    repeated = [name for name, count in Counter(names or ()).items() if count > 1]
    if repeated:
        raise UnusableInput(f"the {what} name {repeated[0]!r} is given twice")


def _cause(error: BaseException) -> str:
    """The first line of the innermost error: torch.onnx wraps the reason in advice on reporting it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


class OnnxWriter(FileWriter):
    """`.onnx`, run under ONNX Runtime."""

    def write(self, work: Work, target: Path) -> Sequence[str]:
        return save_onnx(
            work.program,
            target,
            input_names=work.input_names,
            output_names=work.outputs,
            axis_names=work.axis_names,
            opset=work.request.opset,
            metadata=entries(work.facts),
        )

    def reopen(self, target: Path, work: Work) -> Runner:
        return OnnxRuntimeRunner(target)

    def count(self, target: Path, work: Work) -> Counter[str]:
        return operator_counts(target)

    def finish(self, path: Path) -> None:
        remove_stale_weights(path)


WRITER = OnnxWriter()
