"""The forms that each value of a network can take: sums of affine maps of other values.

    value = Σ map_i(source_i)

For every node, in order, the operator's own map is composed with each form that its operands can take, and
also with the operands as they stand (a *cut*: the operand is then a source); how, is in `compositions`. All
forms are exact; they differ in what they cost. A few are kept per node: the cheapest for each set of sources,
up to `BEAM`, and two that can meet a parallel branch at their common source: the cheapest whose sources all
have other readers, and the one that reaches furthest back.

This file knows no numbers: nodes are plain objects, maps are structures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reparamkit.engine import cost
from reparamkit.engine.compositions import FORMS, sums
from reparamkit.engine.form import Form, FormTable, Maps, Terms
from reparamkit.engine.graph import Node
from reparamkit.engine.numbers import numbers
from reparamkit.engine.upstream import Upstream
from reparamkit.operators import Opaque

BEAM = 3


class Forms(FormTable):
    """All forms of all nodes. What `earlier` forms of the same nodes say is not worked out again."""

    def __init__(
        self,
        nodes: Sequence[Node],
        barred: frozenset[int] = frozenset(),
        apart: frozenset[tuple[int, int]] = frozenset(),
        earlier: Forms | None = None,
    ) -> None:
        super().__init__(nodes, barred, apart)
        if earlier is not None:
            self._take_over(earlier)
        self._upstream: Upstream = Upstream(self, None if earlier is None else earlier._upstream)
        for node in nodes[len(self._of) :]:
            self._of.append(self._forms(node) if node.meaning is not None else [])

    def _take_over(self, earlier: Forms) -> None:
        """The forms of the nodes before the first that is treated otherwise."""
        changed = [*(self.barred ^ earlier.barred), *(node for node, _ in self.apart ^ earlier.apart)]
        first = min(changed, default=len(self.nodes))
        self._of = earlier._of[:first]
        self.why = {pair: reason for pair, reason in earlier.why.items() if pair[0] < first}

    def original(self, node: int) -> Form:
        """The form in which the operator stays as it is."""
        return next(f for f in self._of[node] if f.original)

    def numbers(self, form: Form) -> Terms:
        """The numbers of a form of these nodes."""
        return numbers(self.nodes, form)

    def only_for(self, node: int, source: int) -> bool:
        """Whether all that is made of `source` is made of it by way of `node`."""
        return not self.nodes[source].forced and self._upstream.ends_in(node, source)

    def _forms(self, node: Node) -> list[Form]:
        forms = list(FORMS[type(node.meaning)](self, node, node.meaning))
        if node.covers:
            kept = tuple((v, None) for v in sorted({*(v.id for v in node.operands), *node.covers}))
            forms = [form for form in forms if not form.original]
            forms.append(Form(node.id, kept, (None,), True, cost.copy(node.value)))
        if node.id not in self.barred:
            forms += self._other_ways(node)
            forms += [inside for form in forms if (inside := self._in_passing(node, form)) is not None]
        return self._pruned(node, forms)

    def _other_ways(self, node: Node) -> list[Form]:
        """The forms by the alternatives that laws have found."""
        forms = []
        for alternative in node.alternatives:
            term = alternative.term
            ways: Iterable[tuple[Maps, tuple[Form | None, ...]]] = [
                (((term.value.id, term.structure),), (None,))
            ]
            if alternative.others or sums.mixes(term.structure):  # one map per channel is for its readers
                ways = sums.combined(self, node, alternative.meaning)
            for terms, choices in ways:
                forms.append(self.composed(node, terms, choices))
                forms[-1].alternative = alternative
        return forms

    def _in_passing(self, node: Node, form: Form) -> Form | None:
        """A map of a norm, for which alone the norm is there, as the norm with another weight and bias."""
        if len(form.terms) != 1:
            return None
        ((source, structure),) = form.terms
        norm = self.nodes[source]
        if structure is None or not isinstance(norm.meaning, Opaque) or norm.meaning.takes is None:
            return None
        if not norm.meaning.takes.fits(structure) or form.is_identity or not self.only_for(node.id, source):
            return None
        terms = ((norm.meaning.value.id, None),)
        return Form(node.id, terms, (form,), False, cost.in_passing(node.value), norm=source)

    def _pruned(self, node: Node, forms: list[Form]) -> list[Form]:
        if len(forms) == 1:
            return forms
        self._upstream.count(node, forms)
        forms.sort(key=_rank)
        best: dict[tuple[frozenset[int], bool], Form] = {}
        for form in forms:
            best.setdefault((form.sources, form.is_map), form)
        ranked = sorted(best.values(), key=_rank)
        kept = ranked[:BEAM]
        furthest = min(ranked, key=lambda f: max(f.sources, default=-1))
        meeting = [f for f in ranked if f.is_map and all(len(self.nodes[s].users) > 1 for s in f.sources)]
        kept += [f for f in (*meeting[:1], furthest, *(f for f in forms if f.original)) if f not in kept]
        return kept


def _rank(form: Form) -> tuple[float, bool, bool]:
    """The cheapest first; of equals what leaves an operator as it is, then what only names it anew."""
    return form.cost, not form.original, not form.is_identity
