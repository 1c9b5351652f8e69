"""Which assumptions leave out single values, and which sizes are tried."""

from __future__ import annotations

import pytest
import sympy  # type: ignore[import-untyped]
import torch
from torch.export import Dim

from reparamkit.capture.special_sizes import (
    formula,
    inner_sizes,
    is_exclusion,
    ordinary_point,
    sizes_tried,
    special_points,
)
from tests.nets import Net, noise

EXAMPLE = {"n": 2, "h": 8, "w": 9}


@pytest.mark.parametrize(
    ("text", "excludes"),
    [
        ("n0 != 1", True),
        ("n0 // 2 != 1", True),
        ("n0 != n1", True),
        ("n0 * n1 != 36", True),
        ("n0 > 1", True),
        ("n0 >= 2", True),
        ("1 < 3 * n1 * n2", True),
        ("n0 > 2", False),
        ("n0 >= 3", False),
        ("2 < n0", False),
        ("n0 == 8", False),
        ("n0 <= 10", False),
        ("n0 < n1", False),
        ("n0 % 2 != 1", False),
        ("n0 != 1 and n1 != 1", False),
        ("n0 != 1 or n1 != 1", False),
        ("not n0 == 1", False),
    ],
)
def test_only_what_leaves_out_single_values_can_be_shown_idle(text: str, excludes: bool) -> None:
    assert is_exclusion(text) == excludes


def _points(*breaks: list[frozenset[int]], recorded: frozenset[int] = frozenset()) -> list[dict[str, int]]:
    given = breaks or tuple([frozenset[int]()] * 20 for _ in EXAMPLE)
    return [{**EXAMPLE, **point} for point in special_points(EXAMPLE, ["n"], given, recorded)]


def test_ones_zeros_and_equal_sides_are_tried() -> None:
    points = _points()
    assert {"n": 1, "h": 8, "w": 9} in points
    assert {"n": 2, "h": 1, "w": 9} in points
    assert {"n": 2, "h": 8, "w": 1} in points
    assert {"n": 2, "h": 1, "w": 1} in points
    assert {"n": 1, "h": 1, "w": 1} in points
    assert {"n": 0, "h": 8, "w": 9} in points
    assert {"n": 2, "h": 0, "w": 0} in points
    assert {"n": 2, "h": 9, "w": 9} in points
    assert {"n": 1, "h": 9, "w": 9} in points
    assert any(point["n"] == point["h"] == point["w"] > 1 for point in points)


def test_the_sizes_nearest_to_the_example_that_break_a_condition_are_tried() -> None:
    """Condition 0 breaks for a height of 2 or 3, condition 1 for one of 14."""
    heights = [frozenset[int]()] * 20
    heights[2] = heights[3] = frozenset((0,))
    heights[14] = frozenset((1,))
    ordinary = [frozenset[int]()] * 20
    points = _points(ordinary, heights, ordinary, recorded=frozenset((0, 1)))
    for height in (3, 14):
        assert {**EXAMPLE, "h": height} in points
        assert {**EXAMPLE, "h": height, "n": 1} in points
        assert {**EXAMPLE, "h": height, "w": height} in points
    assert {**EXAMPLE, "h": 2} not in points


def test_an_ordinary_point_is_small_keeps_what_is_equal_and_is_accepted() -> None:
    def accepts(point: dict[str, int]) -> bool:
        return point["h"] > 3

    assert ordinary_point({"n": 2, "h": 32, "w": 40}, ["n"], lambda point: True) == {"n": 2, "h": 2, "w": 3}
    square = ordinary_point({"n": 2, "h": 32, "w": 32}, ["n"], accepts)  # type: ignore[arg-type]
    assert square == {"n": 2, "h": 4, "w": 4}
    example = {"n": 2, "h": 32, "w": 32}
    assert ordinary_point(example, ["n"], lambda point: False) == example


def test_large_examples_are_looked_at_beyond_twice_their_size() -> None:
    assert 512 in sizes_tried(8)
    assert 2048 in sizes_tried(1024)


def test_sizes_are_spelt_in_given_names() -> None:
    a, b = sympy.symbols("a b", integer=True, positive=True)
    assert formula(a * 2 + 1, {a: "n0"}) == "1 + 2*n0"
    assert formula(a * b, {a: "n0"}) is None


def test_every_size_of_every_tensor_that_varies_is_found_once() -> None:
    net = Net(lambda s, x: (torch.nn.functional.avg_pool2d(x, 2), x.flatten(1).chunk(2, 1)))
    shapes = {"x": {2: Dim.AUTO}}
    exported = torch.export.export(net, (noise(2, 3, 8, 12),), dynamic_shapes=shapes, strict=False)
    symbol = next(n for n in exported.graph.nodes if n.op == "placeholder").meta["val"].shape[2].node.expr
    found = inner_sizes(exported.graph, {symbol: "h"})
    assert sorted(text.replace(" ", "").strip("()") for text in found) == ["18*h", "36*h", "h", "h//2"]
    assert inner_sizes(exported.graph, {}) == []
