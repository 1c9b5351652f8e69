"""Arguments for what builds a network, as text: ``num_classes=10, act="relu"``."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from reparamkit.errors import UnusableInput

_HOW = "write NAME=VALUE with commas between, values as in Python, such as num_classes=10,act='relu'"
_LONGEST = 10_000


def parse_arguments(text: str | None, option: str = "--model-args") -> dict[str, Any]:
    """Keyword arguments out of a text; values are literals of Python, and nothing of it is run.

    A word by itself is a string: a shell takes the quotes of ``act="relu"`` away.

    Raises:
        UnusableInput: it cannot be read so.
    """
    if text is None or not text.strip():
        return {}
    if len(text) > _LONGEST:
        raise UnusableInput(
            f"{option} has {len(text)} characters, where {_LONGEST} are more than it can need"
        )
    try:
        call = ast.parse(f"f({text}\n)", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise UnusableInput(f"{option} {text}: {reason}; {_HOW}") from error
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise UnusableInput(f"{option} {text}: {_HOW}")
    if call.args:
        raise UnusableInput(f"{option} {text}: {ast.unparse(call.args[0])} has no name; {_HOW}")
    values: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg is None:
            raise UnusableInput(f"{option} {text}: {_HOW}")
        if keyword.arg in values:
            raise UnusableInput(f"{option} {text}: {keyword.arg} is given twice; {_HOW}")
        values[keyword.arg] = _value(keyword.value, keyword.arg, text, option)
    return values


def as_arguments(given: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Keyword arguments, given as text or as they are.

    Raises:
        UnusableInput: the text cannot be read.
    """
    return parse_arguments(given) if isinstance(given, str) else dict(given or {})


def as_text(values: Mapping[str, Any]) -> str | None:
    """The text that `parse_arguments` turns into these values; None where there are none."""
    return ", ".join(f"{name}={value!r}" for name, value in values.items()) or None


def _value(node: ast.expr, name: str, text: str, option: str) -> Any:
    if isinstance(node, ast.Name):
        return {"true": True, "false": False, "none": None}.get(node.id, node.id)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        given = ast.unparse(node)
        raise UnusableInput(
            f"{option} {text}: {name} is {given}, which is no literal of Python's; a text with other signs "
            f"than letters needs quotes that the shell leaves: {option} '{name}=\"{given}\"'"
        ) from error
