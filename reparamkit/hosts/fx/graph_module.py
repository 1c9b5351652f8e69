"""The class of a folded network: a torch.fx graph that can be copied and pickled as any other module.

torch.fx copies a module by building it anew from its graph, and pickles its source text, which is traced
again when it is read. Either way something is lost: which buffers are no part of the state dict, the hooks,
and graphs whose operators take sizes (`zeros([batch, 4])`), which cannot be traced. Here the graph is
written down node by node, with operators by name, and everything else is kept as nn.Module keeps it.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import fx, nn
from torch._ops import HigherOrderOperator, OpOverload
from torch.fx.graph import CodeGen, PythonCode, _PyTreeCodeGen, _PyTreeInfo
from torch.jit import TracerWarning  # type: ignore[attr-defined]
from torch.utils import _pytree as pytree

from reparamkit.hosts.fx.written_code import written

# Made anew from the graph, or torch.fx's notes on how the module was traced.
_DERIVED = frozenset(
    "_graph _code _lineno_map _prologue_start _in_spec _out_spec _tracer_cls _tracer_extras".split()  # noqa: SIM905
)


class FoldedGraph(fx.GraphModule):
    """A graph module whose copies and pickles are the module again, state dict and hooks included."""

    def _apply(self, fn: Any, recurse: bool = True) -> FoldedGraph:
        """Move or cast the module; what its graph makes in the type of the weights follows them.

        A network says `zeros(n, dtype=x.dtype)`, and the graph that was captured `dtype=torch.float32`.
        """
        before = _precision(self)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        after = _precision(self)
        if before is not None and after is not None and before != after:
            _made_in(self, before, after)
        return self

    def recompile(self) -> PythonCode:
        """Write the code of the graph, as `reparamkit.hosts.fx.written_code` has it."""
        with self.graph.on_generate_code(lambda _: partial(written, self.graph)):
            return super().recompile()

    def warn_of_fixed_sizes(self) -> None:
        """Called while `torch.jit.trace` runs a graph that has operators of which it records no sizes."""
        warnings.warn(
            "torch.jit.trace writes some sizes of this network down as numbers: its result is right for "
            "inputs of this size only; torch.export keeps them free",
            TracerWarning,
            stacklevel=3,
        )

    def __copy__(self) -> FoldedGraph:
        held = _held(self)
        tables = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
        return _restored(
            held | {name: held[name].copy() for name in tables}, _copied(self.graph), _name(self)
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> FoldedGraph:
        held = copy.deepcopy(_held(self), memo)
        restored = memo[id(self)] = _restored(held, _copied(self.graph), _name(self))
        return restored

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (_held(self), _written(self.graph), _name(self))

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return self.__reduce__()


def as_folded_graph(module: fx.GraphModule) -> FoldedGraph:
    """The same module, its parameters and buffers shared, in this class; so are the graph modules inside."""
    held = _held(module)
    held["_modules"] = {
        name: as_folded_graph(child) if isinstance(child, fx.GraphModule) else child
        for name, child in module._modules.items()
    }
    return _restored(held, module.graph, _name(module))


def _precision(module: nn.Module) -> torch.dtype | None:
    tensors = (*module.parameters(), *module.buffers())
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), None)


def _made_in(module: fx.GraphModule, before: torch.dtype, after: torch.dtype) -> None:
    changed = False
    for node in module.graph.nodes:
        args, kwargs = (
            pytree.tree_map(lambda x: after if isinstance(x, torch.dtype) and x == before else x, given)
            for given in (node.args, node.kwargs)
        )
        if (args, kwargs) != (node.args, node.kwargs):
            node.args, node.kwargs, changed = args, kwargs, True
    if changed:
        module.recompile()


def _name(module: fx.GraphModule) -> str:
    return type(module).__name__


def _held(module: fx.GraphModule) -> dict[str, Any]:
    held = {name: value for name, value in vars(module).items() if name not in _DERIVED}
    return held | {"shape_env": None, "meta": {}}


def _restored(held: dict[str, Any], graph: fx.Graph, name: str) -> FoldedGraph:
    module = FoldedGraph.__new__(FoldedGraph)
    nn.Module.__init__(module)
    module.__dict__.update(held)
    module.__dict__.update({"_tracer_cls": None, "_tracer_extras": {}})
    type(module).__name__ = name
    module.graph = graph
    return module


def _copied(graph: fx.Graph) -> fx.Graph:
    nodes: dict[fx.Node, fx.Node] = {}
    duplicate = fx.Graph()
    results = duplicate.graph_copy(graph, nodes)
    output = duplicate.output(results)
    output.meta = copy.copy(graph.output_node().meta)
    duplicate.set_codegen(copy.copy(graph._codegen))
    return duplicate


def _unpickled(held: dict[str, Any], written: dict[str, Any], name: str) -> FoldedGraph:
    return _restored(held, _read(written), name)


@dataclasses.dataclass(frozen=True)
class _Node:
    """In the arguments of a node: the value of the node with this number."""

    number: int


@dataclasses.dataclass(frozen=True)
class _Operator:
    """An operator of torch, by name; `overload` is None for one of higher order."""

    name: str
    overload: str | None


def _written(graph: fx.Graph) -> dict[str, Any]:
    numbers = {node: number for number, node in enumerate(graph.nodes)}
    nodes = [
        (
            node.op,
            node.name,
            _target_written(node.target),
            _arguments_written(node.args, numbers),
            _arguments_written(node.kwargs, numbers),
            [(path, kind if isinstance(kind, str) else kind.__qualname__) for path, kind in _owners(node)],
        )
        for node in graph.nodes
    ]
    info = graph._codegen.pytree_info if isinstance(graph._codegen, _PyTreeCodeGen) else None
    convention = info and (list(info.orig_args), _spec_written(info.in_spec), _spec_written(info.out_spec))
    return {"nodes": nodes, "convention": convention}


def _read(written: dict[str, Any]) -> fx.Graph:
    graph = fx.Graph()
    nodes: list[fx.Node] = []
    for op, name, target, args, kwargs, owners in written["nodes"]:
        given, named = _arguments_read(args, nodes), _arguments_read(kwargs, nodes)
        node = graph.create_node(op, _target_read(target), given, named, name=name)
        if owners:
            node.meta["nn_module_stack"] = {f"{i}": owner for i, owner in enumerate(owners)}
        nodes.append(node)
    codegen = CodeGen()
    if written["convention"]:
        names, in_spec, out_spec = written["convention"]
        codegen = _PyTreeCodeGen(_PyTreeInfo(names, _spec_read(in_spec), _spec_read(out_spec)))
    graph.set_codegen(codegen)
    return graph


def _owners(node: fx.Node) -> Iterator[tuple[str, Any]]:
    yield from (node.meta.get("nn_module_stack") or {}).values()


def _target_written(target: Any) -> Any:
    if isinstance(target, OpOverload):
        return _Operator(target._schema.name, target._overloadname)
    return _Operator(str(target), None) if isinstance(target, HigherOrderOperator) else target


def _target_read(target: Any) -> Any:
    if not isinstance(target, _Operator):
        return target
    if target.overload is None:
        return getattr(torch.ops.higher_order, target.name)
    namespace, name = target.name.split("::")
    try:
        return getattr(getattr(getattr(torch.ops, namespace), name), target.overload)
    except AttributeError as error:
        raise RuntimeError(
            f"the network needs the operator {target.name}.{target.overload}, which is not installed: import "
            "the package that defines it, or use the version of torch that the network was folded with"
        ) from error


def _arguments_written(value: Any, numbers: dict[fx.Node, int]) -> Any:
    if isinstance(value, fx.Node):
        return _Node(numbers[value])
    return _mapped(value, lambda item: _arguments_written(item, numbers))


def _arguments_read(value: Any, nodes: list[fx.Node]) -> Any:
    if isinstance(value, _Node):
        return nodes[value.number]
    return _mapped(value, lambda item: _arguments_read(item, nodes))


def _mapped(value: Any, function: Any) -> Any:
    """The same plain container with `function` of each of its items; whatever else it is, itself."""
    if isinstance(value, tuple):
        items = [function(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, list):
        return [function(item) for item in value]
    if isinstance(value, dict):
        return {key: function(item) for key, item in value.items()}
    if isinstance(value, slice):
        return slice(function(value.start), function(value.stop), function(value.step))
    return value


def _spec_written(spec: pytree.TreeSpec | None) -> Any:
    """A structure of arguments in plain tuples: torch's own class is not made to be pickled."""
    if spec is None or spec.type is None:
        return "leaf" if spec is not None else None
    return spec.type, spec.context, [_spec_written(child) for child in spec.children()]


def _spec_read(written: Any) -> Any:
    if written is None or written == "leaf":
        return pytree.treespec_leaf() if written else None
    kind, context, children = written
    if kind not in pytree.SUPPORTED_NODES and isinstance(kind, type) and dataclasses.is_dataclass(kind):
        # As the capture did in the process that wrote the file.
        torch.export.register_dataclass(kind, serialized_type_name=f"{kind.__module__}.{kind.__qualname__}")
    return pytree.TreeSpec(kind, context, [_spec_read(child) for child in children])
