"""The `.pte` file: lowered by ExecuTorch, run in ExecuTorch's runtime.

    torch.export ──▶ edge dialect ──▶ XNNPACK takes what it knows ──▶ memory planned ──▶ .pte

Memory is planned for the largest sizes, so that every free axis needs an end. An axis ends where the program
says; where that knows no end, a batch ends at `MOST_SAMPLES` and any other axis at `TIMES_LARGER` times the
example's size. A larger input is refused by the runtime.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, TensorArgument

from reparamkit.compare.inputs.sizes import DynamicAxes, ranges_of
from reparamkit.errors import CannotWrite, UnusableInput
from reparamkit.loading.door.memory import amount
from reparamkit.lower.exported import input_shapes
from reparamkit.lower.lowering import Lowering
from reparamkit.lower.onnx import renamed
from reparamkit.lower.request import EXECUTORCH_BACKENDS
from reparamkit.lower.writer import FileWriter, Work
from reparamkit.runners.base import Runner
from reparamkit.runners.executorch import TOLD, ExecuTorchRunner, require_executorch
from reparamkit.runners.pte_outline import outline
from reparamkit.support.inputs import tensor_leaves
from reparamkit.support.quiet import quiet

MOST_SAMPLES = 4
TIMES_LARGER = 2

_ADVICE = re.compile(
    r"\(https?:|stack trace: |There are a few things|This may occur |\nFor more |\nFor extended|\nCaused by"
    r"|\nconsider "
)
_LONGEST = 300
_NO_END = 2**31 - 1


class ExecuTorchWriter(FileWriter):
    """`.pte`, run in ExecuTorch's runtime."""

    def require(self) -> None:
        require_executorch()

    def ends(self, lowering: Lowering, axes: DynamicAxes) -> Mapping[str, int]:
        tensors = [tensor for _, tensor in tensor_leaves(*lowering.example)]
        ranges = lowering.program.ranges
        ends: dict[str, int] = {}
        for index, free in axes.items():
            for axis, symbol in free.items():
                size = tensors[index].shape[axis]
                most = max(size, MOST_SAMPLES) if axis == 0 else TIMES_LARGER * max(size, 2)
                known = ranges.get(symbol, (1, None))[1]
                ends[symbol] = min(most, ends.get(symbol, most), most if known is None else known)
        return ends

    def on_refused(self, probes: Sequence[str]) -> str:
        return ""

    def write(self, work: Work, target: Path) -> Sequence[str]:
        backend = work.request.executorch_backend or EXECUTORCH_BACKENDS[0]
        told = _told(work)
        data = lowered(work.program, backend, json.dumps(told))
        with target.open("wb") as file:
            file.write(data)
        outlined = outline(target)
        count = outlined.operators.total()
        return [
            f"for ExecuTorch's {'XNNPACK' if backend == 'xnnpack' else 'portable'} kernels"
            + (f", which run {outlined.delegated} of {count} operators" if backend == "xnnpack" else "")
            + (
                ", and GELU is not one of them"
                if backend == "xnnpack" and _has_tanh_gelu(work.program)
                else ""
            )
            + f"; {_in_words(told)}; {amount(outlined.reserved)} are reserved for values"
        ]

    def reopen(self, target: Path, work: Work) -> Runner:
        try:
            runner = ExecuTorchRunner(target)
            runner.run(*work.recorded.records[0].probe.inputs())
        except (RuntimeError, UnusableInput) as error:  # what was lowered need not have a kernel that runs it
            reason = error if isinstance(error, RuntimeError) else error.__cause__
            if not isinstance(reason, RuntimeError):
                raise
            raise CannotWrite(
                f"ExecuTorch cannot run what it makes of this network: {reason}"
                f"{_without_xnnpack(str(reason))}"
            ) from error
        return runner

    def count(self, target: Path, work: Work) -> Counter[str]:
        return outline(target).operators


WRITER = ExecuTorchWriter()


def lowered(program: ExportedProgram, backend: str, told: str) -> bytes:
    """The bytes of the file.

    Args:
        program: what it computes.
        backend: of `EXECUTORCH_BACKENDS`.
        told: what the file says of itself, as `reparamkit.runners.executorch.TOLD` has it.

    Raises:
        CannotWrite: in ExecuTorch's words, that it cannot express the network.
    """
    _require_stateless(program)
    apart = ("gelu.default",) if _has_tanh_gelu(program) else ()
    with _silent():
        from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        try:
            own = [each for each in ALL_PARTITIONER_CONFIGS if each.target_name not in apart]
            partitioner = [XnnpackPartitioner(configs=own)] if backend == "xnnpack" else None
            with torch.no_grad():
                edge = to_edge_transform_and_lower(
                    program, partitioner=partitioner, constant_methods={TOLD: told}
                )
                _require_stateless(edge.exported_program())
                data: bytes = edge.to_executorch().buffer
        except CannotWrite:
            raise
        except Exception as error:  # each of its passes has errors of its own
            reason = _reason(error)
            raise CannotWrite(
                f"ExecuTorch cannot lower this network: {reason}{_without_xnnpack(reason)}"
            ) from error
    return data


def _has_tanh_gelu(program: ExportedProgram) -> bool:
    """Whether a GELU is of the form that tanh approximates: XNNPACK's delegate computes the exact one."""
    return any(
        node.target is torch.ops.aten.gelu.default and node.kwargs.get("approximate", "none") != "none"
        for node in program.graph.nodes
    )


def _without_xnnpack(reason: str) -> str:
    """The next step, where it is XNNPACK that cannot."""
    return "; --executorch-backend portable does without XNNPACK" if "xnn" in reason.lower() else ""


def _require_stateless(program: ExportedProgram) -> None:
    """Refuse a program that writes into what it is given or holds.

    Raises:
        CannotWrite: it does, with the name of what it writes into.
    """
    signature = program.graph_signature
    lifted = {**signature.inputs_to_buffers, **signature.inputs_to_parameters}
    written = [*signature.buffers_to_mutate.values(), *signature.user_inputs_to_mutate.values()]
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op == "call_function" and schema is not None and schema.is_mutable:
            held = (value for value in node.all_input_nodes[:1] if value.op == "placeholder")
            written += [lifted.get(value.name, value.name) for value in held]
    if written:
        raise CannotWrite(
            f"an ExecuTorch program would keep what the network writes into {written[0]!r} when it runs, and "
            "start from something else than PyTorch does: take that out of its forward"
        )


def _told(work: Work) -> dict[str, Any]:
    """What the file says of itself; see `reparamkit.runners.executorch.TOLD`."""
    program = work.program
    shapes = input_shapes(program)
    names = iter(work.input_names or [name for name, _ in shapes])
    sizes = {work.axis_names[str(symbol)]: bounds for symbol, bounds in _bounds(program).items()}
    usual = iter(tensor_leaves(*work.recorded.records[0].probe.inputs()))
    slots: list[dict[str, Any]] = []
    by_name = dict(shapes)
    for spec in program.graph_signature.input_specs:
        if spec.kind is not InputKind.USER_INPUT:
            continue
        if isinstance(spec.arg, TensorArgument):
            slots.append(
                {
                    "name": next(names),
                    "shape": [
                        size if isinstance(size, int) else renamed(str(size), work.axis_names)
                        for size in by_name[spec.arg.name]
                    ],
                    "usual": list(next(usual)[1].shape),
                }
            )
        else:
            slots.append({"value": getattr(spec.arg, "value", None)})
    for slot in slots:
        for size in slot.get("shape", ()):
            if isinstance(size, str):
                sizes.setdefault(size, (1, _NO_END))
    return {
        "inputs": slots,
        "sizes": sizes,
        "outputs": list(work.outputs),
    }


def _bounds(program: ExportedProgram) -> dict[str, tuple[int, int]]:
    """Symbol -> smallest and largest size of the free axes.

    The smallest is 1 where torch.export says 0, or the 2 that stands for "not 1".
    """
    used = {
        str(size)
        for _, shape in input_shapes(program)
        for size in shape
        if isinstance(size, torch.SymInt) and size.node.expr.is_symbol
    }
    bounds = {}
    for symbol, (low, high) in ranges_of(program).items():
        if symbol in used:
            bounds[symbol] = (1 if low in (0, 2) else low, _NO_END if high is None else high)
    return bounds


def _in_words(told: Mapping[str, Any]) -> str:
    """For a report: "x: 1..4x3x1..448x1..448"."""

    def size(axis: int | str) -> str:
        if isinstance(axis, int):
            return str(axis)
        low, high = told["sizes"][axis]
        return f"{low}..{high}" if high < _NO_END else axis

    return ", ".join(
        f"{slot['name']}: {'x'.join(map(size, slot['shape'])) or 'a number'}"
        for slot in told["inputs"]
        if "shape" in slot
    )


def _reason(error: BaseException) -> str:
    """What ExecuTorch says, in one line, without its advice and without where in its code it said so."""
    text = _ADVICE.split(str(error).strip())[0]
    words = " ".join(text.replace("torch._ops.", "").split()).rstrip(" .:\"'(,")
    return words[:_LONGEST] or type(error).__name__


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """As `quiet`, and the root logger stays as it is: XNNPACK's partitioner sets it up for all."""
    root = logging.getLogger()
    handlers, level, disabled = list(root.handlers), root.level, logging.root.manager.disable
    try:
        logging.disable(logging.ERROR)
        with quiet():
            yield
    finally:
        logging.disable(disabled)
        root.handlers[:] = handlers
        root.setLevel(level)
