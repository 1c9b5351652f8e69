"""Which operations of a program lose most in float16.

An operation that computes in float16 is off by

    δ_k = round(f_k(x, w·(1 + u))) - f_k(x, w)        |u| ≤ 2⁻¹¹

on exact inputs x: its result is rounded, and so were its weights w when they were stored (which way is not
known any more, so u is drawn). What the program declares to be float32 is not rounded. To first order the
outputs y of the program move by Σ_k J_k δ_k, J_k being the derivative of y by the operation's result, and the
rounding errors of different operations are as good as independent. With r drawn from a normal distribution,
E[(r·J_k δ_k)²] = |J_k δ_k|², and r·J_k is what one backward pass gives for all k at once. So a few passes
tell what each operation puts into the outputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from reparamkit.mil.evaluate import compute, evaluate
from reparamkit.mil.graph import Constant, MilProgram, Operation

_HALF_ULP = 2.0**-11
_LARGEST = float(torch.finfo(torch.float16).max)
MOVES = (
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
        rounding: how much of its squared error comes from rounding its result, 0 to 1; the rest, from its
            weights.
    """

    operation: Operation
    error: float
    share: float
    rounding: float


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
    rounding: dict[str, float] = {}
    for number, feed in enumerate(feeds):
        for name, (value, part) in _squared_errors(program, feed, passes, seed + number).items():
            squared[name] = squared.get(name, 0.0) + value / len(feeds)
            rounding[name] = rounding.get(name, 0.0) + part / len(feeds)
    total = sum(squared.values())
    beyond = sum(map(math.isinf, squared.values()))
    lossy = []
    for operation in program.operations:
        own = squared.get(operation.name)
        if own is None:
            continue
        if math.isinf(total):
            share = 1.0 / beyond if math.isinf(own) else 0.0
        else:
            share = own / total if total else 0.0
        own_rounding = min(1.0, rounding[operation.name] / own) if 0 < own < math.inf else 1.0
        lossy.append(Loss(operation, math.sqrt(own), share, own_rounding))
    return sorted(lossy, key=lambda loss: -loss.error)


def _squared_errors(
    program: MilProgram, feed: Mapping[str, torch.Tensor], passes: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Name of an operation -> the squared error that it puts into the outputs, relative to their square.

    All of it, and what rounding its result alone puts there.
    """
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
    errors, beyond = _own_errors(program, fed, results, seed)
    sums = {name: [0.0, 0.0] for name in errors} | {name: [math.inf, math.inf] for name in beyond}
    size = sum(float(output.detach().double().square().sum()) for output in outputs) or 1.0
    generator = torch.Generator().manual_seed(seed)
    places = [(name, place) for name in errors for place in range(len(errors[name]))]
    places = [(name, place) for name, place in places if results[name][place].requires_grad]
    for number in range(passes if outputs and places else 0):
        towards = [torch.randn(output.shape, generator=generator) for output in outputs]
        gradients = torch.autograd.grad(
            outputs,
            [results[name][place] for name, place in places],
            towards,
            retain_graph=number < passes - 1,
            allow_unused=True,
        )
        moved = {name: [0.0, 0.0] for name in errors}
        for (name, place), gradient in zip(places, gradients, strict=True):
            if gradient is not None:
                for part, error in enumerate(errors[name][place]):
                    moved[name][part] += float((gradient.double() * error.double()).sum())
        for name, parts in moved.items():
            for part, value in enumerate(parts):
                sums[name][part] += value**2 / passes / size
    return {name: (parts[0], parts[1]) for name, parts in sums.items()}


Errors = dict[str, list[tuple[torch.Tensor, torch.Tensor]]]


def _own_errors(
    program: MilProgram,
    fed: Mapping[str, torch.Tensor],
    results: Mapping[str, list[torch.Tensor]],
    seed: int,
) -> tuple[Errors, list[str]]:
    """For each operation and result δ, and what of it is rounding; and the operations beyond the range."""
    values = dict(fed)
    for operation in program.operations:
        ports = zip(operation.outputs, results[operation.name], strict=True)
        values |= {port.name: value for port, value in ports}
    half = {port.name for each in program.operations for port in each.outputs if port.dtype is torch.float16}
    half |= {
        name
        for name, value in program.constants.items()
        if isinstance(value, torch.Tensor) and value.dtype is torch.float16
    }
    weights = _as_stored_otherwise(program, seed)
    errors: Errors = {}
    beyond = []
    with torch.no_grad():
        for operation in program.operations:
            produced = results[operation.name]
            read = [name for names in operation.inputs.values() for name in names]
            rounds = operation.outputs[0].name in half
            if not all(v.is_floating_point() for v in produced) or not (rounds or half.intersection(read)):
                continue
            touched = [*(values.get(n, program.constants.get(n)) for n in read if n in half or rounds)]
            if any(map(_out_of_range, [*touched, *(produced if rounds else ())])):
                beyond.append(operation.name)
                continue
            if operation.kind in MOVES and (operation.kind != "cast" or half.intersection(read)):
                continue
            again = compute(weights, operation, values, torch.float32)
            errors[operation.name] = [
                (_moved(new, old, rounds), _moved(old, old, rounds))
                for new, old in zip(again, produced, strict=True)
            ]
    return errors, beyond


def _moved(new: torch.Tensor, old: torch.Tensor, rounds: bool) -> torch.Tensor:
    """How far a result has moved, perhaps after rounding to float16; infinities that stay do not move."""
    new = new.half().float() if rounds else new
    return torch.where(new == old, torch.zeros_like(old), new - old)


def _as_stored_otherwise(program: MilProgram, seed: int) -> MilProgram:
    """The program with weights that round to float16 as well as its own do, but the other way as often."""
    generator = torch.Generator().manual_seed(seed)
    constants: dict[str, Constant] = {}
    for name, value in program.constants.items():
        if isinstance(value, torch.Tensor) and value.dtype is torch.float16 and value.dim():
            drawn = torch.rand(value.shape, generator=generator) * 2 - 1
            value = value.float() * (1 + _HALF_ULP * drawn)
        constants[name] = value
    return replace(program, constants=constants)


def _out_of_range(value: Constant | None) -> bool:
    """Whether a number is too large for float16; minus infinity, as in a mask, is exact there."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point() or not value.numel():
        return False
    size = value.detach().abs().where(value.detach() != -math.inf, 0.0)
    return not float(size.max()) <= _LARGEST
