"""Arguments as text: literals of Python, and nothing that runs."""

from __future__ import annotations

from typing import Any

import pytest

from reparamkit.errors import UnusableInput
from reparamkit.loading.arguments import as_arguments, as_text, parse_arguments


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (None, {}),
        ("", {}),
        ('num_classes=10,act="relu"', {"num_classes": 10, "act": "relu"}),
        ("num_classes=10,act=relu", {"num_classes": 10, "act": "relu"}),  # as a shell leaves it
        ("a=-1.5, b=(1, 2), c=[3], d={'x': None}", {"a": -1.5, "b": (1, 2), "c": [3], "d": {"x": None}}),
        ("a=True,b=false,c=none", {"a": True, "b": False, "c": None}),
        ("name='a, b=(c'", {"name": "a, b=(c"}),
    ],
)
def test_values_are_typed(text: str | None, values: dict[str, Any]) -> None:
    assert parse_arguments(text) == values
    assert [type(value) for value in parse_arguments(text).values()] == [type(v) for v in values.values()]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10", "10 has no name; write NAME=VALUE"),
        ("a=", "write NAME=VALUE"),
        ("a=1 b=2", "write NAME=VALUE"),
        ("a=1,a=2", "a is given twice"),
        ("**{'a': 1}", "write NAME=VALUE"),
        ("a=1)(b=2", "write NAME=VALUE"),
        ("a=open('x')", "a is open('x'), which is no literal of Python's"),
        ("a=x-y", "--model-args 'a=\"x - y\"'"),
        ("a=[" * 5000, "10000 are more than it can need"),
        ("a=" + "[" * 3000 + "]" * 3000, "write NAME=VALUE"),
    ],
)
def test_what_cannot_be_read_says_how_to_write_it(text: str, words: str) -> None:
    with pytest.raises(UnusableInput) as caught:
        parse_arguments(text)
    assert words in str(caught.value)
    assert str(caught.value).startswith("--model-args")


def test_text_and_values_are_each_others_inverse() -> None:
    values = {"num_classes": 10, "act": "it's", "sizes": (1, 2)}
    assert as_arguments(as_text(values)) == values == as_arguments(values)
    assert as_text({}) is None
