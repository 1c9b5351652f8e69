"""Forwards that do something else at some sizes: what a capture may not notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.nets import Net, randomised

EXAMPLE = (2, 3, 8, 9)
Forward = Callable[..., Any]


def body(s: Any, x: Tensor) -> Tensor:
    y: Tensor = s.norm(s.conv(x))
    return y


def _twice_where(condition: Callable[..., Any]) -> Forward:
    return lambda s, x: body(s, x) * (2 if condition(*x.shape) else 1)


class _Doubling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.shape[2] == 1 else x + 1


def _narrow_where_alone(s: Any, x: Tensor) -> Tensor:
    y = body(s, x)
    if x.shape[0] == 1:
        return y.float()
    return y


def _in_a_dict_where_flat(s: Any, x: Tensor) -> Any:
    y = body(s, x)
    if x.shape[2] == 1:
        return {"map": y}
    return y


def _a_pair_where_square(s: Any, x: Tensor) -> Any:
    y = body(s, x)
    return (y, y) if x.shape[2] == x.shape[3] else y


def _counts_single_ones(s: Any, x: Tensor) -> Tensor:
    if x.shape[0] == 1:
        s.count.add_(1)
    return body(s, x)


def _exchanged(s: Any, x: Tensor) -> Tensor:
    a, b = body(s, x), s.conv(x)
    return b - a if x.shape[2] == 1 else a - b


def _squeezed_and_asked(s: Any, x: Tensor) -> Tensor:
    y = body(s, x)
    if x.shape[0] == 1:
        y = y.contiguous()  # which does nothing
    return torch.cumsum(y.squeeze(0), 0)


ONES: dict[str, Forward] = {  # S1
    "one sample": _twice_where(lambda n, c, h, w: n == 1),
    "more than one sample": _twice_where(lambda n, c, h, w: n > 1),
    "a flat map": _twice_where(lambda n, c, h, w: h == 1),
    "not a flat map": _twice_where(lambda n, c, h, w: h != 1),
    "either side": _twice_where(lambda n, c, h, w: h == 1 or w == 1),
    "both sides": _twice_where(lambda n, c, h, w: h == 1 and w == 1),
    "their product": _twice_where(lambda n, c, h, w: h * w == 1),
    "a difference": _twice_where(lambda n, c, h, w: not n - 1),
    "some size": _twice_where(lambda *shape: 1 in shape),
    "how many sizes": lambda s, x: body(s, x) * (1 + list(x.shape).count(1)),
    "its length": lambda s, x: body(s, x) * (2 if len(x) == 1 else 1),
    "its number of elements": lambda s, x: body(s, x) * (2 if x.numel() <= 27 else 1),
    "none at all": _twice_where(lambda n, c, h, w: n != 0),
    "another type": _narrow_where_alone,
    "another structure": _in_a_dict_where_flat,
    "a write": _counts_single_ones,
    "operands exchanged": _exchanged,
    "a submodule called twice": lambda s, x: s.part(F.adaptive_avg_pool2d(s.part(body(s, x)), (1, None))),
    "sizes as numbers": lambda s, x: body(s, x) / x.shape[2] + max(x.shape[3], 3) * x.shape[0],
    "a ninth digit": lambda s, x: body(s, x) * (1.5 + (1e-7 if x.shape[0] == 1 else 0)),
}
CONJUNCTIONS: dict[str, Forward] = {  # what is asked only where something else is so
    "one sample of a square": _twice_where(lambda n, c, h, w: n == 1 and h == w),
    "one sample of a wide map": _twice_where(lambda n, c, h, w: n == 1 and w > 20),
    "one sample of an odd width": _twice_where(lambda n, c, h, w: n == 1 and w % 2),
    "one row of five": _twice_where(lambda n, c, h, w: h == 1 and w == 5),
    "three by five": _twice_where(lambda n, c, h, w: (h, w) == (3, 5)),
    "three of five columns": _twice_where(lambda n, c, h, w: n == 3 and w == 5),
    "six by six": _twice_where(lambda n, c, h, w: h == w == 6),
    "not one, not square": _twice_where(lambda n, c, h, w: not (n == 1 or h == w)),
    "one whole shape": lambda s, x: body(s, x) * (2 if x.shape == (1, 3, 6, 6) else 1),
    "by multiplication": lambda s, x: body(s, x) * (1 + int(x.shape[2] == 1) * int(x.shape[3] == 5)),
    "a wide one of few rows": _twice_where(lambda n, c, h, w: h < 6 and w > 20),
    "as many as rows": _twice_where(lambda n, c, h, w: n == h == w),
}
SQUEEZED: dict[str, Forward] = {  # S2
    "all": lambda s, x: torch.cumsum(body(s, x).squeeze(), -1),
    "the first": lambda s, x: torch.cumsum(body(s, x).squeeze(0), 0),
    "the last": lambda s, x: torch.cumsum(body(s, x).squeeze(-1), -1),
    "two of them": lambda s, x: body(s, x).squeeze((0, 2)).sum(-1),
    "in place": lambda s, x: torch.cumsum(body(s, x).squeeze_(), -1),
    "one in place": lambda s, x: body(s, x).squeeze_(2).sum(-1),
    "a careless head": lambda s, x: s.head(body(s, x).mean((2, 3)).squeeze()).softmax(0),
    "its rank": lambda s, x: x * body(s, x).squeeze().dim(),
    "its first size": lambda s, x: x * body(s, x).squeeze().shape[0],
    "exchanged": lambda s, x: body(s, x).squeeze().transpose(0, 1),
    "by hand": lambda s, x: (lambda y: y.view([n for n in y.shape if n > 1]).sum(0))(body(s, x)),
    "and given back": lambda s, x: torch.atleast_3d(body(s, x).mean((2, 3)).squeeze(0)),
    "where asked, too": _squeezed_and_asked,
    "after a product": lambda s, x: (body(s, x) @ body(s, x).mT).squeeze(2).sum(-1),
    "broadcast": lambda s, x: body(s, x).mean(2, keepdim=True) + body(s, x).mean(3, keepdim=True),
    "a row on all": lambda s, x: body(s, x)[:, :, :1] + body(s, x)[..., -1:],
    "a vector": lambda s, x: body(s, x).mean((2, 3)).squeeze() @ torch.ones(4, dtype=x.dtype),
}
EQUAL: dict[str, Forward] = {  # S3
    "turned where square": lambda s, x: body(s, x).mT if x.shape[2] == x.shape[3] else body(s, x),
    "two where square": _a_pair_where_square,
    "twice as high": _twice_where(lambda n, c, h, w: h == 2 * w),
    "one row more": _twice_where(lambda n, c, h, w: h - w == 1),
    "ten in sum": _twice_where(lambda n, c, h, w: h + w == 17 or h + w == 10),
    "as many samples as rows": _twice_where(lambda n, c, h, w: n == h),
    "as many channels as rows": _twice_where(lambda n, c, h, w: h == c),
    "wider than high": _twice_where(lambda n, c, h, w: h < w),
    "by its area": _twice_where(lambda n, c, h, w: h * w == 36),
}
SMALL: dict[str, Forward] = {  # S3's pooled sizes and S4
    "half a percent": lambda s, x: (lambda y: y * (1.005 if y.shape[2] == 1 else 1))(
        F.avg_pool2d(body(s, x), 2)
    ),
    "indices": lambda s, x: body(s, x).argmax(1) + (7 if F.avg_pool2d(body(s, x), 2).shape[2] == 1 else 0),
    "a full tensor": lambda s, x: (
        body(s, x) + torch.full((4, 1, 1), 7.0 if x.shape[0] == 1 else 0.0, dtype=x.dtype)
    ),
    "a constant": lambda s, x: body(s, x) * torch.tensor(1.005 if x.shape[0] == 1 else 1.0, dtype=x.dtype),
    "booleans": lambda s, x: body(s, x) < 0 if x.shape[3] == 1 else body(s, x) > 0,
    "a huge factor": lambda s, x: body(s, x) * (1e30 if x.shape[2] == 1 else 1.0) * 1e-2,
    "by half": lambda s, x: body(s, x) * (2 if x.shape[2] // 2 == 1 else 1),
}
FINDS = {
    "ones": ONES,
    "conjunctions": CONJUNCTIONS,
    "squeezed": SQUEEZED,
    "equal": EQUAL,
    "small": SMALL,
}
EVERY = [(find, name) for find, forwards in FINDS.items() for name in forwards]


def network(find: str, name: str) -> Net:
    parts: dict[str, Any] = {"conv": nn.Conv2d(3, 4, 3, padding=1), "norm": nn.BatchNorm2d(4)}
    forward = FINDS[find][name]
    if name == "a write":
        parts["count"] = torch.zeros(1)
    if name == "a careless head":
        parts["head"] = nn.Linear(4, 5)
    if name == "a submodule called twice":
        parts["part"] = _Doubling()
    return randomised(Net(forward, **parts)).double()
