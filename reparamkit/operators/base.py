"""What an operator means to the fold: the plain objects that readers see and return.

A reader turns one `Call` into a `Meaning`: an affine map of its operands, or a channel concatenation of
them. Whatever a reader does not fully understand it declines with `NotAffine` and a reason in words.

    @reader("aten.neg.default")
    def neg(call: Call) -> Meaning:
        return scalar(call.value("self"), lambda: ScalarMap(-1.0))

Structure (`Map`) is known at once, from shapes; numbers come from `load`, when a fold is really made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Self

import torch
from torch import Tensor, nn

from reparamkit.algebra import Geometry, Map, Numbers, Scalar, ScalarMap
from reparamkit.algebra.layout import Layout, Size


class NotAffine(Exception):
    """The operator is not an affine map of its operands, for the reason given.

    `notable` reasons are worth telling the user, who may expect such an operator to fold.
    """

    def __init__(self, reason: str, *, notable: bool = True) -> None:
        super().__init__(reason)
        self.notable = notable


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor that depends on the network's input; `shape` are the captured sizes."""

    id: int
    shape: tuple[int, ...]
    sizes: tuple[Size, ...]
    dtype: torch.dtype
    origin: str

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def axis(self, dim: int) -> int:
        """An axis that may be counted from the back. A single number has one axis, as torch sees it."""
        return dim % max(self.ndim, 1)


@dataclass(frozen=True, slots=True)
class Constant:
    """A tensor that does not depend on the input; `load()` gives it in float64.

    `zero` says that it was made of zeros, `shared` that something else needs it as well.
    """

    shape: tuple[int, ...]
    load: Callable[[], Tensor]
    zero: bool = False
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Term:
    """One operand and the map that the operator applies to it.

    A map of integers acts on their one-hot vectors: a table of `inputs` rows, in which they look up.
    """

    value: Value
    structure: Map
    load: Callable[[], Numbers]


class Work(Enum):
    """What an affine operator does at run time."""

    ARITHMETIC = "arithmetic"
    COPY = "a copy"
    VIEW = "a view"


@dataclass(frozen=True, slots=True)
class Affine:
    """The operator is the sum of `terms`. `work` says what it does at run time.

    `averages` says that it treats every channel alike and keeps constants, as `Move` does. `kept` are the
    elements of weights that something else needs as well.
    """

    terms: tuple[Term, ...]
    work: Work = Work.ARITHMETIC
    averages: bool = False
    kept: int = 0

    @property
    def operands(self) -> tuple[Value, ...]:
        """The values that it reads."""
        return tuple([term.value for term in self.terms])

    def on(self, newer: Mapping[int, Value]) -> Affine:
        """The same of other values in place of its operands."""
        return replace(self, terms=tuple([replace(t, value=newer[t.value.id]) for t in self.terms]))


@dataclass(frozen=True, slots=True)
class _OfOne:
    """What an operator means that reads one value."""

    value: Value

    @property
    def operands(self) -> tuple[Value, ...]:
        """The values that it reads."""
        return (self.value,)

    def on(self, newer: Mapping[int, Value]) -> Self:
        """The same of another value in place of its operand."""
        return replace(self, value=newer[self.value.id])


@dataclass(frozen=True, slots=True)
class _OfSeveral:
    """What an operator means that reads values of equal standing."""

    values: tuple[Value, ...]

    @property
    def operands(self) -> tuple[Value, ...]:
        """The values that it reads."""
        return self.values

    def on(self, newer: Mapping[int, Value]) -> Self:
        """The same of other values in place of its operands."""
        return replace(self, values=tuple([newer[value.id] for value in self.values]))


@dataclass(frozen=True, slots=True)
class Concat(_OfSeveral):
    """The operator concatenates `values` along tensor axis `axis`."""

    axis: int


@dataclass(frozen=True, slots=True)
class Move(_OfOne):
    """The operator moves, cuts or averages `value`: it keeps constants and mixes no channels.

    `carry` says where the channels of a layout of the value come to lie in the result; None if it mixes
    those. `cuts` says that it may leave some of the value out, `alone` that what is left out is not among
    the other pieces of one operator. `pads` says that it pads a feature map by what is there: the mode, and
    how much on either side of every spatial axis. `reason` says why it is not affine itself, where that is
    worth telling.
    """

    carry: Callable[[Layout], Layout | None]
    cuts: bool = False
    alone: bool = False
    pads: tuple[str, tuple[int, ...], tuple[int, ...]] | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Contraction(_OfOne):
    """The operator is linear in `value` and acts along its axes `axes`, at every place of all others alike.

    `places` says for every axis of the result, of these `sizes`, which of the value's it is; None for one
    that the operator makes. `apply` does it in float64 to tensors with one more axis in front, and any sizes
    along the axes that it does not act along. Every element of the result is a sum of `summed` products with
    some of its `weights` constants. `reason` says why it is no map itself.
    """

    axes: tuple[int, ...]
    places: tuple[int | None, ...]
    sizes: tuple[int, ...]
    apply: Callable[[Tensor], Tensor]
    summed: int
    weights: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Zero(_OfSeveral):
    """The operator gives zeros, as many as there are elements in `values`, if there are any."""


@dataclass(frozen=True, slots=True)
class InPassing:
    """The operator can apply a scale and shift in passing, before it writes its result.

    `fits` says which maps behind it, `layer` makes the operator's module with such a map behind.
    """

    fits: Callable[[Map], bool]
    layer: Callable[[Numbers], nn.Module]


@dataclass(frozen=True, slots=True)
class Opaque(_OfOne):
    """The operator is none of the others, and reads `value`.

    `rescales` says that it ends in a map per channel that it applies in passing (see `Rescaled`), `takes`
    that it can apply another one.
    """

    rescales: bool = False
    takes: InPassing | None = None


@dataclass(frozen=True, slots=True)
class Rescaled(_OfOne):
    """The operator is `behind`, a map per channel, on what it gives without its arguments `without`.

    So a layer norm is the same norm without weight and bias, and a scale and shift behind it. `behind` is
    None where there is none, or none per channel; its value is the operand. `takes` is for the operator as
    it stands, `bare` for it without these arguments.
    """

    behind: Term | None
    without: tuple[str, ...]
    takes: InPassing
    bare: InPassing


@dataclass(frozen=True, slots=True)
class Bordered(_OfOne):
    """`value` padded as `structure` says, by the constant per channel `fill`, which may be zero for all."""

    structure: Geometry
    fill: Constant


Meaning = Affine | Concat | Contraction | Move | Opaque | Bordered | Rescaled | Zero


@dataclass(frozen=True, slots=True)
class Call:
    """One operator call with its arguments by schema name and its result."""

    target: str
    arguments: Mapping[str, Any]
    result: Value

    def get(self, name: str, default: Any = None) -> Any:
        """An argument as it stands: a `Value`, a `Constant` or a literal."""
        return self.arguments.get(name, default)

    def value(self, name: str) -> Value:
        """An operand that depends on the network's input."""
        operand = self.get(name)
        if not isinstance(operand, Value):
            raise NotAffine("it does not read a value of the network there", notable=False)
        return operand

    def constant(self, name: str, what: str) -> Constant:
        """An operand that must be known now."""
        operand = self.get(name)
        if isinstance(operand, Value):
            raise NotAffine(f"its {what} depends on the network's input")
        if not isinstance(operand, Constant):
            raise NotAffine(f"its {what} is not a tensor")
        return operand

    def optional(self, name: str, what: str) -> Constant | None:
        """Like `constant`, or none."""
        return None if self.get(name) is None else self.constant(name, what)

    def ints(self, name: str, count: int, default: int) -> tuple[int, ...]:
        """A list of `count` integers; one integer stands for all."""
        numbers = self.get(name, default)
        numbers = [numbers] if isinstance(numbers, int) else list(numbers)
        if not numbers:
            numbers = [default]
        if not all(isinstance(i, int) for i in numbers):
            raise NotAffine(f"its {name} depends on a size that varies")
        if len(numbers) == 1:
            numbers = numbers * count
        if len(numbers) != count:
            raise NotAffine(f"its {name} has {len(numbers)} entries for {count} axes")
        return tuple(numbers)


Reader = Callable[[Call], Meaning]
_READERS: dict[str, Reader] = {}


def reader(*targets: str) -> Callable[[Reader], Reader]:
    """Register a reader for the operators named, e.g. "aten.conv2d.default"."""

    def register(function: Reader) -> Reader:
        for target in targets:
            if target in _READERS:
                raise ValueError(f"two readers for {target}")
            _READERS[target] = function
        return function

    return register


def read(call: Call) -> Meaning:
    """The meaning of a call; raises `NotAffine` with the reason."""
    function = _READERS.get(call.target)
    if function is None:
        raise NotAffine(f"{call.target} is not an affine operator that reparamkit knows", notable=False)
    return function(call)


def known() -> list[str]:
    """The operators that have a reader."""
    return sorted(_READERS)


def scalar(value: Value, load: Callable[[], ScalarMap], *, has_bias: bool = False) -> Affine:
    """y = α·x + β."""
    return Affine((Term(value, Scalar(has_bias=has_bias), load),))


def identity(value: Value) -> Affine:
    """y = x."""
    return Affine((Term(value, Scalar(identity=True), ScalarMap),), work=Work.COPY)


def spatial_axes(value: Value) -> int:
    """Spatial axes of a batched feature map (N, C, *spatial)."""
    dims = value.ndim - 2
    if not 0 <= dims <= 3:
        raise NotAffine(f"a tensor of {value.ndim} axes is not a feature map")
    return dims


def channel_count(value: Value, dims: int) -> int:
    """Channels of a feature map with `dims` spatial axes; they must not vary, nor be the batch."""
    axis = value.ndim - dims - 1
    size = value.sizes[axis]
    if not isinstance(size, int) or (axis == 0 and value.ndim > 1):
        raise NotAffine("the axis before its spatial axes is not one of channels", notable=False)
    return size
