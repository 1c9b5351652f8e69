"""Layers beside each other that read the same value are one wider layer, and pieces of what it gives.

    q = A x,  k = B x,  v = C x        ──▶        q, k, v = split([A; B; C] x)

Exact for linear layers, and for convolutions without groups of one window, stride, padding and dilation. It
saves launches and reads of x, and no arithmetic; whether that pays depends on the machine, so it is only done
when asked for, and once the plan is made: it is about the layers that are left, whatever they come from.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from reparamkit.algebra import Geometry
from reparamkit.engine.form import Form
from reparamkit.engine.graph import Node
from reparamkit.engine.layers import Layer, Piece, Realisation, layer_of
from reparamkit.operators import properties


@dataclass(frozen=True)
class Siblings:
    """`forms`, in the order of the graph, that each have a layer on `source` which differs in numbers alone.

    `structures` are those of the layers.
    """

    source: int
    forms: tuple[Form, ...]
    structures: tuple[Geometry, ...]

    def merged(self, realisations: Mapping[int, Realisation]) -> dict[int, Realisation]:
        """The forms' nodes -> the same layers with a piece of one wide layer in the place of their own."""
        places = [_place(realisations[form.node], self.source) for form in self.forms]
        modules = [
            realisations[form.node].layers[place].module
            for form, place in zip(self.forms, places, strict=True)
        ]
        wide = self._wide([module for module in modules if module is not None])
        sizes = tuple(structure.outputs for structure in self.structures)
        merged = {}
        for number, (form, place) in enumerate(zip(self.forms, places, strict=True)):
            layers = list(realisations[form.node].layers)
            piece = Piece(number, sizes, -1 - self.structures[0].dims)
            layers[place] = Layer(self.source, wide, None, piece)
            merged[form.node] = replace(realisations[form.node], layers=tuple(layers))
        return merged

    def layer_of(self, realisations: Mapping[int, Realisation]) -> nn.Module:
        """The layer that the forms have on the source, all of them if they are merged."""
        realisation = realisations[self.forms[0].node]
        module = realisation.layers[_place(realisation, self.source)].module
        assert module is not None
        return module

    def _wide(self, modules: Sequence[nn.Module]) -> nn.Module:
        outputs = sum(structure.outputs for structure in self.structures)
        kernel = torch.cat([_numbers(module, "weight") for module in modules])
        bias = torch.cat([_numbers(module, "bias") for module in modules])
        shifts = any(structure.has_bias for structure in self.structures) or bool(bias.any())
        return layer_of(replace(self.structures[0], outputs=outputs), kernel, bias if shifts else None)


def siblings(
    nodes: Sequence[Node], chosen: Iterable[Form], kind: Callable[[Form], Hashable]
) -> list[Siblings]:
    """The layers of a plan that can be one.

    Args:
        nodes: the values of the network.
        chosen: the form of each that is computed, in their order.
        kind: what else has to be the same for two forms, such as the device that their numbers lie on.
    """
    alike: dict[tuple[int, Geometry, Hashable], list[tuple[Form, Geometry]]] = {}
    for form in chosen:
        if form.norm is not None or (form.original and not properties.has_weights(nodes[form.node].operator)):
            continue
        for source, structure in form.terms:
            if isinstance(structure, Geometry) and _is_plain_layer(structure, nodes[source]):
                key = (source, replace(structure, outputs=1, has_bias=False), kind(form))
                alike.setdefault(key, []).append((form, structure))
    groups = [(key, members) for key, members in alike.items() if len(members) > 1]
    return [
        Siblings(key[0], tuple(form for form, _ in members), tuple(structure for _, structure in members))
        for key, members in groups
    ]


def _is_plain_layer(structure: Geometry, source: Node) -> bool:
    """Whether it is a layer over all channels at once, without a padding of its own."""
    even = structure.near == structure.far and all(p >= 0 for p in structure.near)
    return source.value.dtype.is_floating_point and structure.groups == 1 and even and not structure.unit


def _place(realisation: Realisation, source: int) -> int:
    return next(i for i, layer in enumerate(realisation.layers) if layer.source == source)


def _numbers(module: nn.Module, name: str) -> Tensor:
    numbers = getattr(module, name)
    assert isinstance(numbers, Tensor)
    return numbers.detach()
