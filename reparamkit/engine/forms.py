"""The forms that each value of a network can take: sums of affine maps of other values.

    value = Σ map_i(source_i)

For every node, in order, the operator's own map is composed with each form that its operands can take, and
also with the operands as they stand (a *cut*: the operand is then a source). All forms are exact; they differ
in what they cost. A few are kept per node: the cheapest for each set of sources, up to `BEAM`, and two that
can meet a parallel branch at their common source: the cheapest whose sources all have other readers, and the
one that reaches furthest back.

This file knows no numbers: nodes are plain objects, maps are structures.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from reparamkit.algebra import Geometry, Inexact, Map, Scalar, Transposed, geometry
from reparamkit.engine import cost, crops
from reparamkit.engine.graph import Alternative, Node
from reparamkit.engine.post_dominance import PostDominance
from reparamkit.operators import Affine, Bordered, Concat, Move, Opaque, Term, Value, Work, Zero

BEAM = 3
MOST_TERMS = 4
_SHARED = 1 / 64
_HORIZON = 32
_CONCATENATED = "its input is a concatenation of different values"

Maps = tuple[tuple[int, Map], ...]
SourceTerm = tuple[int, Map | None]
"""A source and the map applied to it; None where the node is a concatenation or a reshape kept as it is."""


@dataclass(slots=True, eq=False)
class Form:
    """One way to compute a node, composed from the forms of its operands in `choices` (None: a cut).

    `alternative` is the node's other way that it takes, if it is not its operator's.
    `own` is the cost of computing it from its sources; `cost`, to be compared between the forms of one node
    only, adds what those cost that exist for it alone.
    """

    node: int
    terms: tuple[SourceTerm, ...]
    choices: tuple[Form | None, ...]
    original: bool
    own: float
    cost: float = 0.0
    alternative: Alternative | None = None
    norm: int | None = None
    """The norm that takes its map, that of `choices`, into its own weight and bias."""
    sources: frozenset[int] = field(init=False)
    """The values that have to exist for this form."""
    interior: list[int] | None = None
    """What it replaces (`reparamkit.engine.plan`), once that was asked for."""

    def __post_init__(self) -> None:
        self.sources = frozenset([source for source, _ in self.terms])

    @property
    def is_map(self) -> bool:
        """Whether it can be composed with what reads it; a move that is kept cannot."""
        return all(structure is not None for _, structure in self.terms)

    @property
    def is_identity(self) -> bool:
        """Whether the node is one of its sources under another name."""
        return _is_identity(self.terms)


class Forms:
    """All forms of all nodes, and why some compositions were not exact.

    `barred` nodes take their original form only, and the pairs of a node and an operand in `apart` are not
    composed. `why[node, operand]` is the reason why the operator at `node` could not be composed with what
    computes `operand`. What `earlier` forms of the same nodes say is not worked out again.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        barred: frozenset[int] = frozenset(),
        apart: frozenset[tuple[int, int]] = frozenset(),
        earlier: Forms | None = None,
    ) -> None:
        self.nodes = nodes
        self.barred = barred
        self.apart = apart
        self.why: dict[tuple[int, int], str] = {}
        self._pads = frozenset(n.id for n in nodes if isinstance(n.meaning, Move) and n.meaning.pads)
        self._of: list[list[Form]] = []
        if earlier is None:
            self._postdominates = PostDominance([n.users for n in nodes], [n.forced for n in nodes])
        else:
            self._postdominates = earlier._postdominates
            self._take_over(earlier)
        for node in nodes[len(self._of) :]:
            self._of.append(self._forms(node) if node.meaning is not None else [])

    def _take_over(self, earlier: Forms) -> None:
        """The forms of the nodes before the first that is treated otherwise."""
        changed = [*(self.barred ^ earlier.barred), *(node for node, _ in self.apart ^ earlier.apart)]
        first = min(changed, default=len(self.nodes))
        self._of = earlier._of[:first]
        self.why = {pair: reason for pair, reason in earlier.why.items() if pair[0] < first}

    def of(self, node: int) -> list[Form]:
        """The forms of a node, the cheapest first; none if its operator is not affine."""
        return self._of[node]

    def original(self, node: int) -> Form:
        """The form in which the operator stays as it is."""
        return next(f for f in self._of[node] if f.original)

    def only_for(self, node: int, source: int) -> bool:
        """Whether all that is made of `source` is made of it by way of `node`."""
        return not self.nodes[source].forced and self._ends_in(node, source)

    def _forms(self, node: Node) -> list[Form]:
        if isinstance(node.meaning, Concat):
            forms = list(self._concat(node, node.meaning))
        elif isinstance(node.meaning, Move | Opaque):
            forms = list(self._passed(node, node.meaning))
        elif isinstance(node.meaning, Zero):
            forms = list(self._zero(node, node.meaning))
        elif isinstance(node.meaning, Bordered):
            forms = list(self._bordered(node, node.meaning))
        else:
            assert isinstance(node.meaning, Affine)
            forms = list(self._sum(node, node.meaning))
        if node.covers:
            kept = tuple((v, None) for v in sorted({*(v.id for v in node.operands), *node.covers}))
            forms = [form for form in forms if not form.original]
            forms.append(Form(node.id, kept, (None,), True, cost.copy(node.value)))
        for alternative in node.alternatives if node.id not in self.barred else ():
            term = alternative.term
            ways: Iterable[tuple[Maps, tuple[Form | None, ...]]] = [
                (((term.value.id, term.structure),), (None,))
            ]
            if alternative.others or _mixes(term.structure):  # one map per channel is left for its readers
                ways = self._combined(node, alternative.meaning)
            for terms, choices in ways:
                other = self._form(node, terms, choices, original=False)
                other.alternative = alternative
                forms.append(other)
        if node.id not in self.barred:
            forms += [inside for form in forms if (inside := self._in_passing(node, form)) is not None]
        return self._pruned(forms)

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

    def _sum(self, node: Node, meaning: Affine) -> Iterator[Form]:
        for terms, choices in self._combined(node, meaning):
            read = {term.value.id for term in meaning.terms}
            cuts = choices == (None,) * len(choices) and {source for source, _ in terms} == read
            replaces = not cuts or node.covers or node.is_map_alone or _is_identity(terms)
            if node.id not in self.barred and (replaces or node.recomputed_elements):
                yield self._form(node, terms, choices, original=False)
            if cuts and not node.is_map_alone:
                yield self._form(node, terms, choices, original=True)

    def _combined(self, node: Node, meaning: Affine) -> Iterator[tuple[Maps, tuple[Form | None, ...]]]:
        """The maps composed with every choice of forms of their operands, and added up.

        Sources that lie in others are also taken from these.
        """
        options = [list(self._through(node, term)) for term in meaning.terms]
        for chosen in itertools.product(*options):
            choices = tuple([choice for choice, _ in chosen])
            try:
                terms = _merged([term for _, terms in chosen for term in terms])
            except Inexact as reason:
                self._note(node, choices, str(reason))
                continue
            if len(terms) <= MOST_TERMS or choices == (None,) * len(choices):
                yield terms, choices
            if len(terms) > 1 and any(source in self._pads for source, _ in terms):
                left, steps = crops.joined(self.nodes, dict(terms))
                if steps:
                    yield tuple(sorted(left.items())), choices

    def _through(self, node: Node, term: Term) -> Iterator[tuple[Form | None, list[tuple[int, Map]]]]:
        mixes = _mixes(term.structure)
        for form in self._of[term.value.id] if (node.id, term.value.id) not in self.apart else ():
            if mixes and len(form.terms) > 1:
                continue  # one layer on a sum is not spread over the summands
            if not form.terms and term.structure.has_bias:
                continue
            if form.alternative is not None and form.is_identity and self.nodes[form.terms[0][0]].synthetic:
                continue  # the cut says as much
            terms = []
            try:
                for source, structure in form.terms:
                    if structure is None:
                        raise Inexact(
                            _CONCATENATED if isinstance(self.nodes[form.node].meaning, Concat) else ""
                        )
                    terms.append((source, geometry.compose(term.structure, structure)))
            except Inexact as reason:
                if str(reason):
                    self.why.setdefault((node.id, term.value.id), str(reason))
                continue
            yield form, terms
        yield None, [(term.value.id, term.structure)]

    def _passed(self, node: Node, meaning: Move | Opaque) -> Iterator[Form]:
        rescales = isinstance(meaning, Opaque) and meaning.rescales
        passing = cost.in_passing(node.value) if rescales else 0.0
        yield Form(node.id, ((meaning.value.id, None),), (None,), True, passing)

    def _zero(self, node: Node, meaning: Zero) -> Iterator[Form]:
        kept: tuple[SourceTerm, ...] = tuple((value.id, None) for value in meaning.values)
        yield Form(node.id, kept, (None,) * len(kept), True, cost.copy(node.value))
        if node.id not in self.barred:  # the sum of nothing is only a summand of others
            yield Form(node.id, (), (), False, math.inf)

    def _bordered(self, node: Node, meaning: Bordered) -> Iterator[Form]:
        yield Form(node.id, ((meaning.value.id, None),), (None,), True, cost.copy(node.value))
        for form in self._of[meaning.value.id] if node.id not in self.barred else ():
            source, structure = form.terms[0] if len(form.terms) == 1 else (-1, None)
            if not isinstance(structure, geometry.Geometry):
                continue
            try:  # that the constant is the map's own shift is for the numbers to show
                whole = geometry.compose(meaning.structure, replace(structure, has_bias=False))
            except Inexact as reason:
                self.why.setdefault((node.id, meaning.value.id), str(reason))
                continue
            assert isinstance(whole, geometry.Geometry)
            yield self._form(node, ((source, replace(whole, has_bias=True)),), (form,), original=False)

    def _concat(self, node: Node, meaning: Concat) -> Iterator[Form]:
        kept: tuple[SourceTerm, ...] = tuple((v, None) for v in dict.fromkeys(v.id for v in meaning.values))
        cuts = (None,) * len(meaning.values)
        yield Form(node.id, kept, cuts, True, cost.concatenation(node.value))
        if node.id in self.barred:
            return
        if meaning.axis not in (0, 1, node.value.ndim - 1) or node.value.ndim < 2:
            return
        dims = node.value.ndim - 1 - meaning.axis
        singles = [self._singles(v, dims, scalars=meaning.axis > 0) for v in meaning.values]
        for source in singles[0]:
            if not all(source in s for s in singles):
                continue
            try:
                structure = geometry.stack([s[source][1] for s in singles])
            except Inexact as reason:
                self._note(node, tuple(s[source][0] for s in singles), str(reason))
                continue
            yield self._form(
                node, ((source, structure),), tuple(s[source][0] for s in singles), original=False
            )

    def _singles(
        self, value: Value, dims: int, *, scalars: bool
    ) -> dict[int, tuple[Form | None, Geometry | Transposed]]:
        """The forms of `value` with one source each, as channel maps with `dims` spatial axes.

        Maps that are the same everywhere are such maps only where `scalars` says that those are channels.
        """
        singles: dict[int, tuple[Form | None, Geometry | Transposed]] = {}
        if not 0 <= dims <= 3 or not isinstance(value.sizes[value.ndim - 1 - dims], int):
            return singles
        cut: list[tuple[Form | None, tuple[SourceTerm, ...]]] = [(None, ((value.id, Scalar(identity=True)),))]
        for choice, terms in [*((f, f.terms) for f in self._of[value.id]), *cut]:
            source, structure = terms[0] if len(terms) == 1 else (-1, None)
            if structure is None or source in singles:
                continue
            if isinstance(structure, Scalar):
                if not scalars:
                    continue
                channels = value.shape[-dims - 1]
                structure = geometry.channelwise(channels, dims, has_bias=structure.has_bias)
            if structure.dims == dims:
                singles[source] = (choice, structure)
        return singles

    def _form(
        self,
        node: Node,
        terms: Maps,
        choices: tuple[Form | None, ...],
        *,
        original: bool,
    ) -> Form:
        if not terms:  # a map of zeros, which is only a summand of others, too
            return Form(node.id, terms, choices, original, math.inf)
        own = cost.total([(m, self.nodes[source].value) for source, m in terms], node.value)
        if original:
            own = _as_it_stands(node, terms, own)
        return Form(node.id, terms, choices, original, own)

    def _count_upstream(self, node: Node, forms: list[Form]) -> None:
        """Add to each form what its sources cost that exist only for it, as far as the forms differ there.

        All are followed upstream together, the latest value first, until they need the same values: what
        lies further up is common to all. A source with other readers that end up elsewhere will most
        likely exist anyway, with what it is made of. It is not quite free, so that of two equals the form
        wins that does without it: then, if all its readers can, it goes.
        """
        needs: list[set[int]] = []
        shared: list[set[int]] = []
        for form in forms:
            form.cost = form.own
            needs.append(set())
            shared.append(set())
            self._sort_in(node, form.sources, needs[-1], shared[-1])
        for _ in range(_HORIZON):
            if all(n == needs[0] for n in needs):
                break
            latest = max(max(n) for n in needs if n)
            best = self._of[latest][0]
            for form, need, free in zip(forms, needs, shared, strict=True):
                if latest in need:
                    need.remove(latest)
                    form.cost += best.own
                    self._sort_in(node, best.sources, need, free)
        floor = min((s for free in shared for s in free), default=0)
        for form, free in zip(forms, shared, strict=True):
            above = list(free)
            while above:  # what is shared is made of what is shared, as far as the forms differ there
                further: set[int] = set()
                self._sort_in(node, self._of[above.pop()][0].sources, set(), further)
                above += [s for s in further - free if s >= floor]
                free |= {s for s in further if s >= floor}
            form.cost += sum(self._of[s][0].own * _SHARED for s in free)

    def _sort_in(self, node: Node, sources: Iterable[int], needed: set[int], shared: set[int]) -> None:
        """Sort sources into those that are there for `node` alone and those that others need as well."""
        pending = list(sources)
        while pending:
            s = pending.pop()
            if self._of[s] and not self.nodes[s].forced:
                if self._ends_in(node.id, s):
                    needed.add(s)
                elif self._of[s][0].own == 0.0:  # a view: what matters is what it shows
                    pending.extend(self._of[s][0].sources)
                else:
                    shared.add(s)

    def _ends_in(self, node: int, source: int) -> bool:
        """Whether all that is made of `source` is made of it by way of `node` (or of their owners)."""
        owner, of = self.nodes[node].stands_for, self.nodes[source].stands_for
        return self._postdominates(node if owner is None else owner, source if of is None else of)

    def _note(self, node: Node, choices: tuple[Form | None, ...], reason: str) -> None:
        for choice in choices:
            if choice is not None:
                self.why.setdefault((node.id, choice.node), reason)

    def _pruned(self, forms: list[Form]) -> list[Form]:
        if len(forms) == 1:
            return forms
        self._count_upstream(self.nodes[forms[0].node], forms)
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


def _as_it_stands(node: Node, terms: Sequence[SourceTerm], layers: float) -> float:
    """The cost of the original operator; `layers` if it is arithmetic."""
    assert isinstance(node.meaning, Affine)
    if node.meaning.work is Work.VIEW:
        return 0.0
    arithmetic = node.meaning.work is Work.ARITHMETIC and not _is_identity(terms)
    recomputed = cost.recomputation(node.recomputed_elements - node.meaning.kept)
    return (layers if arithmetic else cost.copy(node.value)) + recomputed


def _mixes(structure: Map) -> bool:
    return not isinstance(structure, Scalar) and not structure.per_channel


def _is_identity(terms: Sequence[SourceTerm]) -> bool:
    return len(terms) == 1 and isinstance(terms[0][1], Scalar) and terms[0][1].identity


def _merged(terms: Sequence[tuple[int, Map]]) -> tuple[tuple[int, Map], ...]:
    """The terms with those of the same source added up. Raises `Inexact`."""
    if len(terms) == 1:
        return (terms[0],)
    by_source: dict[int, Map] = {}
    for source, structure in terms:
        by_source[source] = geometry.add(by_source[source], structure) if source in by_source else structure
    return tuple(sorted(by_source.items(), key=lambda item: item[0]))
