"""A captured network, read as data flow.

Calls that only look different become the same: every view of other sizes is one `view`, every product with a
constant one `linear`, and what changes nothing is left out. Whatever depends on no input is one constant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind

from reparamkit.capture.program import Program
from reparamkit.errors import CannotCapture
from reparamkit.hosts.fx.constants import dependencies_first, is_pure
from reparamkit.hosts.fx.write import owner_path
from reparamkit.into.calls import arguments_of, evaluation, name_of, only_checks, shape_of
from reparamkit.into.flow import Flow, Value, flatten_sums
from reparamkit.support.quiet import quiet

aten = torch.ops.aten

OPTIONAL: dict[str, dict[str, float]] = {
    "convolution": {"bias": 0.0},
    "linear": {"bias": 0.0},
    "native_layer_norm": {"weight": 1.0, "bias": 0.0},
    "native_group_norm": {"weight": 1.0, "bias": 0.0},
    "_native_batch_norm_legit_no_training": {"weight": 1.0, "bias": 0.0},
}
"""Operator -> the weights that it may do without -> the number that leaving one out stands for."""

_FOR_GRADIENTS = {"embedding": {"padding_idx", "scale_grad_by_freq", "sparse"}}
"""Operator -> the arguments that change no value."""
_KEPT = (aten.linear.default, aten.scaled_dot_product_attention.default, aten.matmul.default)
_LINEAR = {
    "linear": ("input", "weight", "bias"),
    "addmm": ("mat1", "mat2", "self"),
    "mm": ("self", "mat2", ""),
}
"""Operator -> which of its arguments are the input, the matrix and the bias of a linear layer."""
_SPELT = (("input", "@"), ("weight", "@"))
_POOLS = {"avg_pool1d": 1, "avg_pool2d": 2, "avg_pool3d": 3}
"""Operator -> how many axes, the last ones, its window has."""
_VIEWS = {"view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "flatten", "unflatten", "alias"}
_COPIES = {"clone", "alias", "detach", "lift_fresh_copy", "_to_copy", "expand", "contiguous"}


def flow_of(program: Program) -> Flow:
    """The data flow of a network that was captured with fixed sizes.

    Raises:
        CannotCapture: the network writes into its buffers or inputs.
    """
    table = torch.export.default_decompositions()
    for kept in _KEPT:
        table.pop(kept, None)  # type: ignore[no-untyped-call]
    with quiet(), torch.no_grad():
        exported = program.exported.run_decompositions(table)
    return _Reader(exported).flow


class _Reader:
    def __init__(self, exported: ExportedProgram) -> None:
        self.flow = Flow()
        self._values: dict[fx.Node, Value] = {}
        self._known: dict[object, Value] = {}
        self._constants: set[fx.Node] = set()
        self._states: dict[fx.Node, str] = {}
        signature = exported.graph_signature
        nodes = list(exported.graph.nodes)
        for spec in signature.output_specs:
            if spec.kind not in (OutputKind.USER_OUTPUT, OutputKind.PARAMETER_MUTATION):
                raise CannotCapture("it writes into its buffers or inputs when it runs")
        placeholders = [node for node in nodes if node.op == "placeholder"]
        number = 0
        for node, spec in zip(placeholders, signature.input_specs, strict=True):
            if spec.kind != InputKind.USER_INPUT:
                self._constants.add(node)
                self._states[node] = str(spec.target)
            elif isinstance(node.meta.get("val"), Tensor):
                self._values[node] = self._added(node, "input", number, [], [], node.name)
                number += 1
        for node in nodes:
            if node.op == "get_attr" and isinstance(getattr(exported.graph_module, str(node.target)), Tensor):
                self._constants.add(node)
                self._states[node] = str(node.target)
            elif node.op == "call_function":
                self._read(node)
        results: Any = next(node for node in nodes if node.op == "output").args[0]
        for result, spec in zip(results, signature.output_specs, strict=True):
            if spec.kind == OutputKind.USER_OUTPUT:
                plain = spec.arg.value if isinstance(spec.arg, ConstantArgument) else result
                self.flow.results.append(self._value(plain) if isinstance(plain, fx.Node) else plain)
        for value in self.flow.values:
            for operand in value.operands:
                if operand is not None:
                    operand.readers += 1
        for result in self.flow.results:
            if isinstance(result, Value):
                result.readers += 1
        flatten_sums(self.flow)

    def _read(self, node: fx.Node) -> None:
        if only_checks(node):
            return
        if is_pure(node) and all(n in self._constants for n in node.all_input_nodes):
            self._constants.add(node)
            return
        name = name_of(node.target)
        given = arguments_of(node)
        if name in _LINEAR and self._read_linear(node, name, given):
            return
        if (name == "mean" or name in _POOLS) and self._read_mean(node, name, given):
            return
        first = next(iter(given.values()), None)
        source = self._values.get(first) if isinstance(first, fx.Node) else None
        result = node.meta.get("val")
        if source is not None and isinstance(result, Tensor):
            shape = tuple(map(int, result.shape))
            alike = shape == source.shape and result.dtype == source.dtype
            if alike and (name in _COPIES | _VIEWS or self._idle(name, given)):
                self._values[node] = source
                return
            if name in _VIEWS and result.dtype == source.dtype:
                if source.operator == "view":
                    source = source.operands[0]
                    assert source is not None
                if source.shape == shape:
                    self._values[node] = source
                    return
                self._values[node] = self._added(node, "view", shape, [source], [None], node.name)
                return
        operands: list[Value | None] = []
        defaults: list[float | None] = []
        optional = OPTIONAL.get(name, {})
        spelt = []
        for key, argument in given.items():
            if key in _FOR_GRADIENTS.get(name, ()):
                continue
            if key in optional:
                operands.append(None if argument is None else self._value(argument))
                defaults.append(optional[key])
                continue
            before = len(operands)
            spelt.append((key, self._spelt(argument, operands)))
            defaults += [None] * (len(operands) - before)
        self._values[node] = self._added(node, name, tuple(spelt), operands, defaults, node.name)

    def _read_linear(self, node: fx.Node, name: str, given: Mapping[str, Any]) -> bool:
        """A matrix product with constants, as one linear layer between views that are always the same.

        addmm(b, view(x), W) = view(linear(x, Wᵀ, b)) where the view leaves the last axis as it is, and
        linear(view(x), W, b) = view(linear(rows of x, W, b)) where it does not. Whether it is one.
        """
        entry, matrix, bias = (given.get(key) for key in _LINEAR[name])
        result = node.meta.get("val")
        if not isinstance(entry, fx.Node) or entry not in self._values or not isinstance(result, Tensor):
            return False
        if not (isinstance(matrix, fx.Node) and matrix in self._constants):
            return False
        if bias is not None and not (bias in self._constants and len(shape_of(bias)) == 1):
            return False
        if name == "addmm" and (given["alpha"], given["beta"]) != (1, 1):
            return False
        source = self._values[entry]
        if source.operator == "view":
            whole = source.operands[0]
            assert whole is not None
            source = self._in_rows(entry, whole, source.shape[-1])
        weight = self._value(matrix) if name == "linear" else self._transposed(matrix)
        operands = [source, weight, None if bias is None else self._value(bias)]
        shape = (*source.shape[:-1], int(result.shape[-1]))
        value = self._added(node, "linear", _SPELT, operands, [None, None, 0.0], node.name, shape)
        if shape != tuple(map(int, result.shape)):
            value = self._added(node, "view", tuple(map(int, result.shape)), [value], [None], node.name)
        self._values[node] = value
        return True

    def _read_mean(self, node: fx.Node, name: str, given: Mapping[str, Any]) -> bool:
        """A mean over axes, or a pooling whose window is all of the last ones, as one that keeps the axes.

        Whether it is one.
        """
        entry, result = given.get("self"), node.meta.get("val")
        if not isinstance(entry, fx.Node) or entry not in self._values or not isinstance(result, Tensor):
            return False
        source = self._values[entry]
        axes = len(source.shape)
        if name in _POOLS:
            window = source.shape[-_POOLS[name] :]
            plain = (given["kernel_size"], given["padding"], given.get("divisor_override"))
            every = tuple(plain[0]) * (len(window) if len(plain[0]) == 1 else 1)
            if every != window or any(plain[1]) or plain[2] is not None:
                return False
            over = [*range(axes - len(window), axes)]
        else:
            dims = given.get("dim")
            over = sorted(dim % axes for dim in dims) if dims and axes else [*range(axes)]
        kept = tuple(1 if axis in over else size for axis, size in enumerate(source.shape))
        arguments = (("self", "@"), ("dim", tuple(over)))
        value = self._added(node, "mean", arguments, [source], [None], node.name, kept)
        if kept != tuple(map(int, result.shape)):
            value = self._added(node, "view", tuple(map(int, result.shape)), [value], [None], node.name)
        self._values[node] = value
        return True

    def _in_rows(self, node: fx.Node, whole: Value, width: int) -> Value:
        """The rows of this width that a value is cut into; itself where its last axis holds them."""
        if whole.shape and whole.shape[-1] == width:
            return whole
        rows = (math.prod(whole.shape) // width if width else 0, width)
        return self._added(node, "view", rows, [whole], [None], node.name, rows)

    def _transposed(self, node: fx.Node) -> Value:
        """The constant with its two axes exchanged."""
        plain = self._value(node)
        evaluate = plain.constant
        assert evaluate is not None
        turned = self._added(node, "constant", (node.name, "t"), [], [], plain.name, plain.shape[::-1])
        turned.reads, turned.constant = plain.reads, lambda state: evaluate(state).t()
        return turned

    def _idle(self, name: str, given: Mapping[str, Any]) -> bool:
        """Whether a call with a result of the same shape leaves its first operand as it is."""
        if name == "permute":
            return list(given["dims"]) == sorted(given["dims"])
        if name == "slice":
            return bool(given["step"] == 1)
        neutral = {"add": 0, "sub": 0, "mul": 1, "div": 1}
        return name in neutral and bool(given["other"] == neutral[name])

    def _spelt(self, argument: Any, operands: list[Value | None]) -> object:
        if isinstance(argument, fx.Node):
            operands.append(self._value(argument))
            return "@"
        if isinstance(argument, list | tuple):
            return tuple(self._spelt(item, operands) for item in argument)
        if isinstance(argument, int | float | bool | str) or argument is None:
            return type(argument).__name__, argument
        return str(argument)

    def _value(self, node: fx.Node) -> Value:
        if node in self._constants and node not in self._values:
            reads = tuple(self._states[n] for n in dependencies_first(node) if n in self._states)
            name = reads[0] if len(reads) == 1 else node.name
            value = self._added(node, "constant", (node.name,), [], [], name)
            value.reads, value.plain = reads, node in self._states
            value.constant = evaluation(node, self._states)
            self._values[node] = value
        return self._values[node]

    def _added(
        self,
        node: fx.Node,
        name: str,
        arguments: object,
        operands: list[Value | None],
        defaults: list[float | None],
        own_name: str,
        shape: tuple[int, ...] | None = None,
    ) -> Value:
        result = node.meta.get("val")
        tensor = result if isinstance(result, Tensor) else None
        if shape is None:
            shape = () if tensor is None else tuple(map(int, tensor.shape))
        key = (name, arguments, tuple(map(id, operands)))
        if key in self._known and is_pure(node):
            return self._known[key]
        value = Value(
            name,
            arguments,
            operands,
            defaults,
            shape,
            None if tensor is None else tensor.dtype,
            owner_path(node),
            own_name,
        )
        self._known[key] = value
        self.flow.values.append(value)
        return value
