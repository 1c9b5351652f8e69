"""The walk of `in_place`: the captured and the finished graph, side by side, in one number type."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from reparamkit.engine.layers import applied, with_numbers
from reparamkit.errors import NotEquivalent
from reparamkit.hosts.fx.calls import one_memory
from reparamkit.hosts.fx.captured import Captured, Changes, Step, writes
from reparamkit.hosts.fx.same_numbers import excess, identical, largest, paired, positive
from reparamkit.hosts.fx.write import owner_path
from reparamkit.operators import properties

aten = torch.ops.aten
_SLACK = 4.0  # roundings of a number type, in its ε, of what a layer adds up
_ROUGH = 1e-3  # relative, of what other operators make of the rounding of new layers
_CANCELLED = 1e-6  # relative to a replaced value
_COMBINED = frozenset((aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor))


class CannotRun(Exception):
    """The captured graph does not run on the values that are at hand, in this number type."""


class FinishedFails(Exception):
    """The finished graph does not run where the captured one does."""


class Walk:
    """One walk; `dtype` is float64, or None for the network's own."""

    def __init__(
        self,
        captured: Captured,
        module: fx.GraphModule,
        changes: Changes,
        given: Mapping[fx.Node, Any],
        dtype: torch.dtype | None,
    ) -> None:
        self.captured, self.module, self.changes = captured, module, changes
        self.given, self.dtype = given, dtype
        self.slack = _SLACK if dtype is not None else 256 * _SLACK
        self.finished = list(module.graph.nodes)
        self.old: dict[fx.Node, Any] = {}
        """Values of the captured graph."""
        self.new: dict[fx.Node, Any] = {}
        """Values of the finished one that stand for none of those."""
        self.stands_for: dict[fx.Node, fx.Node] = {}
        self.memory_of: dict[fx.Node, fx.Node] = {}
        """Captured node -> the operand that it shares its memory with."""
        self.memory: dict[fx.Node, fx.Node] = {}
        """Finished node -> the first one that lies in the same memory."""
        self.replaced = set(changes.twins.values())
        self.read: dict[fx.Node, float] = {}
        """The largest value that goes into each replaced one."""
        self.next_step = 0
        self.readers: Counter[fx.Node] = Counter()
        self.holds: Counter[fx.Node] = Counter()
        for step in captured.steps:
            self.holds.update(step.inputs)
        for node in self.finished:
            self.holds.update({*self._captured_inputs(node), *self._twin(node)})

    def walk(self) -> None:
        """Raises `NotEquivalent` at the first value that is not the one it stands for."""
        for node in self.finished:
            twin = self._twin(node)
            needed = {*self._captured_inputs(node), *twin}
            self._advance(max((self.captured.index[n] for n in needed), default=-1))
            if node.op == "output":
                self._compare_outputs(node)
                return
            self._take(node, twin)
            if node in self.stands_for or not node.users:
                self._release_inputs(node)
            else:  # what it was made of may be asked for until it has been compared
                self.readers[node] = len(node.users)
            for old in needed:
                self._let_go(old)

    def _twin(self, node: fx.Node) -> list[fx.Node]:
        """The captured value that a finished one has to equal, if it has one."""
        twin = self.changes.twins.get(node, node)
        known = twin in self.captured.index and (twin is not node or node not in self.changes.moved)
        return [twin] if known else []

    def _captured_inputs(self, node: fx.Node) -> list[fx.Node]:
        place = self.captured.index.get(node)
        return [] if place is None else self.captured.steps[place].inputs

    # the captured graph

    def _advance(self, last: int) -> None:
        """Run the captured graph up to and with step `last`."""
        while self.next_step <= last:
            step = self.captured.steps[self.next_step]
            self.next_step += 1
            if step.op == "output" or writes(step.target):
                continue
            self.old[step.node] = self._captured_value(step)
            self._remember_memory(step)
            if step.node in self.replaced:
                self.read[step.node] = max((largest(self.old[n]) for n in step.inputs), default=0.0)
            for read in step.inputs:
                self._let_go(read)
            if self.holds[step.node] <= 0:
                self.old.pop(step.node)

    def _captured_value(self, step: Step) -> Any:
        if step.op == "placeholder":
            return self.cast(self.given[step.node])
        if step.op == "get_attr":
            name, program = str(step.target), self.captured.program
            return program.submodules[name] if name in program.submodules else program.state[name]
        if step.op != "call_function":
            raise CannotRun
        return self.call(step.target, step.args, step.kwargs, self.old)

    def call(self, target: Any, args: Any, kwargs: Any, values: Mapping[fx.Node, Any]) -> Any:
        """One operator, with the walk's number type and the CPU for those that are written into it."""

        reads_tensors = False

        def argument(given: Any) -> Any:
            nonlocal reads_tensors
            if not isinstance(given, fx.Node):
                return self._wide(given)
            value = values[given]
            reads_tensors = reads_tensors or isinstance(value, Tensor | list | tuple)
            # weights come first in the graph: all in float64 are too many
            return self.cast(value) if given.op == "get_attr" else value

        args, kwargs = fx.node.map_aggregate((args, kwargs), argument)
        result = target(*args, **kwargs)
        if not reads_tensors:
            result = self.cast(result)  # what it makes has torch's default number type
        return result.zero_() if _is_uninitialised(target) else result

    def _wide(self, argument: Any) -> Any:
        if isinstance(argument, torch.device):
            return torch.device("cpu")
        floating = isinstance(argument, torch.dtype) and argument.is_floating_point
        return self.dtype if floating and self.dtype is not None else argument

    def cast(self, value: Any) -> Any:
        """On the CPU, in the walk's number type."""
        if not isinstance(value, Tensor) or (value.dtype is self.dtype and value.is_cpu):
            return value
        value = value.detach().cpu()
        return value.to(self.dtype) if self.dtype is not None and value.is_floating_point() else value

    def _remember_memory(self, step: Step) -> None:
        value = self.old[step.node]
        for read in step.inputs:
            if one_memory(self.old[read], value):
                self.memory_of[step.node] = read
                return

    # the finished graph

    def _value(self, node: fx.Node) -> Any:
        return self.old[self.stands_for[node]] if node in self.stands_for else self.new[node]

    def _take(self, node: fx.Node, twin: list[fx.Node]) -> None:
        """Find the value of a finished node, and let it stand for its twin if it equals that."""
        self.memory[node] = node
        if node.op == "call_module" and self._called(node) in self.captured.guards:
            self.new[node] = None
            return
        if node in self.changes.computed:  # `in_place` has held it against the captured operators
            self._stand(node, twin[0])
            return
        if twin == [node] and self._reads_the_same(node):
            self._stand(node, node)
            return
        reads = node.all_input_nodes
        inputs = {n: self._value(n) for n in reads}
        if writes(node.target):
            self._require_equal(node, inputs[node.args[1]], self._captured_inputs(node)[1])  # type: ignore[index]
            self.new[node] = None
            return
        try:
            value = self._finished_value(node, inputs)
        except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
            raise FinishedFails(f"it does not run: {error}") from error
        for read in reads if not self._is_new_piece(node) else ():
            if one_memory(inputs[read], value):
                self.memory[node] = self.memory[read]
                break
        self.new[node] = value
        if twin and isinstance(value, Tensor):
            self._require_equal(node, value, twin[0])
            del self.new[node]
            self._stand(node, twin[0])

    def _is_new_piece(self, node: fx.Node) -> bool:
        """Whether it is one of the pieces that a wider layer is cut into, which do not overlap."""
        return node.target is operator.getitem and node not in self.captured.index

    def _called(self, node: fx.Node) -> torch.nn.Module:
        return self.module.get_submodule(str(node.target))

    def _finished_value(self, node: fx.Node, inputs: Mapping[fx.Node, Any]) -> Any:
        if node.op == "call_module":
            (read,) = node.args
            return self.layer(node, self.cast(inputs[read]), lambda number: number)  # type: ignore[index]
        if node.op == "get_attr":
            return self.cast(stored(self.module, str(node.target)))
        return self.call(node.target, node.args, node.kwargs, inputs)

    def layer(self, node: fx.Node, x: Tensor, change: Callable[[Tensor], Tensor]) -> Any:
        """The layer that a node calls, on `x`, with every number of it changed by `change`."""
        layer = self._called(node)
        numbers = {k: change(self.cast(p)) for k, p in layer._parameters.items() if p is not None}
        copied = with_numbers(layer, numbers)
        return copied(x) if self.dtype is None else applied(copied, x)

    def _reads_the_same(self, node: fx.Node) -> bool:
        step = self.captured.steps[self.captured.index[node]]
        if (node.op, node.target) != (step.op, step.target) or node.op == "call_module":
            return False
        untouched = node.args is step.args and node.kwargs is step.kwargs
        if untouched and all(self.stands_for.get(read) is read for read in step.inputs):
            self.memory[node] = self.memory[self.memory_of[node]] if node in self.memory_of else node
            return True
        pairs = list(paired((node.args, node.kwargs), (step.args, step.kwargs)))
        if not all(self._same(mine, theirs) for mine, theirs in pairs):
            return False
        shared = self.memory_of.get(node)
        if shared is not None:
            read = next(mine for mine, theirs in pairs if theirs is shared)
            self.memory[node] = self.memory[read]
        return True

    def _same(self, mine: Any, theirs: Any) -> bool:
        if not isinstance(mine, fx.Node) or not isinstance(theirs, fx.Node):
            return type(mine) is type(theirs) and bool(mine == theirs)
        stands_for = self.stands_for.get(mine)
        if stands_for is None:
            return False
        return stands_for is theirs or identical(self.old[stands_for], self.old[theirs])

    def _stand(self, node: fx.Node, twin: fx.Node) -> None:
        self.stands_for[node] = twin
        self.holds[twin] += len(node.users)

    # comparisons

    def _require_equal(self, node: fx.Node, value: Any, old: fx.Node) -> None:
        expected, step = self.cast(self.old[old]), self.captured.steps[self.captured.index[old]]
        value = self.cast(value)
        if not isinstance(value, Tensor) or not isinstance(expected, Tensor):
            if value != expected:
                raise _off(step, "is another value")
            return
        if value.shape != expected.shape:
            shapes = f"{list(value.shape)} instead of {list(expected.shape)}"
            raise _off(step, f"has the shape {shapes}")
        exact = all(n in self.stands_for for n in node.all_input_nodes) and node is old
        if not expected.is_floating_point():
            if exact and not torch.equal(value, expected):
                raise _off(step, "is another value")
            return
        off = self._error(node, value, expected, step, exact=exact)
        if off:
            raise _off(step, f"differs {off}")

    def _error(self, node: fx.Node, value: Tensor, expected: Tensor, step: Step, *, exact: bool) -> str:
        """Empty, or by how much a value is off."""
        eps = torch.finfo(step.dtype or torch.float32).eps
        bar = max(self.slack * eps, 1e-10) if node is not step.node or not exact else 1e-10 * self.slack

        def terms() -> Tensor | None:
            with suppress(KeyError, RuntimeError, ValueError, TypeError):
                magnitude: Tensor = self._magnitude(node)
                return magnitude
            return None

        rough = _ROUGH if node is step.node else _CANCELLED
        leeway = None if exact else (rough, self.read.get(step.node, 0.0))
        return excess(value, expected, bar, terms, leeway)

    def _magnitude(self, node: fx.Node) -> Any:
        """The sum of the magnitudes of all terms that a new value is the sum of."""
        if node in self.stands_for:
            return positive(self.cast(self.old[self.stands_for[node]]))
        if node.op == "call_module":
            (read,) = node.args
            return self.layer(node, self._magnitude(read), torch.abs)  # type: ignore[arg-type]
        reads = {n: self._magnitude(n) for n in node.all_input_nodes}
        if node.op == "get_attr":
            return positive(self.new[node])
        if node.target in _COMBINED:
            operands: Any = node.args[:2]
            first, second = (reads[a] if isinstance(a, fx.Node) else abs(a) for a in operands)
            return first * second if node.target is aten.mul.Tensor else first + second
        return self.call(node.target, node.args, node.kwargs, reads)

    def _compare_outputs(self, node: fx.Node) -> None:
        mine = pytree.tree_leaves(node.args)
        theirs = pytree.tree_leaves(self.captured.steps[-1].args)
        if len(mine) != len(theirs):
            raise differs("", "the result", "has other parts")
        roots: dict[fx.Node, set[fx.Node]] = {}
        for a, b in zip(mine, theirs, strict=True):
            if not isinstance(a, fx.Node) or not isinstance(b, fx.Node):
                if type(a) is not type(b) or a != b:
                    raise differs("", "the result", "has other parts")
                continue
            if not self._same(a, b):
                self._require_equal(a, self._value(a), b)
            roots.setdefault(self.memory[a], set()).add(self._captured_root(b))
        for step in self.captured.steps:
            if step.op in ("placeholder", "get_attr") and step.node in roots:
                roots[step.node].add(step.node)
        if any(len(captured) > 1 for captured in roots.values()):
            raise differs(
                "", "a result", "shares memory with an input or another result, as it did not before"
            )

    def _captured_root(self, node: fx.Node) -> fx.Node:
        while node in self.memory_of:
            node = self.memory_of[node]
        return node

    # memory

    def _release(self, node: fx.Node) -> None:
        if node in self.stands_for:
            self._let_go(self.stands_for[node])
            return
        self.readers[node] -= 1
        if self.readers[node] == 0:
            self.new.pop(node, None)
            self._release_inputs(node)

    def _release_inputs(self, node: fx.Node) -> None:
        for read in node.all_input_nodes:
            self._release(read)

    def _let_go(self, old: fx.Node) -> None:
        self.holds[old] -= 1
        if self.holds[old] <= 0:
            self.old.pop(old, None)


def differs(where: str, what: str, how: str) -> NotEquivalent:
    """The error for a value of the finished module that is not the one captured."""
    place = f"in {where!r}, " if where else ""
    return NotEquivalent(
        f"{place}{what!r} of the folded network {how}: this is a mistake of reparamkit; nothing is folded"
    )


def _off(step: Step, how: str) -> NotEquivalent:
    return differs(owner_path(step.node), str(step.node.name), how)


def stored(module: fx.GraphModule, name: str) -> Tensor:
    """A parameter or buffer by its path."""
    *path, last = name.split(".")
    tensor: Tensor = getattr(module.get_submodule(".".join(path)), last)
    return tensor


@cache
def _is_uninitialised(target: Any) -> bool:
    return properties.is_uninitialised(str(target))
