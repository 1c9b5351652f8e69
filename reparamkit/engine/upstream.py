"""What the sources of a form cost that exist for its sake."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from reparamkit.engine.form import Form, FormTable
from reparamkit.engine.graph import Node
from reparamkit.engine.post_dominance import PostDominance

_SHARED = 1 / 64
_HORIZON = 32


@dataclass(slots=True, eq=False)
class _Above:
    """What forms of the same sources need: values for their sake alone, and values that others need too."""

    needed: set[int] = field(default_factory=set)
    shared: set[int] = field(default_factory=set)
    cost: float = 0.0


class Upstream:
    """What lies above the values of a table, as far as it is known. `earlier` is one of the same values."""

    def __init__(self, table: FormTable, earlier: Upstream | None) -> None:
        self._table = table
        nodes = table.nodes
        self._postdominates: PostDominance = (
            PostDominance([n.users for n in nodes], [n.forced for n in nodes])
            if earlier is None
            else earlier._postdominates
        )

    def count(self, node: Node, forms: list[Form]) -> None:
        """Add to each form what its sources cost that exist only for it, as far as the forms differ there.

        All are followed upstream together, the latest value first, until they need the same values: what
        lies further up is common to all. A source with other readers that end up elsewhere will most
        likely exist anyway, with what it is made of. It is not quite free, so that of two equals the form
        wins that does without it: then, if all its readers can, it goes.
        """
        above = {form.sources: _Above() for form in forms}
        for sources, way in above.items():
            self._sort_in(node, sources, way.needed, way.shared)
        ways = list(above.values())
        for _ in range(_HORIZON):
            if all(way.needed == ways[0].needed for way in ways):
                break
            latest = max(max(way.needed) for way in ways if way.needed)
            best = self._table.of(latest)[0]
            for way in ways:
                if latest in way.needed:
                    way.needed.remove(latest)
                    way.cost += best.own
                    self._sort_in(node, best.sources, way.needed, way.shared)
        floor = min((s for way in ways for s in way.shared), default=0)
        for way in ways:
            pending = list(way.shared)
            while pending:  # what is shared is made of what is shared, as far as the forms differ there
                further: set[int] = set()
                self._sort_in(node, self._table.of(pending.pop())[0].sources, set(), further)
                pending += [s for s in further - way.shared if s >= floor]
                way.shared |= {s for s in further if s >= floor}
            way.cost += sum(self._table.of(s)[0].own * _SHARED for s in way.shared)
        for form in forms:
            form.cost = form.own + above[form.sources].cost

    def _sort_in(self, node: Node, sources: Iterable[int], needed: set[int], shared: set[int]) -> None:
        """Sort sources into those that are there for `node` alone and those that others need as well."""
        pending = list(sources)
        while pending:
            s = pending.pop()
            if self._table.of(s) and not self._table.nodes[s].forced:
                if self.ends_in(node.id, s) or not self._read_elsewhere(node.id, s):
                    needed.add(s)
                elif self._table.of(s)[0].own == 0.0:  # a view: what matters is what it shows
                    pending.extend(self._table.of(s)[0].sources)
                else:
                    shared.add(s)

    def _read_elsewhere(self, node: int, source: int) -> bool:
        """Whether a reader other than `node` needs `source` as it is, as far as is known by then.

        A norm that goes into the convolution above it does not read that convolution any more. Where there
        are several readers, each counts on the others: a layer is not computed again for every one.
        """
        if self._table.nodes[source].stands_for is not None:
            return True  # for its owner, whose readers are not its own
        users = set(self._table.nodes[source].users)
        if len(users) != 1 or (reader := users.pop()) >= node:
            return True
        forms = self._table.of(reader)
        if not forms:
            return True
        return source in forms[0].sources and (forms[0].own > 0.0 or self._read_elsewhere(node, reader))

    def ends_in(self, node: int, source: int) -> bool:
        """Whether all that is made of `source` is made of it by way of `node` (or of their owners)."""
        owner, of = self._table.nodes[node].stands_for, self._table.nodes[source].stands_for
        return self._postdominates(node if owner is None else owner, source if of is None else of)
