"""What a model holds beside its weights, to be put back after it has run.

A forward may count its calls in an attribute, keep its last output in a list, draw from a generator of its
own. All that can be reached from the model through plain Python is remembered: attributes and slots of
objects, class attributes, containers, arrays, random generators, tensors that are no weights, what closures
hold. Objects of Python's own library, of torch and of NumPy are entered only where they are containers,
arrays or generators: what a lock or a logger holds is nobody's state.

Not put back: globals of a Python module, files, iterators that were advanced, what extension types hold.
"""

from __future__ import annotations

import array
import functools
import random
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

_Container = dict[Any, Any] | list[Any] | set[Any] | deque[Any]
_Keeper = Callable[[Any], Callable[[], None]]
_ENTERED = frozenset(("types", "collections"))
_LIBRARIES = (frozenset(sys.stdlib_module_names) | {"torch", "numpy", "builtins"}) - _ENTERED
_UNSET = object()


class HeldState:
    """What these objects hold now. `give_back` undoes what has happened since."""

    def __init__(self, models: Iterable[nn.Module]) -> None:
        modules = list(models)
        self._undo: list[Callable[[], None]] = []
        self._weights = {id(t) for m in modules for t in (*m.parameters(), *m.buffers())}
        self._kept: dict[type, list[_Keeper]] = {}
        self._slots: dict[type, list[str]] = {}
        self._seen: dict[int, Any] = {}  # and kept alive, so that no other object gets their ids
        pending: list[Any] = [*modules]
        while pending:
            item = pending.pop()
            if id(item) not in self._seen and not isinstance(item, int | float | str | bytes | None):
                self._seen[id(item)] = item
                pending.extend(self._remember(item))

    def give_back(self) -> None:
        """Put everything back."""
        for undo in self._undo:
            undo()

    def _remember(self, item: Any) -> Iterable[Any]:
        """Note down how to put the item back. Returns what is in it, and is to be remembered as well."""
        if issubclass(type(item), Tensor):
            if type(item) in (Tensor, nn.Parameter) and _has_values(item):
                self._undo.append(_of_weight(item) if id(item) in self._weights else _of_tensor(item))
            return ()
        self._undo += [keep(item) for keep in self._keepers(type(item))]
        if isinstance(item, types.FunctionType):
            return self._of_function(item)
        if isinstance(item, types.MethodType):
            return item.__self__, item.__func__
        if isinstance(item, functools.partial):
            return item.func, item.args, item.keywords
        if isinstance(item, type):
            return self._of_class(item) if _is_users(item) else ()
        return [*_members(item), *(self._of_object(item) if _is_users(type(item)) else ())]

    def _keepers(self, kind: type) -> list[_Keeper]:
        if kind not in self._kept:
            self._kept[kind] = [keep for held, keep in _contents() if issubclass(kind, held)]
        return self._kept[kind]

    def _of_object(self, item: Any) -> Iterator[Any]:
        kind = type(item)
        yield kind
        if isinstance(getattr(item, "__dict__", None), dict):
            yield vars(item)
        if kind not in self._slots:
            self._slots[kind] = _slots(kind)
        slots = self._slots[kind]
        if slots:
            before = {name: value for name in slots if (value := _value(item, name)) is not _UNSET}
            self._undo.append(lambda: _set_back(item, slots, before))
            yield from before.values()

    def _of_class(self, kind: type) -> Iterator[Any]:
        before = _class_attributes(kind)

        def undo() -> None:
            now = _class_attributes(kind)
            for name in now.keys() | before.keys():
                if name not in before:
                    delattr(kind, name)
                elif now.get(name, _UNSET) is not before[name]:
                    setattr(kind, name, before[name])

        self._undo.append(undo)
        yield from before.values()
        yield from kind.__bases__

    def _of_function(self, function: types.FunctionType) -> Iterator[Any]:
        if (function.__module__ or "builtins").partition(".")[0] in _LIBRARIES:
            return
        yield from (function.__defaults__, function.__kwdefaults__, vars(function))
        for cell in function.__closure__ or ():
            value = _value(cell, "cell_contents")
            before = {} if value is _UNSET else {"cell_contents": value}
            self._undo.append(functools.partial(_set_back, cell, ("cell_contents",), before))
            yield value


def _contents() -> Iterator[tuple[Any, _Keeper]]:
    """Types that hold something, and how what they hold is put back."""
    yield dict | list | set | deque, _of_container
    yield array.array | bytearray, _of_buffer
    yield torch.Generator, lambda item: functools.partial(item.set_state, item.get_state())
    yield random.Random, lambda item: functools.partial(item.setstate, item.getstate())
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        yield numpy.ndarray, _of_array
        yield numpy.random.Generator, _of_numpy_generator
        yield numpy.random.RandomState, lambda item: functools.partial(item.set_state, item.get_state())


def _of_container(container: _Container) -> Callable[[], None]:
    before = dict(container) if isinstance(container, dict) else list(container)
    then = _members(before)

    def undo() -> None:
        now = _members(container)
        if len(now) == len(then) and all(a is b for a, b in zip(now, then, strict=True)):
            return
        container.clear()
        if isinstance(container, dict):
            for key, value in before.items():  # type: ignore[union-attr]
                container[key] = value
        elif isinstance(container, set):
            container.update(before)
        else:
            container.extend(before)

    return undo


def _of_buffer(item: Any) -> Callable[[], None]:
    before = item[:]

    def undo() -> None:
        if item != before:
            item[:] = before

    return undo


def _of_array(item: Any) -> Callable[[], None]:
    if not item.flags.writeable:
        return lambda: None
    before, shape = item.copy(), item.shape

    def undo() -> None:
        if item.shape != shape:
            item.resize(shape, refcheck=False)
        item[...] = before

    return undo


def _of_numpy_generator(item: Any) -> Callable[[], None]:
    source = item.bit_generator
    return functools.partial(setattr, source, "state", source.state)


def _of_weight(item: Tensor) -> Callable[[], None]:
    """The values of weights are not copied: only an exchange of them is undone."""
    before = item.detach()

    def undo() -> None:
        if item.data_ptr() != before.data_ptr() or item.shape != before.shape:
            item.data = before

    return undo


def _of_tensor(item: Tensor) -> Callable[[], None]:
    before, version, value = item.detach(), item._version, item.detach().clone()

    def undo() -> None:
        if item.data_ptr() != before.data_ptr() or item.shape != before.shape:
            item.data = before
        if before._version != version:
            with torch.no_grad():
                before.copy_(value)

    return undo


def _set_back(item: Any, names: Iterable[str], before: dict[str, Any]) -> None:
    for name in names:
        if _value(item, name) is before.get(name, _UNSET):
            continue
        if name in before:
            object.__setattr__(item, name, before[name])
        else:
            object.__delattr__(item, name)


def _value(item: Any, name: str) -> Any:
    try:
        return getattr(item, name)
    except (AttributeError, ValueError):  # a closure's empty cell raises ValueError
        return _UNSET


def _members(item: Any) -> list[Any]:
    if isinstance(item, dict):
        return [*item, *item.values()]
    if _is_object_array(item):
        return list(item.ravel())
    return [*item] if isinstance(item, list | set | deque | tuple | frozenset) else []


def _class_attributes(kind: type) -> dict[str, Any]:
    """Its plain values: neither methods nor descriptors, nor what Python itself keeps there."""
    return {
        name: value
        for name, value in vars(kind).items()
        if not name.startswith("__")
        and not callable(value)
        and not hasattr(type(value), "__get__")
        and not name.startswith("_abc_")
    }


def _slots(kind: type) -> list[str]:
    """The names of what an instance keeps outside its `__dict__`."""
    return [
        name
        for each in kind.__mro__
        for name, value in vars(each).items()
        if isinstance(value, types.MemberDescriptorType) and _is_users(each)
    ]


def _is_users(kind: type) -> bool:
    """Whether objects of this class are entered: not those of libraries that are no containers."""
    if issubclass(kind, nn.Module):
        return kind is not nn.Module
    library = kind.__module__.partition(".")[0] in _LIBRARIES
    return not library and not issubclass(kind, Enum | types.ModuleType)


def _is_object_array(item: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(item, numpy.ndarray) and item.dtype == object


def _has_values(tensor: Tensor) -> bool:
    return not (tensor.is_inference() or tensor.is_meta) and tensor.layout is torch.strided
