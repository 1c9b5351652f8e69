"""The inverse of folding: plain convolutions become training-time branches that compute the same function.

expanded = rk.expand(model, batch, kind="dbb")
…train it…
folded = rk.fold(expanded, batch)
"""

from reparamkit.training.expand.block import ExpandedConv
from reparamkit.training.expand.network import expand
from reparamkit.training.expand.report import Expansion, ExpansionReport, LeftAlone, expansion_report

__all__ = ["ExpandedConv", "Expansion", "ExpansionReport", "LeftAlone", "expand", "expansion_report"]
