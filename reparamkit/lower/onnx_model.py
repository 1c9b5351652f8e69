"""An ONNX model in memory: led back to an older opset, its nodes called after their modules."""

from __future__ import annotations

import ast
import re
from collections import Counter
from typing import TYPE_CHECKING

from reparamkit.errors import CannotWrite
from reparamkit.runners.onnx_apart import nodes_of
from reparamkit.support.text import one_line
from reparamkit.support.version import __version__

if TYPE_CHECKING:
    import onnx

OLDEST_WRITTEN = 18
"""The oldest opset that torch.onnx writes itself."""
PRODUCER = "reparamkit"
SCOPES = "pkg.torch.onnx.name_scopes"
"""The entry of a node's metadata with the paths of the modules that were being called."""


def in_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model in that opset, and of the oldest version of the format that knows it.

    Raises:
        CannotWrite: ONNX's converter knows no way for one of the operators.
    """
    import onnx
    from onnx import version_converter

    known: int = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if known != opset:
        try:
            # It knows no metadata of nodes, which are the same, by name, behind it.
            origins = {node.name: list(node.metadata_props) for node in nodes_of(model)}
            props = list(model.metadata_props)
            _without_defaults(model)
            model = version_converter.convert_version(model, opset)
            onnx.checker.check_model(model)
        except Exception as error:
            missing = re.search(r"No (?:Adapter .* for|Previous Version of) (\w+)", str(error))
            reason = f"there is none for {missing[1]}" if missing else one_line(error)
            raise CannotWrite(
                f"ONNX's converter cannot lead this network from opset {known} back to {opset}: "
                f"{reason}; give --opset {OLDEST_WRITTEN} or later"
            ) from error
        for node in nodes_of(model):
            del node.metadata_props[:]
            node.metadata_props.extend(origins.get(node.name, []))
        del model.metadata_props[:]
        model.metadata_props.extend(props)
        model.producer_name, model.producer_version = PRODUCER, __version__
    model.ir_version = min(model.ir_version, onnx.helper.find_min_ir_version_for(model.opset_import, True))
    return model


def _without_defaults(model: onnx.ModelProto) -> None:
    """The converter hands on to older operators what only the newer ones have, and a 0 says nothing."""
    for node in nodes_of(model):
        kept = [entry for entry in node.attribute if entry.name != "noop_with_empty_axes" or entry.i]
        del node.attribute[:]
        node.attribute.extend(kept)


def name_nodes(model: onnx.ModelProto) -> None:
    """Call nodes after their modules, as torch's older exporter did: "/stage1/0/reparam_conv/Conv".

    A node with a weight belongs to the weight's module, any other to the innermost one that was being called.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    taken: Counter[str] = Counter()
    for node in nodes_of(model):
        owner = next(
            (name.rpartition(".")[0] for name in node.input if name in weights and name.endswith(".weight")),
            None,
        )
        scopes = [entry.value for entry in node.metadata_props if entry.key == SCOPES]
        if owner is None and scopes:
            owner = str(["", *ast.literal_eval(scopes[0])][-2])
        path = "".join(f"/{part}" for part in (owner or "").split(".") if part)
        name = f"{path}/{node.op_type}"
        taken[name] += 1
        node.name = name if taken[name] == 1 else f"{name}_{taken[name] - 1}"
