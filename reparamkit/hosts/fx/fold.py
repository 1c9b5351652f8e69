"""The pass: read, plan, compute, prove, replace.

A fold that does not prove itself is taken back (its node is barred), the plan is made again without it, and
the reason is reported; everything else goes on.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import fx, nn

from reparamkit.algebra import Inexact
from reparamkit.capture.program import Program
from reparamkit.engine.findings import ALONE, Fold, Refusal, counted, named, placed, refusals, short
from reparamkit.engine.forms import Form
from reparamkit.engine.graph import Node
from reparamkit.engine.layers import ChannelScale, Realisation, realise
from reparamkit.engine.numbers import Terms, numbers
from reparamkit.engine.plan import Plan, interior, plan
from reparamkit.engine.proof import CheckFailed, Proof, Unproven, prove, prove_rise
from reparamkit.engine.rising import rises
from reparamkit.engine.rounding import numbers_of, require_rounded
from reparamkit.hosts.fx import siblings
from reparamkit.hosts.fx.captured import Captured, Changes
from reparamkit.hosts.fx.census import layer_name
from reparamkit.hosts.fx.equal_calls import share_equal_calls
from reparamkit.hosts.fx.in_place import require_same
from reparamkit.hosts.fx.outline import Outline, outline, shape_of
from reparamkit.hosts.fx.read import FxHost
from reparamkit.hosts.fx.write import Surgery, common_path, owner_path
from reparamkit.operators import Affine, Opaque, Work, properties
from reparamkit.support.one_thread import on_one_thread


@dataclass(frozen=True)
class Outcome:
    """The folded module with the findings.

    `undone` are the folds that were thought exact and failed their own check, each named by the operator
    that it would have ended in. `in_place` says whether the module as a whole was held against the captured
    graph as well.
    """

    module: fx.GraphModule
    folds: tuple[Fold, ...]
    refusals: tuple[Refusal, ...]
    undone: tuple[Refusal, ...]
    in_place: bool = False
    regions: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Path of a folded layer -> the value that it computes, and which of the layers for that it is."""
    stored: Mapping[str, str] = field(default_factory=dict)
    """Path of a stored tensor -> the name of the captured constant that it holds."""
    outlines: tuple[Outline, Outline] = (Outline(), Outline())
    """The captured graph and the folded one as plain data."""


@dataclass(frozen=True)
class Proven:
    """The layers of a form, and what shows that they compute it."""

    realisation: Realisation
    proof: Proof


def fold_program(program: Program, *, merge_siblings: bool = False) -> Outcome:
    """Fold everything in the program that is exact and pays; the program's graph is used up.

    `merge_siblings` also makes one layer of those beside each other that read the same value.
    """
    with on_one_thread():
        captured = Captured(program)
        before = outline(program.graph, program.state.get)
        if not program.writes:
            share_equal_calls(program.graph)
        outcome, changes, shapes = _folded(program, captured)
        if merge_siblings:
            ranks = {node: len(shape) for node, shape in shapes.items()}
            merged = tuple(siblings.merge(outcome.module, ranks))
            outcome = replace(outcome, folds=outcome.folds + merged)
        held = require_same(captured, outcome.module, changes)
        after = outline(
            outcome.module.graph,
            dict(outcome.module.named_parameters(remove_duplicate=False)).get,
            outcome.module.get_submodule,
            shapes,
        )
    return replace(outcome, in_place=held, outlines=(before, after))


def _folded(program: Program, captured: Captured) -> tuple[Outcome, Changes, dict[fx.Node, tuple[int, ...]]]:
    changes = Changes()
    host, (chosen, proven, unproven, failed) = planned(program)
    surgery = Surgery(host)
    for claim in (claim for risen in host.risen for claim in risen.claims):
        changes.moves(claim.path)
    for claim in (claim for risen in host.risen for claim in risen.claims):
        changes.equals(claim.value, claim.maps[-1])
    replacements = []
    for form in chosen.folds:
        result = proven.get(form.node)
        if result is None or result.realisation.is_identity:
            surgery.alias(form)
        else:
            replacements.append((form, result, surgery.replace(form, result.realisation)))
        new = surgery.value_of(form)
        if new not in captured.index and not host.nodes[form.node].is_map_alone:
            changes.equals(new, host.fx_node(form.node))
    shapes = _shapes(program.graph)
    for form, _, calls in replacements:
        result_of_all = shape_of(host.user_node(form.node))
        shapes.update((call, result_of_all) for call in calls if result_of_all is not None)
    module = surgery.module()
    for stored, constant in surgery.computed.items():
        changes.holds(stored, constant)
    folds = []
    bound = {host.id_of(risen.root) for risen in host.risen if risen.captured_only}
    for form, result, calls in replacements:
        if calls and not any(surgery.is_used(call) for call in calls):
            continue  # made for a reader that another fold replaced
        inside = interior(host.nodes, form)
        folds.append(
            Fold(
                where=common_path(owner_path(host.user_node(i)) for i in inside),
                operators=counted([_user_name(host, i) for i in inside]),
                layers={str(c.target): _described(module.get_submodule(str(c.target))) for c in calls},
                error=result.proof.error,
                captured_only=result.proof.captured_only or not bound.isdisjoint(inside),
                nodes=tuple(dict.fromkeys(host.user_node(i).name for i in inside)),
            )
        )
    standing = _Standing(host, surgery, module, [(form, calls) for form, _, calls in replacements])
    kept = [
        standing.refusal(
            node, host.kept.get(host.fx_node(node.id), reason) if reason.startswith(ALONE) else reason
        )
        for node, reason, part_of in refusals(chosen, unproven)
        if surgery.is_left(part_of)
    ]
    undone = [standing.refusal(host.nodes[i], reason) for i, reason in sorted(failed.items())]
    regions = {
        str(call.target): (form.node, place)
        for form, _, calls in replacements
        for place, call in enumerate(calls)
        if surgery.is_used(call)
    }
    names = {str(stored.target): constant.name for stored, constant in surgery.computed.items()}
    outcome = Outcome(module, tuple(folds), tuple(dict.fromkeys(kept)), tuple(undone), False, regions, names)
    return outcome, changes, shapes


class _Standing:
    """What of the finished network has taken the place of a captured operator, to tell of it."""

    def __init__(
        self,
        host: FxHost,
        surgery: Surgery,
        module: fx.GraphModule,
        replacements: Sequence[tuple[Form, list[fx.Node]]],
    ) -> None:
        self._host, self._surgery, self._module = host, surgery, module
        self._layer: dict[int, fx.Node] = {}
        for form, calls in replacements:
            used = [call for call in calls if surgery.is_used(call)]
            for index in interior(host.nodes, form) if used else ():
                self._layer.setdefault(index, used[-1])
        self._names = {node.name: self._told(node) for node in host.nodes}

    def refusal(self, node: Node, reason: str) -> Refusal:
        """Why an operator, or the layer that it has become part of, stays as it is."""
        _, operator, place = self._told(node)
        call = self._call(node.id)
        if call is None:
            return Refusal(place, node.name, node.operator, placed(reason, self._names))
        return Refusal(place, call.name, f"aten.{operator}.default", placed(reason, self._names))

    def _told(self, node: Node) -> tuple[str, str, str]:
        captured, call = short(node.operator), self._call(node.id)
        if call is not None:
            layer = self._module.get_submodule(str(call.target))
            return captured, layer_name(layer), str(call.target)
        now = self._surgery.stands_now(node.id)
        if now is None or now.op != "call_function":
            return captured, captured, owner_path(self._host.user_node(node.id))
        return captured, short(str(now.target)), owner_path(now)

    def _call(self, index: int) -> fx.Node | None:
        """The layer that an operator which is gone has become part of."""
        if self._surgery.is_alive(index):
            return None
        now = self._surgery.stands_now(index)
        return now if now is not None and now.op == "call_module" else self._layer.get(index)


_Planned = tuple[Plan, dict[int, Proven], dict[int, str], dict[int, str]]


class _TakenBack(Exception):
    """A layer does not take the map in that was to become part of it."""

    def __init__(self, root: fx.Node) -> None:
        super().__init__()
        self.root = root


def planned(program: Program) -> tuple[FxHost, _Planned]:
    """The program as values, with the maps that rise where they rise to, and the proven plan for it."""
    plain, barred = FxHost(program), dict[fx.Node, str]()
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


def _shapes(graph: fx.Graph) -> dict[fx.Node, tuple[int, ...]]:
    """The sizes of every tensor whose shape is known."""
    shapes = ((node, shape_of(node)) for node in graph.nodes)
    return {node: shape for node, shape in shapes if shape is not None}


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
        settled = True
        for form in current.folds:
            node = host.nodes[form.node]
            if node.is_map_alone and not node.synthetic and node.operands[0].id in form.sources:
                raise _TakenBack(host.fx_node(node.id))
            key = (form.node, form.terms)
            if key in proven or (form.is_identity and not host.nodes[form.terms[0][0]].synthetic):
                continue
            try:
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
                {f.node: proven[f.node, f.terms] for f in current.folds if not f.is_identity},
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
    like = host.user_node(form.node).meta["val"]
    layers = [item.module for item in realisation.layers]
    exact = numbers_of(layers)
    if not realisation.rounded(like):
        raise Unproven(f"a folded weight overflows or vanishes in {str(like.dtype).removeprefix('torch.')}")
    require_rounded(exact, layers, like.dtype)
    return Proven(realisation, proof)


def realised(host: FxHost, form: Form) -> tuple[Terms, Realisation]:
    """The numbers of a form as they follow from the constants now, and the layers for them, in float64."""
    terms = numbers(host.nodes, form)
    norm = None if form.norm is None else host.nodes[form.norm].meaning
    integers = [s for s in terms if not host.nodes[s].value.dtype.is_floating_point]
    named = any(properties.names_padding(host.nodes[i].operator) for i in interior(host.nodes, form))
    takes = norm.takes if isinstance(norm, Opaque) else None
    return terms, realise(terms, takes, integers, named_padding=named)


def _user_name(host: FxHost, index: int) -> str:
    node = host.nodes[index]
    return named(host.graph.owner(index) if node.is_map_alone else node)


def _described(module: nn.Module) -> str:
    if isinstance(module, nn.Linear):
        return f"Linear {module.in_features} -> {module.out_features}"
    if isinstance(module, nn.modules.conv._ConvNd):
        window = "x".join(map(str, module.kernel_size))
        groups = f", groups {module.groups}" if module.groups > 1 else ""
        stride = f", stride {module.stride[0]}" if any(s > 1 for s in module.stride) else ""
        name = type(module).__name__
        return f"{name} {module.in_channels} -> {module.out_channels}, {window}{stride}{groups}"
    if isinstance(module, nn.Embedding):
        return f"Embedding {module.num_embeddings} -> {module.embedding_dim}"
    if not isinstance(module, ChannelScale):
        return type(module).__name__
    return "per-channel scale" if getattr(module, "bias", None) is None else "per-channel scale and shift"
