"""A sum of maps of the operands, each composed with what computes the operand.

Σ A_i x_i,  x_i = Σ B_ij y_j        =        Σ_j (Σ_i A_i B_ij) y_j
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from reparamkit.algebra import IDENTITY, Inexact, Map, Scalar, affine, geometry
from reparamkit.engine import cost, crops
from reparamkit.engine.compositions.concatenations import DIFFERENT
from reparamkit.engine.form import Below, Form, FormTable, Maps, SourceTerm, Terms, is_identity
from reparamkit.engine.graph import Node
from reparamkit.operators import Affine, Concat, Term, Work

MOST_TERMS = 4


def forms(table: FormTable, node: Node, meaning: Affine) -> Iterator[Form]:
    """Every combination, and the operator as it is where that can run."""
    for terms, choices in combined(table, node, meaning):
        read = {term.value.id for term in meaning.terms}
        cuts = choices == (None,) * len(choices) and {source for source, _ in terms} == read
        replaces = not cuts or node.covers or node.is_map_alone or is_identity(terms)
        if node.id not in table.barred and (replaces or node.recomputed_elements):
            yield table.composed(node, terms, choices)
        if cuts and not node.is_map_alone:
            own = _as_it_stands(node, meaning, terms, table.layers(node, terms))
            yield Form(node.id, terms, choices, True, own)


def combined(table: FormTable, node: Node, meaning: Affine) -> Iterator[tuple[Maps, tuple[Form | None, ...]]]:
    """The maps composed with every choice of forms of their operands, and added up.

    Sources that lie in others are also taken from these.
    """
    options = [list(_through(table, node, term)) for term in meaning.terms]
    for chosen in itertools.product(*options):
        choices = tuple([choice for choice, _ in chosen])
        try:
            terms = _merged([term for _, terms in chosen for term in terms])
        except Inexact as reason:
            table.note(node, choices, str(reason))
            continue
        if len(terms) <= MOST_TERMS or choices == (None,) * len(choices):
            yield terms, choices
        if len(terms) > 1 and any(source in table.pads for source, _ in terms):
            left, steps = crops.joined(table.nodes, dict(terms))
            if steps:
                yield tuple(sorted(left.items())), choices


def mixes(structure: Map) -> bool:
    """Whether a map is more than a scale and shift per channel."""
    return not isinstance(structure, Scalar) and not structure.per_channel


def numbers(nodes: Sequence[Node], form: Form, meaning: Affine, below: Below) -> Terms:
    """The shift of a map is counted once, whatever it is composed with."""
    summed: Terms = {}
    for term, choice in zip(meaning.terms, form.choices, strict=True):
        own = term.load()
        inner: Terms = {term.value.id: IDENTITY} if choice is None else below(choice)
        bias_spent = False
        for source, existing in inner.items():
            composed = affine.compose(affine.linear_part(own) if bias_spent else own, existing)
            bias_spent = True
            summed[source] = affine.add(summed[source], composed) if source in summed else composed
    return summed if summed.keys() == form.sources else crops.joined_numbers(nodes, summed)


def _through(table: FormTable, node: Node, term: Term) -> Iterator[tuple[Form | None, list[tuple[int, Map]]]]:
    """A map composed with each form of its operand, and with the operand as it is."""
    mixing = mixes(term.structure)
    for form in table.of(term.value.id) if (node.id, term.value.id) not in table.apart else ():
        if mixing and len(form.terms) > 1:
            continue  # one layer on a sum is not spread over the summands
        if not form.terms and term.structure.has_bias:
            continue
        if form.alternative is not None and form.is_identity and table.nodes[form.terms[0][0]].synthetic:
            continue  # the cut says as much
        terms = []
        try:
            for source, structure in form.terms:
                if structure is None:
                    raise Inexact(DIFFERENT if isinstance(table.nodes[form.node].meaning, Concat) else "")
                terms.append((source, geometry.compose(term.structure, structure)))
        except Inexact as reason:
            if str(reason):
                table.why.setdefault((node.id, term.value.id), str(reason))
            continue
        yield form, terms
    yield None, [(term.value.id, term.structure)]


def _merged(terms: Sequence[tuple[int, Map]]) -> tuple[tuple[int, Map], ...]:
    """The terms with those of the same source added up. Raises `Inexact`."""
    if len(terms) == 1:
        return (terms[0],)
    by_source: dict[int, Map] = {}
    for source, structure in terms:
        by_source[source] = geometry.add(by_source[source], structure) if source in by_source else structure
    return tuple(sorted(by_source.items(), key=lambda item: item[0]))


def _as_it_stands(node: Node, meaning: Affine, terms: Sequence[SourceTerm], layers: float) -> float:
    """The cost of the original operator; `layers` if it is arithmetic."""
    if meaning.work is Work.VIEW:
        return 0.0
    arithmetic = meaning.work is Work.ARITHMETIC and not is_identity(terms)
    recomputed = cost.recomputation(node.recomputed_elements - meaning.kept)
    return (layers if arithmetic else cost.copy(node.value)) + recomputed
