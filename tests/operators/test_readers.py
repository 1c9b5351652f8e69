"""Each reader against the ATen operator itself, on random attributes, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from reparamkit.algebra import Geometry, Scalar
from reparamkit.algebra.layout import Layout
from reparamkit.operators import Affine, Concat, Move
from tests.nets import noise, randomised
from tests.operators.reading import evaluated, read

EXACT = 1e-12
_few = settings(deadline=None, derandomize=True, max_examples=12, database=None)
_CONVS: dict[int, Any] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}
_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
DIMS = pytest.mark.parametrize("dims", [1, 2, 3])


def _assert_same(
    function: Callable[..., Any], x: Tensor, operator: str, **parts: nn.Module | Tensor
) -> Affine:
    """The reader's meaning is the function, at the example and elsewhere."""
    node = read(function, x, operator, **parts)
    assert isinstance(node.meaning, Affine), node.reason
    holder = nn.Module()
    for name, part in parts.items():
        setattr(holder, name, part)
    for seed in (0, 1):
        value = noise(*x.shape, seed=seed + 40)
        with torch.no_grad():
            expected = function(holder, value)
        found = evaluated(node, value)
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= EXACT * max(1.0, expected.abs().max().item())
    return node.meaning


@DIMS
@given(data=st.data())
@_few
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_convolutions(dims: int, data: st.DataObject) -> None:
    groups = data.draw(st.sampled_from([1, 2, 4]))
    window = tuple(data.draw(st.integers(1, 4)) for _ in range(dims))
    stride = tuple(data.draw(st.integers(1, 3)) for _ in range(dims))
    dilation = tuple(data.draw(st.integers(1, 2)) for _ in range(dims))
    padding: Any = tuple(data.draw(st.integers(0, 3)) for _ in range(dims))
    named = data.draw(st.sampled_from([None, None, "same", "valid"]))
    if named is not None:
        padding, stride = named, stride if named == "valid" else (1,) * dims
    layer = _CONVS[dims](
        4, 8, window, stride, padding, dilation, groups, data.draw(st.booleans()), dtype=torch.float64
    )
    x = noise(2, 4, *[8 + axis for axis in range(dims)])
    _assert_same(lambda s, x: s.layer(x), x, f"conv{dims}d", layer=randomised(layer))


@pytest.mark.parametrize("padding", ["same", 1])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_an_even_window_with_same_padding_has_the_odd_one_on_the_far_side(padding: Any) -> None:
    """Trap 8."""
    layer = randomised(nn.Conv2d(3, 4, (2, 4), padding=padding, dtype=torch.float64))
    node = read(lambda s, x: s.layer(x), noise(1, 3, 6, 6), "conv2d", layer=layer)
    assert isinstance(node.meaning, Affine)
    structure = node.meaning.terms[0].structure
    assert isinstance(structure, Geometry)
    expected = ((0, 1), (1, 2)) if padding == "same" else ((1, 1), (1, 1))
    assert (structure.near, structure.far) == expected


@pytest.mark.parametrize("operator", ["conv", "functional"])
def test_convolutions_as_torch_functions_with_the_padding_as_one_number(operator: str) -> None:
    weight = noise(4, 3, 3, 3)
    x = noise(2, 3, 7, 8)
    if operator == "conv":
        _assert_same(
            lambda s, x: torch.convolution(x, s.w, None, [2], [1], [1], False, [0], 1),
            x,
            "convolution",
            w=weight,
        )
    else:
        _assert_same(lambda s, x: F.conv2d(x, s.w, stride=2, padding=1), x, "conv2d", w=weight)


@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 5), (2, 4, 5, 6), (2, 4, 3, 4, 5)])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_batch_norm_with_running_statistics(shape: tuple[int, ...], affine: bool, eps: float) -> None:
    norm = randomised(_NORMS[max(1, len(shape) - 2)](4, eps=eps, affine=affine).double())
    _assert_same(lambda s, x: s.norm(x), noise(*shape), "batch_norm", norm=norm)


def test_a_batch_norm_with_a_weight_but_no_bias() -> None:
    parts = {"m": noise(3), "v": noise(3, seed=1).abs() + 0.1, "w": noise(3, seed=2)}
    _assert_same(lambda s, x: F.batch_norm(x, s.m, s.v, s.w), noise(2, 3, 4), "batch_norm", **parts)


ADDCMUL: dict[str, Callable[..., Any]] = {
    "constants per channel": lambda s, x: torch.addcmul(s.b, x, s.a, value=0.5),
    "the constant first": lambda s, x: torch.addcmul(s.b, s.a, x),
    "numbers": lambda s, x: torch.addcmul(s.one, x, s.one, value=-2.0),
    "along other axes": lambda s, x: torch.addcmul(s.one, x, s.last),
    "added to itself": lambda s, x: torch.addcmul(x, x, s.a, value=3.0),
}


@pytest.mark.parametrize("name", ADDCMUL)
def test_addcmul(name: str) -> None:
    parts = {"a": noise(3, 1, 1), "b": noise(3, 1, 1, seed=1), "one": noise(1), "last": noise(5, seed=2)}
    _assert_same(ADDCMUL[name], noise(2, 3, 4, 5), "addcmul", **parts)


def test_addcmul_of_two_values_is_declined() -> None:
    node = read(lambda s, x: torch.addcmul(s.one, x, x), noise(2, 3), "addcmul", one=noise(1))
    assert "two values" in node.reason


ARITHMETIC: dict[str, tuple[str, Callable[..., Any]]] = {
    "plus": ("add", lambda s, x: x + s.c),
    "plus alpha": ("add", lambda s, x: torch.add(x, s.c, alpha=-2)),
    "constant plus alpha": ("add", lambda s, x: torch.add(s.c, x, alpha=3)),
    "minus": ("sub", lambda s, x: x - s.c),
    "minus alpha": ("sub", lambda s, x: torch.sub(x, s.c, alpha=0.5)),
    "from": ("sub", lambda s, x: s.c - x),
    "rsub": ("rsub", lambda s, x: torch.rsub(x, s.c, alpha=2)),
    "times": ("mul", lambda s, x: x * s.c),
    "constant times": ("mul", lambda s, x: s.c * x),
    "over": ("div", lambda s, x: x / s.c),
}


@pytest.mark.diagonal(40)
@pytest.mark.parametrize("name", ARITHMETIC)
@pytest.mark.parametrize(
    ("shape", "constant"),
    [
        ((2, 3, 4, 5), (3, 1, 1)),
        ((2, 3, 4, 5), (1, 3, 1, 1)),
        ((2, 3, 4, 5), (5,)),
        ((2, 3, 4, 5), ()),
        ((2, 3, 4, 5), (1, 1)),
        ((2, 3, 4), (3, 1)),
        ((2, 3, 4), (1, 1, 4)),
        ((4, 3), (3,)),
        ((3,), (3,)),
        ((2, 3, 2, 3, 4), (3, 1, 1, 1)),
        ((2, 1, 4, 5), (1, 1, 1)),
        ((2, 3, 4, 1), (3, 1, 1)),
    ],
)
def test_arithmetic_with_a_constant(name: str, shape: tuple[int, ...], constant: tuple[int, ...]) -> None:
    operator, function = ARITHMETIC[name]
    _assert_same(function, noise(*shape), operator, c=noise(*constant, seed=3) + 3)


@pytest.mark.parametrize("number", [2, -0.25, 0, 1])
@pytest.mark.parametrize("name", ["plus", "plus alpha", "minus", "minus alpha", "from", "rsub", "times"])
def test_arithmetic_with_a_number(name: str, number: float) -> None:
    operator, function = ARITHMETIC[name]
    operator = "rsub" if name == "from" else operator

    class Holder:
        c = number

    _assert_same(lambda s, x: function(Holder, x), noise(2, 3, 4), operator)


VALUES: dict[str, tuple[str, Callable[..., Any], list[float]]] = {
    "sum": ("add", lambda s, x: x + x, [1, 1]),
    "alpha": ("add", lambda s, x: torch.add(x, x, alpha=-3), [1, -3]),
    "difference": ("sub", lambda s, x: x - x, [1, -1]),
    "difference alpha": ("sub", lambda s, x: torch.sub(x, x, alpha=0.5), [1, -0.5]),
    "rsub": ("rsub", lambda s, x: torch.rsub(x, x, alpha=2), [-2, 1]),
}


@pytest.mark.parametrize("name", VALUES)
def test_sums_of_values(name: str) -> None:
    operator, function, factors = VALUES[name]
    meaning = _assert_same(function, noise(2, 3, 4), operator)
    assert [getattr(p.load(), "alpha", None) for p in meaning.terms] == factors


@pytest.mark.parametrize(
    ("operator", "function"),
    [
        ("add", lambda s, x: 0 + x),
        ("add", lambda s, x: sum([x])),
        ("sub", lambda s, x: x - 0.0),
        ("mul", lambda s, x: 1.0 * x),
        ("div", lambda s, x: x / 1),
    ],
)
def test_trap_09_an_added_zero_is_nothing(operator: str, function: Callable[..., Any]) -> None:
    """MobileOne adds its branches to the Python number 0."""
    meaning = _assert_same(function, noise(2, 3), operator)
    assert meaning.terms[0].structure == Scalar(identity=True)


def test_negation() -> None:
    _assert_same(lambda s, x: -x, noise(2, 3), "neg")


@pytest.mark.parametrize(
    "amounts",
    [(1, 2), (1, 2, 0, 3), (-1, 0, 2, -1), (0, 0, 1, 1), (1, 1, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 0, 0)],
)
@pytest.mark.parametrize("value", [None, 0.0])
def test_padding_with_zeros_and_cropping_by_it(amounts: tuple[int, ...], value: float | None) -> None:
    _assert_same(lambda s, x: F.pad(x, amounts, value=value), noise(2, 3, 6, 7), "pad")


@pytest.mark.parametrize(
    "cut",
    [
        (slice(None), slice(None), slice(1, None)),
        (slice(None), slice(None), slice(None, -2)),
        (slice(None), slice(None), slice(1, -1, 2)),
        (..., slice(None, None, 3)),
        (..., slice(2, 100)),
    ],
)
def test_cropping_by_a_margin(cut: Any) -> None:
    x = noise(2, 3, 7, 8)
    taken = [s for s in cut if isinstance(s, slice) and s != slice(None)]
    axis = 3 if cut[0] is ... else 2
    (one,) = taken
    _assert_same(
        lambda s, x: torch.ops.aten.slice.Tensor(x, axis, one.start, one.stop, one.step or 1), x, "slice"
    )


@DIMS
@given(data=st.data())
@_few
def test_average_pooling(dims: int, data: st.DataObject) -> None:
    """Trap 6: whatever torch accepts is either read rightly or declined."""
    window = tuple(data.draw(st.integers(1, 3)) for _ in range(dims))
    stride = data.draw(st.sampled_from([None, 1, 2, 3]))
    padding = tuple(data.draw(st.integers(0, w // 2)) for w in window)
    ceil, counted = data.draw(st.booleans()), data.draw(st.booleans())
    divisor = data.draw(st.sampled_from([None, None, 5])) if dims > 1 else None
    pool: Any = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[dims - 1]
    more: dict[str, Any] = {} if divisor is None else {"divisor_override": divisor}

    def function(s: Any, x: Tensor) -> Any:
        return pool(x, window, stride, padding, ceil_mode=ceil, count_include_pad=counted, **more)

    x = noise(2, 3, *[7 + axis for axis in range(dims)])
    node = read(function, x, f"avg_pool{dims}d")
    plain = not ceil and (counted or not any(padding) or divisor is not None)
    assert isinstance(node.meaning, Affine) == plain
    if plain:
        _assert_same(function, x, f"avg_pool{dims}d")
    elif isinstance(node.meaning, Move):
        ones = torch.ones_like(x)
        assert torch.allclose(function(None, ones), torch.ones(()).double()), "it keeps constants"


@pytest.mark.parametrize("shape", [(2, 3), (2, 5, 3), (2, 4, 5, 3), (3,)])
@pytest.mark.parametrize("bias", [False, True])
def test_linear_layers(shape: tuple[int, ...], bias: bool) -> None:
    layer = nn.Linear(3, 4, bias=bias, dtype=torch.float64)
    _assert_same(lambda s, x: s.layer(x), noise(*shape), "linear", layer=layer)


def test_matrix_products() -> None:
    _assert_same(lambda s, x: x @ s.w, noise(2, 5, 3), "matmul", w=noise(3, 4, seed=1))
    _assert_same(lambda s, x: torch.mm(x, s.w), noise(2, 3), "mm", w=noise(3, 4, seed=1))
    parts = {"w": noise(3, 4, seed=1), "b": noise(4, seed=2)}
    _assert_same(lambda s, x: torch.addmm(s.b, x, s.w), noise(2, 3), "addmm", **parts)


IDENTITIES: dict[str, tuple[str, Callable[..., Any]]] = {
    "clone": ("clone", lambda s, x: x.clone()),
    "contiguous": ("contiguous", lambda s, x: x.contiguous()),
    "alias": ("alias", lambda s, x: torch.ops.aten.alias.default(x)),
    "positive": ("positive", lambda s, x: torch.ops.aten.positive.default(x)),
    "a view of the same shape": ("view", lambda s, x: x.view(2, 3, 4)),
    "a whole slice": ("slice", lambda s, x: torch.ops.aten.slice.Tensor(x, 1)),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_identities(name: str) -> None:
    operator, function = IDENTITIES[name]
    try:
        meaning = _assert_same(function, noise(2, 3, 4), "reshape" if operator == "view" else operator)
    except ValueError:
        pytest.skip("torch.export leaves it out")
    assert meaning.terms[0].structure == Scalar(identity=True)


PASSED: dict[str, tuple[str, Callable[..., Any], tuple[int | None, ...]]] = {
    "permute": ("permute", lambda s, x: x.permute(0, 2, 3, 1), (0, 3, 1, 2)),
    "negative permute": ("permute", lambda s, x: x.permute(-4, -2, -1, -3), (0, 3, 1, 2)),
    "transpose": ("transpose", lambda s, x: x.transpose(1, -1), (0, 3, 2, 1)),
    "mean": ("mean", lambda s, x: x.mean((2, 3)), (0, 1, None, None)),
    "mean of one axis": ("mean", lambda s, x: x.mean(-2), (0, 1, None, 2)),
    "mean kept": ("mean", lambda s, x: x.mean((-1, -2), keepdim=True), (0, 1, None, None)),
    "mean over the batch": ("mean", lambda s, x: x.mean(0), (None, 0, 1, 2)),
    "flatten": ("flatten", lambda s, x: x.flatten(2), (0, 1, None, None)),
    "flatten all": ("flatten", lambda s, x: x.flatten(1), (0, None, None, None)),
    "flatten the batch": ("flatten", lambda s, x: x.flatten(0, 1), (None, None, 1, 2)),
    "unsqueeze": ("unsqueeze", lambda s, x: x.unsqueeze(1), (0, 2, 3, 4)),
    "interpolate": ("upsample_nearest2d", lambda s, x: F.interpolate(x, scale_factor=2), (0, 1, None, None)),
    "adaptive": ("adaptive_avg_pool2d", lambda s, x: F.adaptive_avg_pool2d(x, 2), (0, 1, None, None)),
}


@pytest.mark.parametrize("name", PASSED)
def test_where_each_axis_goes(name: str) -> None:
    """And that a map per channel in front of the operator is one with the same numbers behind it."""
    operator, function, axes = PASSED[name]
    x = noise(2, 3, 4, 5)
    node = read(function, x, operator)
    assert isinstance(node.meaning, Move)
    expected = function(None, x)
    for before, after in enumerate(axes):
        above = Layout.of(x.shape, before)
        assert above is not None
        below = node.meaning.carry(above)
        assert (None if below is None else below.channel_axis) == after
        if below is None:
            continue
        scale, shift = noise(x.shape[before], seed=5), noise(x.shape[before], seed=6)
        along = [-1 if axis == before else 1 for axis in range(4)]
        inner = function(None, x * scale.view(along) + shift.view(along))
        outer = expected * scale[below.channels()] + shift[below.channels()]
        assert (inner - outer).abs().max() < EXACT


@pytest.mark.parametrize(
    ("before", "after", "whole"),
    [
        ((2, 3, 4), (2, 12), [0]),
        ((2, 3, 4), (6, 4), [2]),
        ((2, 6, 4), (2, 2, 3, 4), [0, 2]),
        ((4, 4), (2, 2, 4), [1]),
        ((2, 2, 2), (2, 4), [0]),
    ],
)
def test_where_a_reshape_puts_channels(
    before: tuple[int, ...], after: tuple[int, ...], whole: list[int]
) -> None:
    node = read(lambda s, x: x.reshape(after), noise(*before), "reshape")
    assert isinstance(node.meaning, Move)
    for axis, size in enumerate(before):
        above = Layout.of(before, axis)
        assert above is not None
        below = node.meaning.carry(above)
        assert below is not None
        marked = torch.arange(size).view([-1 if a == axis else 1 for a in range(len(before))])
        assert torch.equal(below.channels().expand(after), marked.expand(before).reshape(after))
        alone = below.channel_axis is not None and after[below.channel_axis] == size
        assert alone == (axis in whole)


def test_a_concatenation_names_its_values_and_axis() -> None:
    node = read(lambda s, x: torch.cat([x, x, x], -2), noise(2, 3, 4), "cat")
    assert isinstance(node.meaning, Concat)
    assert (len(node.meaning.values), node.meaning.axis) == (3, 1)
