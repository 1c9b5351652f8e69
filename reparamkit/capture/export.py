"""From whatever the user has to a `Program`, by way of torch.export.

Sizes are captured dynamic as far as the model allows, in three steps, each under a time limit because the
symbolic solver has none: batch and spatial sizes, batch alone, fixed sizes.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from reparamkit.capture.limit import OutOfTime, limited
from reparamkit.capture.program import Program, program_of
from reparamkit.errors import CannotCapture, UnusableInput

Model = nn.Module | ExportedProgram
SECONDS_PER_ATTEMPT = 60.0

_FULL, _BATCH, _FIXED = "batch and spatial sizes", "batch size", "fixed sizes"
_NOISY = ("torch._export", "torch.export", "torch.fx.experimental", "torch._dynamo", "torch._functorch")


def capture(
    model: Model,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    dynamic: str | bool | Any = "auto",
    seconds: float = SECONDS_PER_ATTEMPT,
) -> Program:
    """Capture `model` called with the example `args` and `kwargs`.

    `dynamic` is "auto" (as much as the model allows), "batch", False (fixed sizes), or the
    `dynamic_shapes` of torch.export. `seconds` bounds each dynamic attempt. A model in training
    mode is captured as a copy in eval mode, and a note says so. Raises `CannotCapture`.
    """
    kwargs = kwargs or {}
    if isinstance(model, ExportedProgram):
        program = program_of(model, args, kwargs)
        program.notes.append(f"sizes as in the exported program: {_sizes(program)}")
        return program
    notes: list[str] = []
    if any(m.training for m in model.modules()):
        model = copy.deepcopy(model).eval()
        notes.append(
            "the model was in training mode; a copy in eval mode was folded (call model.eval() first)"
        )
    if isinstance(model, torch.jit.ScriptModule):
        program = program_of(_from_torchscript(model, args, kwargs), args, kwargs)
        program.notes.extend([*notes, "TorchScript is captured with fixed sizes"])
        return program
    exported, note = _export(model, args, kwargs, dynamic, seconds)
    program = program_of(exported, args, kwargs)
    program.notes.extend([*notes, *([note] if note else [])])
    return program


def _export(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic: Any, seconds: float
) -> tuple[ExportedProgram, str]:
    if (
        dynamic not in ("auto", "batch", True, False, None)
        if isinstance(dynamic, str | bool | None)
        else False
    ):
        raise UnusableInput(f'dynamic={dynamic!r} is none of "auto", "batch", False or torch.export shapes')
    if not isinstance(dynamic, str | bool | None):
        return _attempt(model, args, kwargs, dynamic, None), ""
    attempts = {"auto": [_FULL, _BATCH], True: [_FULL, _BATCH], "batch": [_BATCH]}.get(dynamic, [])  # type: ignore[arg-type]
    failures = []
    doubled = _two_of_each(args, kwargs)
    for kind in attempts:
        example = doubled if doubled is not None else (args, kwargs)
        shapes = _dynamic_shapes(*example, spatial=kind == _FULL)
        if shapes is None:
            continue
        try:
            exported = _attempt(model, *example, shapes, seconds)
        except OutOfTime:
            failures.append(f"{kind}: no answer within {seconds:.0f} s")
            continue
        except CannotCapture as error:
            failures.append(f"{kind}: {_first_line(error)}")
            continue
        return exported, "; ".join(f"not dynamic in {f}" for f in failures)
    exported = _attempt(model, args, kwargs, None, None)
    return exported, "; ".join(["captured with fixed sizes", *failures] if failures else [])


def _attempt(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], shapes: Any, seconds: float | None
) -> ExportedProgram:
    try:
        with _quiet(), torch.no_grad(), limited(seconds):
            return torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)
    except (OutOfTime, KeyboardInterrupt):
        raise
    except Exception as error:  # whatever the user's forward raises
        raise CannotCapture(_explained(error)) from error


def _explained(error: Exception) -> str:
    text = _first_line(error)
    hint = "fold the part of it that is a fixed graph (rk.fold(model.backbone, x)), or rewrite the branch with torch.cond"
    kind = type(error).__name__
    if "data-dependent" in str(error) or "GuardOnDataDependent" in kind:
        return f"torch.export cannot capture the model: its control flow depends on the data ({text}); {hint}"
    return (
        f"the model cannot be captured with these inputs: {kind}: {text}; check that "
        f"model(*example_inputs) runs with exactly these shapes and types, or {hint}"
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def _two_of_each(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The same example with a batch of two: torch.export takes a size of 1 for a constant."""
    leaves, spec = pytree.tree_flatten((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if not tensors or any(t.ndim == 0 or t.shape[0] != 1 for t in tensors):
        return None
    twice = [torch.cat([x, x]) if isinstance(x, Tensor) else x for x in leaves]
    found: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_unflatten(twice, spec)
    return found


def _dynamic_shapes(args: tuple[Any, ...], kwargs: dict[str, Any], *, spatial: bool) -> Any:
    """Dim.AUTO for every axis that may vary, or None where there is none."""
    any_axis = False

    def of(leaf: Any) -> Any:
        nonlocal any_axis
        if not isinstance(leaf, Tensor):
            return None
        axes = {}
        for axis, size in enumerate(leaf.shape):
            channel = axis == 1 and leaf.ndim != 3
            if size > 1 and (axis == 0 or (spatial and not channel)):
                axes[axis] = Dim.AUTO
                any_axis = True
        return axes or None

    shapes_of_args = tuple(pytree.tree_map(of, a) for a in args)
    shapes_of_kwargs = {k: pytree.tree_map(of, v) for k, v in kwargs.items()}
    if not any_axis:
        return None
    if not kwargs:
        return shapes_of_args
    return (
        {"args": shapes_of_args, **shapes_of_kwargs} if False else _by_name(shapes_of_args, shapes_of_kwargs)
    )


def _by_name(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return kwargs if not args else (*args, *kwargs.values())


def _from_torchscript(
    model: torch.jit.ScriptModule, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> ExportedProgram:
    from torch._export.converter import TS2EPConverter

    try:
        with _quiet(), torch.no_grad():
            converted: ExportedProgram = TS2EPConverter(model, args, kwargs or None).convert()
            return converted
    except Exception as error:  # the converter raises all sorts
        raise CannotCapture(
            f"the TorchScript model cannot be converted: {type(error).__name__}: {_first_line(error)}; "
            "fold the nn.Module that it was made from"
        ) from error


def _sizes(program: Program) -> str:
    if not program.axes:
        return "fixed"
    return ", ".join(sorted({s for axes in program.axes.values() for s in axes.values()})) + " vary"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what torch says about its own internals while it captures."""
    levels = {name: logging.getLogger(name).level for name in _NOISY}
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
