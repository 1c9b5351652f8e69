"""Every reader on single numbers, on tensors without elements and on axes of length one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reparamkit.capture.export import capture
from reparamkit.hosts.fx.read import FxHost
from reparamkit.operators import known
from tests.nets import Net, fold_and_compare, noise

Function = Callable[[Any, Tensor], Any]


def _weights() -> dict[str, Tensor]:
    return {
        "matrix": noise(4, 4),
        "table": noise(4, 3),
        "empty": torch.zeros(5, 0, 0, dtype=torch.float64),
        "wide": torch.zeros(5, 0, dtype=torch.float64),
        "tall": torch.zeros(0, 4, dtype=torch.float64),
        "four": noise(4).abs() + 0.5,
        "one": noise(1),
        "k1": noise(4, 4, 1),
        "k2": noise(4, 4, 1, 1),
        "k3": noise(4, 4, 1, 1, 1),
    }


_ANY: dict[str, Function] = {
    "add": lambda s, x: x + 1.0,
    "add value": lambda s, x: x + x,
    "sub": lambda s, x: x - 0.5,
    "rsub": lambda s, x: 1.0 - x,
    "mul": lambda s, x: x * s.one.squeeze(),
    "div": lambda s, x: x / 3.0,
    "neg": lambda s, x: -x,
    "addcmul": lambda s, x: torch.addcmul(s.one.squeeze(), x, s.one.squeeze()),
    "clone": lambda s, x: x.clone(),
    "contiguous": lambda s, x: x.contiguous(),
    "alias": lambda s, x: torch.ops.aten.alias.default(x),
    "detach": lambda s, x: x.detach(),
    "positive": lambda s, x: torch.positive(x),
    "to": lambda s, x: x.to(torch.float64),
    "leaky": lambda s, x: F.leaky_relu(x, 1.0),
    "dropout": lambda s, x: torch.ops.aten.dropout.default(x, 0.0, True),
    "flatten": lambda s, x: x.flatten(),
    "reshape": lambda s, x: x.reshape(-1),
    "view": lambda s, x: x.view(x.shape),
    "unsqueeze": lambda s, x: x.unsqueeze(-1),
    "narrow": lambda s, x: x.narrow(-1, 0, min(1, x.shape[-1])),
    "select": lambda s, x: x.select(-1, 0) if x.shape[-1] else x.squeeze(),
    "squeeze": lambda s, x: x.squeeze(),
    "squeeze last": lambda s, x: x.squeeze(-1),
    "squeezes": lambda s, x: x.squeeze((0, -1)) if x.ndim > 1 else x.squeeze((0,)),
    "expand": lambda s, x: x.expand(2, *x.shape),
    "mean last": lambda s, x: x.mean(-1),
    "sum last": lambda s, x: x.sum(-1),
    "sum kept": lambda s, x: x.sum((0,), keepdim=True),
    "mean kept": lambda s, x: x.mean((0,), keepdim=True),
    "permute": lambda s, x: x.permute(*reversed(range(x.ndim))) if x.ndim else x.permute(()),
    "transpose": lambda s, x: x.transpose(0, -1),
    "einsum": lambda s, x: torch.einsum("...,->...", x, s.one.squeeze()),
    "zeros_like": lambda s, x: x + torch.zeros_like(x),
    "new_zeros": lambda s, x: x - x.new_zeros(x.shape),
    "zeros": lambda s, x: x + torch.zeros(x.shape, dtype=x.dtype),
    "full_like": lambda s, x: x + torch.full_like(x, 0.0),
    "new_full": lambda s, x: x + x.new_full(x.shape, 0.0),
    "full": lambda s, x: x + torch.full(x.shape, 0.0, dtype=x.dtype),
    "embedding": lambda s, x: F.embedding(x.long() % 4, s.table) * 2.0,
}
_LISTS: dict[str, Function] = {
    "chunk": lambda s, x: [p * 2.0 for p in x.chunk(2, -1)],
    "split": lambda s, x: [p * 2.0 for p in x.split(1, 0)],
    "split with sizes": lambda s, x: [p * 2.0 for p in x.split([0, x.shape[-1]], -1)],
    "unbind": lambda s, x: [p * 2.0 for p in x.unbind(0)],
    "unbind last": lambda s, x: [p * 2.0 for p in x.unbind(-1)],
    "cat": lambda s, x: torch.cat([x, x * 2.0], 0),
    "cat last": lambda s, x: torch.cat([x * 2.0, x], -1),
    "unflatten": lambda s, x: x.unflatten(0, (1, x.shape[0])),
    "slice": lambda s, x: x[:, :-1] if x.ndim > 1 else x[1:],
    "slice off": lambda s, x: x[..., 1:],
    "pad": lambda s, x: F.pad(x, (1, 2)),
    "rms norm": lambda s, x: F.rms_norm(x, x.shape[-1:], None, 1e-6),
    "t": lambda s, x: x.t() if x.ndim == 2 else x,
}
_MAPS: dict[str, Function] = {
    "linear": lambda s, x: F.linear(x, s.matrix, s.four),
    "matmul": lambda s, x: x @ s.matrix,
    "einsum": lambda s, x: torch.einsum("...c,co->...o", x, s.matrix),
    "layer norm": lambda s, x: F.layer_norm(x, (4,), s.four, s.four),
    "add per channel": lambda s, x: x + s.four,
}
_IMAGES: dict[str, Function] = {
    "batch norm": lambda s, x: F.batch_norm(x, s.four, s.four, s.four, s.four),
    "group norm": lambda s, x: F.group_norm(x, 2, s.four, s.four),
    "instance norm": lambda s, x: F.instance_norm(x, weight=s.four, bias=s.four),
    "conv1": lambda s, x: F.conv1d(x.flatten(2), s.k1),
    "conv2": lambda s, x: F.conv2d(x, s.k2),
    "conv3": lambda s, x: F.conv3d(x.unsqueeze(-1), s.k3),
    "conv1 same": lambda s, x: F.conv1d(x.flatten(2), s.k1, padding="same"),
    "conv2 same": lambda s, x: F.conv2d(x, s.k2, padding="same"),
    "conv3 same": lambda s, x: F.conv3d(x.unsqueeze(-1), s.k3, padding="valid"),
    "transposed 1": lambda s, x: F.conv_transpose1d(x.flatten(2), s.k1, stride=2),
    "transposed 2": lambda s, x: F.conv_transpose2d(x, s.k2),
    "transposed 3": lambda s, x: F.conv_transpose3d(x.unsqueeze(-1), s.k3, stride=2),
    "pool 1": lambda s, x: F.avg_pool1d(x.flatten(2), 1),
    "pool 2": lambda s, x: F.avg_pool2d(x, 1),
    "pool 3": lambda s, x: F.avg_pool3d(x.unsqueeze(-1), 1),
    "adaptive 1": lambda s, x: F.adaptive_avg_pool1d(x.flatten(2), 1),
    "adaptive 2": lambda s, x: F.adaptive_avg_pool2d(x, 1),
    "adaptive 3": lambda s, x: F.adaptive_avg_pool3d(x.unsqueeze(-1), 1),
    "nearest 1": lambda s, x: F.interpolate(x.flatten(2), scale_factor=2),
    "nearest 2": lambda s, x: F.interpolate(x, scale_factor=2),
    "nearest 3": lambda s, x: F.interpolate(x.unsqueeze(-1), scale_factor=2),
    "linear 1": lambda s, x: F.interpolate(x.flatten(2), scale_factor=2, mode="linear"),
    "bilinear": lambda s, x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "trilinear": lambda s, x: F.interpolate(x.unsqueeze(-1), scale_factor=2, mode="trilinear"),
    "bicubic": lambda s, x: F.interpolate(x, scale_factor=2, mode="bicubic"),
}
_ALONE: dict[str, tuple[Function, tuple[int, ...]]] = {
    "matmul of nothing": (lambda s, x: torch.matmul(x, s.empty), (0, 0)),
    "no inputs": (lambda s, x: F.linear(x, s.wide), (3, 0)),
    "no outputs": (lambda s, x: F.linear(x, s.tall), (3, 4)),
    "addmm": (lambda s, x: torch.addmm(s.four, x, s.matrix), (0, 4)),
    "mm": (lambda s, x: torch.mm(x, s.matrix), (0, 4)),
    "bmm": (lambda s, x: torch.bmm(x, s.matrix[None]), (1, 0, 4)),
    "baddbmm": (lambda s, x: torch.baddbmm(x, x, s.matrix[None]), (1, 4, 4)),
}


_GROUPS: list[tuple[dict[str, Function], tuple[tuple[int, ...], ...]]] = [
    (_ANY, ((), (0,), (1,), (1, 1), (0, 3), (3, 0), (1, 0, 2))),
    (_LISTS, ((0,), (1,), (0, 4), (4, 0), (1, 1), (1, 4, 0))),
    (_MAPS, ((4,), (0, 4), (1, 4), (2, 0, 4), (1, 1, 1, 1, 4))),
    (_IMAGES, ((0, 4, 2, 2), (1, 4, 1, 1), (1, 4, 1, 3))),
    *(({name: function}, (shape,)) for name, (function, shape) in _ALONE.items()),
]
_CASES = [pytest.param(g, s, id=f"{next(iter(g))} {list(s)}") for g, shapes in _GROUPS for s in shapes]


def _leaves(result: Any) -> list[Tensor]:
    return result if isinstance(result, list) else [result]


def _all_of(functions: dict[str, Function], x: Tensor) -> nn.Module:
    """A network of every operator that torch runs on `x`, each between maps per channel."""
    parts = Net(lambda s, x: x, **_weights())
    running = []
    for function in functions.values():
        with torch.no_grad():
            try:
                results = _leaves(function(parts, x))
            except (RuntimeError, ValueError, IndexError):
                continue
        if results and all(bool(r.isfinite().all()) for r in results):  # the mean of nothing is no number
            running.append(function)
    return Net(
        lambda s, x: [r * 2.0 + 1.0 for f in running for r in _leaves(f(s, x * 3.0))] + [x], **_weights()
    )


@pytest.mark.diagonal(9)
@pytest.mark.parametrize(("functions", "shape"), _CASES)
def test_a_degenerate_tensor_is_folded_rightly_or_left(
    functions: dict[str, Function], shape: tuple[int, ...]
) -> None:
    x = noise(*shape)
    done = fold_and_compare(_all_of(functions, x), x)
    assert "check failed" not in done.reasons()


@pytest.mark.parametrize("shape", [(0,), (3, 0), (1, 0, 2)])
def test_the_mean_of_nothing_is_read(shape: tuple[int, ...]) -> None:
    net = Net(lambda s, x: (x * 2.0).mean(-1) + 1.0)
    FxHost(capture(net, (noise(*shape),), dynamic=False))


@pytest.mark.slow
def test_every_reader_is_among_them() -> None:
    met: set[str] = set()
    for functions, shapes in _GROUPS:
        for shape in shapes:
            x = noise(*shape)
            for node in capture(_all_of(functions, x).eval(), (x,), dynamic=False).graph.nodes:
                if node.op == "call_function":
                    met |= {str(node.target), f"{node.target}[]"}
    spelt_otherwise = {  # the same readers under other names, and what capture leaves out or renames
        *(n for n in known() if n.endswith((".Scalar", ".other", ".device", ".dtype_layout", "sizes[]"))),
        *("aten.convolution.default", "aten.concat.default", "aten.constant_pad_nd.default"),
        *("aten._to_copy.default", "aten.lift_fresh_copy.default", "aten._unsafe_view.default"),
        *("aten._adaptive_avg_pool2d.default", "aten.numpy_T.default", "aten.feature_dropout.default"),
        *("aten.alpha_dropout.default", "aten.feature_alpha_dropout.default", "aten.dropout.default"),
        *("aten.alias.default", "aten.rsub.Tensor"),
        *("aten.view.default", "aten.to.dtype", "aten.contiguous.default"),
    }
    assert set(known()) - met - spelt_otherwise == set()
