"""A folded network on its way into files: what was found out for one is there for the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn
from torch.export import ExportedProgram

from reparamkit.capture.program import Captured, Program
from reparamkit.compare.float64.reference import Reference, inputs_accepted_by
from reparamkit.compare.inputs.sizes import Accepts, DynamicAxes, FreeSizes, Ranges
from reparamkit.compare.network import Network
from reparamkit.lower.exported import (
    axis_names,
    export_program,
    free_axes,
    free_shapes,
    freed_example,
    inner_sizes_of,
    input_shapes,
)
from reparamkit.lower.facts import Facts, digest
from reparamkit.lower.unguardable_axes import exportable_axes, unguardable_symbols
from reparamkit.runners.torch import TorchRunner
from reparamkit.support.inputs import Args, Kwargs


@dataclass(frozen=True)
class Lowering:
    """A folded network, and what is known of it that goes into files.

    Attributes:
        network: the folded network, with its example, the sizes that may vary, and its original.
        captured: what it was folded in: one graph, as it was before, or parts.
        folds: how many regions became one layer.
        before, after: operator -> number of calls.
        merge_siblings: whether layers that read the same value were merged.
    """

    network: Network
    captured: Captured
    folds: int
    before: Mapping[str, int]
    after: Mapping[str, int]
    merge_siblings: bool = False

    @property
    def module(self) -> nn.Module:
        """The folded network."""
        return module_of(self.network)

    @property
    def original(self) -> nn.Module:
        """What it was folded from, in evaluation mode."""
        assert self.network.original is not None
        return module_of(self.network.original)

    @property
    def example(self) -> tuple[Args, Kwargs]:
        """The example that it was folded with."""
        assert self.network.example is not None
        return self.network.example

    @property
    def program(self) -> Program:
        """The capture of a network that was captured whole.

        Raises:
            CannotCapture: it was not.
        """
        if not isinstance(self.captured, Program):
            raise self.captured.why
        return self.captured

    @cached_property
    def unguardable(self) -> dict[str, str]:
        """Symbol of a free size -> why it must not be free in a file that cannot refuse one."""
        return unguardable_symbols(self.program, self.original, self.module, self.example)

    @property
    def notes_on_sizes(self) -> list[str]:
        """Which sizes are fixed in such a file, and why."""
        names = axis_names(self.program.exported)
        return [
            f"the {names.get(symbol, symbol)} is fixed, because the file cannot refuse a size: {reason}"
            for symbol, reason in self.unguardable.items()
        ]

    def axes(self, *, refuses_sizes: bool) -> DynamicAxes:
        """The axes that may be free in a file, which can refuse a size of its inputs or not."""
        return self.program.axes if refuses_sizes else exportable_axes(self.program, self.unguardable)

    def export(self, axes: DynamicAxes, ends: Mapping[str, int] | None = None) -> ExportedProgram:
        """The folded network as an exported program with these axes free.

        Args:
            ends: symbol -> largest size, where the program is to know one.

        Raises:
            CannotCapture: torch.export refuses.
        """
        if not axes:
            return export_program(self.module, *self.example)
        if axes == self.program.axes and not ends:
            return self.all_free
        args, kwargs = freed_example(*self.example, axes)
        return export_program(self.module, args, kwargs, free_shapes(args, kwargs, axes, ends))

    @cached_property
    def all_free(self) -> ExportedProgram:
        """With the sizes free that were free at capture.

        Raises:
            CannotCapture: torch.export cannot keep them free.
        """
        program = self.program
        args, kwargs = freed_example(program.args, program.kwargs, program.axes)
        return export_program(
            self.module, args, kwargs, free_shapes(program.args, program.kwargs, program.axes)
        )

    def recorded(self, axes: DynamicAxes) -> Reference:
        """What a file with these axes free has to agree with; widened by its own program later."""
        if not isinstance(self.captured, Program) or axes == self.captured.axes:
            return self.network.reference
        assert self.network.original is not None
        return Reference(self.network.original.runner, *self.example)

    @cached_property
    def facts(self) -> Facts:
        """What files say of the network."""
        source = digest(self.program.exported.graph, weights_of(self.program))
        return Facts(source, self.folds, self.before, self.after)

    @property
    def input_names(self) -> list[str]:
        """What the network's own forward calls its tensors."""
        return [name for name, _ in input_shapes(self.program.exported)]


def module_of(network: Network) -> nn.Module:
    """The module of a network that PyTorch runs."""
    assert isinstance(network.runner, TorchRunner)
    return network.runner.module


def free_sizes_of(program: Program) -> FreeSizes | None:
    """The sizes that may vary in a captured network, under readable names; None where all are fixed."""
    exported = program.exported
    return _free_sizes(exported, program.axes, program.ranges, axis_names(exported), lambda: program.takes)


def free_sizes_in(program: ExportedProgram, names: Mapping[str, str] | None = None) -> FreeSizes | None:
    """The sizes that an exported program leaves free, under these names; None where all are fixed."""
    called = axis_names(program) if names is None else names
    return _free_sizes(program, *free_axes(program), called, lambda: inputs_accepted_by(program))


def _free_sizes(
    program: ExportedProgram,
    axes: DynamicAxes,
    ranges: Ranges,
    names: Mapping[str, str],
    accepts: Callable[[], Accepts],
) -> FreeSizes | None:
    if not axes:
        return None
    return FreeSizes(
        {
            index: {axis: names.get(symbol, symbol) for axis, symbol in here.items()}
            for index, here in axes.items()
        },
        {names.get(symbol, symbol): bounds for symbol, bounds in ranges.items()},
        accepts(),
        inner=inner_sizes_of(program, names),
    )


def weights_of(program: Program) -> dict[str, torch.Tensor]:
    """Every tensor that a captured network holds, by name."""
    exported = program.exported
    state = {**exported.state_dict, **exported.constants}
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
