"""The words that describe an input, taken apart without torch, so that a slip in them is known at once.

[NAME:]SHAPE[:DTYPE][:KIND]
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from reparamkit.errors import UnusableInput

DTYPES = (
    *("float64", "float32", "float16", "bfloat16", "complex64", "complex128"),
    *("int64", "int32", "int16", "int8", "uint8", "bool"),
)
PLAIN_KINDS = ("normal", "image", "mask")
_NUMBER = r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})")
_SHAPE = re.compile(r"\s*\d+\s*([x×]\s*\d+\s*)*")
_ALSO_CALLED = {
    alias: name
    for name, aliases in {
        "float16": ("fp16", "f16", "half"),
        "float32": ("fp32", "f32", "float"),
        "float64": ("fp64", "double"),
        "bfloat16": ("bf16",),
        "int64": ("long", "int"),
        "int16": ("short",),
        "uint8": ("byte", "uint"),
        "bool": ("boolean",),
    }.items()
    for alias in aliases
}
_OPEN_SIZES = re.compile(r"-1|\?|[A-Za-z_]+|None")
_FILES = (".npy", ".npz", ".pt", ".pth", ".png", ".jpg", ".jpeg", ".bin")


@dataclass(frozen=True)
class Words:
    """A description in pieces; `dtype` and `kind` are empty where they were left out."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    kind: str


def words_of(text: str) -> Words:
    """Take a description apart.

    Raises:
        UnusableInput: it is none; the message says what was meant, where that shows.
    """
    parts = [part.strip() for part in text.split(":")]
    kind = parts.pop() if len(parts) > 1 and is_kind(parts[-1]) else ""
    dtype = parts.pop().lower() if len(parts) > 1 and parts[-1].lower() in DTYPES else ""
    shape = parts.pop()
    if not _SHAPE.fullmatch(shape.lower()) or not all(size > 0 for size in _sizes(shape)):
        raise UnusableInput(f"{text!r} describes no input: {_wrong(text, shape, parts, dtype, kind)}")
    return Words(":".join(parts), _sizes(shape), dtype, kind)


def check_words(texts: list[str]) -> None:
    """Raises UnusableInput where one of these describes no input."""
    for text in texts:
        words_of(text)


def is_kind(text: str) -> bool:
    """Whether this says which values make sense."""
    return text in PLAIN_KINDS or RANGE.fullmatch(text) is not None


def _sizes(shape: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.split("[x×]", shape.lower()))


def _wrong(text: str, shape: str, before: list[str], dtype: str, kind: str) -> str:
    """Why it is none, and what to write."""
    if shape.lower().endswith(_FILES) or (len(text) < 256 and Path(text).is_file()):
        return (
            "that is a file, and here goes the shape of what the network takes, such as 1x3x224x224; real "
            "inputs are for `reparamkit check … --inputs FILE`"
        )
    end = [part for part in (dtype, kind) if part]
    if is_kind(shape) and before and dtype:
        return f"the type goes before the kind; say {':'.join([*before, dtype, shape])}"
    if before and _SHAPE.fullmatch(before[-1].lower()):
        known = (*DTYPES, *_ALSO_CALLED, *PLAIN_KINDS)
        close = difflib.get_close_matches(shape.lower(), known, n=1, cutoff=0.6)
        named = _ALSO_CALLED.get(shape.lower()) or (_ALSO_CALLED.get(close[0], close[0]) if close else "")
        if named:
            return f"{shape!r} is no type here; say {':'.join([*before, named, *end])}"
        return (
            f"{shape!r} is neither a type ({', '.join(DTYPES)}) nor a kind ({', '.join(PLAIN_KINDS)}, A..B)"
        )
    pieces = [piece for piece in re.split(r"[\s,;*x×X()\[\]]+", shape) if piece]
    if len(pieces) > 1 and all(re.fullmatch(r"\d+", p) or _OPEN_SIZES.fullmatch(p) for p in pieces):
        numbers = [piece if re.fullmatch(r"[1-9]\d*", piece) else "1" for piece in pieces]
        meant = ":".join([*before, "x".join(numbers), *end])
        if any(_OPEN_SIZES.fullmatch(piece) for piece in pieces):
            return f"sizes are numbers, and free ones are kept free without being asked for; say {meant}"
        if "0" in pieces:
            return f"a size of 0 shows nothing; say {meant}"
        return f"the sizes of all axes go with x between them; say {meant}"
    return (
        f"{shape!r} is not a shape. Write [NAME:]SHAPE[:DTYPE][:KIND], the sizes of all axes with x between "
        f"them, such as 1x3x224x224, image:1x3x224x224:uint8:image or ids:1x77:int64:0..999 (dtypes: "
        f"{', '.join(DTYPES)}; kinds: {', '.join(PLAIN_KINDS)}, A..B)"
    )
