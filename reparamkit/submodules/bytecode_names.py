"""What the code around a part could read off it, on paths that the example does not take.

A run shows one path through the network's code; its bytecode names the rest. This reads every function that
the `forward` of a surrounding module may reach: methods of that module's class, functions held by it, and
functions of the same files, by name. It is generous: a name that is mentioned anywhere counts.
"""

from __future__ import annotations

import dis
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import Any

from torch import nn

WALKS = frozenset({"children", "named_children", "modules", "named_modules", "_modules"})
_INDIRECT = WALKS | {"getattr", "vars", "__dict__", "attrgetter", "methodcaller", "get_submodule"}


@dataclass(frozen=True)
class Mentions:
    """Names of attributes in code.

    Attributes:
        loaded: every attribute that is read.
        uncalled: those that are read other than to be called at once, as in `for layer in self.layers`.
        stored: those that are set on something else than `self`.
        indirect: whether attributes or modules may be found otherwise than by a name in the code.
    """

    loaded: frozenset[str]
    uncalled: frozenset[str]
    stored: frozenset[str]
    indirect: bool


def mentions(modules: Iterable[nn.Module]) -> Mentions:
    """All names in what the forwards of these modules may run."""
    loaded: set[str] = set()
    uncalled: set[str] = set()
    stored: set[str] = set()
    codes = {code for module in modules for code in _reachable(module)}
    for code in codes:
        previous = None
        for step in dis.get_instructions(code):
            name = str(step.argval)
            if step.opname == "LOAD_METHOD" or (step.opname == "LOAD_ATTR" and _is_method(step)):
                loaded.add(name)
            elif step.opname.startswith("LOAD_") and step.opname.endswith("ATTR"):
                loaded.add(name)
                uncalled.add(name)
            elif step.opname == "STORE_ATTR" and (previous is None or previous.argval != "self"):
                stored.add(name)
            previous = step
    indirect = any(_INDIRECT & set(code.co_names) for code in codes)
    return Mentions(frozenset(loaded), frozenset(uncalled), frozenset(stored), indirect)


def _is_method(step: dis.Instruction) -> bool:
    """Whether LOAD_ATTR loads a method to call it, as it does since Python 3.12."""
    return "NULL|self" in step.argrepr


def own_names(module: nn.Module) -> set[str]:
    """What belongs to a module's way of computing: its children, methods and properties."""
    methods = {
        name
        for kind in _kinds(module)
        for name, value in vars(kind).items()
        if not name.startswith("__") and (callable(value) or hasattr(value, "__get__"))
    }
    return (methods - {"forward"}) | set(module._modules)


def _kinds(module: nn.Module) -> list[type]:
    return [kind for kind in type(module).__mro__ if kind not in (nn.Module, object)]


def _reachable(module: nn.Module) -> set[CodeType]:
    """The code of everything that the module's forward may call, by name."""
    methods: dict[str, list[Any]] = {}
    for kind in _kinds(module):
        for name, value in vars(kind).items():
            methods.setdefault(name, []).append(value)
    for name, value in vars(module).items():
        methods.setdefault(name, []).append(value)
    reachable: set[CodeType] = set()
    pending = [f for value in methods.get("forward", []) for f in _functions(value)]
    while pending:
        function = pending.pop()
        if function.__code__ in reachable:
            continue
        for code in _nested(function.__code__):
            reachable.add(code)
            known = [function.__globals__.get(name) for name in code.co_names]
            files = [vars(value) for value in known if isinstance(value, ModuleType)]
            for name in code.co_names:
                used = [*methods.get(name, []), *(names.get(name) for names in files)]
                pending += [f for value in [*used, *known] for f in _functions(value) if _is_the_users(f)]
    return reachable


def _functions(value: Any) -> Iterator[FunctionType]:
    if isinstance(value, property):
        value = value.fget
    value = getattr(value, "__func__", value)
    while hasattr(value, "__wrapped__"):
        value = value.__wrapped__
    if isinstance(value, FunctionType):
        yield value


def _is_the_users(function: FunctionType) -> bool:
    return not str(function.__module__).startswith("torch.") or "forward" in function.__name__


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)
