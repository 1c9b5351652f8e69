"""What a network's torch.export graph holds, counted in one way for every network.

The cost of a graph is the multiply-accumulates of its convolutions, linear layers and matrix products plus,
for every operator that computes (all but views, slices and bookkeeping), one for each element that it writes.
Sizes are those of the export.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from reparamkit.support.quiet import quiet

COLUMNS = ("conv", "batch_norm", "other_norm", "linear", "matmul", "add", "mul", "total")
_KINDS = {
    "conv1d": "conv", "conv2d": "conv", "conv3d": "conv", "convolution": "conv",
    "conv_transpose1d": "conv", "conv_transpose2d": "conv", "conv_transpose3d": "conv",
    "batch_norm": "batch_norm", "_native_batch_norm_legit_no_training": "batch_norm",
    "layer_norm": "other_norm", "native_layer_norm": "other_norm", "group_norm": "other_norm",
    "instance_norm": "other_norm", "rms_norm": "other_norm", "_fused_rms_norm": "other_norm",
    "linear": "linear", "addmm": "linear",
    "matmul": "matmul", "mm": "matmul", "bmm": "matmul", "baddbmm": "matmul", "einsum": "matmul",
    "add": "add", "add_": "add", "sub": "add", "sub_": "add", "rsub": "add",
    "mul": "mul", "mul_": "mul", "div": "mul", "div_": "mul",
    "_to_copy": "to", "contiguous": "clone", "copy_": "copy", "lift_fresh": "", "lift_fresh_copy": "",
}  # fmt: skip
_FREE = {
    "view", "view_as", "reshape", "_unsafe_view", "permute", "transpose", "t", "flatten", "unflatten",
    "squeeze", "unsqueeze", "expand", "expand_as", "slice", "select", "split", "split_with_sizes", "chunk",
    "unbind", "narrow", "alias", "detach", "dropout", "movedim", "swapaxes", "numpy_T", "unsafe_chunk",
    "unsafe_split",
}  # fmt: skip


def exported_graph(module: nn.Module, args: tuple[Any, ...]) -> torch.export.ExportedProgram:
    """The network in torch.export's own dialect, at fixed sizes."""
    with quiet(), torch.no_grad():
        return torch.export.export(module, args, strict=False)


def counts(program: torch.export.ExportedProgram) -> dict[str, int]:
    """How many convolutions, norms … and operators on tensors in all."""
    found: Counter[str] = Counter()
    for node in _calls(program):
        found[_KINDS.get(_name(node), "")] += 1
        found["total"] += 1
    return {column: found[column] for column in COLUMNS}


def kinds(program: torch.export.ExportedProgram) -> dict[str, int]:
    """How many of each kind of operator that computes or copies; views are left out.

    A product with a matrix is of one kind however it is spelt.
    """
    found: Counter[str] = Counter()
    for node in _calls(program):
        name = _name(node)
        kind = _KINDS.get(name, name.removesuffix("_"))
        if name not in _FREE and kind:
            found["linear" if kind == "matmul" else kind] += 1
    return dict(found)


def more(after: dict[str, int], before: dict[str, int]) -> dict[str, str]:
    """The kinds of which there are more than before: "before→after"."""
    return {
        kind: f"{before.get(kind, 0)}→{n}" for kind, n in sorted(after.items()) if n > before.get(kind, 0)
    }


def cost(program: torch.export.ExportedProgram) -> int:
    """Multiply-accumulates plus elements written by operators that compute."""
    total = 0
    for node in _calls(program):
        if _name(node) not in _FREE:
            total += _macs(node) + sum(_elements(t) for t in _tensors(node.meta.get("val")))
    return total


def conv_norm_pairs(program: torch.export.ExportedProgram) -> list[str]:
    """The batch norms with running statistics that are the only reader of a convolution or linear layer."""
    pairs = []
    for node in _calls(program):
        if _KINDS.get(_name(node)) == "batch_norm":
            below = node.all_input_nodes[0]
            if _KINDS.get(_name(below)) in {"conv", "linear"} and len(below.users) == 1 and _is_frozen(node):
                pairs.append(path_of(node))
    return pairs


def norms(program: torch.export.ExportedProgram) -> list[str]:
    """The paths of the modules whose batch norm is left."""
    return [path_of(n) for n in _calls(program) if _KINDS.get(_name(n)) == "batch_norm"]


def path_of(node: fx.Node) -> str:
    """The path of the module that called the operator."""
    stack = node.meta.get("nn_module_stack") or {}
    return next((str(path) for path, _ in reversed(stack.values())), node.name)


def _calls(program: torch.export.ExportedProgram) -> Iterator[fx.Node]:
    """The calls on tensors, those inside regions of their own (autocast, no_grad) among them."""
    for module in program.graph_module.modules():
        nodes = module.graph.nodes if isinstance(module, fx.GraphModule) else ()
        for node in nodes:
            if node.op == "call_function" and _name(node) and _tensors(node.meta.get("val")):
                yield node


def _name(node: fx.Node) -> str:
    schema = getattr(node.target, "_schema", None)
    return str(schema.name.split("::")[1]) if schema is not None else ""


def _tensors(value: Any) -> list[Tensor]:
    values = value if isinstance(value, list | tuple) else (value,)
    return [v for v in values if isinstance(v, Tensor)]


def _elements(tensor: Tensor) -> int:
    """One where the size depends on values."""
    sizes = (s if isinstance(s, int) else s.node.hint for s in tensor.shape)
    return math.prod(1 if size is None else int(size) for size in sizes)


def _is_frozen(norm: fx.Node) -> bool:
    return _name(norm) != "batch_norm" or (norm.args[3] is not None and norm.args[5] is False)


def _macs(node: fx.Node) -> int:
    (result, *_), name = _tensors(node.meta["val"]), _name(node)
    operands = [n.meta["val"] for n in node.all_input_nodes if isinstance(n.meta.get("val"), Tensor)]
    if "transpose" in name and _KINDS.get(name) == "conv":
        return int(operands[0].numel() * math.prod(operands[1].shape[1:]))
    if _KINDS.get(name) == "conv":
        return int(result.numel() * math.prod(operands[1].shape[1:]))
    if name == "scaled_dot_product_attention":
        return int(2 * operands[0].numel() * operands[1].shape[-2])
    if name in {"linear", "matmul", "mm", "bmm", "einsum"}:
        return int(result.numel() * operands[0].shape[-1])
    if name in {"addmm", "baddbmm"}:
        return int(result.numel() * operands[1].shape[-1])
    return 0
