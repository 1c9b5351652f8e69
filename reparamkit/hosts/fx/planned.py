"""What to fold: a plan in which every fold has its layers and its proof, or its reason.

A fold that does not prove itself is taken back (its node is barred) and the plan is made again without it.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from torch import fx

from reparamkit.algebra import Inexact
from reparamkit.capture.program import Program
from reparamkit.engine.findings import short
from reparamkit.engine.form import Form, Terms
from reparamkit.engine.layers import Realisation, realise
from reparamkit.engine.numbers import numbers
from reparamkit.engine.plan import Plan, interior, plan
from reparamkit.engine.proof import CheckFailed, Proof, Unproven, prove, prove_rise
from reparamkit.engine.rising import rises
from reparamkit.engine.rounding import numbers_of, require_rounded
from reparamkit.hosts.fx.read import FxHost
from reparamkit.hosts.fx.size_readings import read_sizes_off_what_stays
from reparamkit.operators import Affine, Opaque, Work, properties
from reparamkit.support.progress import phase


@dataclass(frozen=True)
class Proven:
    """The layers of a form, and what shows that they compute it."""

    realisation: Realisation
    proof: Proof


_Planned = tuple[Plan, dict[int, Proven], dict[int, str], dict[int, str]]


class _TakenBack(Exception):
    """A layer does not take the map in that was to become part of it."""

    def __init__(self, root: fx.Node) -> None:
        super().__init__()
        self.root = root


def planned(program: Program) -> tuple[FxHost, _Planned]:
    """The program as values, with the maps that rise where they rise to, and the proven plan for it."""
    plain, barred = FxHost(program), dict[fx.Node, str]()
    if not program.writes and read_sizes_off_what_stays(plain):
        plain = FxHost(program)
    while True:
        host = _with_rises(plain, barred)
        try:
            plan, proven, unproven, failed = _proven_plan(host)
        except _TakenBack as kept:
            barred[kept.root] = ""
            continue
        for root, reason in barred.items():
            index = host.id_of(root)
            if reason and index is not None:
                failed[index] = reason
        return host, (plan, proven, unproven, failed)


def _with_rises(plain: FxHost, barred: dict[fx.Node, str]) -> FxHost:
    """Read again with the maps that rise; `barred` layers take none in, for the reason if a check failed."""
    if plain.program.writes:
        return plain
    while True:
        known = frozenset(index for root in barred if (index := plain.id_of(root)) is not None)
        granted, reasons = rises(plain.nodes, known)
        captured_only: list[bool] = []
        try:
            with plain.constants.remembered():
                for rise in granted:
                    captured_only.append(prove_rise(plain, rise))
        except Unproven as reason:
            failing = plain.fx_node(granted[len(captured_only)].root)
            barred[failing] = str(reason) if isinstance(reason, CheckFailed) else ""
            continue
        risen = list(map(plain.in_terms_of_nodes, granted, captured_only))
        host = FxHost(plain.program, risen) if risen else plain
        host.kept = {plain.fx_node(index): reason for index, reason in reasons.items()}
        return host


def _proven_plan(host: FxHost) -> _Planned:
    """The plan, its proofs, what stays because nothing proves it, and what of that failed its check."""
    proven: dict[tuple[int, object], Proven] = {}
    unproven: dict[int, str] = {}
    failed: dict[int, str] = {}
    same: set[int] = set()
    current: Plan | None = None
    while True:
        earlier = None if current is None else current.forms
        current = plan(host.nodes, frozenset(unproven) | same, earlier)
        settled, folds = True, current.folds
        for form in folds:
            node = host.nodes[form.node]
            if node.is_map_alone and not node.synthetic and node.operands[0].id in form.sources:
                raise _TakenBack(host.fx_node(node.id))
            key = (form.node, form.terms)
            if key in proven or (form.is_identity and not host.nodes[form.terms[0][0]].synthetic):
                continue
            try:
                with phase("proofs", f"{len(proven) + 1} of {len(folds)}"):
                    result = _make(host, form)
            except (Unproven, Inexact) as reason:
                stays = _stays(host, form)
                if host.nodes[stays].is_map_alone:
                    raise _TakenBack(host.fx_node(stays)) from reason
                if stays in unproven:
                    raise AssertionError(f"{host.nodes[form.node].name} was planned after all") from reason
                unproven[stays] = str(reason)
                if isinstance(reason, CheckFailed):
                    failed[stays] = str(reason)
                settled = False
                continue
            if _changes_nothing(host, form, result.realisation):
                stays = _stays(host, form)
                if host.nodes[stays].is_map_alone:
                    raise _TakenBack(host.fx_node(stays))
                same.add(stays)
                settled = False
            proven[key] = result
        if settled:
            return (
                current,
                {f.node: proven[f.node, f.terms] for f in folds if not f.is_identity},
                unproven,
                failed,
            )


def _stays(host: FxHost, form: Form) -> int:
    """The node that stays as it is without the fold: a map alone cannot, what it is there for can."""
    node = host.nodes[form.node]
    return host.graph.owner(node.id).id if node.is_map_alone else node.id


def _changes_nothing(host: FxHost, form: Form, realisation: Realisation) -> bool:
    """Whether the fold would put back what it takes away, or as many maps per channel."""
    inside = [host.nodes[i] for i in interior(host.nodes, form)]
    recomputed = sum(node.recomputed_elements for node in inside)
    if realisation.is_identity or recomputed > math.prod(host.nodes[form.node].value.shape):
        return False
    before = Counter(short(node.operator) for node in inside)
    if before == realisation.operators and not recomputed:
        return True
    affine = [node.meaning for node in inside if isinstance(node.meaning, Affine)]
    arithmetic = [meaning for meaning in affine if meaning.work is Work.ARITHMETIC]
    return realisation.per_channel and realisation.operators.total() >= len(arithmetic) == before.total()


def _make(host: FxHost, form: Form) -> Proven:
    with host.constants.remembered():
        terms, realisation = realised(host, form)
        proof = prove(host, form, terms, realisation)
    rounded(host, form, realisation)
    return Proven(realisation, proof)


def rounded(host: FxHost, form: Form, realisation: Realisation) -> None:
    """Round the numbers of the layers to the number type of the network. Raises `Unproven`."""
    like = host.user_node(form.node).meta["val"]
    layers = [item.module for item in realisation.layers]
    exact = numbers_of(layers)
    if not realisation.rounded(like):
        raise Unproven(f"a folded weight overflows or vanishes in {str(like.dtype).removeprefix('torch.')}")
    require_rounded(exact, layers, like.dtype)


def realised(host: FxHost, form: Form) -> tuple[Terms, Realisation]:
    """The numbers of a form as they follow from the constants now, and the layers for them, in float64."""
    terms = numbers(host.nodes, form)
    norm = None if form.norm is None else host.nodes[form.norm].meaning
    integers = [s for s in terms if not host.nodes[s].value.dtype.is_floating_point]
    named = any(properties.names_padding(host.nodes[i].operator) for i in interior(host.nodes, form))
    takes = norm.takes if isinstance(norm, Opaque) else None
    return terms, realise(terms, takes, integers, named_padding=named)
