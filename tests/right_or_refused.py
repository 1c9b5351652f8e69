"""A fold beside its original at many inputs, in each format: the original's answer, or a refusal in words."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tests.nets import assert_same

FLOAT64, FLOAT32 = 1e-9, 2e-5
SAME, REFUSED, NO_SUCH = "same", "refused", "the network takes no such input"

_WORDS: dict[type[Exception], str] = {
    ValueError: r"captured for other sizes: it assumes .* and was given .*\.shape\[\d\] \d",
    AssertionError: r"Guard failed: |Expected input|to be (equal to|<=|>=)",
    onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument: r"Got invalid dimensions for input",
}
"""How a module, a `.pt2` and an ONNX file refuse a size."""


def values(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Numbers that differ from one shape to the next."""
    generator = torch.Generator().manual_seed(sum(size * 31**place for place, size in enumerate(shape)))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def maps(channels: int = 3, extra: Iterable[tuple[int, int, int]] = ()) -> list[tuple[int, ...]]:
    """Shapes of maps: ones on each axis and on several, equal sides, zeros, ordinary ones, and `extra`."""
    sides = (8, 9), (1, 1), (1, 9), (8, 1), (6, 6), (2, 9), (9, 8), (1, 5), (3, 5), (12, 3), (4, 24)
    sizes = [(b, *side) for b, side in itertools.product((1, 2, 3), sides)]
    return [(b, channels, h, w) for b, h, w in [*sizes, (0, 8, 9), (4, 4, 4), (8, 8, 9), *extra]]


def told(original: nn.Module, candidate: Callable[..., Any], given: Any, bar: float = FLOAT64) -> str:
    """`SAME`, or `REFUSED` in words, or `NO_SUCH` where the original itself raises.

    `given` is what the original is called with, in float64; both run as copies, so that what they write does
    not add up.

    Raises:
        AssertionError: the candidate answers otherwise.
    """
    expected_inputs, taken = copy.deepcopy(given), copy.deepcopy(given)
    with torch.no_grad():
        try:
            expected = _called(copy.deepcopy(original), expected_inputs)
        except Exception:  # whatever a network raises for what it does not take
            return NO_SUCH
        try:
            own = copy.deepcopy(candidate) if isinstance(candidate, nn.Module) else candidate
            found = _called(own, taken)
        except tuple(_WORDS) as error:
            if not re.search(_WORDS[type(error)], str(error)):
                raise
            return REFUSED
    assert_same(expected, found, bar)
    assert_same(expected_inputs, taken, bar)
    return SAME


def in_float32(run: Callable[..., Any]) -> Callable[..., Any]:
    """A candidate in float32 that is asked, and answers, in float64, as does a copy of its inputs."""

    def candidate(*args: Any, **kwargs: Any) -> Any:
        return _cast(run(*_cast(args, torch.float32), **_cast(kwargs, torch.float32)), torch.float64)

    return candidate


def pt2_file(path: Path) -> Callable[..., Any]:
    """What a `.pt2` answers."""
    module = torch.export.load(str(path)).module()

    def candidate(*args: Any, **kwargs: Any) -> Any:
        return copy.deepcopy(module)(*args, **kwargs)

    return candidate


def onnx_file(path: Path, structure: Callable[[], Any]) -> Callable[..., Any]:
    """What an ONNX file answers, in the structure of `structure()`."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    spec = pytree.tree_structure(structure())

    def candidate(*args: Any, **kwargs: Any) -> Any:
        tensors = [leaf.numpy() for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        names = [entry.name for entry in session.get_inputs()]
        found = session.run(None, dict(zip(names, tensors, strict=True)))
        return pytree.tree_unflatten([torch.from_numpy(each) for each in found], spec)

    return candidate


def fixed_axes(path: Path) -> list[int | str]:
    """Every size of the inputs of an ONNX file, by name where it is free."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [size for entry in session.get_inputs() for size in entry.shape]


def _cast(tree: Any, dtype: torch.dtype) -> Any:
    return pytree.tree_map(
        lambda leaf: leaf.to(dtype) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf, tree
    )


def _called(module: Callable[..., Any], given: Any) -> Any:
    if isinstance(given, dict):
        return module(**given)
    return module(*given) if isinstance(given, tuple) else module(given)
