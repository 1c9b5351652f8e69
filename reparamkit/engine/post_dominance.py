"""Which value every path of another one passes through.

`v` post-dominates `u` if whatever is made of `u` is made of it by way of `v`: all branches that start at
`u` have met again at `v`. Then `u` exists for `v` alone. The tree is built backwards over the graph
(Cooper, Harvey and Kennedy, "A simple, fast dominance algorithm", 2001); ancestry is read off
the intervals of a depth-first walk.
"""

from __future__ import annotations

from collections.abc import Sequence


class PostDominance:
    """`successors[i]` are the readers of value i, all later in order; `ends[i]`: others read it too."""

    def __init__(self, successors: Sequence[Sequence[int]], ends: Sequence[bool]) -> None:
        count = len(successors)
        sink = count
        parent, depth = [sink] * (count + 1), [0] * (count + 1)
        for u in reversed(range(count)):
            meeting = sink if ends[u] or not successors[u] else successors[u][0]
            if meeting != sink:
                for v in successors[u][1:]:
                    meeting = _meeting(meeting, v, parent, depth)
            parent[u], depth[u] = meeting, depth[meeting] + 1
        self._first, self._last = _intervals(parent, sink)

    def __call__(self, v: int, u: int) -> bool:
        """Whether `v` post-dominates `u`."""
        return self._first[v] <= self._first[u] <= self._last[v]


def _meeting(a: int, b: int, parent: list[int], depth: list[int]) -> int:
    while a != b:
        if depth[a] < depth[b]:
            a, b = b, a
        a = parent[a]
    return a


def _intervals(parent: list[int], root: int) -> tuple[list[int], list[int]]:
    children: list[list[int]] = [[] for _ in parent]
    for node, above in enumerate(parent):
        if node != root:
            children[above].append(node)
    first, last, clock = [0] * len(parent), [0] * len(parent), 0
    stack = [(root, False)]
    while stack:
        node, left = stack.pop()
        if left:
            last[node] = clock
            continue
        clock += 1
        first[node] = clock
        stack.append((node, True))
        stack.extend((c, False) for c in children[node])
    return first, last
