"""The laws: equations between values, one file each.

A law is asked when a value of the network is about to be defined. It may write values down that the network
does not have, and returns other ways to compute the value; () where it does not apply.

    def law(graph: ValueGraph, definition: Definition) -> tuple[Alternative, ...]

To add one, write it in a file of its own, with the equation on top, and put it into `LAWS`.
"""

from __future__ import annotations

from collections.abc import Callable

from reparamkit.engine.graph import Alternative, Definition, ValueGraph
from reparamkit.engine.laws.affine_part_of_norm import affine_part_of_norm
from reparamkit.engine.laws.constant_out_of_sum import constant_out_of_sum
from reparamkit.engine.laws.contractions_of_channels import contractions_of_channels
from reparamkit.engine.laws.cut_as_selection import cut_as_selection
from reparamkit.engine.laws.map_down_through_move import map_down_through_move
from reparamkit.engine.laws.map_up_through_move import map_up_through_move
from reparamkit.engine.laws.maps_between_moves import maps_between_moves

Law = Callable[[ValueGraph, Definition], tuple[Alternative, ...]]

LAWS: tuple[Law, ...] = (
    affine_part_of_norm,
    map_down_through_move,
    map_up_through_move,
    constant_out_of_sum,
    cut_as_selection,
    maps_between_moves,
    contractions_of_channels,
)

__all__ = ["LAWS", "Law"]
