"""Computes a Core ML program with torch on the CPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch

from reparamkit.errors import UnusableInput
from reparamkit.loading.door.memory import check_room
from reparamkit.mil.graph import Constant, MilProgram, Operation, Port
from reparamkit.mil.operators import OPERATORS, Call, CannotEvaluate
from reparamkit.support.text import dtype_name, one_line, shape_text

Observe = Callable[[Operation, list[torch.Tensor]], list[torch.Tensor] | None]
"""Is given every operation with its outputs, and may return others in their place."""


def missing(program: MilProgram) -> list[str]:
    """Every operation that cannot be computed here, as "conv at 'y'"; empty where all are known."""
    lacking = []
    for operation in program.operations:
        known = OPERATORS.get(operation.kind)
        if known is None or operation.blocks:
            lacking.append(f"{operation.kind} at {operation.name!r}")
            continue
        strange = sorted(name for name in operation.inputs if name not in known.parameters)
        if strange:
            lacking.append(f"{operation.kind} with {', '.join(strange)} at {operation.name!r}")
    return lacking


def evaluate(
    program: MilProgram,
    inputs: Mapping[str, torch.Tensor],
    arithmetic: torch.dtype | None = None,
    *,
    observe: Observe | None = None,
) -> dict[str, torch.Tensor]:
    """The outputs of a program.

    A value is dropped after its last use. Gradients flow through floating-point values unless they are turned
    off outside.

    Args:
        program: what `open_program` read.
        inputs: name -> tensor, on the CPU; converted to the type that the program takes.
        arithmetic: None computes as the program declares: an operation on float32 values in float32; one on
            float16 values in float32 as well, and its result is rounded to float16. So do processors that
            accumulate in more bits; others round inside an operation too, and differ by that much.
            torch.float64 computes everything that is floating-point in float64, from the weights as stored.
        observe: see `Observe`.

    Returns:
        Name -> tensor, in the file's order, of the types that the program declares; with `arithmetic` the
        floating-point ones of that type.

    Raises:
        UnusableInput: an operation is unknown here, fails, or makes something else than the program declares;
            or an input is missing.
    """
    floating = arithmetic or torch.float32
    last = _last_uses(program)
    values: dict[str, torch.Tensor] = {}
    for entry in program.inputs:
        if entry.name not in inputs:
            raise UnusableInput(f"the Core ML program needs the input {entry.name!r}")
        values[entry.name] = _held(inputs[entry.name], entry.dtype, arithmetic)
    for place, operation in enumerate(program.operations):
        outputs = compute(program, operation, values, floating)
        results = [
            _fitting(output, port, operation, arithmetic)
            for output, port in zip(outputs, operation.outputs, strict=True)
        ]
        if observe is not None:
            results = observe(operation, results) or results
        values.update((port.name, output) for port, output in zip(operation.outputs, results, strict=True))
        del outputs, results
        used = [name for names in operation.inputs.values() for name in names]
        for name in (*used, *(port.name for port in operation.outputs)):
            if last.get(name, -1) <= place:
                values.pop(name, None)
    constants = {}
    for name in program.outputs:
        value = values[name] if name in values else program.constants[name]
        if not isinstance(value, torch.Tensor):
            raise UnusableInput(f"cannot verify: the output {name!r} is a text")
        constants[name] = _held(value, value.dtype, arithmetic)
    return constants


def compute(
    program: MilProgram, operation: Operation, values: Mapping[str, torch.Tensor], floating: torch.dtype
) -> list[torch.Tensor]:
    """What one operation makes of the values of its inputs by name, those of `program.constants` left out.

    Raises:
        UnusableInput: it is unknown here, or cannot be computed.
    """
    where = f"{operation.kind} at {operation.name!r}"
    known = OPERATORS.get(operation.kind)
    if known is None:
        raise UnusableInput(f"cannot verify: {where} is not known to the evaluator")

    def operand(name: str) -> Constant:
        value = values[name] if name in values else program.constants[name]
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return value.to(floating)
        return value

    for port in operation.outputs:
        if port.shape is not None and None not in port.shape:
            wanted = math.prod(size for size in port.shape if size is not None) * floating.itemsize
            check_room(wanted, f"cannot verify: {where} declares")
    given = {parameter: [operand(name) for name in names] for parameter, names in operation.inputs.items()}
    try:
        result = known.compute(Call(operation, given, floating, program.opset))
    except CannotEvaluate as error:
        raise UnusableInput(f"cannot verify: {where} {error}") from error
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        reason = one_line(error)
        raise UnusableInput(f"cannot verify: {where} cannot be computed: {reason}") from error
    outputs = [result] if isinstance(result, torch.Tensor) else list(result)
    if len(outputs) != len(operation.outputs):
        raise UnusableInput(
            f"cannot verify: {where} makes {len(outputs)} values, the program declares "
            f"{len(operation.outputs)}"
        )
    return outputs


def _fitting(
    output: torch.Tensor, port: Port, operation: Operation, arithmetic: torch.dtype | None
) -> torch.Tensor:
    """The value in the type that the program declares, after a check that it is what is declared."""
    shape = tuple(output.shape)
    if port.shape is not None and (
        len(port.shape) != len(shape)
        or any(size is not None and size != own for size, own in zip(port.shape, shape, strict=True))
    ):
        raise UnusableInput(
            f"cannot verify: {operation.kind} at {operation.name!r} makes {_sizes(shape)}, the program "
            f"declares {_sizes(port.shape)}"
        )
    if port.dtype is None:
        return output
    if port.dtype.is_floating_point is not output.is_floating_point():
        kinds = [dtype_name(dtype) for dtype in (output.dtype, port.dtype)]
        raise UnusableInput(
            f"cannot verify: {operation.kind} at {operation.name!r} makes {kinds[0]}, the program declares "
            f"{kinds[1]}"
        )
    return _held(output, port.dtype, arithmetic)


def _held(value: torch.Tensor, dtype: torch.dtype, arithmetic: torch.dtype | None) -> torch.Tensor:
    """The value as it is kept between operations."""
    return value.to(arithmetic if arithmetic is not None and dtype.is_floating_point else dtype)


def _last_uses(program: MilProgram) -> dict[str, int]:
    """Name -> place of the last operation that reads it; outputs are read after all."""
    last: dict[str, int] = {}
    for place, operation in enumerate(program.operations):
        for names in operation.inputs.values():
            last.update(dict.fromkeys(names, place))
    last.update(dict.fromkeys(program.outputs, len(program.operations)))
    return last


def _sizes(shape: tuple[int | None, ...]) -> str:
    return shape_text("?" if size is None else size for size in shape)
