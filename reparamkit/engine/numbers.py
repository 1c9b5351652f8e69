"""The numbers of a chosen form: the same compositions as in `forms`, carried out in float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from reparamkit.algebra import IDENTITY, AffineMap, Inexact, Numbers, Scalar, ScalarMap, affine
from reparamkit.engine import crops
from reparamkit.engine.forms import Form
from reparamkit.engine.graph import Node
from reparamkit.operators import Affine, Bordered, Concat, Zero

Terms = dict[int, Numbers]
_SAME = 1e-6  # the network computes its border in its own precision


def numbers(nodes: Sequence[Node], form: Form) -> Terms:
    """Source -> affine map. Raises `Inexact` if the numbers forbid what the shapes allowed."""
    terms_of: dict[int, Terms] = {}
    for current in _bottom_up(form):
        node = nodes[current.node]
        if current.norm is not None:
            ((read, _),), (choice,) = current.terms, current.choices
            terms_of[id(current)] = {read: terms_of[id(choice)][current.norm]}
        elif current.alternative is not None:
            terms_of[id(current)] = _summed(nodes, current, current.alternative.meaning, terms_of)
        elif isinstance(node.meaning, Zero):
            terms_of[id(current)] = {}
        elif isinstance(node.meaning, Concat):
            terms_of[id(current)] = _stacked(current, node, node.meaning, terms_of)
        elif isinstance(node.meaning, Bordered):
            terms_of[id(current)] = _bordered(current, node.meaning, terms_of)
        else:
            assert isinstance(node.meaning, Affine)
            terms_of[id(current)] = _summed(nodes, current, node.meaning, terms_of)
    return terms_of[id(form)]


def _bottom_up(form: Form) -> list[Form]:
    """The form and all that it is composed from, operands first; without recursion, chains may be long."""
    order: list[Form] = []
    seen: set[int] = set()
    stack: list[tuple[Form, bool]] = [(form, False)]
    while stack:
        current, ready = stack.pop()
        if ready:
            order.append(current)
        elif id(current) not in seen:
            seen.add(id(current))
            stack.append((current, True))
            stack.extend((c, False) for c in current.choices if c is not None)
    return order


def _summed(nodes: Sequence[Node], form: Form, meaning: Affine, terms_of: dict[int, Terms]) -> Terms:
    terms: Terms = {}
    for term, choice in zip(meaning.terms, form.choices, strict=True):
        own = term.load()
        below: Terms = {term.value.id: IDENTITY} if choice is None else terms_of[id(choice)]
        bias_spent = False
        for source, existing in below.items():
            composed = affine.compose(_without_bias(own) if bias_spent else own, existing)
            bias_spent = True
            terms[source] = affine.add(terms[source], composed) if source in terms else composed
    return terms if terms.keys() == form.sources else crops.joined_numbers(nodes, terms)


def _without_bias(numbers: Numbers) -> Numbers:
    if isinstance(numbers, ScalarMap):
        return ScalarMap(numbers.alpha)
    return affine.without_bias(numbers)


def _bordered(form: Form, meaning: Bordered, terms_of: dict[int, Terms]) -> Terms:
    (choice,) = form.choices
    ((source, inner),) = terms_of[id(choice)].items()
    assert isinstance(inner, AffineMap)
    fill = meaning.fill.load().flatten()
    shift = torch.zeros_like(fill) if inner.bias is None else inner.bias
    if not bool(((fill - shift).abs() <= _SAME * fill.abs().max()).all()):
        raise Inexact("the border holds another constant than the shift of what it surrounds")
    return {source: affine.with_bias(affine.reaching(meaning.structure, inner), fill)}


def _stacked(form: Form, node: Node, meaning: Concat, terms_of: dict[int, Terms]) -> Terms:
    ((source, structure),) = form.terms
    if structure is None or isinstance(structure, Scalar):
        raise Inexact("its input is a concatenation of different values")
    parts: list[AffineMap] = []
    for value, choice in zip(meaning.values, form.choices, strict=True):
        part = IDENTITY if choice is None else terms_of[id(choice)][source]
        if isinstance(part, ScalarMap):
            part = affine.promoted(part, value.shape[-structure.dims - 1], structure.dims)
        parts.append(part)
    return {source: affine.stack(parts)}
