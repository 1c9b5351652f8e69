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
    done: dict[int, Terms] = {}
    for current in _bottom_up(form):
        node = nodes[current.node]
        if current.norm is not None:
            ((read, _),), (choice,) = current.terms, current.choices
            done[id(current)] = {read: done[id(choice)][current.norm]}
        elif current.alternative is not None:
            done[id(current)] = _summed(nodes, current, current.alternative.meaning, done)
        elif isinstance(node.meaning, Zero):
            done[id(current)] = {}
        elif isinstance(node.meaning, Concat):
            done[id(current)] = _stacked(current, node, node.meaning, done)
        elif isinstance(node.meaning, Bordered):
            done[id(current)] = _bordered(current, node.meaning, done)
        else:
            assert isinstance(node.meaning, Affine)
            done[id(current)] = _summed(nodes, current, node.meaning, done)
    return done[id(form)]


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


def _summed(nodes: Sequence[Node], form: Form, meaning: Affine, done: dict[int, Terms]) -> Terms:
    terms: Terms = {}
    for part, choice in zip(meaning.parts, form.choices, strict=True):
        own = part.load()
        below: Terms = {part.value.id: IDENTITY} if choice is None else done[id(choice)]
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


def _bordered(form: Form, meaning: Bordered, done: dict[int, Terms]) -> Terms:
    (choice,) = form.choices
    ((source, inner),) = done[id(choice)].items()
    assert isinstance(inner, AffineMap)
    fill = meaning.fill.load().flatten()
    shift = torch.zeros_like(fill) if inner.bias is None else inner.bias
    if not bool(((fill - shift).abs() <= _SAME * fill.abs().max()).all()):
        raise Inexact("the border holds another constant than the shift of what it surrounds")
    return {source: affine.with_bias(affine.reaching(meaning.structure, inner), fill)}


def _stacked(form: Form, node: Node, meaning: Concat, done: dict[int, Terms]) -> Terms:
    ((source, structure),) = form.terms
    if structure is None or isinstance(structure, Scalar):
        raise Inexact("its input is a concatenation of different values")
    parts: list[AffineMap] = []
    for value, choice in zip(meaning.values, form.choices, strict=True):
        part = IDENTITY if choice is None else done[id(choice)][source]
        if isinstance(part, ScalarMap):
            part = affine.promoted(part, value.shape[-structure.dims - 1], structure.dims)
        parts.append(part)
    return {source: affine.stack(parts)}
