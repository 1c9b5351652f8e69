"""Small Core ML programs, built with coremltools, saved and read back, and operators held against others'."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reparamkit.mil.evaluate import evaluate
from reparamkit.mil.graph import MilProgram
from reparamkit.mil.program import open_program
from reparamkit.support.garbage import only_new_garbage
from reparamkit.support.quiet import quiet

with quiet():
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb  # noqa: N813
    from coremltools.converters.mil.mil import types

__all__ = [
    "Case", "Tensors", "array", "assert_agree", "assert_close", "ct", "mb", "normal", "read", "save", "types",
]  # fmt: skip
IOS = {15: ct.target.iOS15, 16: ct.target.iOS16, 17: ct.target.iOS17, 18: ct.target.iOS18}
_TYPES = {
    torch.float32: types.fp32,
    torch.float16: types.fp16,
    torch.int32: types.int32,
    torch.bool: types.bool,
}
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Case:
    """An operator with some settings.

    Attributes:
        label: for the message.
        build: from the program's inputs, by name, to the operator's output or outputs.
        expect: the same by other means, from the inputs in float64.
    """

    label: str
    build: Callable[..., Any]
    expect: Callable[..., Any]


def save(
    build: Callable[..., Any],
    given: Mapping[str, torch.Tensor],
    path: Path,
    *,
    ios: int = 17,
    passes: bool = False,
    **settings: Any,
) -> Path:
    """Save the program that `build` makes from inputs like these; without `passes` exactly as it is built."""
    specs = [mb.TensorSpec(tuple(value.shape), _TYPES[value.dtype]) for value in given.values()]
    names = list(given)

    def renamed(*values: Any) -> Any:
        return build(**dict(zip(names, values, strict=True)))

    # coremltools reads the names of the inputs from the function's signature.
    scope = {"renamed": renamed}
    exec(f"def program({', '.join(names)}):\n    return renamed({', '.join(names)})", scope)
    with quiet(), only_new_garbage():
        made = mb.program(input_specs=specs, opset_version=IOS[ios])(scope["program"])
        settings.setdefault("compute_precision", ct.precision.FLOAT32)
        if not passes:
            settings["pass_pipeline"] = ct.PassPipeline.EMPTY
        model = ct.convert(
            made,
            convert_to="mlprogram",
            minimum_deployment_target=IOS[ios],
            compute_units=ct.ComputeUnit.CPU_ONLY,
            skip_model_load=True,
            **settings,
        )
        model.save(str(path))
    return path


def read(build: Callable[..., Any], inputs: Mapping[str, torch.Tensor], *, ios: int = 17) -> MilProgram:
    """The program that `build` makes, saved and read back."""
    with tempfile.TemporaryDirectory() as folder:
        return open_program(save(build, inputs, Path(folder) / "net.mlpackage", ios=ios))


def assert_agree(cases: Sequence[Case], inputs: Tensors, *, ios: int = 17, bound: float = 1e-5) -> None:
    """Assert that every case gives what is expected: to `bound` of the scale, in float64 to 1e-12."""
    counts: list[int] = []

    def all_of_them(**values: Any) -> list[Any]:
        made = []
        for case in cases:
            outputs = case.build(**values)
            outputs = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
            counts.append(len(outputs))
            made += outputs
        return made

    program = read(all_of_them, inputs, ios=ios)
    exact = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
    for arithmetic, allowed in ((None, bound), (torch.float64, 1e-12)):
        given = inputs if arithmetic is None else exact
        found = iter(evaluate(program, given, arithmetic).items())
        for case, count in zip(cases, counts, strict=True):
            wanted = case.expect(**exact)
            wanted = list(wanted) if isinstance(wanted, (tuple, list)) else [wanted]
            assert len(wanted) == count, case.label
            for value in wanted:
                _, got = next(found)
                assert_close(got, value, allowed, case.label)


def assert_close(got: torch.Tensor, wanted: Any, allowed: float, label: str) -> None:
    """Assert that shapes and values are the same, floating-point ones up to `allowed` of the scale."""
    expected = wanted if isinstance(wanted, torch.Tensor) else torch.from_numpy(np.asarray(wanted))
    if expected.dtype is torch.bool and got.is_floating_point():
        expected = expected.to(got.dtype)  # Core ML gives booleans out as numbers
    assert got.shape == expected.shape, (label, got.shape, expected.shape)
    assert got.is_floating_point() == expected.is_floating_point(), (label, got.dtype, expected.dtype)
    if not got.is_floating_point():
        assert torch.equal(got.to(torch.int64), expected.to(torch.int64)), label
        return
    error = float((got.double() - expected.double()).abs().max()) if got.numel() else 0.0
    scale = max(float(expected.double().abs().max()), 1e-3) if got.numel() else 1.0
    assert error <= allowed * scale, (label, error / scale)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def array(*shape: int, seed: int = 1) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Normal float32 weights."""
    return normal(*shape, seed=seed).numpy()
