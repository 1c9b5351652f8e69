"""The original beside the captured graph: do they compute the same thing on these inputs, in this mode?

torch.export settles branches at the example's sizes, and in the mode of the capture. Whether the network
takes the same way elsewhere is asked of the network itself: both run, and the expressions that they compute
(`reparamkit.capture.executed`) are compared. A few numbers that agree would prove nothing.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import fx, nn
from torch._ops import HigherOrderOperator
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from reparamkit.capture.executed import Executed, Expressions, first_difference
from reparamkit.capture.modes import PLAIN, Mode, together
from reparamkit.capture.size_conditions import Place
from reparamkit.support.inputs import Args, Kwargs, map_tensors, resized, tensor_leaves
from reparamkit.support.isolation import buffer_tables, call_untouched
from reparamkit.support.quiet import quiet


class Answer(Enum):
    """What came of running both."""

    SAME = "both compute the same"
    OTHER = "the network computes something else than what was captured"
    REFUSED = "the network itself raises an error"
    UNKNOWN = "it cannot be observed"


@dataclass(frozen=True)
class Observation:
    """An answer, and for `OTHER` the first operator that differs, in words."""

    answer: Answer
    difference: str = ""

    @property
    def same(self) -> bool:
        return self.answer is Answer.SAME


class Witness:
    """Runs a network and the graph that was captured of it side by side.

    Args:
        exported: the graph, as torch.export gave it.
        model: the network.
        args, kwargs: the example that it was captured with.
    """

    def __init__(self, exported: ExportedProgram, model: nn.Module, args: Args, kwargs: Kwargs) -> None:
        self._captured = _Captured(exported)
        self._model = model
        self._example = args, kwargs
        self._seen: dict[Any, Observation] = {}
        self._expressions = Expressions(model)
        self._buffers = buffer_tables(model)

    def at(self, sizes: Mapping[Place, int]) -> Observation:
        """Both on the example resized: flat tensor index and axis -> size."""
        key = tuple(sorted(sizes.items()))
        if key not in self._seen:
            self._seen[key] = self.observe(*resized(*self._example, sizes))
        return self._seen[key]

    def observe(self, args: Args, kwargs: Kwargs) -> Observation:
        """Both on these inputs."""
        with _undisturbed():
            original = self._recorded(self._model, args, kwargs)
            if original is None:
                return Observation(Answer.UNKNOWN if self._answers(args, kwargs) else Answer.REFUSED)
            return self._against(original, args, kwargs)

    def differing_modes(
        self, args: Args, kwargs: Kwargs, modes: Sequence[Sequence[Mode]]
    ) -> dict[str, Observation]:
        """In which of these modes the network computes something else than the captured graph does in it.

        Modes of one group are tried together first, and one by one only if they make a difference. Modes that
        the network itself refuses are left out.
        """
        differing: dict[str, Observation] = {}
        with _undisturbed():
            plain = self._recorded(self._model, args, kwargs)
            for group in modes:
                if len(group) > 1 and self._in_mode(args, kwargs, together(group), plain).same:
                    continue
                for mode in group:
                    observation = self._in_mode(args, kwargs, mode, plain)
                    if observation.answer is Answer.OTHER:
                        differing[mode.name] = observation
        return differing

    def _in_mode(self, args: Args, kwargs: Kwargs, mode: Mode, plain: _Run | None) -> Observation:
        with mode.around(self._model):
            original = self._recorded(self._model, args, kwargs, mode)
        if original is None:
            return Observation(Answer.REFUSED)
        if plain is not None and original.results == plain.results:
            return Observation(Answer.SAME)
        with mode.around(self._captured):
            return self._against(original, args, kwargs, mode)

    def _against(self, original: _Run, args: Args, kwargs: Kwargs, mode: Mode = PLAIN) -> Observation:
        captured = self._recorded(self._captured, args, kwargs, mode)
        if captured is None:
            return Observation(Answer.OTHER, "the captured graph does not run there")
        if original.results == captured.results:
            return Observation(Answer.SAME)
        return Observation(Answer.OTHER, first_difference(original.calls, captured.calls))

    def _recorded(self, module: nn.Module, args: Args, kwargs: Kwargs, mode: Mode = PLAIN) -> _Run | None:
        """None where the module raises."""
        given, named = map_tensors(lambda _, tensor: mode.inputs(tensor.detach().clone()), args, kwargs)
        executed = Executed(self._expressions, (tensor for _, tensor in tensor_leaves(given, named)))
        bound = [dict(buffers) for buffers in self._buffers]
        try:
            with torch.set_grad_enabled(mode.gradients), executed:
                outputs = module(*given, **named)
            return _Run(executed.results(outputs), executed.calls)
        except Exception:  # whatever the network raises
            return None
        finally:
            for buffers, before in zip(self._buffers, bound, strict=True):
                buffers.clear()
                buffers.update(before)
            executed.put_back()

    def _answers(self, args: Args, kwargs: Kwargs) -> bool:
        """Whether the network runs, although it could not be watched."""
        try:
            call_untouched(self._model, args, kwargs)
        except Exception:  # whatever the network raises
            return False
        return True


def can_be_watched(exported: ExportedProgram) -> bool:
    """Whether the network can be run under a recorder.

    torch compiles `torch.cond` and its like when they are called; a first call under a recorder makes every
    later one fail.
    """
    operators = (node.target for node in exported.graph.nodes if node.op == "call_function")
    return all(each.__name__ in _REGIONS for each in operators if isinstance(each, HigherOrderOperator))


_REGIONS = ("wrap_with_set_grad_enabled", "wrap_with_autocast")


@dataclass(frozen=True)
class _Run:
    results: tuple[Any, ...]
    calls: list[tuple[int, Any]]


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Quietly, the random state put back, torch's attention layers off the path that no capture takes."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with quiet(), torch.random.fork_rng(devices=()):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


class _Captured(nn.Module):
    """An exported graph on its own state, as it stands: no guards, no rewriting."""

    def __init__(self, exported: ExportedProgram) -> None:
        super().__init__()
        self._graph_module = exported.graph_module
        self._state: dict[str, Any] = {}
        signature = exported.graph_signature
        for spec in signature.input_specs:
            if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
                held = exported.state_dict if spec.target in exported.state_dict else exported.constants
                self._state[str(spec.target)] = held[str(spec.target)]
        self._given = [
            None if s.kind == InputKind.USER_INPUT else str(s.target) for s in signature.input_specs
        ]
        self._returned = [spec.kind == OutputKind.USER_OUTPUT for spec in signature.output_specs]
        self._structure = exported.call_spec.out_spec

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The inputs of the network; returns what it returns."""
        leaves = iter(pytree.tree_leaves((args, kwargs)))
        values = [next(leaves) if name is None else self._state[name] for name in self._given]
        outputs = _interpreted(self._graph_module, values)
        returned = [value for value, own in zip(outputs, self._returned, strict=True) if own]
        return pytree.tree_unflatten(returned, self._structure)


def _interpreted(module: fx.GraphModule, inputs: Sequence[Any]) -> Sequence[Any]:
    given = iter(inputs)
    values: dict[fx.Node, Any] = {}
    last_reader = {node: reader for reader in module.graph.nodes for node in reader.all_input_nodes}
    for node in module.graph.nodes:
        if node.op == "placeholder":
            values[node] = next(given)
            continue
        args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
        if node.op == "output":
            outputs: Sequence[Any] = args[0]
            return outputs
        if node.op == "get_attr":
            values[node] = operator.attrgetter(str(node.target))(module)
        else:
            values[node] = _called(node.target, args, kwargs)
        for operand in node.all_input_nodes:
            if last_reader[operand] is node:
                del values[operand]
    return []


def _called(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = getattr(target, "__name__", "")
    if name == _REGIONS[0]:
        enabled, inner, *operands = args
        with torch.set_grad_enabled(enabled):
            return _interpreted(inner, operands)
    if name == _REGIONS[1]:
        device, dtype, enabled, cache, inner, *operands = args
        with torch.autocast(device, dtype, enabled, cache):
            return _interpreted(inner, operands)
    return target(*args, **kwargs)
