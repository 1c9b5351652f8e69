"""What a fold did and did not do, in words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reparamkit.algebra import Scalar
from reparamkit.engine.form import Form
from reparamkit.engine.forms import Forms
from reparamkit.engine.graph import Node
from reparamkit.engine.plan import Plan, interior
from reparamkit.operators import Affine, Bordered, Concat, Contraction, Move, Opaque, Work, Zero, properties

CAPTURED_ONLY = "proven at the captured size only"
ALONE = "nothing beside it can take it in"


@dataclass(frozen=True)
class Fold:
    """One region that became one layer (or a few, each on a source of its own).

    `where` is the path of the owning module, `layers` the paths of the new layers with their
    descriptions, `operators` counts what was there before, `error` is the relative float64 error of the
    region's check. `captured_only` says that this was made at the captured size and at no other. `nodes` are
    the names in the captured graph of what was there before, with what only passed the result on.
    """

    where: str
    operators: dict[str, int]
    layers: dict[str, str]
    error: float
    captured_only: bool = False
    nodes: tuple[str, ...] = ()

    def __str__(self) -> str:
        before = " + ".join(f"{n} {short(op)}" for op, n in self.operators.items())
        after = " + ".join(self.layers.values()) or "nothing"
        at = f", {CAPTURED_ONLY}" if self.captured_only else ""
        return f"{self.where or '(the network)'}: {before} -> {after} (float64 error {self.error:.0e}{at})"


@dataclass(frozen=True)
class Refusal:
    """One operator that stays although it might have been expected to fold, and why."""

    where: str
    node: str
    operator: str
    reason: str

    def __str__(self) -> str:
        name = "" if self.where else f" {self.node!r}"
        return f"{self.where or '(the network)'}: {short(self.operator)}{name} stays: {self.reason}"


def short(operator: str) -> str:
    """aten.batch_norm.default -> batch_norm."""
    parts = operator.split(".")
    return parts[1] if len(parts) > 1 else operator


def named(node: Node) -> str:
    """What of a node a fold takes in: its operator, or only the scale and shift that the operator ends in."""
    rescales = isinstance(node.meaning, Opaque) and node.meaning.rescales
    return f"weight and bias of {short(node.operator)}" if rescales else node.operator


def placed(reason: str, standing: Mapping[str, tuple[str, str, str]]) -> str:
    """The reason, told with what the finished network has in place of captured operators.

    `standing` says of a captured node its operator, the operator that has taken its place, and the module
    that this belongs to, or its name if that is the network itself.
    """

    def told(match: re.Match[str]) -> str:
        word, name = match.groups()
        if name not in standing:
            return match[0]
        captured, operator, place = standing[name]
        start = "" if word is None else f"{operator if word == captured else word} "
        return f"{start}{place!r}"

    return re.sub(r"(?:(\w+) )?'([^']*)'", told, reason)


def counted(operators: list[str]) -> dict[str, int]:
    """Operator -> how often, most frequent first."""
    return dict(Counter(operators).most_common())


def refusals(plan: Plan, unproven: dict[int, str]) -> list[tuple[Node, str, int]]:
    """Every operator that stays, the reason, and the value that it is part of, in the order of the graph."""
    refused = []
    for node in plan.nodes:
        if node.id in unproven:
            if isinstance(node.meaning, Bordered):
                continue  # told about what reads it
            refused.append((node, unproven[node.id], node.id))
        elif node.meaning is None:
            if node.notable:
                refused.append((node, node.reason, node.id))
        elif node.id in plan.chosen:
            reason = _why_kept(plan, node, plan.chosen[node.id])
            if reason:
                refused.append((node, reason, node.id))
            if not plan.chosen[node.id].original:
                refused += _meetings(plan, plan.chosen[node.id])
    return refused


def _meetings(plan: Plan, form: Form) -> list[tuple[Node, str, int]]:
    """Where one fold ends and the next begins although nothing else reads what lies between."""
    nodes, forms = plan.nodes, plan.forms
    inside = set(interior(nodes, form))
    meetings = []
    for source in form.sources:
        below = nodes[source]
        if not isinstance(below.meaning, Affine) or not forms.only_for(form.node, source):
            continue
        if len(plan.chosen[source].terms) > 1:
            continue  # a sum of different sources is nothing that a layer takes in
        for reader in sorted(inside & set(below.users)):
            reason = forms.why.get((reader, source), "")
            if reason:
                reason = f"not exact with {short(below.operator)} {below.name!r}: {reason}"
            else:
                others = [f.cost for f in forms.of(form.node) if source not in f.sources]
                if others and form.cost > 0 and min(others) > form.cost:
                    reason = _dearer(below, min(others) / form.cost)
            if reason:
                meetings.append((_layer_of(nodes, inside, reader), reason, form.node))
    return meetings


def _layer_of(nodes: Sequence[Node], inside: set[int], reader: int) -> Node:
    """The layer that a norm has folded into, which is what stays; any other operator itself."""
    if "_norm" not in nodes[reader].operator:
        return nodes[reader]
    layers = [nodes[i] for i in sorted(inside) if properties.should_merge(nodes[i].operator)]
    return layers[0] if layers else nodes[reader]


def _dearer(other: Node, ratio: float) -> str:
    more = f"{100 * (ratio - 1):.0f} % more" if ratio < 2 else f"{ratio:.1f} times the"
    more = "a little more" if ratio < 1.005 else more
    return (
        f"merging it with {short(other.operator)} {other.name!r} is exact but dearer: "
        f"one layer would take {more} arithmetic and memory traffic"
    )


def _why_kept(plan: Plan, node: Node, form: Form) -> str:
    nodes, forms = plan.nodes, plan.forms
    if not form.original:
        if len(form.terms) > 1:
            return _several_sources(nodes, form)
        return ""
    if isinstance(node.meaning, Affine) and len(node.meaning.terms) > 1 and len(form.terms) > 1:
        return _several_sources(nodes, form)
    if isinstance(node.meaning, Move | Contraction | Opaque | Zero):
        return node.meaning.reason if isinstance(node.meaning, Move | Contraction) else ""
    if isinstance(node.meaning, Bordered):
        return ""
    if isinstance(node.meaning, Affine) and node.meaning.work is Work.VIEW:
        return ""
    mergeable = properties.should_merge(node.operator)
    reasons = [
        _edge(forms, node, below, below)
        for below in (nodes[v.id] for v in node.operands)
        if below.meaning is not None and (not mergeable or forms.only_for(node.id, below.id))
    ]
    if not mergeable:
        reasons += [
            _edge(forms, nodes[u], node, nodes[u]) for u in node.users if nodes[u].meaning is not None
        ]
    reasons = [r for r in reasons if r]
    if reasons:
        return "; ".join(list(dict.fromkeys(reasons))[:2])
    if mergeable:
        return ""
    if isinstance(node.meaning, Affine):
        structure = node.meaning.terms[0].structure
        if structure.identity if isinstance(structure, Scalar) else structure.unit:
            return ""
    source = nodes[node.operands[0].id]
    return (
        f"{ALONE}: its input comes from {short(source.operator)} {source.name!r}, "
        "and no convolution or linear layer reads its output alone"
    )


def _several_sources(nodes: Sequence[Node], form: Form) -> str:
    names = ", ".join(repr(nodes[s].name) for s, _ in form.terms)
    return f"a sum of values with different sources ({names}): each side folds on its own"


def _edge(forms: Forms, node: Node, below: Node, other: Node) -> str:
    """Why `node` was not merged with `below`, said to one of them about the `other`."""
    if (node.id, below.id) in forms.apart:
        return f"{short(below.operator)} {below.name!r} has other readers, and would be computed twice"
    exact = forms.why.get((node.id, below.id))
    if exact is not None:
        return f"not exact with {short(other.operator)} {other.name!r}: {exact}"
    merged = [f for f in forms.of(node.id) if not f.original]
    if not merged or isinstance(node.meaning, Concat) or node.is_map_alone:
        return ""
    kept = forms.original(node.id)
    best = min(merged, key=lambda f: f.cost)
    if best.cost <= kept.cost or kept.cost == 0:
        return ""
    return _dearer(other, best.cost / kept.cost)
