"""Does the captured graph answer the user's own example as the model does?

torch.export takes a size of 1 for a constant, so a batch of one is captured as a batch of two that may
vary. A model that looks at its batch size (`if len(x) == 1`) may then have been captured on another path.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from reparamkit.untouched import call_untouched

_ALIKE = 1e-2


def two_of_each(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The same example with a batch of two; None unless every tensor has a batch of one."""
    leaves, spec = pytree.tree_flatten((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if not tensors or any(t.ndim == 0 or t.shape[0] != 1 for t in tensors):
        return None
    twice = [torch.cat([x, x]) if isinstance(x, Tensor) else x for x in leaves]
    found: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_unflatten(twice, spec)
    return found


def answers_alike(
    exported: ExportedProgram, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> bool:
    """Whether both give outputs of the same shape and, roughly, the same values on these inputs."""
    if any(
        spec.kind not in (OutputKind.USER_OUTPUT, OutputKind.BUFFER_MUTATION)
        for spec in exported.graph_signature.output_specs
    ):
        return False
    try:
        with torch.no_grad():
            found = _run(exported, pytree.tree_leaves((args, kwargs)))
            expected = pytree.tree_leaves(call_untouched(model, args, kwargs))
    except Exception:
        return False
    return len(found) == len(expected) and all(_alike(a, b) for a, b in zip(found, expected, strict=True))


def _run(exported: ExportedProgram, leaves: list[Any]) -> list[Any]:
    """The user's outputs, on copies of everything that the program could write to."""
    signature = exported.graph_signature
    inputs = iter(leaves)
    values: list[Any] = []
    for spec in signature.input_specs:
        if spec.kind == InputKind.USER_INPUT:
            value = next(inputs)
            values.append(value.clone() if isinstance(value, Tensor) else value)
        else:
            name = str(spec.target)
            stored = exported.state_dict[name] if name in exported.state_dict else exported.constants[name]
            values.append(stored.clone() if spec.kind == InputKind.BUFFER else stored)
    results = fx.Interpreter(exported.graph_module).run(*values, enable_io_processing=False)
    return [
        r
        for r, spec in zip(results, signature.output_specs, strict=True)
        if spec.kind == OutputKind.USER_OUTPUT
    ]


def _alike(a: Any, b: Any) -> bool:
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return bool(a == b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.is_floating_point() or a.numel() == 0:
        return True
    difference, scale = (a - b).abs().max(), b.abs().max()
    return bool(difference <= _ALIKE * scale) or not bool(torch.isfinite(scale))
