"""Words on an error for use inside a sentence."""

from __future__ import annotations

_LONGEST = 300


def first_line(error: BaseException) -> str:
    """The type and the first line of an error's text."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def first_line_alone(error: BaseException) -> str:
    """The first line of an error's text, without its end sign; its type where it has no text."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(" .:")[:_LONGEST] if lines else type(error).__name__


def one_line(error: BaseException, longest: int = _LONGEST) -> str:
    """An error's whole text in one line, shortened; its type where it has no text."""
    return " ".join(str(error).split())[:longest] or type(error).__name__
