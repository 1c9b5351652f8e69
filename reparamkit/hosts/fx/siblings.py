"""Layers beside each other that read the same value: one wider layer, and a split.

    q = A x,  k = B x,  v = C x        ──▶        q, k, v = split([A; B; C] x)

Exact for linear layers, and for convolutions without groups of one window, stride, padding and dilation. It
saves launches and reads of x, and no arithmetic; whether that pays depends on the machine, so it is only done
when asked for. Where a concatenation of exactly these outputs follows, the wide layer takes its place.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from reparamkit.engine.findings import Fold
from reparamkit.engine.relative_error import BAR, relative_error
from reparamkit.errors import NotEquivalent
from reparamkit.hosts.fx.write import common_path, free_path, owner_path

aten = torch.ops.aten
_CONVS = {
    aten.conv1d.default: nn.Conv1d,
    aten.conv2d.default: nn.Conv2d,
    aten.conv3d.default: nn.Conv3d,
    aten.conv1d.padding: nn.Conv1d,
    aten.conv2d.padding: nn.Conv2d,
    aten.conv3d.padding: nn.Conv3d,
}


@dataclass(frozen=True)
class _Layer:
    """A call of a layer: what kind it is, and its weights; `alike` is equal for layers that can be merged."""

    call: fx.Node
    source: fx.Node
    alike: tuple[object, ...]
    weight: Tensor
    bias: Tensor | None

    @property
    def outputs(self) -> int:
        return int(self.weight.shape[0])


def merge(module: fx.GraphModule, ranks: Mapping[fx.Node, int]) -> list[Fold]:
    """Merge in place what can be merged; returns what was done. `ranks` tells how many axes a value has."""
    groups: dict[tuple[object, ...], list[_Layer]] = {}
    for layer in _layers(module):
        groups.setdefault((layer.source, *layer.alike), []).append(layer)
    several = [group for group in groups.values() if len(group) > 1]
    folds = [_merged(module, group, ranks.get(group[0].source)) for group in several]
    if folds:
        module.graph.eliminate_dead_code(is_impure_node=_stays)
        _drop_unused(module)
        module.graph.lint()
        module.recompile()
    return folds


def _layers(module: fx.GraphModule) -> Iterator[_Layer]:
    for node in module.graph.nodes:
        if node.op == "call_module":
            layer = _of_module(node, module.get_submodule(str(node.target)))
        else:
            layer = _of_function(node, module)
        if layer is not None:
            yield layer


def _of_module(node: fx.Node, layer: nn.Module) -> _Layer | None:
    (source,) = node.args if len(node.args) == 1 else (None,)
    if not isinstance(source, fx.Node):
        return None
    if isinstance(layer, nn.Linear):
        return _Layer(node, source, _alike(nn.Linear, layer.weight), layer.weight, layer.bias)
    if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) or isinstance(layer.padding, str):
        return None
    if layer.groups != 1 or layer.padding_mode != "zeros":
        return None
    alike = _alike(type(layer), layer.weight, layer.stride, layer.padding, layer.dilation)
    return _Layer(node, source, alike, layer.weight, layer.bias)


def _of_function(node: fx.Node, module: fx.GraphModule) -> _Layer | None:
    if node.op != "call_function" or not (node.target is aten.linear.default or node.target in _CONVS):
        return None
    names = [argument.name for argument in node.target._schema.arguments]
    given: dict[str, Any] = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    source = given["input"]
    weight, bias = _parameter(module, given["weight"]), _parameter(module, given.get("bias"))
    if not isinstance(source, fx.Node) or weight is None or (given.get("bias") is not None and bias is None):
        return None
    if node.target is aten.linear.default:
        return _Layer(node, source, _alike(nn.Linear, weight), weight, bias) if weight.ndim == 2 else None
    dims = weight.ndim - 2
    stride, dilation = _ints(given.get("stride", 1), dims), _ints(given.get("dilation", 1), dims)
    padding = given.get("padding", 0)
    if isinstance(padding, str) or given.get("groups", 1) != 1:
        return None
    kind = _CONVS[node.target]
    alike = _alike(kind, weight, stride, _ints(padding, dims), dilation)
    return _Layer(node, source, alike, weight, bias)


def _alike(kind: type[nn.Module], weight: Tensor, *attributes: tuple[int, ...] | str) -> tuple[object, ...]:
    return kind, tuple(weight.shape[1:]), weight.dtype, weight.device, weight.requires_grad, *attributes


def _ints(given: Any, dims: int) -> tuple[int, ...]:
    values = (given,) if isinstance(given, int) else tuple(given)
    return values * dims if len(values) == 1 else values


def _parameter(module: fx.GraphModule, node: object) -> Tensor | None:
    """The tensor that a `get_attr` node reads, if nothing changes it."""
    if not isinstance(node, fx.Node) or node.op != "get_attr" or any(_writes(user) for user in node.users):
        return None
    *path, last = str(node.target).split(".")
    value = getattr(module.get_submodule(".".join(path)), last, None)
    return value if isinstance(value, Tensor) else None


def _writes(node: fx.Node) -> bool:
    return node.target is aten.copy_.default


def _stays(node: fx.Node) -> bool:
    """Whether a node counts although nothing reads it: an input, an output, a write, a check of sizes."""
    return (
        node.op in ("placeholder", "output")
        or _writes(node)
        or node.target in ("size_guards", "constant_arguments", "memory_layout")
    )


def _merged(module: fx.GraphModule, group: Sequence[_Layer], rank: int | None) -> Fold:
    kind = group[0].alike[0]
    wide = _wide(group)
    error = _proven(wide, group)
    owners = [owner_path(layer.call) for layer in group]
    suffix = "linear" if kind is nn.Linear else "conv"
    path = free_path(module, ".".join(filter(None, [common_path(owners), f"merged_{suffix}"])))
    module.add_submodule(path, wide)
    axis = -1 if kind is nn.Linear else 1 - group[0].weight.ndim
    first = group[0].call
    with module.graph.inserting_before(first):
        whole = module.graph.call_module(path, (group[0].source,))
        whole.meta = dict(first.meta)
        concatenation = _concatenation(group, axis, rank)
        if concatenation is None:
            sizes = [layer.outputs for layer in group]
            parts = module.graph.call_function(aten.split_with_sizes.default, (whole, sizes, axis))
            items = [module.graph.call_function(operator.getitem, (parts, i)) for i in range(len(group))]
    if concatenation is not None:
        concatenation.replace_all_uses_with(whole)
    else:
        for layer, item in zip(group, items, strict=True):
            layer.call.replace_all_uses_with(item)
    name = "aten.linear.default" if kind is nn.Linear else f"aten.conv{group[0].weight.ndim - 2}d.default"
    described = (
        f"{len(group)} siblings as one {type(wide).__name__} {wide.weight.shape[1]} -> {wide.weight.shape[0]}"
    )
    return Fold(common_path(owners), {name: len(group)}, {path: described}, error)


def _wide(group: Sequence[_Layer]) -> nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d:
    weight = torch.cat([layer.weight.detach() for layer in group])
    bias = torch.cat(
        [
            layer.weight.new_zeros(layer.outputs) if layer.bias is None else layer.bias.detach()
            for layer in group
        ]
    )
    kind: Any = group[0].alike[0]
    options: dict[str, Any] = {"bias": any(layer.bias is not None for layer in group), "device": "meta"}
    if kind is not nn.Linear:
        stride, padding, dilation = group[0].alike[5:]
        options |= {
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "kernel_size": weight.shape[2:],
        }
    wide: nn.Linear | nn.Conv1d = kind(weight.shape[1], weight.shape[0], **options)
    wide.weight = nn.Parameter(weight, requires_grad=group[0].weight.requires_grad)
    if options["bias"]:
        wide.bias = nn.Parameter(bias, requires_grad=group[0].weight.requires_grad)
    return wide.eval()


def _proven(wide: nn.Module, group: Sequence[_Layer]) -> float:
    """The error of the wide layer in float64 against torch's operator with the weights of each layer."""
    generator = torch.Generator().manual_seed(0)
    weight = group[0].weight
    sides = [2 * n + 3 + i for i, n in enumerate(_reach(group[0]))]
    x = torch.randn(2, weight.shape[1], *sides, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        merged = copy.deepcopy(wide).cpu().double()(x)
        expected = torch.cat([_applied(layer, x) for layer in group], 1)
        error = relative_error(
            expected, merged, [1], lambda: torch.cat([_applied(layer, x.float()) for layer in group], 1)
        )
    if merged.shape != expected.shape or not error <= BAR:
        raise NotEquivalent(
            f"layers merged with merge_siblings differ from the layers on their own by {error:.1e}: "
            "this is a mistake of reparamkit; fold without merge_siblings"
        )
    return error


def _applied(layer: _Layer, x: Tensor) -> Tensor:
    weight, bias = (None if n is None else n.detach().cpu().to(x.dtype) for n in (layer.weight, layer.bias))
    if layer.alike[0] is nn.Linear:
        return aten.linear.default(x, weight, bias)  # type: ignore[no-any-return]
    operator_of = {kind: target for target, kind in _CONVS.items() if target._overloadname == "default"}
    return operator_of[layer.alike[0]](x, weight, bias, *layer.alike[5:])  # type: ignore[no-any-return, index]


def _reach(layer: _Layer) -> list[int]:
    if layer.alike[0] is nn.Linear:
        return []
    stride, _, dilation = layer.alike[5:]
    window = layer.weight.shape[2:]
    return [s + d * (w - 1) for s, d, w in zip(stride, dilation, window, strict=True)]  # type: ignore[call-overload]


def _concatenation(group: Sequence[_Layer], axis: int, rank: int | None) -> fx.Node | None:
    """The one reader of all outputs, if it concatenates just them, in this order, along the channels."""
    readers = {user for layer in group for user in layer.call.users}
    if len(readers) != 1:
        return None
    (reader,) = readers
    if reader.target is not aten.cat.default or list(reader.args[0]) != [layer.call for layer in group]:  # type: ignore[arg-type]
        return None
    along: Any = reader.args[1] if len(reader.args) > 1 else reader.kwargs.get("dim", 0)
    if rank is not None and along >= 0:
        along -= rank
    return reader if along == axis else None


def _drop_unused(module: fx.GraphModule) -> None:
    used = {str(n.target) for n in module.graph.nodes if n.op in ("get_attr", "call_module")}
    for path, child in list(module.named_modules()):
        if any(path == name or path.startswith(f"{name}.") for name in used):
            continue
        for name in [*child._parameters, *child._buffers]:
            if ".".join(filter(None, [path, name])) not in used:
                delattr(child, name)
    module.delete_all_unused_submodules()
