"""What a network computes on one input, as an expression: which operators run, on what, with which arguments.

Two runs are the same computation if their outputs are the same expression, whatever the numbers in them are.
Every tensor that descends from an input is numbered by what made it,

    number(result i of op(arguments)) = intern(op, number of each tensor argument, every other argument, i)

and a write into a tensor is part of whatever is read from its memory afterwards. Equal numbers mean equal
expressions: the order of operators that do not depend on each other and results that nobody uses do not
matter, a branch that multiplies by 1.0001 does. Tensors that do not descend from an input count by their
values, so that it does not matter whether a table was computed again or remembered from the last call.

Left out, because they compute nothing: aliases, copies, casts that change nothing, slices of the whole,
assertions. What is written into a copy is not written into what it was made of.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten

_ALIASES = frozenset((aten.alias, aten.detach, aten.detach_, aten.lift_fresh, aten.lift))
_COPIES = frozenset((aten.lift_fresh_copy, aten._to_copy, aten.clone))
_SILENT_OPERATORS = frozenset(
    (
        aten._assert_async,
        aten._assert_scalar,
        aten._assert_tensor_metadata,
        aten.sym_constrain_range,
        aten.sym_constrain_range_for_size,
    )
)
_SILENT, _WRITES, _ALIAS, _COPY, _SLICE = "silent", "writes", "alias", "copy", "slice"
_DIGITS = 12
"""Of a floating-point argument: sizes may be divided in another order."""


class Expressions:
    """Numbers for expressions, shared by the runs that are to be compared.

    Args:
        model: its parameters and buffers are known by their names.
    """

    def __init__(self, model: nn.Module) -> None:
        self._numbers: dict[Any, int] = {}
        self._names: dict[int, str] = {}
        self._lying_in: dict[int | None, list[Tensor]] = {}
        for tensor in (*model.parameters(), *model.buffers()):
            self._lying_in.setdefault(_memory(tensor), []).append(tensor)
        self.state: dict[int, int] = {}
        """Number of every parameter and buffer, by its identity."""
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            memory = _memory(tensor)
            if memory is not None:
                self._names.setdefault(memory, name)
                self.state[id(tensor)] = self.intern(_state(self._names[memory], tensor))

    def intern(self, key: Any) -> int:
        """The number of an expression; equal ones have the same."""
        return self._numbers.setdefault(key, len(self._numbers))

    def state_in(self, memory: int) -> list[Tensor]:
        """The parameters and buffers that lie in this memory."""
        return self._lying_in.get(memory, [])

    def state_name(self, memory: int) -> str | None:
        """The parameter or buffer that lies in this memory."""
        return self._names.get(memory)


class Executed(TorchDispatchMode):
    """Records, within it, what is computed from the inputs.

    Args:
        expressions: shared by the runs that are to be compared.
        inputs: the tensors that the run is given, in call order; no others may read them meanwhile.
    """

    def __init__(self, expressions: Expressions, inputs: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[int, Any]] = []
        """Number and operator of every call, in the order of the run."""
        self._expressions = expressions
        self._run = object()
        self._written: dict[int, int] = {}
        self._kept: list[Any] = []
        self._before: list[tuple[Tensor, Tensor]] = []
        self._inputs = list(inputs)
        for place, tensor in enumerate(self._inputs):
            self._set_number(tensor, expressions.intern(("input", place, tuple(tensor.shape), tensor.dtype)))

    def results(self, outputs: Any) -> tuple[Any, ...]:
        """What the run returned and what it wrote into its inputs and its state, as expressions."""
        values, structure = pytree.tree_flatten(outputs)
        leaves = [self._key(leaf) for leaf in values]
        writes = {
            name: number
            for memory, number in self._written.items()
            if (name := self._expressions.state_name(memory)) is not None
        }
        given = [self._written.get(_memory(tensor) or 0) for tensor in self._inputs]
        # torch.export gives a `torch.Size` back as a tuple.
        shape = repr(structure).replace("TreeSpec(Size,", "TreeSpec(tuple,")
        return (shape, *leaves, tuple(sorted(writes.items())), *given)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        kind = _kind(func)
        if kind is _WRITES and _only_reads(func, args, kwargs):
            kind = None
        tensors = [*_tensors(args), *_tensors(kwargs.values())] if kwargs else _tensors(args)
        if kind is _SILENT or not (
            kind is _WRITES or any(self._number(tensor) is not None for tensor in tensors)
        ):
            return func(*args, **kwargs)
        named = tuple([(name, self._key(value)) for name, value in sorted(kwargs.items())]) if kwargs else ()
        key: tuple[Any, ...] = (func, tuple([self._key(value) for value in args]), named)
        before = tensors[0] if tensors else None
        operand = None if before is None or kind is None else self._read(before)
        if kind is _WRITES:
            self._keep_state(_written(func, args, kwargs))
        result = func(*args, **kwargs)
        if operand is not None and before is not None and isinstance(result, Tensor):
            if kind is _ALIAS or (kind is _SLICE and _is_whole(result, before)):
                known = self._number(before)
                self._set_number(result, operand if known is None else known)
                return result
            if kind is _COPY and _is_unchanged(result, before):
                self._set_number(result, operand)
                return result
        if kind is _SLICE and before is not None:
            key = (func, operand, _cut(result, before, args, kwargs))
        number = self._expressions.intern(key)
        self.calls.append((number, func))
        if kind is _WRITES:
            self._write(_written(func, args, kwargs), number)
        if isinstance(result, Tensor):
            if kind is not _WRITES or not any(result is tensor for tensor in tensors):
                self._set_number(result, number)
            return result
        for place, leaf in enumerate(pytree.tree_leaves(result)):
            if isinstance(leaf, Tensor) and not any(leaf is tensor for tensor in tensors):
                self._set_number(leaf, self._expressions.intern(("result", number, place)))
        return result

    def put_back(self) -> None:
        """Give parameters and buffers that the run wrote into their values back."""
        with torch.no_grad():
            for tensor, value in reversed(self._before):
                tensor.copy_(value)
        self._before.clear()

    def _keep_state(self, written: Iterable[Tensor]) -> None:
        for tensor in written:
            memory = _memory(tensor)
            if memory is None or memory in self._written:
                continue
            for held in self._expressions.state_in(memory):
                self._before.append((held.detach(), held.detach().clone()))

    def _number(self, tensor: Tensor) -> int | None:
        """The number that was given to a tensor in this run."""
        mark = tensor.__dict__.get(_MARK)
        return mark[1] if mark is not None and mark[0] is self._run else None

    def _set_number(self, tensor: Tensor, number: int) -> None:
        tensor.__dict__[_MARK] = (self._run, number)

    def _write(self, written: Iterable[Tensor], key: int) -> None:
        for tensor in written:
            memory = _memory(tensor) or id(tensor)
            self._kept.append(tensor)  # so that no other tensor comes to lie there
            earlier = self._written.get(memory)
            self._written[memory] = self._expressions.intern(("write", earlier, key))

    def _key(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return ("tensor", self._read(value))
        if value is None or isinstance(value, (bool, int, str)):
            return type(value), value
        if isinstance(value, (list, tuple)):
            return tuple([self._key(item) for item in value])
        if isinstance(value, float):
            return float(f"{value:.{_DIGITS}g}")
        if isinstance(value, dict):
            return tuple([(str(name), self._key(item)) for name, item in value.items()])
        return str(value)

    def _read(self, tensor: Tensor) -> int:
        """The number of what a tensor holds now."""
        number = self._number(tensor)
        if number is None:
            number = self._expressions.state.get(id(tensor))
        if number is None:
            number = self._expressions.intern(self._constant(tensor))
        if not self._written:
            return number
        memory = _memory(tensor)
        written = None if memory is None else self._written.get(memory)
        if written is None:
            return number
        where = (tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
        return self._expressions.intern(("written", number, written, where))

    def _constant(self, tensor: Tensor) -> Any:
        memory = _memory(tensor)
        name = None if memory is None else self._expressions.state_name(memory)
        if name is not None:
            return _state(name, tensor)
        return ("constant", _fingerprint(tensor), tuple(tensor.shape), tensor.dtype)


_MARK = "_reparamkit_number"


def _state(name: str, tensor: Tensor) -> Any:
    return ("state", name, tensor.storage_offset(), tensor.stride(), tuple(tensor.shape), tensor.dtype)


@cache
def _kind(func: Any) -> str | None:
    """How an operator is treated; None for one that computes something of its own."""
    packet = getattr(func, "overloadpacket", func)
    if packet in _SILENT_OPERATORS:
        return _SILENT
    if getattr(getattr(func, "_schema", None), "is_mutable", False):
        return _WRITES
    if packet in _ALIASES:
        return _ALIAS
    if packet in _COPIES:
        return _COPY
    return _SLICE if packet is aten.slice else None


def _only_reads(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether it is a batch norm in evaluation: it may write its running statistics, and does not."""
    if func is not aten.native_batch_norm.default:
        return False
    return not kwargs.get("training", args[5] if len(args) > 5 else True)


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The operands that an operator writes into."""
    schema = func._schema.arguments
    given = dict(zip((argument.name for argument in schema), args, strict=False)) | kwargs
    return [
        tensor
        for argument in schema
        if argument.alias_info is not None and argument.alias_info.is_write
        for tensor in pytree.tree_leaves(given.get(argument.name))
        if isinstance(tensor, Tensor)
    ]


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    tensors: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, (list, tuple)):
            tensors += _tensors(value)
    return tensors


def first_difference(original: Sequence[tuple[int, Any]], captured: Sequence[tuple[int, Any]]) -> str:
    """The first operator that one of two runs calls and the other does not, in words; "" if there is none."""
    common = {number for number, _ in original} & {number for number, _ in captured}
    own = next((_name(call) for number, call in original if number not in common), None)
    other = next((_name(call) for number, call in captured if number not in common), None)
    if own is None and other is None:
        return ""
    if own == other:
        return f"{own} with other arguments"
    return f"{own or 'nothing'} where {other or 'nothing'} was captured"


def _name(func: Any) -> str:
    return str(getattr(func, "overloadpacket", func)).removeprefix("aten.")


def _memory(tensor: Tensor) -> int | None:
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse ones have none
        return None


def _is_whole(part: Tensor, whole: Tensor) -> bool:
    return part.shape == whole.shape and part.stride() == whole.stride()


def _cut(part: Tensor, whole: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, ...]:
    """What a slice takes, however it is written: axis, first position, positions, step.

    A start or an end beyond the axis, or counted from its end, means one that lies on it.
    """
    dim, start, _, step = (*args[1:], *(None,) * 4)[:4]
    axis = int(kwargs.get("dim", dim) or 0) % whole.ndim
    first = int(kwargs.get("start", start) or 0)
    if first < 0:
        first = max(first + whole.shape[axis], 0)
    return axis, first, part.shape[axis], int(kwargs.get("step", step) or 1)


def _is_unchanged(copy: Tensor, original: Tensor) -> bool:
    return copy.dtype == original.dtype and copy.device == original.device


def _fingerprint(tensor: Tensor) -> Any:
    if tensor.layout is not torch.strided or tensor.is_quantized:
        return str(tensor)
    if tensor.numel() == 0:
        return 0
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.is_complex() or flat.is_conj():
        flat = torch.view_as_real(flat.resolve_conj()).reshape(-1)
    data = flat.view(torch.uint8).numpy().tobytes()
    return zlib.crc32(data), zlib.adler32(data)
