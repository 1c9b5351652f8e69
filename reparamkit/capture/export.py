"""From whatever the user has to a `Program`, by way of torch.export.

Sizes are captured dynamic as far as the model allows, in three steps, each under a time limit because the
symbolic solver has none: batch and spatial sizes, batch alone, fixed sizes.
"""

from __future__ import annotations

import copy
import inspect
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from reparamkit.capture.agreement import batch_is_free, two_of_each
from reparamkit.capture.known_values import SETS_DATA, KnownValues, changed_weights, may_be_known, sets_data
from reparamkit.capture.limit import OutOfTime, limited
from reparamkit.capture.oblivious import sizes_oblivious
from reparamkit.capture.other_inputs import what_it_takes
from reparamkit.capture.own_weights import settled_copy
from reparamkit.capture.program import Program, program_of
from reparamkit.capture.questions import questions_recorded, remember
from reparamkit.capture.shown import settle_by_observation
from reparamkit.capture.witness import Witness, can_be_watched
from reparamkit.errors import CannotCapture, UnusableInput
from reparamkit.support.inputs import register_dataclasses, shapes_tree, tensor_leaves, told_apart
from reparamkit.support.isolation import call_untouched
from reparamkit.support.progress import phase
from reparamkit.support.quiet import quiet
from reparamkit.support.text import first_line, first_line_alone

Model = nn.Module | ExportedProgram
SECONDS_PER_ATTEMPT = 60.0

_NOT_THE_USERS = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))
_DECIDED = "decided by the values of"

_FULL, _BATCH = "batch and spatial sizes", "batch size"
_LADDERS = {"auto": (_FULL, _BATCH), True: (_FULL, _BATCH), "batch": (_BATCH,), False: ()}


def capture(
    model: Model,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    dynamic: Any = "auto",
    seconds: float = SECONDS_PER_ATTEMPT,
) -> Program:
    """Capture `model` called with the example `args` and `kwargs`.

    `dynamic` is "auto" (as much as the model allows), "batch", False (fixed sizes), or the
    `dynamic_shapes` of torch.export. `seconds` of processor time bound each dynamic attempt. A model in
    training mode is captured as a copy in eval mode, and a note says so.

    Raises:
        UnusableInput: the model itself rejects the example.
        CannotCapture: it runs, but torch.export cannot turn it into one graph.
    """
    kwargs = kwargs or {}
    if isinstance(model, ExportedProgram):
        return program_of(model, args, kwargs)
    args, kwargs = told_apart(args, kwargs)
    model, notes = evaluating(model)
    if isinstance(model, torch.jit.ScriptModule):
        program = program_of(_from_torchscript(model, args, kwargs), args, kwargs)
    else:
        program, failures = _export(model, args, kwargs, dynamic, seconds)
        if sets_data(program.exported):
            model = settled_copy(model, args, kwargs)
            program, failures = _export(model, args, kwargs, dynamic, seconds)
            failures.append(
                "the network sets its own weights when it runs: captured with what it sets them to"
            )
        if program.rewritten:
            settled_copy(model, args, kwargs, program.rewritten)
        if decided := program.exported.graph_module.meta.get(_DECIDED):
            failures.append(
                f"the network branches on the values of its own weights ({decided}): captured for them"
            )
        settle_by_observation(program, model)
        if not program.takes(args, kwargs):
            program, more = _narrower(model, args, kwargs, dynamic, seconds)
            failures += more
        notes += failures
    program.notes += notes
    return program


def _narrower(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic: Any, seconds: float
) -> tuple[Program, list[str]]:
    """For an example that a capture with free sizes does not stand for: with fewer of them free.

    Captured with a batch of two, a network may settle that batch; or torch.export assumed of a size inside
    the network that it is not one, where in the example it is.
    """
    if dynamic in ("auto", True):
        program, failures = _export(model, args, kwargs, "batch", seconds)
        settle_by_observation(program, model)
        if program.takes(args, kwargs):
            told = f"with free {_FULL} it would not stand for the example: captured with {program.sizes}"
            return program, [told, *failures]
    program, failures = _export(model, args, kwargs, False, None)
    settle_by_observation(program, model)
    return program, ["the network settles its batch size: captured with fixed sizes", *failures]


def evaluating(model: nn.Module) -> tuple[nn.Module, list[str]]:
    """The model, or a copy in eval mode of one that is in training mode with a note that says so.

    Raises:
        UnusableInput: it is in training mode and cannot be copied.
    """
    if not any(getattr(m, "training", False) for m in model.modules()):
        return model, []
    try:
        model = copy.deepcopy(model).eval()
    except Exception as error:
        raise UnusableInput(
            "the model is in training mode and cannot be copied: call model.eval() before folding "
            f"({first_line(error)})"
        ) from error
    return model, ["the model was in training mode; a copy in eval mode was folded (call model.eval() first)"]


def _export(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic: Any, seconds: float | None
) -> tuple[Program, list[str]]:
    """The captured program, and what could not be kept free."""
    if dynamic is None:
        dynamic = False
    if not isinstance(dynamic, str | bool):
        return program_of(_attempt(model, args, kwargs, dynamic, None), args, kwargs, watched=True), []
    if dynamic not in _LADDERS:
        raise UnusableInput(f'dynamic={dynamic!r} is none of "auto", "batch", False or torch.export shapes')
    failures: list[str] = []
    doubled = two_of_each(args, kwargs)
    for kind in _LADDERS[dynamic]:
        for example in filter(None, (doubled, (args, kwargs))):
            shapes = _dynamic_shapes(model, *example, spatial=kind == _FULL)
            if shapes is None:
                continue
            try:
                with phase("torch.export", f"with free {kind}"):
                    exported = _attempt(model, *example, shapes, seconds)
            except OutOfTime:
                failures.append(f"not captured with free {kind}: no answer within {seconds:.0f} s of work")
                break
            except CannotCapture as error:
                failures.append(
                    f"not captured with free {kind}: {first_line_alone(error.__cause__ or error)}"
                )
                break
            program = program_of(exported, *example, watched=True)
            if example is not doubled or (
                batch_is_free(exported)
                and can_be_watched(exported)
                and program.asked_alike(args, kwargs)
                and Witness(exported, model, *example).observe(args, kwargs).same
            ):
                return program, failures
            failures.append("the network treats a batch of one in its own way: captured for that batch size")
    try:
        return program_of(_attempt(model, args, kwargs, None, None), args, kwargs, watched=True), failures
    except CannotCapture:
        if register_dataclasses(run_example(model, args, kwargs)):
            return _export(model, args, kwargs, dynamic, seconds)
        raise


def _attempt(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], shapes: Any, seconds: float | None
) -> ExportedProgram:
    try:
        return _traced(model, args, kwargs, shapes, seconds)
    except Exception as error:  # whatever the user's forward raises
        if not may_be_known(error):
            raise _explained(error) from error
    known = KnownValues(model)
    try:
        exported = _traced(model, args, kwargs, shapes, seconds, known)
    except Exception as error:
        raise _explained(error) from error
    changing = known.decided & changed_weights(exported)
    if changing:
        raise _explained(ValueError(f"data-dependent: by {min(changing)!r}, which it changes when it runs"))
    if known.sets_data:
        exported.graph_module.meta[SETS_DATA] = True
    if known.decided:
        exported.graph_module.meta[_DECIDED] = ", ".join(sorted(known.decided))
    return exported


def _traced(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    shapes: Any,
    seconds: float | None,
    mode: AbstractContextManager[Any] | None = None,
) -> ExportedProgram:
    quietly = quiet(), torch.no_grad(), sizes_oblivious()
    with ExitStack() as around, questions_recorded() as asked:
        marks = _marks_removed([tensor for _, tensor in tensor_leaves(args, kwargs)])
        for each in (
            *quietly,
            marks,
            _keywords_named(model, kwargs),
            limited(seconds),
            mode or nullcontext(),
        ):
            around.enter_context(each)
        exported = torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)
    remember(exported, asked)
    return exported


def run_example(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What the model returns for the example. Raises `UnusableInput` with the shapes if it rejects it."""
    try:
        with quiet():
            return call_untouched(model, args, kwargs)
    except Exception as error:
        shapes = ", ".join(
            f"{list(x.shape)} {str(x.dtype).removeprefix('torch.')}"
            for x in pytree.tree_leaves((args, kwargs))
            if isinstance(x, Tensor)
        )
        raise UnusableInput(
            f"the model rejects the example inputs ({shapes}): {first_line(error)}"
            f"{what_it_takes(model, args, kwargs)}"
        ) from error


def _explained(error: Exception) -> CannotCapture:
    text, kind = first_line_alone(error), type(error).__name__
    data_dependent = "data-dependent" in str(error).lower() or "DataDependent" in kind
    reason = "its control flow depends on the data" if data_dependent else f"torch.export stopped with {kind}"
    reason = f"{reason} ({text}){_line_of(error)}"
    return CannotCapture(
        f"the model cannot be captured as one graph: {reason}. Fold the part of it that is a fixed graph, "
        "for instance rk.fold(model.backbone, x), or rewrite the branch with torch.cond or torch.where",
        reason,
    )


def _dynamic_shapes(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, spatial: bool) -> Any:
    """Dim.AUTO for every axis that may vary, or None where there is none."""
    any_axis = False

    def of(leaf: Any) -> Any:
        nonlocal any_axis
        if not isinstance(leaf, Tensor):
            return None
        axes = {}
        for axis, size in enumerate(leaf.shape):
            if size > 1 and (axis == 0 or spatial):  # channels turn out to be fixed by the weights
                axes[axis] = Dim.AUTO
                any_axis = True
        return axes or None

    try:
        with _keywords_named(model, kwargs):
            bound = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return None  # the model does not take them; the capture says why
    shapes = {name: shapes_tree(pytree.tree_map(of, value)) for name, value in bound.items()}
    return shapes if any_axis else None


@contextmanager
def _marks_removed(tensors: list[Tensor]) -> Iterator[None]:
    """Take the marks for free axes off the example that torch.export leaves there where it fails.

    The next attempt, with fixed sizes, would obey them.
    """
    before = [(tensor, set(vars(tensor))) for tensor in tensors]
    try:
        yield
    finally:
        for tensor, names in before:
            for name in set(vars(tensor)) - names:
                delattr(tensor, name)


@contextmanager
def _keywords_named(model: nn.Module, kwargs: dict[str, Any]) -> Iterator[None]:
    """Let a forward that takes `**anything` look as if it named what it is given.

    torch.export cannot free sizes of tensors that arrive there.
    """
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):
        yield
        return
    parameters = list(signature.parameters.values())
    caught = [name for name in kwargs if name not in signature.parameters]
    if not caught or not parameters or parameters[-1].kind is not inspect.Parameter.VAR_KEYWORD:
        yield
        return
    forward = model.forward

    def named(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    named.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*parameters[:-1], *(inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY) for n in caught)]
    )
    own = "forward" in vars(model)
    model.forward = named
    try:
        yield
    finally:
        if own:
            model.forward = forward
        else:
            del model.forward


def _from_torchscript(
    model: torch.jit.ScriptModule, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> ExportedProgram:
    from torch._export.converter import TS2EPConverter

    try:
        with quiet(), torch.no_grad():
            converted: ExportedProgram = TS2EPConverter(model, args, kwargs or None).convert()
            return converted
    except Exception as error:  # the converter raises all sorts
        run_example(model, args, kwargs)  # says so if it is the inputs that are wrong
        raise CannotCapture(
            f"the TorchScript model cannot be converted: {first_line(error)}; "
            "fold the nn.Module that it was made from"
        ) from error


def _line_of(error: BaseException) -> str:
    """The user's line that it came from, as ", at line 12 of net.py: `if x.sum() > 0:`"; "" if unknown."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.line and not frame.filename.startswith((*_NOT_THE_USERS, "<")):
            return f", at line {frame.lineno} of {Path(frame.filename).name}: `{frame.line.strip()[:80]}`"
    return ""
