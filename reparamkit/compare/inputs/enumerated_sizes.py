"""Probes at the sizes that a file lists, where it takes no others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reparamkit.compare.inputs.input_spec import Kind
from reparamkit.compare.inputs.probes import Probe
from reparamkit.compare.inputs.sizes import DynamicAxes, example_sizes
from reparamkit.support.inputs import Args, Kwargs, tensor_leaves

_ENOUGH = 3


def listed_probes(
    args: Args,
    kwargs: Kwargs,
    listed: Mapping[int, Sequence[tuple[int, ...]]],
    *,
    seed: int,
    dynamic_axes: DynamicAxes,
    kinds: Mapping[int, Kind] | None = None,
) -> dict[str, list[Probe]]:
    """Normal probes at up to three listed sizes, the smallest, the largest and one between.

    Args:
        args, kwargs: the example.
        listed: flat index of an input -> the shapes that it may have.
        seed: of what is drawn.
        dynamic_axes: those that may be changed; a shape that differs elsewhere is left out.
        kinds: as in `reparamkit.compare.inputs.probes.size_probes`.

    Returns:
        Kind of size -> the one probe of it.
    """
    tensors = [tensor for _, tensor in tensor_leaves(args, kwargs)]
    own = example_sizes(tensors, dynamic_axes)
    probes: dict[str, list[Probe]] = {}
    for index, shapes in listed.items():
        axes = dynamic_axes.get(index, {})
        example = tensors[index].shape
        proposals = []
        for shape in sorted(shapes):
            if len(shape) != len(example) or any(
                size != example[axis] for axis, size in enumerate(shape) if axis not in axes
            ):
                continue
            sizes = own | {symbol: shape[axis] for axis, symbol in axes.items()}
            if sizes != own:
                proposals.append(sizes)
        if len(proposals) > _ENOUGH:
            proposals = [proposals[0], proposals[len(proposals) // 2], proposals[-1]]
        for sizes in proposals:
            kind = "listed size"
            name = f"{kind} ({', '.join(f'{symbol}={size}' for symbol, size in sizes.items())})"
            probes[name] = [Probe(name, kind, seed, args, kwargs, dynamic_axes, sizes, kinds=kinds or {})]
    return probes
