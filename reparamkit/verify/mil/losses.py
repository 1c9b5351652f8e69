"""Which operations of a program lose most in float16.

An operation that computes in float16 is off by

    δ_k = round(f_k(x, w·(1 + u))) - f_k(x, w)        |u| ≤ 2⁻¹¹

on exact inputs x: its result is rounded, and so were its weights w when they were stored (which way is not
known any more, so u is drawn). To first order the outputs y of the program move by Σ_k J_k δ_k, J_k being the
derivative of y by the operation's result, and the rounding errors of different operations are as good as
independent. With r drawn from a normal distribution, E[(r·J_k δ_k)²] = |J_k δ_k|², and r·J_k is what one
backward pass gives for all k at once. So a few passes tell what each operation puts into the outputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from reparamkit.verify.mil.evaluate import compute, evaluate
from reparamkit.verify.mil.graph import Constant, MilProgram, Operation

_HALF_ULP = 2.0**-11
_LARGEST = float(torch.finfo(torch.float16).max)
_MOVES = (
    *("cast", "identity", "reshape", "transpose", "squeeze", "expand_dims", "concat", "stack", "split"),
    *("slice_by_index", "slice_by_size", "gather", "tile", "reverse", "pad", "relu", "max_pool"),
)
"""Operations whose results are values that were there before, and so rounded already."""


@dataclass(frozen=True)
class Loss:
    """What float16 costs at one operation.

    Attributes:
        operation: of the program.
        error: rms of the error that it puts into the outputs, relative to the rms of the outputs; infinite
            where it reads or makes a number beyond the range of float16.
        share: of the sum of squares over all operations; where some are infinite, they share it equally.
    """

    operation: Operation
    error: float
    share: float


def losses(
    program: MilProgram, feeds: Sequence[Mapping[str, torch.Tensor]], *, passes: int = 4, seed: int = 0
) -> list[Loss]:
    """Every operation that makes floating-point numbers, the one that loses most first.

    Args:
        program: its weights in float32 or float16.
        feeds: inputs, as for `evaluate`; the errors are the rms over all of them.
        passes: how many random directions of the outputs are followed back.

    Raises:
        UnusableInput: as `evaluate`.
    """
    squared: dict[str, float] = {}
    for number, feed in enumerate(feeds):
        for name, value in _squared_errors(program, feed, passes, seed + number).items():
            squared[name] = squared.get(name, 0.0) + value / len(feeds)
    total = sum(squared.values())
    beyond = sum(map(math.isinf, squared.values()))
    found = []
    for operation in program.operations:
        own = squared.get(operation.name)
        if own is None:
            continue
        if math.isinf(total):
            share = 1.0 / beyond if math.isinf(own) else 0.0
        else:
            share = own / total if total else 0.0
        found.append(Loss(operation, math.sqrt(own), share))
    return sorted(found, key=lambda loss: -loss.error)


def _squared_errors(
    program: MilProgram, feed: Mapping[str, torch.Tensor], passes: int, seed: int
) -> dict[str, float]:
    """Name of an operation -> the squared error that it puts into the outputs, relative to their square."""
    results: dict[str, list[torch.Tensor]] = {}

    def keep(operation: Operation, outputs: list[torch.Tensor]) -> None:
        results[operation.name] = outputs

    fed = {
        name: value.detach().float().requires_grad_() if value.is_floating_point() else value
        for name, value in feed.items()
    }
    with torch.enable_grad():
        outputs = [
            value
            for value in evaluate(program, fed, torch.float32, observe=keep).values()
            if value.is_floating_point() and value.requires_grad
        ]
    values = {**fed}
    for operation in program.operations:
        values |= {
            port.name: value for port, value in zip(operation.outputs, results[operation.name], strict=True)
        }
    weights = _as_stored_otherwise(program, seed)
    errors: dict[str, list[torch.Tensor]] = {}
    beyond: dict[str, float] = {}
    with torch.no_grad():
        for operation in program.operations:
            made = results[operation.name]
            read = [name for names in operation.inputs.values() for name in names]
            if operation.kind == "cast" or not all(v.is_floating_point() for v in made):
                continue
            if any(map(_out_of_range, [*made, *(values.get(n, program.constants.get(n)) for n in read)])):
                beyond[operation.name] = math.inf
                continue
            if operation.kind in _MOVES:
                continue
            again = compute(weights, operation, values, torch.float32)
            errors[operation.name] = [_moved(new, old) for new, old in zip(again, made, strict=True)]
    found = dict.fromkeys(errors, 0.0) | beyond
    size = sum(float(output.detach().double().square().sum()) for output in outputs) or 1.0
    generator = torch.Generator().manual_seed(seed)
    places = [(name, place) for name, own in errors.items() for place in range(len(own))]
    followed = [results[name][place] for name, place in places]
    reachable = [place for place, value in enumerate(followed) if value.requires_grad]
    for number in range(passes if outputs and reachable else 0):
        towards = [torch.randn(output.shape, generator=generator) for output in outputs]
        gradients = torch.autograd.grad(
            outputs,
            [followed[place] for place in reachable],
            towards,
            retain_graph=number < passes - 1,
            allow_unused=True,
        )
        moved: dict[str, float] = {}
        for place, gradient in zip(reachable, gradients, strict=True):
            name, output = places[place]
            if gradient is not None:
                own = float((gradient.double() * errors[name][output].double()).sum())
                moved[name] = moved.get(name, 0.0) + own
        for name, own in moved.items():
            found[name] += own**2 / passes / size
    return found


def _moved(new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """How far rounding to float16 moves a result; infinities that stay do not move."""
    new = new.half().float()
    return torch.where(new == old, torch.zeros_like(old), new - old)


def _as_stored_otherwise(program: MilProgram, seed: int) -> MilProgram:
    """The program with weights that round to float16 as well as its own do, but the other way as often."""
    generator = torch.Generator().manual_seed(seed)
    constants: dict[str, Constant] = {}
    for name, value in program.constants.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.dim():
            drawn = torch.rand(value.shape, generator=generator) * 2 - 1
            value = value.float() * (1 + _HALF_ULP * drawn)
        constants[name] = value
    return MilProgram(
        program.inputs, program.operations, constants, program.outputs, program.opset, program.labels
    )


def _out_of_range(value: Constant | None) -> bool:
    """Whether a number is too large for float16; minus infinity, as in a mask, is exact there."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point() or not value.numel():
        return False
    size = value.detach().abs().where(value.detach() != -math.inf, 0.0)
    return not float(size.max()) <= _LARGEST
