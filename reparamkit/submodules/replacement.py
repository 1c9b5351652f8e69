"""A folded part inside the network that it belongs to.

The part stays the object and the class that it was, with its own attributes, parameters and buffers; only
its `forward` is another: it runs the folded graph, which lies beside its children as `folded`. The graph
answers one kind of call, the captured one (any values, any sizes that the capture left free). Any other is
for the part's own forward, if its layers were kept, and a `ValueError` if not.

Layers are kept where something may still want them; elsewhere an `Absent` takes the place of every child,
which says where it went to whoever asks it for anything.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from types import CodeType
from typing import Any, Protocol

from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from reparamkit.capture.sizes import guards_of
from reparamkit.submodules.call_recorder import Call, normal_call
from reparamkit.support.inputs import Args, Kwargs


class Replacement(Protocol):
    """A part that was folded."""

    @property
    def path(self) -> str:
        """Where it is in the network."""

    @property
    def holder(self) -> str:
        """The name of the folded graph inside it."""

    @property
    def graph(self) -> fx.GraphModule:
        """What runs in its place."""

    @property
    def call(self) -> Call:
        """What the graph was captured with."""

    @property
    def keeps(self) -> bool:
        """Whether its own layers stay."""


class FoldedForward:
    """The `forward` of a folded part: callable as the part's own is."""

    def __init__(self, part: nn.Module, replaced: Replacement) -> None:
        leaves = pytree.tree_leaves((replaced.call.args, replaced.call.kwargs))
        self.part = part
        self.path = replaced.path
        self.graph = replaced.graph
        self.keeps = replaced.keeps
        self.refused = ""  # the last call that was not answered
        self.expected = tuple((True, x.ndim) if isinstance(x, Tensor) else (False, x) for x in leaves)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = normal_call(self.part, args, kwargs)
        reason = self._misfit(call.args, call.kwargs)
        if not reason:
            return self.graph(*call.args, **call.kwargs)
        if self.keeps:
            return type(self.part).forward(self.part, *args, **kwargs)
        self.refused = reason
        raise ValueError(f"the folded part {self.path!r} cannot be called like this: {reason}")

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(type(self.part).forward.__get__(self.part))

    @property
    def __code__(self) -> CodeType:
        """Where torch.export says that the part comes from."""
        code: CodeType = inspect.unwrap(type(self.part).forward).__code__
        return code

    def _misfit(self, args: Args, kwargs: Kwargs) -> str:
        leaves, spec = pytree.tree_flatten((args, kwargs))
        if spec != self.graph._in_spec:
            return "its arguments are nested in another way than where it was captured"
        for leaf, (is_tensor, value) in zip(leaves, self.expected, strict=True):
            if is_tensor and not isinstance(leaf, Tensor):
                return f"it was captured with a tensor where it was given {leaf!r}"
            if is_tensor and leaf.ndim != value:
                return f"it was captured with a tensor of {value} axes where it was given one of {leaf.ndim}"
            if not is_tensor and (type(leaf) is not type(value) or leaf != value):
                given = "a tensor" if isinstance(leaf, Tensor) else repr(leaf)
                return f"it was captured with {value!r} where it was given {given}"
        guards = guards_of(self.graph)
        if guards is not None:
            try:
                guards(*(x for x in leaves if isinstance(x, Tensor)))
            except ValueError as error:
                return str(error)
        return ""


class Absent(nn.Module):
    """In the place of a layer that was folded away. It computes nothing and has nothing to read."""

    def __init__(self, path: str, graph: str) -> None:
        super().__init__()
        self.path, self.graph = path, graph

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            raise AttributeError(f"{name!r} cannot be read: {self._words()}") from None

    def __len__(self) -> int:
        raise TypeError(self._words())

    def __iter__(self) -> Any:
        raise TypeError(self._words())

    def __getitem__(self, key: Any) -> Any:
        raise TypeError(self._words())

    def __bool__(self) -> bool:
        return True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Raises `RuntimeError`."""
        raise RuntimeError(self._words())

    def extra_repr(self) -> str:
        """Where the layer went."""
        return f"folded into {self.graph}"

    def _words(self) -> str:
        known = vars(self)
        return (
            f"{known.get('path')!r} was folded into {known.get('graph')!r}, since nothing but that part's "
            "own forward was seen to use it; leave that part out of the fold"
        )


def assemble(network: nn.Module, replaced: Iterable[Replacement]) -> nn.Module:
    """Put the folded graphs into `network`, which is changed, and returned in evaluation mode."""
    parts = [(network.get_submodule(one.path), one) for one in replaced]
    for part, one in parts:
        target = f"{one.path}.{one.holder}"
        if not one.keeps:
            for name, child in part._modules.items():
                if child is not None:
                    part._modules[name] = Absent(f"{one.path}.{name}", target)
        part.add_module(one.holder, one.graph)
        part.forward = FoldedForward(part, one)
    return network.eval()


def refused_calls(network: nn.Module) -> dict[str, str]:
    """The parts of an assembled network that could not answer a call, and what was wrong with it."""
    forwards = (vars(part).get("forward") for part in network.modules())
    return {f.path: f.refused for f in forwards if isinstance(f, FoldedForward) and f.refused}


def holder_name(part: nn.Module) -> str:
    """A name for the folded graph that the part has nothing under."""
    name, count = "folded", 0
    while hasattr(part, name):
        count += 1
        name = f"folded_{count}"
    return name


__all__ = ["Absent", "FoldedForward", "Replacement", "assemble", "holder_name"]
