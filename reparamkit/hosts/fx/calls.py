"""What calls of a torch.fx graph read and show, and how they are run.

An operator that makes a list of tensors is read by way of its items.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from reparamkit.operators import NotAffine, properties

aten = torch.ops.aten
_SMALL = 64  # positions of all samples
_CONVOLUTIONS = frozenset((aten.conv1d.default, aten.conv2d.default, aten.conv3d.default))


def bundle_of(node: fx.Node) -> fx.Node | None:
    """The operator that makes a list of tensors, if the node is one of them."""
    if node.target is not operator.getitem or not isinstance(node.args[0], fx.Node):
        return None
    return node.args[0] if isinstance(node.args[0].target, OpOverload) else None


def place_of(item: fx.Node) -> int:
    """Where in its list the item stands, counted from the front."""
    bundle, place = item.args
    assert isinstance(bundle, fx.Node)
    if not isinstance(place, int):
        raise NotAffine("its place varies", notable=False)
    return place % len(bundle.meta["val"])


def readers(node: fx.Node) -> Iterator[fx.Node]:
    """What reads a value; of a list that is made of it, what takes an item of that."""
    for user in node.users:
        if user.users and all(bundle_of(item) is user for item in user.users):
            yield from user.users
        else:
            yield user


def operands(call: Any) -> list[fx.Node]:
    """What an operator reads; for an item of a list, what the list is made of."""
    items = bundle_of(call)
    return list((call if items is None else items).all_input_nodes)


def shown_nodes(graph: fx.Graph) -> set[fx.Node]:
    """What the network's caller gets, or a view of it."""
    shown: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if any(u.op == "output" or (u in shown and may_be_view(u)) for u in node.users):
            shown.add(node)
    return shown


def may_be_view(node: fx.Node) -> bool:
    """Whether a call may return a part of what it reads."""
    if not isinstance(node.target, OpOverload):
        return True
    composite = node.target.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)
    if composite:
        return not properties.computes_anew(str(node.target))
    return any(r.alias_info is not None for r in node.target._schema.returns)


def one_memory(a: Any, b: Any) -> bool:
    """Whether two values lie in the same memory, or one of each in two lists."""
    if isinstance(a, list | tuple):
        return any(one_memory(item, b) for item in a)
    if isinstance(b, list | tuple):
        return any(one_memory(a, item) for item in b)
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return False
    return a.numel() > 0 and a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def call_grouped(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The operator on these arguments; a convolution in groups by another way than torch's own.

    torch lays out all groups of all samples at once otherwise, which takes gigabytes, and 16 times as long as
    one sample after the other. That goes through the groups one by one; all at once is faster for small maps.
    """
    if target in _CONVOLUTIONS:
        x, weight = args[0], args[1]
        if x.ndim == weight.ndim and weight.shape[1] < x.shape[1]:
            if target is aten.conv2d.default and not kwargs and x.numel() <= _SMALL * x.shape[1]:
                return _in_groups(*args)
            if len(x) > 1:
                return torch.cat([target(one, *args[1:], **kwargs) for one in x.split(1)])
    return target(*args, **kwargs)


def _in_groups(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """As torch does it for one group: what lies under the window in columns, and one product."""
    stride, padding, dilation = (tuple(n) * (2 // len(n)) for n in (stride, padding, dilation))
    columns = aten.im2col.default(x, weight.shape[2:], dilation, padding, stride)
    kernel = weight.reshape(groups, len(weight) // groups, -1)
    result: Tensor = kernel @ columns.view(len(x), groups, kernel.shape[2], -1)
    height = aten.conv2d.default(x[:1, :1], weight[:1, :1], None, stride, padding, dilation).shape[2]
    result = result.reshape(len(x), len(weight), height, -1)
    return result if bias is None else result + bias[:, None, None]
