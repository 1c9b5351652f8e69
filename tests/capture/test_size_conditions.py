"""What torch.export writes down about sizes is read, and nothing else is ever evaluated."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from reparamkit.capture.size_conditions import Place, Unread, compiled, rewritten

TREE: dict[str, Any] = {"x": 0, "named": {"map": 1}, "several": [2, None]}


def _named(place: Place) -> str:
    return f"n{10 * place[0] + place[1]}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("L['x'].size()[3] % 32 == 0", "n3 % 32 == 0"),
        ("not (L['named']['map'].size()[1] == 2)", "not n11 == 2"),
        ("max(1, L['several'][0].size()[0] // 8) != 1", "sym_max(1, n20 // 8) != 1"),
        ("math.trunc(1.5*torch.sym_float(L['x'].size()[3])) == 18", "trunc(1.5 * sym_float(n3)) == 18"),
        ("math.ceil(L['x'].size()[3] / 2) <= 4 and L['x'].size()[3] > 2", "ceil(n3 / 2) <= 4 and n3 > 2"),
        ("int(L['x'].size()[2]) == 4", "sym_int(n2) == 4"),
        ("L['flag'] == True", None),
        ("L['x'].stride()[0] == 5", None),
    ],
)
def test_a_condition_is_one_in_names_of_sizes(text: str, expected: str | None) -> None:
    assert rewritten(text, TREE, _named) == expected


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("magic(L['x'].size()[3]) == 3", [(0, 3)]),
        ("L['x'].size()[3] == L['n'].item()", [(0, 3)]),
        ("L['x'].size()[3] == 'three'", [(0, 3)]),
        ("L['x'].size()[3] if L['x'].size()[2] else 1", [(0, 2), (0, 3)]),
        ("L['x'].stride()[0] == L['x'].size()[3]", [(0, 3)]),
        ("L['x'].stride()[L['x'].size()[3]] == 3", [(0, 3)]),
        ("L['unknown'].size()[3] == 3", None),
        ("L['several'][1].size()[3] == 3", None),
        ("L['x'].size()[3] ==", None),
    ],
)
def test_what_is_not_understood_says_which_sizes_it_speaks_of(text: str, places: list[Place] | None) -> None:
    with pytest.raises(Unread) as caught:
        rewritten(text, TREE, _named)
    assert (sorted(caught.value.places) if caught.value.places else caught.value.places) == places


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "n0.real",
        "open(n0)",
        "n0 == 'a'",
        "[n0]",
        "ceil(n0, ndigits=1)",
        "(lambda: n0)()",
        "other",
    ],
)
def test_nothing_but_conditions_on_sizes_is_evaluated(text: str) -> None:
    with pytest.raises(ValueError, match="not an assumption on sizes"):
        compiled((text,), 1)


def test_conditions_are_evaluated_for_numbers() -> None:
    check = compiled(
        (
            "trunc(1.5 * sym_float(n0)) == 18",
            "sym_max(n0, n1, 3) == sym_min(13, n0, 20)",
            "round(n1 / 2) == 2",
        ),
        2,
    )
    assert check(12, 4) == (True, True, True)
    assert check(13, 14) == (False, False, False)
    assert not isinstance(check(12, 4)[0], torch.SymBool)
