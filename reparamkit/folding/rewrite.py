"""The pass: read, plan, compute, prove, replace.

A fold that does not prove itself is taken back (its node is barred), the plan is made again without it, and
the reason is reported; everything else goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import fx, nn

from reparamkit.algebra import IDENTITY, Inexact
from reparamkit.capture.program import Program
from reparamkit.folding.findings import Fold, Refusal, counted, named, refusals, short
from reparamkit.folding.forms import Form
from reparamkit.folding.host import Host
from reparamkit.folding.layers import Realisation, realise
from reparamkit.folding.numbers import Terms, numbers
from reparamkit.folding.plan import Plan, interior, plan
from reparamkit.folding.proof import Unproven, prove, prove_lift
from reparamkit.folding.surgery import Surgery, common_path, owner_path


@dataclass(frozen=True)
class Outcome:
    """The folded module with the findings."""

    module: fx.GraphModule
    folds: tuple[Fold, ...]
    refusals: tuple[Refusal, ...]


@dataclass(frozen=True)
class _Proven:
    realisation: Realisation
    error: float


def fold_program(program: Program) -> Outcome:
    """Fold everything in the program that is exact and pays; the program's graph is used up."""
    host = Host(program)
    with _one_thread():
        chosen, proven, unproven = _proven_plan(host)
    surgery = Surgery(host)
    made = []
    for form in chosen.folds:
        done = proven.get(form.node)
        if done is None or done.realisation.is_identity:
            surgery.alias(form)
        else:
            made.append((form, done, surgery.replace(form, done.realisation)))
    module = surgery.module()
    folds = []
    for form, done, calls in made:
        if calls and not any(surgery.is_used(call) for call in calls):
            continue  # made for a reader that another fold replaced
        inside = interior(host.nodes, form)
        folds.append(
            Fold(
                where=common_path(owner_path(host.spoken_of(i)) for i in inside),
                operators=counted([_spoken(host, i) for i in inside]),
                layers={str(c.target): _described(module.get_submodule(str(c.target))) for c in calls},
                error=done.error,
            )
        )
    kept = tuple(
        Refusal(owner_path(host.fx_nodes[node.id]), node.name, node.operator, reason)
        for node, reason, part_of in refusals(chosen, unproven)
        if surgery.is_left(part_of)
    )
    return Outcome(module, tuple(folds), kept)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The tensors are tiny: a second thread only waits for the first, and on a busy machine for long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _proven_plan(host: Host) -> tuple[Plan, dict[int, _Proven], dict[int, str]]:
    proven: dict[tuple[int, object], _Proven] = {}
    unproven: dict[int, str] = {}
    same: set[int] = set()
    while True:
        current = plan(host.nodes, frozenset(unproven) | same)
        settled = True
        for form in current.folds:
            key = (form.node, form.terms)
            if key in proven or (form.is_identity and form.terms[0][0] not in host.lifts):
                continue
            try:
                made = _make(host, form)
            except (Unproven, Inexact) as reason:
                refused = host.nodes[form.node]
                # A stand-in cannot stay as it is; the node that it was written down for can.
                stays = refused.acts_for if refused.stand_in and refused.acts_for is not None else refused.id
                if stays in unproven:
                    raise AssertionError(f"{refused.name} was planned after all") from reason
                unproven[stays] = str(reason)
                settled = False
                continue
            if _changes_nothing(host, form, made.realisation):
                same.add(form.node)
                settled = False
            proven[key] = made
        if settled:
            return (
                current,
                {f.node: proven[f.node, f.terms] for f in current.folds if not f.is_identity},
                unproven,
            )


def _changes_nothing(host: Host, form: Form, realisation: Realisation) -> bool:
    """Whether the fold would put back the operators that it takes away."""
    inside = [host.nodes[i] for i in interior(host.nodes, form)]
    if realisation.is_identity or any(node.upkeep for node in inside):
        return False
    return dict(Counter(short(node.operator) for node in inside)) == realisation.operators


def _make(host: Host, form: Form) -> _Proven:
    if form.is_identity:
        terms: Terms = {form.terms[0][0]: IDENTITY}
        return _Proven(realise(terms), prove_lift(host, form))
    terms = numbers(host.nodes, form)
    realisation = realise(terms)
    error = prove(host, form, terms, realisation)
    like = host.fx_nodes[form.node].meta["val"]
    if not realisation.rounded(like):
        raise Unproven(f"a folded weight overflows or vanishes in {str(like.dtype).removeprefix('torch.')}")
    return _Proven(realisation, error)


def _spoken(host: Host, index: int) -> str:
    known = host.id_of(host.spoken_of(index))
    return named(host.nodes[index if known is None else known])


def _described(module: nn.Module) -> str:
    if isinstance(module, nn.Linear):
        return f"Linear {module.in_features} -> {module.out_features}"
    if isinstance(module, nn.modules.conv._ConvNd):
        window = "x".join(map(str, module.kernel_size))
        groups = f", groups {module.groups}" if module.groups > 1 else ""
        stride = f", stride {module.stride[0]}" if any(s > 1 for s in module.stride) else ""
        name = type(module).__name__
        return f"{name} {module.in_channels} -> {module.out_channels}, {window}{stride}{groups}"
    return "per-channel scale and shift"
