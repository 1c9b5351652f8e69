"""Where two networks begin to differ: the answer, in numbers and in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reparamkit.compare.metrics import plain


@dataclass(frozen=True)
class Step:
    """One place that both networks have.

    Attributes:
        place: the path of the module in the reference, or the candidate's where the reference has none.
        node: the candidate's node there.
        error: |candidate − reference| / |reference| in the Euclidean norm.
        noise: what of that is rounding.
        agrees: the error is within the noise.
    """

    place: str
    node: str
    error: float
    noise: float
    agrees: bool


@dataclass(frozen=True)
class Location:
    """Where the candidate's values first differ from the reference's.

    Attributes:
        found: the place is known, and confirmed: what goes into it agrees, and what comes out does not.
        place: the path of the innermost module that holds all that may be wrong; "" for the whole network.
        nodes: the candidate's nodes that may be wrong, those with weights if there are any.
        error: of what comes out of the place, as in `Step`; None where it was not found.
        before: the largest error among what goes into it.
        after: the last value before the place that agrees, in words; "" for the network's input.
        probe: the name of the inputs on which this was found.
        reason: why it was not found; empty where it was.
        growth: the error along the network, thinned out.
    """

    found: bool
    probe: str
    place: str = ""
    nodes: tuple[str, ...] = ()
    error: float | None = None
    before: float | None = None
    after: str = ""
    reason: str = ""
    growth: tuple[Step, ...] = ()

    def text(self) -> str:
        """One sentence."""
        if not self.found:
            known = f" (the last value that agrees: {self.after})" if self.after else ""
            return f"where it first differs is not known: {self.reason}{known}"
        nodes = _listed(self.nodes)
        where = self.place or nodes
        inside = f" ({nodes})" if self.place and nodes else ""
        return (
            f"first differs at {where}{inside}: error {self.error:.1e} of the value's rms, "
            f"before it {self.before:.1e}, on the probe {self.probe!r}"
        )

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON."""
        return {"found": self.found, "text": self.text(), **plain(self)}


_SHOWN = 3


def _listed(names: tuple[str, ...]) -> str:
    if not names:
        return ""
    shown = ", ".join(names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{'one of ' if len(names) > 1 else ''}{shown}{more}"
