"""Ours beside timm's in the thirteen families that carry folds written by hand.

Each network is taken at timm's own input size. The cost is that of `tests.sweeps.counting`:
multiply-accumulates plus one for each element that an operator which computes writes. The times are those
of the passes alone: `fold_program` on a captured program (it proves every fold in float64 meanwhile), and
timm's `reparameterize_model`.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.sweeps.measure import Row
from tests.sweeps.networks import Job

MODELS = {
    "mobileone_s0": "byobnet",
    "repvgg_a0": "byobnet",
    "fastvit_t8": "fastvit",
    "repvit_m0_9": "repvit",
    "repghostnet_050": "repghost",
    "ghostnetv3_050": "ghostnet",
    "levit_128s": "levit",
    "efficientvit_m0": "efficientvit_msra",
    "lcnetv2_small": "lcnetv2",
    "tiny_vit_5m_224": "tiny_vit",
    "nextvit_small": "nextvit",
    "shvit_s1": "shvit",
    "iformer_t": "iformer",
    "efficientvim_m1": "efficientvim",
}
COLUMNS = ("conv", "batch_norm", "linear", "add", "mul")


def jobs() -> list[Job]:
    """One or two networks of each family that timm's own fold changes."""
    return [Job("timm", family, name) for name, family in MODELS.items()]


def comparison(rows: Iterable[Row]) -> list[list[str]]:
    """A line for each network: ours / timm's, marked with a ! where ours is the larger."""
    lines = [["family", "model", "verdict", *COLUMNS, "cost (M)", "worst error", "seconds"]]
    for row in rows:
        if not row.theirs:
            lines.append([row.family, row.name, row.status, *[""] * (len(COLUMNS) + 3)])
            continue
        lines.append(
            [
                *(row.family, row.name, row.status),
                *(_pair(row.after[c], row.theirs[c]) for c in COLUMNS),
                _pair(round(row.costs["after"] / 1e6, 2), round(row.costs["theirs"] / 1e6, 2)),
                f"{row.e1:.1e} / {row.e_theirs:.1e}",
                f"{row.seconds['fold']:.2f} / {row.seconds['theirs']:.2f}",
            ]
        )
    return lines


def _pair(ours: float, theirs: float) -> str:
    return f"{ours} / {theirs}{' !' if ours > theirs else ''}"
