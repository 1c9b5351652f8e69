"""Run a network once, and see which submodules it calls, with what, and what it reads off them.

Only a private copy is watched. For the length of one run its modules get a class of the same name that
takes notes and computes the same.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from reparamkit.support.inputs import Args, Kwargs
from reparamkit.support.isolation import call_untouched, random_state_kept
from reparamkit.support.quiet import quiet

_OWN = frozenset(vars(nn.Module()))
_TORCH_MODULE = nn.modules.module.__file__


@dataclass
class Use:
    """How one module was used.

    Attributes:
        called: whether it was called as a module.
        reads: attributes read off it while it was not running itself, by others than nn.Module's own code.
        writes: its attributes that were set, or that held something else after the run, and those of its
            parameters and buffers that were written into, by whomever.
    """

    called: bool = False
    reads: set[str] = field(default_factory=set)
    writes: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Call:
    """The arguments of one call, in the order of the module's own signature.

    `given` says whether the caller passed something that is neither a tensor nor None.
    """

    args: Args
    kwargs: Kwargs
    given: bool

    def alike(self, other: Call) -> bool:
        """Whether both have the same structure, and the same arguments that are not tensors."""
        (mine, spec), (others, other_spec) = (
            pytree.tree_flatten((call.args, call.kwargs)) for call in (self, other)
        )
        if spec != other_spec:
            return False
        try:
            return all(map(_alike, mine, others))
        except Exception:  # whatever == of a stranger raises
            return False

    @property
    def shapes(self) -> tuple[torch.Size, ...]:
        """Of its tensors, in order."""
        leaves = pytree.tree_leaves((self.args, self.kwargs))
        return tuple(x.shape for x in leaves if isinstance(x, Tensor))


def watch(root: nn.Module, args: Args, kwargs: Kwargs) -> dict[nn.Module, Use]:
    """Run `root` on the example; what happened to each of its modules."""
    modules = list(root.modules())
    uses = {id(module): Use() for module in modules}
    running: list[int] = []
    before = [_attributes(module) for module in modules]
    versions = {id(tensor): tensor._version for tensor in _tensors(root)}
    kinds: dict[type[nn.Module], type[nn.Module]] = {}
    classes = [type(module) for module in modules]
    try:
        for module, kind in zip(modules, classes, strict=True):
            if isinstance(module, torch.jit.ScriptModule):
                continue
            if kind not in kinds:
                kinds[kind] = _watched(kind, uses, running)
            object.__setattr__(module, "__class__", kinds[kind])
        _run(root, args, kwargs)
    finally:
        for module, kind in zip(modules, classes, strict=True):
            if type(module) is not kind:
                object.__setattr__(module, "__class__", kind)
    for module, held in zip(modules, before, strict=True):
        uses[id(module)].writes |= _changed(held, _attributes(module))
    written = {t.untyped_storage().data_ptr() for t in _tensors(root) if versions.get(id(t)) != t._version}
    for module in modules:
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None and tensor.untyped_storage().data_ptr() in written:
                uses[id(module)].writes.add(name)
    return {module: uses[id(module)] for module in modules}


def record(
    root: nn.Module, args: Args, kwargs: Kwargs, wanted: Iterable[nn.Module]
) -> dict[nn.Module, list[Call]]:
    """The calls that `root` makes to the modules wanted when it runs on the example, in order.

    Of calls that differ in nothing but the values of their tensors the first is kept.
    """
    calls: dict[nn.Module, list[Call]] = {module: [] for module in wanted}

    def keep(module: nn.Module, given: Args, named: Kwargs) -> None:
        call = normal_call(module, _copied(given), _copied(named))
        same = (c for c in calls[module] if c.alike(call) and c.shapes == call.shapes)
        if next(same, None) is None:
            calls[module].append(call)

    handles = [module.register_forward_pre_hook(keep, with_kwargs=True) for module in calls]
    try:
        _run(root, args, kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def normal_call(module: nn.Module, args: Args, kwargs: Kwargs) -> Call:
    """The same call, however the caller spelled it: defaults filled in, keywords in the signature's order."""
    given = any(not isinstance(x, Tensor) and x is not None for x in pytree.tree_leaves((args, kwargs)))
    try:
        bound = inspect.signature(type(module).forward).bind(module, *args, **kwargs)
    except (TypeError, ValueError):
        return Call(args, kwargs, given)
    bound.apply_defaults()
    return Call(bound.args[1:], dict(bound.kwargs), given)


def has_hooks(module: nn.Module) -> bool:
    """Whether something is called whenever the module is."""
    return any(
        getattr(module, name, None)
        for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    )


def plain_attributes(module: nn.Module) -> set[str]:
    """What can be read off a module whatever its forward is: its own values, parameters and buffers."""
    held = {name for name in vars(module) if name not in _OWN or name == "training"}
    constant = {
        name
        for kind in type(module).__mro__
        for name, value in vars(kind).items()
        if isinstance(value, int | float | str | bool | tuple | type(None))
    }
    return held | constant | set(module._parameters) | set(module._buffers)


def _run(root: nn.Module, args: Args, kwargs: Kwargs) -> None:
    with quiet(), random_state_kept():
        call_untouched(root, args, kwargs)


def _watched(kind: type[nn.Module], uses: dict[int, Use], running: list[int]) -> type[nn.Module]:
    def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        running.append(id(self))
        if id(self) in uses:
            uses[id(self)].called = True
        try:
            return kind.__call__(self, *args, **kwargs)
        finally:
            running.pop()

    def getattribute(self: nn.Module, name: str) -> Any:
        outside = id(self) in uses and id(self) not in running and not name.startswith("__")
        if outside and sys._getframe(1).f_code.co_filename != _TORCH_MODULE:
            uses[id(self)].reads.add(name)
        return kind.__getattribute__(self, name)

    def setattribute(self: nn.Module, name: str, value: Any) -> None:
        if id(self) in uses and not name.startswith("__"):
            uses[id(self)].writes.add(name)
        kind.__setattr__(self, name, value)

    names: dict[str, Callable[..., Any] | str] = {
        "__call__": call,
        "__getattribute__": getattribute,
        "__setattr__": setattribute,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
    }
    metaclass: Any = type(kind)
    subclass: type[nn.Module] = metaclass(kind.__name__, (kind,), names)
    return subclass


def _tensors(root: nn.Module) -> list[Tensor]:
    held = [*root.parameters(), *root.buffers()]
    return [t for t in held if t.layout is torch.strided and not t.is_inference()]


def _attributes(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    """Every value that a module holds besides its tensors and modules, and what is in a container."""
    return {
        name: (value, [*value.items()] if isinstance(value, dict) else _members(value))
        for name, value in vars(module).items()
        if name not in _OWN
    }


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.ndim == other.ndim and one.dtype == other.dtype
    return type(one) is type(other) and bool(one == other)


def _members(value: Any) -> list[Any] | None:
    return list(value) if isinstance(value, list | set) else None


def _changed(before: dict[str, tuple[Any, Any]], after: dict[str, tuple[Any, Any]]) -> set[str]:
    changed = set(before) ^ set(after)
    for name in set(before) & set(after):
        (old, held), (new, holds) = before[name], after[name]
        if old is not new or not _identical(held, holds):
            changed.add(name)
    return changed


def _identical(left: Any, right: Any) -> bool:
    if left is None or right is None:
        return left is right
    flat = [[y for x in side for y in (x if isinstance(x, tuple) else (x,))] for side in (left, right)]
    return len(flat[0]) == len(flat[1]) and all(a is b for a, b in zip(*flat, strict=True))


def _copied(tree: Any) -> Any:
    return pytree.tree_map(lambda x: x.detach().clone() if isinstance(x, Tensor) else x, tree)
