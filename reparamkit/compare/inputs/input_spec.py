"""Inputs described in words: ``image:1x3x224x224:uint8``, ``ids:1x77:int64:0..49407``, ``1x3x32x32``.

    [NAME:]SHAPE[:DTYPE][:KIND]

DTYPE is one of torch's (float32 where nothing is said). KIND says which values make sense:

    normal     zero-mean normal values (what floating-point inputs are without a kind)
    image      0 to 255 for integers (what uint8 is without a kind); 0 to 1 for floating point, in the
               example only: the other probes stay zero-mean, because values of one sign hide mistakes
    mask       true or false at random (what bool is without a kind), 1 or 0 for numbers
    A..B       numbers from A to B, both included; integers need it
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from reparamkit.compare.inputs import patterns
from reparamkit.compare.inputs.input_text import RANGE, words_of
from reparamkit.errors import UnusableInput
from reparamkit.support.inputs import Args, Kwargs


@dataclass(frozen=True)
class Kind:
    """Which values an input takes.

    Attributes:
        name: "normal", "image", "mask" or "A..B".
        low, high: the smallest and the largest value; None for "normal".
    """

    name: str
    low: float | None = None
    high: float | None = None

    def draw(
        self, how: str, shape: list[int], dtype: torch.dtype, generator: torch.Generator
    ) -> torch.Tensor:
        """Values of this kind, within its bounds, in the pattern `how`; on the CPU."""
        if self.low is None or self.high is None:
            return patterns.pattern(how, shape, generator).to(dtype)
        steady = how in (patterns.CONSTANT, patterns.NEGATIVE, patterns.CHECKERBOARD)
        if self.name == "mask":
            # All false would make many an attention NaN, and says nothing.
            chances = torch.rand(shape, generator=generator)
            return (chances < (2.0 if steady else 0.5)).to(dtype)
        unit = torch.rand(shape, generator=generator, dtype=torch.float64)
        if how == patterns.LARGE:
            unit = unit.round()
        elif how == patterns.TINY:
            unit = unit * patterns.TINY_FACTOR
        elif steady:
            unit = (patterns.pattern(how, shape, generator) + 1) / 2
        elif how.startswith(patterns.IMPULSE) or how == patterns.IMPULSES:
            unit = (patterns.pattern(how, shape, generator) != 0).double()
        if dtype.is_floating_point or dtype.is_complex:
            return (self.low + unit * (self.high - self.low)).to(dtype)
        steps = int(self.high) - int(self.low)
        return (int(self.low) + (unit * (steps + 1)).floor().long().clamp(max=steps)).to(dtype)


NORMAL_KIND = Kind("normal")


@dataclass(frozen=True)
class Described:
    """One input: its name (empty where it goes by its place), shape, dtype and kind of values.

    `stated` says that the dtype was asked for, and is not only the usual one.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    kind: Kind
    stated: bool = True

    @property
    def bounded(self) -> Kind | None:
        """The kind that every probe has to keep to; None where any value will do."""
        loose = self.kind.name == "normal" or (self.kind.name == "image" and self.dtype.is_floating_point)
        return None if loose else self.kind

    def example(self, seed: int, place: int) -> torch.Tensor:
        """A draw; the same for the same seed and place among the inputs.

        Raises:
            UnusableInput: it does not fit into memory.
        """
        generator = torch.Generator().manual_seed(seed * 1000 + place)
        try:
            return self.kind.draw("example", list(self.shape), self.dtype, generator)
        except (RuntimeError, TypeError, OverflowError, MemoryError) as error:
            raise UnusableInput(
                f"an input of shape {'x'.join(map(str, self.shape))} does not fit into memory"
            ) from error


def parse(texts: Sequence[str]) -> list[Described]:
    """Read descriptions, in order.

    Raises:
        UnusableInput: one cannot be read, or two inputs have the same name.
    """
    entries = [_parse(text) for text in texts]
    names = [entry.name for entry in entries if entry.name]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UnusableInput(f"the input {twice[0]!r} is described twice")
    return entries


def examples(described: Sequence[Described], seed: int = 0) -> Args | Kwargs:
    """A draw of every input: by place if none has a name, by name if all have.

    Raises:
        UnusableInput: some have a name and some have none, or one does not fit into memory.
    """
    drawn = [entry.example(seed, place) for place, entry in enumerate(described)]
    names = [entry.name for entry in described if entry.name]
    if names and len(names) < len(drawn):
        raise UnusableInput(
            f"the input {names[0]!r} is described by name and another by place: name all or none"
        )
    return dict(zip(names, drawn, strict=True)) if names else tuple(drawn)


def _parse(text: str) -> Described:
    words = words_of(text)
    dtype = torch.bool if words.kind == "mask" else torch.float32
    if words.dtype:
        dtype = getattr(torch, words.dtype)
    return Described(words.name, words.shape, dtype, _kind(words.kind, dtype, text), bool(words.dtype))


def _kind(name: str, dtype: torch.dtype, text: str) -> Kind:
    floating = dtype.is_floating_point or dtype.is_complex
    if not name:
        name = "normal" if floating else {torch.bool: "mask", torch.uint8: "image"}.get(dtype, "")
    if not name:
        raise UnusableInput(f"{text!r}: integers need a range that makes sense, such as {text}:0..999")
    if name == "normal":
        if not floating:
            raise UnusableInput(f"{text!r}: normal values are floating point; give a range, such as 0..999")
        return NORMAL_KIND
    if name == "mask":
        return Kind("mask", 0.0, 1.0)
    if dtype is torch.bool:
        raise UnusableInput(f"{text!r}: a bool input holds a mask, nothing else")
    if name == "image":
        return Kind("image", 0.0, 1.0 if floating else float(min(255, torch.iinfo(dtype).max)))
    bounds = RANGE.fullmatch(name)
    assert bounds is not None
    low, high = float(bounds[1]), float(bounds[2])
    if not low <= high:
        raise UnusableInput(f"{text!r}: the range {name} is empty")
    if not floating:
        limits = torch.iinfo(dtype)
        if low != int(low) or high != int(high) or not limits.min <= low <= high <= limits.max:
            raise UnusableInput(f"{text!r}: the range {name} does not fit into {str(dtype)[6:]}")
    return Kind(name, low, high)
