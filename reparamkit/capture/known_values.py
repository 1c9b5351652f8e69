"""Decisions that a network takes by the values of its own weights, which are known.

`if self.alpha:` on a parameter stops torch.export, because it traces with tensors that have no values. While
this mode lasts, every function that is applied to weights and constants alone is computed on their values as
well, beside the trace; where the network then asks for a number (`bool(t)`, `t.item()`), it gets it.
What depends on the network's inputs, on a size that may vary, on chance, or on a tensor that was written into
has no known value.

    .data of a weight       the weight behind a detach, so that what is done to it is traced
    weight.data = value     nothing: the network is one that has run already, and holds that value
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.weak import WeakTensorKeyDictionary

_ASKED = frozenset(
    getattr(Tensor, name)
    for name in ("__bool__", "__int__", "__float__", "__index__", "__complex__", "item", "tolist")
)
_AUGMENTED = frozenset(
    f"__{name}__"
    for name in (
        *("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor"),
        *("ilshift", "irshift", "setitem", "set"),
    )
)
_GET_DATA: Any = Tensor.data.__get__  # type: ignore[attr-defined]
_SET_DATA: Any = Tensor.data.__set__  # type: ignore[attr-defined]
_RANDOM = frozenset(
    "rand normal bernoulli dropout multinomial poisson uniform exponential empty".split()  # noqa: SIM905
)
_LARGEST = 1 << 22  # numbers in a value that is computed beside the trace
_VARYING = (torch.SymInt, torch.SymFloat, torch.SymBool)


SETS_DATA = "sets the data of its weights"
"""A key in the `meta` of a captured graph module."""


@dataclass(frozen=True)
class _Known:
    """The value of a traced tensor, and the weights that it was computed from."""

    value: Tensor
    names: frozenset[str]


class KnownValues(TorchFunctionMode):
    """Within it, decisions by the values of `model`'s weights are taken; `decided` are the weights' names."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.decided: set[str] = set()
        self.sets_data = False
        self._model = model
        self._state = {name: _Known(tensor.detach(), frozenset((name,))) for name, tensor in _named(model)}
        self._values = WeakTensorKeyDictionary()  # None: made during the trace, of what is not known
        self._written: set[int] = set()
        self._names = WeakTensorKeyDictionary()

    def __enter__(self) -> Self:
        self._hook = self._model.register_forward_pre_hook(self._begin)
        return super().__enter__()  # type: ignore[no-any-return, no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._hook.remove()

    def _begin(self, module: nn.Module, args: Any) -> None:
        """The model is about to be traced, its weights exchanged for others under the same names."""
        self._values.clear()
        self._written.clear()
        self._names = WeakTensorKeyDictionary({tensor: name for name, tensor in _named(module)})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == _GET_DATA:
            return args[0].detach()
        if func == _SET_DATA and self._known(args[0]) is not None:
            self.sets_data = True
            return None
        if func in _ASKED and isinstance(args[0], Tensor):
            known = self._known(args[0])
            if known is not None:
                self.decided |= known.names
                with _alone():
                    return func(known.value, *args[1:], **kwargs)
        result = func(*args, **kwargs)
        if _writes(func, kwargs):
            for tensor in pytree.tree_leaves([*args[:1], kwargs.get("out")]):
                if isinstance(tensor, Tensor):
                    self._written.add(tensor.untyped_storage()._cdata)
        else:
            tensors = [t for t in pytree.tree_leaves(result) if isinstance(t, Tensor)]
            if tensors and not all(tensor in self._values for tensor in tensors):
                self._values.update(zip(tensors, self._computed(func, args, kwargs, tensors), strict=True))
        return result

    def _computed(self, func: Any, args: Any, kwargs: Any, tensors: list[Tensor]) -> list[_Known | None]:
        """What is known of the tensors that a function has made."""
        unknown: list[_Known | None] = [None] * len(tensors)
        leaves, spec = pytree.tree_flatten((args, kwargs))
        known = [self._known(leaf) for leaf in leaves if isinstance(leaf, Tensor)]
        name = getattr(func, "__name__", "")
        settled = not any(map(_varies, leaves)) and not any(word in name for word in _RANDOM)
        if not settled or None in known or not all(map(_is_small, tensors)):
            return unknown
        operands = iter(known)
        given = [next(operands).value if isinstance(leaf, Tensor) else leaf for leaf in leaves]  # type: ignore[union-attr]
        try:
            with _alone():
                positional, named = pytree.tree_unflatten(given, spec)
                value = func(*positional, **named)
        except Exception:  # what cannot be computed is not known, and stops the capture as before
            return unknown
        names = frozenset[str]().union(*(k.names for k in known if k is not None))
        values = [t for t in pytree.tree_leaves(value) if isinstance(t, Tensor)]
        return [_Known(t, names) for t in values] if len(values) == len(tensors) else unknown

    def _known(self, tensor: Tensor) -> _Known | None:
        if tensor.untyped_storage()._cdata in self._written:
            return None
        if tensor in self._values:
            known: _Known | None = self._values[tensor]
            return known
        return self._state.get(self._names[tensor]) if tensor in self._names else None


def may_be_known(error: BaseException) -> bool:
    """Whether the capture stopped where a network asks for a value, or reads `.data`."""
    text = f"{type(error).__name__} {error}".lower()
    return any(sign in text for sign in ("data-dependent", "datadependent", "fake tensor in the exported"))


def sets_data(exported: ExportedProgram) -> bool:
    """Whether the network gives tensors other data (`weight.data = ...`): the one trace of it."""
    return SETS_DATA in exported.graph_module.meta or any(
        "_has_compatible_shallow_copy_type" in str(node.target) for node in exported.graph.nodes
    )


def changed_weights(exported: ExportedProgram) -> set[str]:
    """The parameters and buffers that the network writes into when it runs."""
    names = {spec.arg.name: str(spec.target) for spec in exported.graph_signature.input_specs if spec.target}
    changed: set[str] = set()
    for node in exported.graph.nodes:
        if not isinstance(node.target, OpOverload) or not node.target._schema.is_mutable:
            continue
        written: Any = node.args[0] if node.args else None
        while isinstance(written, fx.Node) and written.op == "call_function" and written.args:
            written = written.args[0]
        if isinstance(written, fx.Node) and written.name in names:
            changed.add(names[written.name])
    return changed


def _named(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _writes(func: Any, kwargs: Any) -> bool:
    name = getattr(func, "__name__", "") or ""
    in_place = name.endswith("_") and not name.endswith("__")
    augmented = name in _AUGMENTED
    return in_place or augmented or kwargs.get("out") is not None


def _varies(leaf: Any) -> bool:
    """Whether it is a size that may vary, or holds one."""
    if isinstance(leaf, slice):
        return any(isinstance(x, _VARYING) for x in (leaf.start, leaf.stop, leaf.step))
    return isinstance(leaf, _VARYING)


def _is_small(tensor: Tensor) -> bool:
    return all(isinstance(size, int) for size in tensor.shape) and tensor.numel() <= _LARGEST


@contextmanager
def _alone() -> Iterator[None]:
    """Plain computation, seen by no trace."""
    with torch._C.DisableTorchFunction(), _disable_current_modes(), torch.no_grad():
        yield
