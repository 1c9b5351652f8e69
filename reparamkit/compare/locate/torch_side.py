"""Look into a PyTorch module while it runs: operator by operator, with the module that each belongs to.

Where an operator belongs shows from the modules that are being called, and inside a graph of torch.fx from
the `nn_module_stack` of its nodes, which are wrapped in a private copy to announce themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import fx, nn
from torch._ops import OpOverload
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten
from torch.utils.weak import WeakTensorKeyDictionary

from reparamkit.compare.float64.oracle import Twin
from reparamkit.compare.float64.promote import PlainCalls, PromoteToFloat64
from reparamkit.compare.locate.sketch import Sketch, Sketcher
from reparamkit.compare.locate.trace import Clock, Inputs, TookTooLong, Trace, Value
from reparamkit.support.inputs import map_tensors, tensor_leaves
from reparamkit.support.isolation import call_untouched

_HEAVY = ("convolution", "mm", "addmm", "bmm", "baddbmm", "matmul", "linear", "conv")


class TorchTracer:
    """Traces a private copy of a module on one set of inputs.

    Args:
        module: never changed.
        inputs: makes them, anew for each run.
        dtype: float64 for the exact run, None for the module's own precision. The exact run converts weights
            as it meets them, where the module lets it, and else a copy.
        prepare: is applied to the copy first, which then has weights of its own.

    Raises:
        Exception: whatever copying or converting the module raises.
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: Callable[[], Inputs],
        sketcher: Sketcher,
        clock: Clock,
        *,
        dtype: torch.dtype | None = None,
        prepare: Callable[[nn.Module], None] | None = None,
    ) -> None:
        self._promote = dtype is torch.float64
        self._original = module
        self._twin = Twin(module, None if self._promote else dtype, share=prepare is None)
        if prepare is not None:
            prepare(self._twin.module)
        self._inputs = inputs
        self._sketcher = sketcher
        self._clock = clock
        self._scopes: list[tuple[str, str]] = [("", "")]
        self._learn_names()

    def _learn_names(self) -> None:
        self._names: dict[nn.Module, str] = {}
        for name, part in self._twin.module.named_modules():
            self._names.setdefault(part, name)
            if isinstance(part, fx.GraphModule):
                _announce(part, name, self._scopes)

    def expect(self, largest: int) -> None:
        """Nothing is held but one value at a time."""

    def trace(self) -> Trace:
        return self._run(self._sketcher).trace

    def tensors(self, indices: Collection[int]) -> dict[int, torch.Tensor]:
        return self._run(None, kept=frozenset(indices)).tensors

    def replaced(
        self, index: int, tensor: torch.Tensor, wanted: Collection[int]
    ) -> Mapping[int, Sketch | None]:
        chosen = frozenset(wanted)
        values = self._run(self._sketcher, sketched=chosen, place=index, tensor=tensor).trace.values
        return {place: values[place].sketch for place in chosen if place < len(values)}

    def _run(self, sketcher: Sketcher | None, **options: Any) -> _Watch:
        given = self._scopes, sketcher, self._clock
        if self._promote:
            try:
                return self._watched(_Watch(*given, **options), PromoteToFloat64())  # type: ignore[no-untyped-call]
            except TookTooLong:
                raise
            except Exception:
                # As in `Twin`: not every operator runs under a dispatch mode.
                self._promote = False
                self._twin = Twin(self._original, torch.float64)
                self._learn_names()
        return self._watched(_Watch(*given, **options), nullcontext())

    def _watched(self, watch: _Watch, promoting: Any) -> _Watch:
        args, kwargs = self._inputs()
        if self._promote:
            args, kwargs = map_tensors(lambda _, x: x.double() if x.is_floating_point() else x, args, kwargs)
        else:
            args, kwargs = self._twin.converted(args, kwargs)
        del self._scopes[1:]

        def call(*given: Any, **named: Any) -> Any:
            for _, leaf in tensor_leaves(given, named):
                watch.add_input(leaf)
            return self._twin.module(*given, **named)

        with torch.no_grad(), self._followed(), PlainCalls(self._promote), promoting, watch:
            result = call_untouched(_Called(call, self._twin.module), args, kwargs)
        watch.finish(result)
        return watch

    @contextmanager
    def _followed(self) -> Iterator[None]:
        """Say which module is being called."""

        def enter(module: nn.Module, args: Any) -> None:
            name = self._names.get(module)
            self._scopes.append((name, "") if name is not None else self._scopes[-1])

        def leave(module: nn.Module, args: Any, result: Any) -> None:
            self._scopes.pop()

        handles = [
            register_module_forward_pre_hook(enter),
            register_module_forward_hook(leave, always_call=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class _Called(nn.Module):
    """A module around a call, with the buffers of another."""

    def __init__(self, call: Callable[..., Any], module: nn.Module) -> None:
        super().__init__()
        self._call = call
        self.__dict__["_of"] = module

    def buffers(self, recurse: bool = True) -> Iterator[torch.Tensor]:
        module: nn.Module = self.__dict__["_of"]
        return module.buffers(recurse)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)


class _Watch(TorchDispatchMode):
    """Records what every operator makes of values that depend on the input."""

    def __init__(
        self,
        scopes: list[tuple[str, str]],
        sketcher: Sketcher | None,
        clock: Clock,
        *,
        kept: frozenset[int] = frozenset(),
        sketched: frozenset[int] | None = None,
        place: int | None = None,
        tensor: torch.Tensor | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace = Trace()
        self.tensors: dict[int, torch.Tensor] = {}
        self._scopes, self._sketcher, self._clock, self._kept = scopes, sketcher, clock, kept
        self._sketched, self._place, self._tensor = sketched, place, tensor
        self._known: Any = WeakTensorKeyDictionary()
        self._written: dict[int, tuple[Any, int]] = {}

    def add_input(self, tensor: torch.Tensor) -> None:
        if tensor not in self._known:
            self._add(tensor, (), "input", False)

    def finish(self, result: Any) -> None:
        leaves = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.trace.outputs = [self._known[leaf] for leaf in leaves if leaf in self._known]
        self._known.clear()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self._clock.check()
        given = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, torch.Tensor)]
        parents = tuple(dict.fromkeys(index for leaf in given for index in self._sources(leaf)))
        result = func(*args, **(kwargs or {}))
        if not parents:
            return result
        name = str(getattr(func, "overloadpacket", func)).rsplit(".", 1)[-1]
        plain = [leaf for leaf in given if leaf not in self._known and leaf.ndim > 1]
        heavy = name.strip("_").startswith(_HEAVY) and bool(plain)
        leaves, spec = tree_flatten(result)
        mutable = func._schema.is_mutable
        for position, leaf in enumerate(leaves):
            if isinstance(leaf, torch.Tensor):
                leaves[position] = self._result(leaf, parents, name, heavy, mutable)
        return tree_unflatten(leaves, spec)

    def _result(
        self, leaf: torch.Tensor, parents: tuple[int, ...], name: str, heavy: bool, mutable: bool
    ) -> torch.Tensor:
        index = len(self.trace.values)
        if index == self._place and self._tensor is not None:
            other = self._tensor.reshape(leaf.shape).to(leaf.dtype)
            leaf = leaf.copy_(other) if mutable else other.clone()
        self._add(leaf, parents, name, heavy)
        if mutable:
            storage = leaf.untyped_storage()
            weak: Any = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
            self._written[storage._cdata] = weak, index
        return leaf

    def _add(self, tensor: torch.Tensor, parents: tuple[int, ...], name: str, heavy: bool) -> None:
        index = len(self.trace.values)
        place, node = self._scopes[-1]
        wanted = self._sketched is None or index in self._sketched
        sketch = self._sketcher(tensor) if self._sketcher is not None and wanted else None
        self.trace.values.append(Value(place, node, name, parents, tuple(tensor.shape), heavy, sketch))
        self._known[tensor] = index
        if index in self._kept:
            self.tensors[index] = tensor.detach().cpu().clone()

    def _sources(self, tensor: torch.Tensor) -> list[int]:
        """What a tensor holds: what was computed as it, and what was written into its storage since."""
        sources = [self._known[tensor]] if tensor in self._known else []
        if self._written and tensor.layout is torch.strided:
            weak, index = self._written.get(tensor.untyped_storage()._cdata, (None, -1))
            if weak is not None and not weak.expired() and index not in sources:
                sources.append(index)
        return sources


def _announce(module: fx.GraphModule, path: str, scopes: list[tuple[str, str]]) -> None:
    """Have every operator of a graph say where it belongs while it runs."""
    for node in module.graph.nodes:
        if node.op == "call_function" and isinstance(node.target, OpOverload):
            stack = node.meta.get("nn_module_stack") or {}
            own = str(next(reversed(stack.values()))[0]) if stack else ""
            whole = ".".join(part for part in (path, own) if part)
            node.target = _announcing(node.target, (whole, node.name), scopes)
    module.recompile()


def _announcing(target: Any, scope: tuple[str, str], scopes: list[tuple[str, str]]) -> Callable[..., Any]:
    def announced(*args: Any, **kwargs: Any) -> Any:
        scopes.append(scope)
        try:
            return target(*args, **kwargs)
        finally:
            scopes.pop()

    announced.__name__ = f"announced_{scope[1]}"
    return announced
