"""Look into an ONNX file while ONNX Runtime runs it: every value of its graph becomes an output for once.

The file is never written to; a changed copy of it is run from memory, many times over. So its large weights
are taken out of it and handed over like inputs: they are held once, and opening the rest takes no time. A
node belongs to the module that torch.onnx wrote into its metadata, where that is left; nodes inside a
subgraph are not looked at one by one.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from reparamkit.compare.locate.sketch import Sketch, Sketcher
from reparamkit.compare.locate.trace import Clock, NotTraceable, Trace, Value
from reparamkit.runners.onnx_apart import ApartSession, may_abort
from reparamkit.runners.onnx_weights import Weights, jittered, without_weights
from reparamkit.runners.onnxruntime import session_of
from reparamkit.support.text import first_line, one_line

if TYPE_CHECKING:
    import onnx

_HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_SCOPES = "pkg.torch.onnx.name_scopes"
_AT_ONCE = 128 << 20
_MOST_OUTPUTS = 256


class OnnxTracer:
    """Traces an ONNX file on one set of inputs.

    Args:
        path: the file.
        fed: input name -> array.
        held: what to run in place of the file's content, as `without_weights` gives it.

    Raises:
        NotTraceable: the file cannot be changed in memory.
    """

    def __init__(
        self,
        path: Path,
        fed: dict[str, Any],
        sketcher: Sketcher,
        clock: Clock,
        *,
        held: tuple[onnx.ModelProto, Weights] | None = None,
    ) -> None:
        try:
            self._model, self._weights = without_weights(path) if held is None else held
        except Exception as error:
            raise NotTraceable(f"{path.name} cannot be read by onnx: {first_line(error)}") from error
        self._path = path
        self._fed = fed
        self._sketcher = sketcher
        self._clock = clock
        self._step = _MOST_OUTPUTS
        self._shapes: dict[int, tuple[int, ...]] = {}
        self._plan()

    def jittered(self, seed: int) -> OnnxTracer:
        """The same with weights that are off by a few ulp."""
        moved = jittered(self._model, self._weights, seed)
        return OnnxTracer(self._path, self._fed, self._sketcher, self._clock, held=moved)

    def expect(self, largest: int) -> None:
        self._step = max(1, min(_MOST_OUTPUTS, _AT_ONCE // (4 * max(largest, 1))))

    def trace(self) -> Trace:
        trace = Trace([*self._values], [*self._outputs])
        computed = self._run(range(len(self._fed), len(self._values)))
        for index, array in itertools.chain(computed, enumerate(self._fed.values())):
            tensor = torch.from_numpy(array)
            trace.values[index] = replace(
                trace.values[index], shape=tuple(tensor.shape), sketch=self._sketcher(tensor)
            )
        self._shapes = {index: value.shape for index, value in enumerate(trace.values)}
        return trace

    def tensors(self, indices: Collection[int]) -> dict[int, torch.Tensor]:
        return {index: torch.from_numpy(array) for index, array in self._run(sorted(indices))}

    def replaced(
        self, index: int, tensor: torch.Tensor, wanted: Collection[int]
    ) -> Mapping[int, Sketch | None]:
        behind = Trace(self._values).behind(index)
        given = tensor.reshape(self._shapes[index])
        places = sorted(behind & {*wanted})
        sketches: dict[int, Sketch | None] = {}
        for place, array in self._run(places, (index, given)):
            sketches[place] = self._sketcher(torch.from_numpy(array))
        return sketches

    def _plan(self) -> None:
        """The graph as values: one for each output of each node that depends on an input."""
        graph = self._model.graph
        initial = {weights.name for weights in graph.initializer}
        heavy_weights = {weights.name for weights in graph.initializer if len(weights.dims) > 1}
        heavy_weights |= {name for name, array in self._weights.items() if array.ndim > 1}
        self._values: list[Value] = []
        self._names: list[str] = []
        self._makers: dict[int, tuple[onnx.NodeProto, int]] = {}
        known: dict[str, int] = {}
        for entry in graph.input:
            if entry.name in self._fed and entry.name not in initial:
                known[entry.name] = len(self._values)
                self._names.append(entry.name)
                self._values.append(Value("", entry.name, "input", (), (), False, None))
        # In the order of the inputs, which are the first values.
        self._fed = {name: self._fed[name] for name in self._names}
        for node in graph.node:
            read = [*node.input, *(name for graph in _subgraphs(node) for name in _outer_names(graph))]
            parents = tuple(dict.fromkeys(known[name] for name in read if name in known))
            if not parents:
                continue
            heavy = node.op_type in _HEAVY and any(name in heavy_weights for name in node.input)
            for position, name in enumerate(node.output):
                if name:
                    known[name] = len(self._values)
                    self._makers[known[name]] = (node, position)
                    self._names.append(name)
                    self._values.append(
                        Value(_scope(node), node.name or name, node.op_type, parents, (), heavy, None)
                    )
        self._outputs = [known[entry.name] for entry in graph.output if entry.name in known]

    def _run(
        self, indices: Sequence[int], replaced: tuple[int, torch.Tensor] | None = None
    ) -> Iterator[tuple[int, Any]]:
        """Arrays of these values, a few at a time."""
        for start in range(0, len(indices), self._step):
            self._clock.check()
            chosen = indices[start : start + self._step]
            arrays = self._session([self._names[index] for index in chosen], replaced)
            yield from (
                (index, array) for index, array in zip(chosen, arrays, strict=True) if array is not None
            )

    def _session(self, names: list[str], replaced: tuple[int, torch.Tensor] | None) -> list[Any]:
        import onnx

        graph = self._model.graph
        kept = [*graph.output]
        fed = {**self._weights, **self._fed}
        node_of = None
        try:
            del graph.output[:]
            graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
            if replaced is not None:
                index, tensor = replaced
                array = tensor.to(torch.float32).contiguous().numpy()
                if index in self._makers:
                    node_of = self._makers[index]
                    node_of[0].output[node_of[1]] = f"{self._names[index]}/replaced"
                    kind = onnx.TensorProto.FLOAT
                    graph.input.append(
                        onnx.helper.make_tensor_value_info(self._names[index], kind, array.shape)
                    )
                fed[self._names[index]] = array
            try:
                content = self._model.SerializeToString()
                session = session_of(content)
                if may_abort(self._model):
                    session = ApartSession("", content)
                result: list[Any] = session.run(names, fed)
            except Exception as error:
                said = one_line(error)
                raise NotTraceable(f"ONNX Runtime does not show its values: {said}") from error
            return result
        finally:
            if node_of is not None and replaced is not None:
                node_of[0].output[node_of[1]] = self._names[replaced[0]]
                del graph.input[-1]
            del graph.output[:]
            graph.output.extend(kept)


def _scope(node: onnx.NodeProto) -> str:
    """The path of the module that a node comes from, as torch.onnx writes it; "" where it does not say."""
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            try:
                scopes = ast.literal_eval(entry.value)
                return str(scopes[-2]) if len(scopes) > 1 else ""
            except (ValueError, SyntaxError, TypeError):
                return ""
    return ""


def _subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [
        graph
        for attribute in node.attribute
        for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
    ]


def _outer_names(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from node.input
        for inner in _subgraphs(node):
            yield from _outer_names(inner)
