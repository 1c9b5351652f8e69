"""The numbers of a chosen form: the same compositions as in `forms`, carried out in float64."""

from __future__ import annotations

from collections.abc import Sequence

from reparamkit.engine.compositions import NUMBERS, sums
from reparamkit.engine.form import Form, Terms
from reparamkit.engine.graph import Node


def numbers(nodes: Sequence[Node], form: Form) -> Terms:
    """Source -> affine map. Raises `Inexact` if the numbers forbid what the shapes allowed."""
    terms_of: dict[int, Terms] = {}

    def below(choice: Form) -> Terms:
        return terms_of[id(choice)]

    for current in _bottom_up(form):
        node = nodes[current.node]
        if current.norm is not None:
            ((read, _),), (choice,) = current.terms, current.choices
            terms_of[id(current)] = {read: terms_of[id(choice)][current.norm]}
        elif current.alternative is not None:
            terms_of[id(current)] = sums.numbers(nodes, current, current.alternative.meaning, below)
        else:
            terms_of[id(current)] = NUMBERS[type(node.meaning)](nodes, current, node.meaning, below)
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
