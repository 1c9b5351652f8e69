"""The pass: read, plan and prove (`planned`), replace, and hold the whole against what was captured.

A fold that does not prove itself is taken back, and the reason is reported; everything else goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import fx, nn

from reparamkit.capture.program import Program
from reparamkit.engine.findings import ALONE, Fold, Refusal, counted, named, placed, refusals, short
from reparamkit.engine.form import Form
from reparamkit.engine.graph import Node
from reparamkit.engine.layers import ChannelScale
from reparamkit.engine.plan import interior
from reparamkit.hosts.fx.captured import Captured, Changes
from reparamkit.hosts.fx.census import layer_name
from reparamkit.hosts.fx.equal_calls import share_equal_calls
from reparamkit.hosts.fx.in_place import require_same
from reparamkit.hosts.fx.outline import ExampleSizes, Outline, outline
from reparamkit.hosts.fx.planned import planned
from reparamkit.hosts.fx.read import FxHost
from reparamkit.hosts.fx.side_by_side import SideBySide, side_by_side
from reparamkit.hosts.fx.write import Surgery, common_path, owner_path
from reparamkit.support.garbage import on_one_thread
from reparamkit.support.inputs import Args, Kwargs
from reparamkit.support.progress import phase


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


def fold_program(
    program: Program, *, merge_siblings: bool = False, example: tuple[Args, Kwargs] | None = None
) -> Outcome:
    """Fold everything in the program that is exact and pays; the program's graph is used up.

    `merge_siblings` also makes one layer of those beside each other that read the same value. `example` is
    what sizes are told for, where that is another than the captured one.
    """
    with on_one_thread():
        captured = Captured(program)
        sizes = ExampleSizes(program, example)
        before = outline(program.graph, program.state.get, sizes.shapes(program.graph))
        if not program.writes:
            share_equal_calls(program.graph)
        outcome, changes, shapes = _folded(program, captured, sizes, merge_siblings=merge_siblings)
        with phase("the whole graph in float64"):
            held = require_same(captured, outcome.module, changes)
        parameters = dict(outcome.module.named_parameters(remove_duplicate=False))
        graph, layer = outcome.module.graph, outcome.module.get_submodule
        after = outline(graph, parameters.get, shapes, layer)
        told, _ = outcome.outlines
        before = replace(before, unread=told.unread, apart=told.apart)
    return replace(outcome, in_place=held, outlines=(before, after))


def _folded(
    program: Program, captured: Captured, sizes: ExampleSizes, *, merge_siblings: bool
) -> tuple[Outcome, Changes, dict[fx.Node, tuple[int, ...]]]:
    changes = Changes()
    host, (chosen, proven, unproven, failed) = planned(program)
    beside = side_by_side(host, chosen) if merge_siblings else SideBySide()
    proven, failed = proven | beside.proven, beside.failed | failed
    surgery = Surgery(host, beside.paths(host))
    for claim in (claim for risen in host.risen for claim in risen.claims):
        changes.moves(claim.path)
    for claim in (claim for risen in host.risen for claim in risen.claims):
        changes.equals(claim.value, claim.maps[-1])
    replacements = []
    passed_on: dict[int, list[int]] = {}
    """Value -> the values that are it under other names."""
    for form in chosen.chosen.values():
        if form.original and form.node not in beside.proven:
            continue
        result = proven.get(form.node)
        if result is None or result.realisation.is_identity:
            surgery.alias(form)
            same = passed_on.setdefault(form.terms[0][0], [])
            same.append(form.node)
            passed_on[form.node] = same
        else:
            replacements.append((form, result, surgery.replace(form, result.realisation)))
        new = surgery.value_of(form)
        computed = host.nodes[form.node]
        if new not in captured.index and not computed.synthetic and not computed.is_map_alone:
            changes.equals(new, host.fx_node(form.node))
    shapes = sizes.shapes(program.graph)
    for form, _, calls in replacements:
        result_of_all = sizes.shape(host.user_node(form.node))
        shapes.update((call, result_of_all) for call in calls if result_of_all is not None)
    module = surgery.module()
    for stored, constant in surgery.computed.items():
        changes.holds(stored, constant)
    folds = []
    bound = {host.id_of(risen.root) for risen in host.risen if risen.captured_only}
    for form, result, calls in replacements:
        if form.original or (calls and not any(surgery.is_used(call) for call in calls)):
            continue  # one of a few siblings, or made for a reader that another fold replaced
        inside = interior(host.nodes, form)
        gone = [i for i in passed_on.get(form.node, ()) if not surgery.is_alive(i)]
        folds.append(
            Fold(
                where=common_path(owner_path(host.user_node(i)) for i in inside),
                operators=counted([_user_name(host, i) for i in inside]),
                layers={str(c.target): _described(module.get_submodule(str(c.target))) for c in calls},
                error=result.proof.error,
                captured_only=result.proof.captured_only or not bound.isdisjoint(inside),
                nodes=tuple(dict.fromkeys(host.user_node(i).name for i in (*inside, *gone))),
            )
        )
    for wide, call in surgery.in_pieces.items():
        if surgery.is_used(call):
            folds.append(beside.fold(host, wide, str(call.target), _described(wide)))
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
        for form, result, calls in replacements
        for place, call in enumerate(calls)
        if surgery.is_used(call) and result.realisation.layers[place].piece is None
    }
    names = {str(stored.target): constant.name for stored, constant in surgery.computed.items()}
    reasons = Outline(
        unread={node.name: node.reason for node in host.nodes if node.meaning is None and node.reason},
        apart=tuple(
            (host.user_node(reader).name, host.user_node(source).name, reason)
            for (reader, source), reason in chosen.forms.why.items()
            if reason
        ),
    )
    outcome = Outcome(
        module,
        tuple(folds),
        tuple(dict.fromkeys(kept)),
        tuple(undone),
        False,
        regions,
        names,
        (reasons, Outline()),
    )
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
        self._names: dict[str, tuple[str, str, str]] = {}
        for node in host.nodes:
            captured, operator, place = self._told(node)
            self._names[node.name] = captured, operator, place or (self._now(node.id) or node).name

    def refusal(self, node: Node, reason: str) -> Refusal:
        """Why an operator, or what it has become part of, stays as it is."""
        _, operator, place = self._told(node)
        now = self._now(node.id)
        if now is None:
            return Refusal(place, node.name, node.operator, placed(reason, self._names))
        return Refusal(place, now.name, f"aten.{operator}.default", placed(reason, self._names))

    def _told(self, node: Node) -> tuple[str, str, str]:
        captured, now = short(node.operator), self._now(node.id)
        if now is None:
            return captured, captured, owner_path(self._host.user_node(node.id))
        if now.op == "call_module":
            return captured, layer_name(self._module.get_submodule(str(now.target))), str(now.target)
        return captured, short(str(now.target)), owner_path(now)

    def _now(self, index: int) -> fx.Node | None:
        """The call that has taken the place of an operator that is gone, or the layer that it is part of."""
        if self._surgery.is_alive(index):
            return None
        now = self._surgery.stands_now(index)
        if now is not None and now.op in ("call_module", "call_function"):
            return now
        return self._layer.get(index)


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
