"""Words on an error, a type or a shape for use inside a sentence."""

from __future__ import annotations

from collections.abc import Iterable

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


def dtype_name(dtype: object) -> str:
    """ "float32" for torch.float32."""
    return str(dtype).removeprefix("torch.")


def shape_text(shape: Iterable[object]) -> str:
    """ "1x3x224x224"; in words for a scalar."""
    return "x".join(map(str, shape)) or "a scalar"
