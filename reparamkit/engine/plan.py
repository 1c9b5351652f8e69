"""Which form each needed value takes.

Needed are the values that something not affine reads, and the network's outputs; each takes its cheapest
form, whose sources are then needed too. One backward sweep settles all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reparamkit.engine.form import Form
from reparamkit.engine.forms import Forms
from reparamkit.engine.graph import Node
from reparamkit.operators import properties


@dataclass(frozen=True)
class Plan:
    """The chosen form of every needed affine node, in the order of the graph."""

    nodes: Sequence[Node]
    forms: Forms
    chosen: dict[int, Form]

    @property
    def folds(self) -> list[Form]:
        """The forms that replace something."""
        return [f for f in self.chosen.values() if not f.original]


def plan(nodes: Sequence[Node], barred: frozenset[int] = frozenset(), earlier: Forms | None = None) -> Plan:
    """Choose; `barred` nodes keep their operator as it is. `earlier` are the forms of another such plan."""
    apart: frozenset[tuple[int, int]] = frozenset()
    forms = earlier
    while True:
        forms = Forms(nodes, barred, apart, forms)
        needed = {n.id for n in nodes if n.forced}
        chosen: dict[int, Form] = {}
        for node in reversed(nodes):
            if node.id not in needed or node.meaning is None:
                continue
            form = forms.of(node.id)[0]
            chosen[node.id] = form
            needed |= form.sources
        twice = _twice(nodes, chosen)
        barring = (twice - barred) or _passing_by(chosen, twice) - barred
        copying = _copied(nodes, chosen) - apart
        if not barring and not copying:
            return Plan(nodes, forms, dict(sorted(chosen.items())))
        barred |= barring
        apart |= copying


def _twice(nodes: Sequence[Node], chosen: dict[int, Form]) -> set[int]:
    """Operators that would run as they are and, for other readers, once more without what lies above them."""
    return {
        index
        for index, form in chosen.items()
        if form.original and any(other.term.value.id in chosen for other in nodes[index].alternatives)
    }


def _copied(nodes: Sequence[Node], chosen: dict[int, Form]) -> set[tuple[int, int]]:
    """Readers of layers that would run as they are and again inside a fold, which takes in no other layer."""
    pairs: set[tuple[int, int]] = set()
    for form in chosen.values():
        if form.original or properties.has_weights(nodes[form.node].operator):
            continue
        inside = interior(nodes, form)
        layers = {i for i in inside if properties.has_weights(nodes[i].operator)}
        if layers and layers <= chosen.keys():
            pairs |= {(i, v.id) for i in inside for v in nodes[i].operands if v.id in layers}
    return pairs


def _passing_by(chosen: dict[int, Form], twice: set[int]) -> set[int]:
    """The values that are computed without some of these operators, on what lies above them."""
    return {
        current.node
        for form in chosen.values()
        for current in composed_of(form)
        if current.alternative is not None and twice.intersection(current.alternative.covers)
    }


def composed_of(form: Form) -> list[Form]:
    """A form and all forms that it is made of."""
    composed: list[Form] = []
    seen: set[int] = set()
    pending = [form]
    while pending:
        current = pending.pop()
        if id(current) not in seen:
            seen.add(id(current))
            composed.append(current)
            pending.extend(choice for choice in current.choices if choice is not None)
    return composed


def interior(nodes: Sequence[Node], form: Form) -> list[int]:
    """All nodes that a form replaces, its own last, in the order of the graph."""
    if form.interior is None:
        inside: set[int] = set()
        for current in composed_of(form):
            passed = [] if current.original else [current.node]
            if current.norm is not None and not nodes[current.norm].synthetic:
                passed.append(current.norm)
            if current.alternative is not None:
                passed += current.alternative.covers
            inside.update((current.node, *passed), *(nodes[index].covers for index in passed))
        form.interior = sorted(inside)
    return form.interior
