"""What the sources of a form cost that exist for its sake."""

from __future__ import annotations

from collections.abc import Iterable

from reparamkit.engine.form import Form, FormTable
from reparamkit.engine.graph import Node
from reparamkit.engine.post_dominance import PostDominance

_SHARED = 1 / 64
_HORIZON = 32


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
            best = self._table.of(latest)[0]
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
                self._sort_in(node, self._table.of(above.pop())[0].sources, set(), further)
                above += [s for s in further - free if s >= floor]
                free |= {s for s in further if s >= floor}
            form.cost += sum(self._table.of(s)[0].own * _SHARED for s in free)

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

        A norm that goes into the convolution above it does not read that convolution any more.
        """
        if self._table.nodes[source].stands_for is not None:
            return True  # for its owner, whose readers are not its own
        for reader in self._table.nodes[source].users:
            if reader == node:
                continue
            forms = self._table.of(reader) if reader < node else []
            if not forms:
                return True
            if source in forms[0].sources and (forms[0].own > 0.0 or self._read_elsewhere(node, reader)):
                return True
        return False

    def ends_in(self, node: int, source: int) -> bool:
        """Whether all that is made of `source` is made of it by way of `node` (or of their owners)."""
        owner, of = self._table.nodes[node].stands_for, self._table.nodes[source].stands_for
        return self._postdominates(node if owner is None else owner, source if of is None else of)
