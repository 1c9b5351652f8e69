"""The second proof: every replaced value where it stands in the network, beside the captured graph.

The proof of a region says that its layers are right; not that their readers get them, that nothing else reads
what has changed, nor that the finished module holds the numbers that were proven. Both graphs are walked side
by side, once, in float64, on the captured example:

    captured:   …  conv ─▶ norm ─▶ + ─▶ relu …        a new value is computed from the captured graph's own
    finished:   …  layer ─────────────▶ relu …        values, compared with the old one, and replaced by it

So no error is carried on, what comes out is held against the rounding of the layers alone, and an operator
that reads the same values as before is not run twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from reparamkit.hosts.fx.captured import Captured, Changes, writes
from reparamkit.hosts.fx.walk import CannotRun, FinishedFails, Walk, differs, stored

_CARRIED = 1e-3  # relative: of rounding errors that a whole network carries on


def require_same(captured: Captured, module: fx.GraphModule, changes: Changes) -> bool:
    """Whether the finished module could be held against the captured graph; raises if it is another function.

    False where the captured graph itself does not run on the example's kind of values.

    Raises:
        NotEquivalent: a value of the finished module is not the one that it stands for, a check of sizes is
            gone, or two results share memory that did not before. That is a mistake of reparamkit.
    """
    _require_guards(captured, module)
    _require_stored(captured, module)
    _require_computed(captured, module, changes)
    given = _given(captured)
    for dtype in (torch.float64, None) if given is not None else ():
        try:
            with torch.no_grad():
                walk = Walk(captured, module, changes, given or {}, dtype)
                walk.walk()
                if captured.program.writes:
                    _require_same_writes(walk)
        except FinishedFails as error:
            if dtype is None:
                raise differs("", "a value", str(error)) from error
        except (CannotRun, RuntimeError, ValueError, TypeError, NotImplementedError, IndexError):
            continue  # it hard-codes a number type, or some operator of it runs in a compiler only
        else:
            return True
    return False


def _require_guards(captured: Captured, module: fx.GraphModule) -> None:
    """What checks the inputs is there, reads all of them, and stands before everything else."""
    nodes = list(module.graph.nodes)
    first = next(
        i
        for i, n in enumerate(nodes)
        if n.op not in ("placeholder", "get_attr") and not _checks(n, module, captured)
    )
    calls = {module.get_submodule(str(n.target)): n for n in nodes[:first] if n.op == "call_module"}
    for guard in captured.guards:
        call = calls.get(guard)
        whole = guard is captured.program.constant_arguments or (
            call is not None and list(call.args) == captured.tensors
        )
        if call is None or not whole:
            raise differs("", "the check of its inputs", "is not what it should be")


def _checks(node: fx.Node, module: fx.GraphModule, captured: Captured) -> bool:
    return node.op == "call_module" and module.get_submodule(str(node.target)) in captured.guards


def _require_stored(captured: Captured, module: fx.GraphModule) -> None:
    """The finished module's own tensors are the captured ones."""
    program = captured.program
    for node in module.graph.nodes:
        name = str(node.target)
        if node.op != "get_attr" or name not in program.state:
            continue
        mine, wanted = stored(module, name).detach(), program.state[name].detach()
        equal = mine.shape == wanted.shape and mine.device == wanted.device and mine.dtype == wanted.dtype
        equal = equal and _same_bits(mine, wanted)
        if not equal:
            raise differs("", name, "does not hold the numbers that it should")


def _require_computed(captured: Captured, module: fx.GraphModule, changes: Changes) -> None:
    """What is stored for a constant is what the captured operators give, in their own number types."""
    known: dict[fx.Node, Any] = {}
    for node in module.graph.nodes:
        if node not in changes.computed:
            continue
        wanted = _constant(captured, changes.twins[node], known)
        mine = stored(module, str(node.target)).detach().cpu()
        equal = mine.shape == wanted.shape and mine.dtype == wanted.dtype
        if not equal or not (_same_bits(mine, wanted) or _rounded_alike(mine, wanted)):
            raise differs("", str(node.target), "does not hold the numbers that it should")


def _constant(captured: Captured, node: fx.Node, known: dict[fx.Node, Any]) -> Tensor:
    """The value of a captured node that depends on the network's own tensors alone."""
    needed, pending = {node}, [node]
    while pending:
        for read in captured.steps[captured.index[pending.pop()]].inputs:
            if read not in needed:
                needed.add(read)
                pending.append(read)
    with torch.no_grad():
        for place in sorted(captured.index[n] for n in needed if n not in known):
            step = captured.steps[place]
            if step.op == "get_attr":
                known[step.node] = captured.program.state[str(step.target)].detach().cpu()
                continue
            args, kwargs = fx.map_arg((step.args, step.kwargs), known.__getitem__)
            args, kwargs = fx.node.map_aggregate((args, kwargs), _on_the_cpu)
            known[step.node] = step.target(*args, **kwargs)
    value: Tensor = known[node]
    return value


def _on_the_cpu(argument: Any) -> Any:
    return torch.device("cpu") if isinstance(argument, torch.device) else argument


def _rounded_alike(a: Tensor, b: Tensor) -> bool:
    """Where memory lies otherwise, a library may add up in another order."""
    if not a.is_floating_point() or not torch.equal(a.isfinite(), b.isfinite()):
        return False
    eps = torch.finfo(a.dtype).eps
    a, b = (x.double().nan_to_num(0.0, 0.0, 0.0) for x in (a, b))
    return bool((a - b).abs().max() <= 16 * eps * b.abs().max())


def _same_bits(a: Tensor, b: Tensor) -> bool:
    if a.data_ptr() == b.data_ptr() or torch.equal(a, b):
        return True
    return (
        a.is_floating_point()
        and torch.equal(a.isnan(), b.isnan())
        and torch.equal(a.nan_to_num(), b.nan_to_num())
    )


def _given(captured: Captured) -> dict[fx.Node, Any] | None:
    """A value for every input; None if the example is not known by its places."""
    program = captured.program
    places = [step.node for step in captured.steps if step.op == "placeholder"]
    args, kwargs = program.ordinary or (program.args, program.kwargs)
    flat = pytree.tree_leaves((tuple(args), dict(kwargs)))
    if len(flat) != len(places):
        return None
    generator = torch.Generator().manual_seed(0)
    return {place: _telling(value, generator) for place, value in zip(places, flat, strict=True)}


def _telling(value: Any, generator: torch.Generator) -> Any:
    """The value, or noise where it is a constant, which hides what reads it where."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.numel() < 2:
        return value
    value = value.detach().cpu()
    if bool((value == value.flatten()[0]).all()):
        return torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value.dtype)
    return value


def _require_same_writes(walk: Walk) -> None:
    """Both graphs run for real, with what they write: the results, the inputs and the state afterwards."""
    steps = [(s.node, s.op, s.target, s.args, s.kwargs) for s in walk.captured.steps]
    nodes = [(n, n.op, n.target, n.args, n.kwargs) for n in walk.finished]
    expected, before = _run(walk, steps, walk.captured.program.state.__getitem__)
    actual, after = _run(walk, nodes, lambda name: stored(walk.module, name))
    for a, b in zip(expected, actual, strict=True):
        _require_close(a, b, "a result")
    for key, a in before.items():
        if key in after:
            _require_close(a, after[key], str(key))


def _run(walk: Walk, nodes: Iterable[Any], state: Any) -> tuple[list[Any], Mapping[Any, Any]]:
    values: dict[fx.Node, Any] = {}
    places: dict[Any, Any] = {}
    for node, op, target, args, kwargs in nodes:
        if op == "placeholder":
            values[node] = places[node] = _own(walk.cast(walk.given[node]))
        elif op == "get_attr":
            name = str(target)
            if name in walk.captured.program.submodules:
                raise CannotRun
            if name not in places:
                places[name] = _own(walk.cast(state(name)))
            values[node] = places[name]
        elif op == "call_module":
            module = walk.module.get_submodule(str(target))
            if module not in walk.captured.guards:
                values[node] = walk.layer(node, values[args[0]], _unchanged)
        elif op == "output":
            return pytree.tree_leaves(fx.map_arg(args, values.__getitem__)), places
        else:
            values[node] = (
                target(*fx.map_arg(args, values.__getitem__), **kwargs)
                if writes(target)
                else walk.call(target, args, kwargs, values)
            )
    raise CannotRun


def _unchanged(number: Tensor) -> Tensor:
    return number


def _own(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _require_close(a: Any, b: Any, what: str) -> None:
    if not isinstance(a, Tensor) or not a.is_floating_point():
        return
    off, scale = (a - b).nan_to_num(0.0, 0.0, 0.0).abs(), a.nan_to_num(0.0, 0.0, 0.0).abs()
    if a.numel() and not float(off.max()) <= _CARRIED * float(scale.max()):
        raise differs("", what, "differs once the network has written what it writes")
