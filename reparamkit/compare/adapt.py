"""Hand a candidate the reference's inputs in the form that it takes them: by its names, in its dtypes.

Inputs go to those of the same name, or else to those at the same place. Floating-point inputs become the
floating-point type that the candidate asks for, and integers its integer type; anything else that differs is
the user's to mend, and is named.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch

from reparamkit.compare.dtypes import is_integer
from reparamkit.compare.float64.second_look import in_double
from reparamkit.compare.layout import permuted_shape
from reparamkit.compare.network import Network
from reparamkit.errors import UnusableInput
from reparamkit.runners.base import (
    BoundsSizes,
    ComputesInFloat64,
    ExactSums,
    InputSpec,
    NamedTensors,
    Runner,
    SumsExactly,
)
from reparamkit.support.inputs import Args, Kwargs, map_tensors, tensor_leaves
from reparamkit.support.text import dtype_name, first_line, shape_text


class Adapted:
    """A candidate that is called as the reference is.

    Args:
        candidate: what runs.
        names: how the reference calls its inputs, in the order of `tensor_leaves`.
        args, kwargs: the example, in the reference's form.

    Attributes:
        candidate: what is called.

    Raises:
        UnusableInput: the candidate takes another number of inputs, or inputs of another kind or layout.
    """

    def __init__(self, candidate: Network, names: Sequence[str], args: Args, kwargs: Kwargs) -> None:
        self.name = candidate.runner.name
        self.structured = candidate.runner.structured
        self.notes: list[str] = []
        self.candidate = candidate
        self._slots: Sequence[str] = ()
        self._plain = all(isinstance(value, torch.Tensor) for value in (*args, *kwargs.values()))
        self._order = self._matched(list(names), len(tensor_leaves(args, kwargs)))
        self._dtypes: list[torch.dtype | None] = []
        self._settle_dtypes(args, kwargs)

    def run(self, args: Args, kwargs: Kwargs) -> NamedTensors:
        """The candidate's outputs for inputs in the reference's form."""
        return self.candidate.runner.run(*self.converted(args, kwargs))

    def in_double(self) -> Adapted | None:
        """The same candidate running in float64 throughout; None where it has no such run."""
        double = in_double(self.candidate.runner)
        return None if double is None else self._run_by(double)

    def with_exact_sums(self) -> ExactSums | None:
        """The same candidate with its long sums taken in float64; None where it has no such run."""
        runner = self.candidate.runner
        if isinstance(runner, SumsExactly):
            exact = runner.with_exact_sums()
            return None if exact is None else replace(exact, runner=self._run_by(exact.runner))
        if isinstance(runner, ComputesInFloat64):
            return ExactSums(self._run_by(runner.in_float64()), complete=True)
        return ExactSums(self, complete=False)

    def _run_by(self, runner: Runner) -> Adapted:
        adapted = copy.copy(self)
        adapted.candidate = replace(self.candidate, runner=runner)
        return adapted

    def spec_of(self, index: int) -> InputSpec | None:
        """What the candidate says of the input that gets the reference's tensor at this flat index."""
        declared = self.candidate.declared
        return declared[self._order.index(index)] if declared is not None else None

    @property
    def listed(self) -> dict[int, tuple[tuple[int, ...], ...]]:
        """Flat index of a reference's tensor -> the only shapes in which the candidate takes it."""
        runner = self.candidate.runner
        if not isinstance(runner, BoundsSizes):
            return {}
        names = [spec.name for spec in self.candidate.declared or ()]
        return {self._order[names.index(name)]: shapes for name, shapes in runner.listed.items()}

    def accepts(self, args: Args, kwargs: Kwargs) -> bool:
        """Whether the candidate takes inputs of these sizes, as far as it says."""
        runner = self.candidate.runner
        return not isinstance(runner, BoundsSizes) or runner.accepts(*self.converted(args, kwargs))

    def _matched(self, names: list[str], count: int) -> list[int]:
        """For each input of the candidate the flat index of the tensor that it gets."""
        wanted = self.candidate.names
        if self.candidate.declared is not None and len(self.candidate.declared) != count:
            theirs = [spec.name for spec in self.candidate.declared]
            raise UnusableInput(
                f"{self.candidate.label} takes {len(theirs)} inputs ({', '.join(theirs)}), "
                f"the reference takes {count} tensors"
            )
        if self._plain and set(names) <= set(wanted) and len(set(names)) == count:
            self._slots = [name for name in wanted if name in names]
            return [names.index(name) for name in self._slots]
        self._slots = self.candidate.slots(count)
        return list(range(count))

    def converted(self, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        """Inputs in the reference's form as the candidate takes them."""

        def cast(index: int, tensor: torch.Tensor) -> torch.Tensor:
            dtype = self._dtypes[index]
            return tensor if dtype is None or tensor.dtype is dtype else tensor.to(dtype)

        args, kwargs = map_tensors(cast, args, kwargs)
        if not self._plain:
            return args, kwargs
        leaves = [tensor for _, tensor in tensor_leaves(args, kwargs)]
        tensors = [leaves[index] for index in self._order]
        if not self.candidate.is_torch:
            return (), dict(zip(self.candidate.names, tensors, strict=True))
        if len(self._slots) < len(tensors):  # it does not say what it takes
            return args, kwargs
        named = dict(zip(self._slots, tensors, strict=True))
        leading = []
        for name in self.candidate.positional:
            if name not in named:
                break
            leading.append(named.pop(name))
        return tuple(leading), named

    def _settle_dtypes(self, args: Args, kwargs: Kwargs) -> None:
        leaves = tensor_leaves(args, kwargs)
        self._dtypes = [None] * len(leaves)
        if self.candidate.declared is not None:
            for index, (_, tensor) in enumerate(leaves):
                spec = self.spec_of(index)
                assert spec is not None
                self._check_shape(spec, tensor)
                self._dtypes[index] = self._wanted(spec, tensor.dtype)
        elif self.candidate.is_torch and self.candidate.precision != "int8":
            own = getattr(torch, self.candidate.precision)
            if any(tensor.is_floating_point() and tensor.dtype is not own for _, tensor in leaves):
                self._settle_by_trial(args, kwargs)

    def _settle_by_trial(self, args: Args, kwargs: Kwargs) -> None:
        """A module does not say what it takes: its weights' type is tried where the inputs' own fails."""
        try:
            self.run(args, kwargs)
        except Exception as error:
            if "dtype" not in str(error) and "type" not in str(error):
                return
            own = getattr(torch, self.candidate.precision)
            leaves = tensor_leaves(args, kwargs)
            self._dtypes = [own if tensor.is_floating_point() else None for _, tensor in leaves]
            try:
                self.run(args, kwargs)
            except Exception as other:
                self._dtypes = [None] * len(leaves)
                raise UnusableInput(
                    f"{self.candidate.label} fails on the reference's inputs, both as they are "
                    f"({first_line(error)}) and in {self.candidate.precision} ({first_line(other)})"
                ) from other
            self.notes.append(f"the candidate takes {self.candidate.precision}: its inputs were converted")

    def _wanted(self, spec: InputSpec, dtype: torch.dtype) -> torch.dtype | None:
        if spec.dtype is None or spec.dtype is dtype:
            return None
        wanted, given = (dtype_name(each) for each in (spec.dtype, dtype))
        if (spec.dtype.is_floating_point and dtype.is_floating_point) or (
            is_integer(spec.dtype) and is_integer(dtype) and spec.dtype.itemsize >= 4
        ):
            self.notes.append(
                f"the candidate's input {spec.name!r} is {wanted}: it was converted from {given}"
            )
            return spec.dtype
        raise UnusableInput(
            f"input {spec.name!r} of {self.candidate.label} is {wanted}, the reference takes {given}; "
            f"describe the input in a dtype that both take (--input {spec.name}:SHAPE:DTYPE), or export one "
            f"of them again"
        )

    def _check_shape(self, spec: InputSpec, tensor: torch.Tensor) -> None:
        if spec.shape is None:
            return
        shape = tuple(tensor.shape)
        fits = len(shape) == len(spec.shape) and all(
            isinstance(size, str) or size == own for size, own in zip(spec.shape, shape, strict=True)
        )
        if fits:
            return
        fixed = tuple(size for size in spec.shape if isinstance(size, int))
        order = permuted_shape(fixed, shape) if len(fixed) == len(spec.shape) else None
        hint = (
            f": it looks like the reference's with axes permuted ({', '.join(map(str, order))}); export one "
            f"of the two in the other's layout"
            if order is not None
            else ""
        )
        raise UnusableInput(
            f"input {spec.name!r} of {self.candidate.label} is {shape_text(spec.shape)}, the reference's is "
            f"{shape_text(shape)}{hint}"
        )
