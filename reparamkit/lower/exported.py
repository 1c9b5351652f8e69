"""From a module to an `ExportedProgram`, and the axes that one leaves free."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from reparamkit.capture.oblivious import sizes_oblivious
from reparamkit.capture.shown import without_idle_conditions
from reparamkit.capture.size_conditions import compiled, in_torch_s_words, spelt
from reparamkit.capture.sizes import guards_of, tensor_sources
from reparamkit.capture.special_sizes import inner_sizes
from reparamkit.compare.inputs.sizes import ROLES, DynamicAxes, InnerSizes, Ranges, Sizes, ranges_of
from reparamkit.errors import CannotCapture
from reparamkit.support.inputs import Args, Kwargs, map_tensors, shapes_tree
from reparamkit.support.quiet import quiet
from reparamkit.support.text import first_line


def export_program(
    module: nn.Module, args: Args, kwargs: Kwargs, dynamic_shapes: Any = None
) -> ExportedProgram:
    """`torch.export.export` of a module in evaluation mode, non-strict.

    Args:
        dynamic_shapes: as torch.export takes them; None fixes every size.

    Raises:
        CannotCapture: torch.export refuses, with the first line of its reason.
    """
    try:
        with quiet(), torch.no_grad(), sizes_oblivious():
            program = torch.export.export(module, args, kwargs, dynamic_shapes=dynamic_shapes, strict=False)
    except Exception as error:
        raise CannotCapture(
            f"torch.export cannot turn the model into one graph: {first_line(error)}"
        ) from error
    without_idle_conditions(program, module, args, kwargs)
    refuse_zeros(program, module)
    return program


def refuse_zeros(program: ExportedProgram, module: nn.Module) -> None:
    """Write the module's conditions that a size is not 0 into the program exported from it.

    torch.export keeps the others itself, and takes these for granted.
    """
    guards = guards_of(module)
    conditions: list[str] | None = getattr(program, "_guards_code", None)
    if guards is None or conditions is None:
        return
    sources = tensor_sources(program)

    def source(name: re.Match[str]) -> str:
        index, axis = guards.places[int(name[1])]
        return f"{sources[index]}.size()[{axis}]"

    for text in guards.assumptions:
        if text.endswith(" != 0"):
            with suppress(KeyError):
                conditions.append(re.sub(r"\bn(\d+)\b", source, in_torch_s_words(text)))


def input_tensors(program: ExportedProgram) -> dict[str, torch.Tensor]:
    """Every tensor that the program takes from its caller, symbolic, by name and in call order."""
    wanted = set(program.graph_signature.user_inputs)
    return {
        node.name: node.meta["val"]
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in wanted and isinstance(node.meta.get("val"), torch.Tensor)
    }


def input_shapes(program: ExportedProgram) -> list[tuple[str, torch.Size]]:
    """Name and symbolic shape of every such tensor."""
    return [(name, tensor.shape) for name, tensor in input_tensors(program).items()]


def free_axes(program: ExportedProgram) -> tuple[DynamicAxes, Ranges]:
    """The axes that an exported program leaves free, as the verification takes them.

    An axis whose size is a formula of another's ("2*s0") is left out, with every axis of the symbols in it:
    they cannot be changed on their own.

    Returns:
        Flat tensor index -> axis -> symbol, and symbol -> (smallest, largest size).
    """
    axes: dict[int, dict[int, str]] = {}
    bound: set[str] = set()
    for index, (_, shape) in enumerate(input_shapes(program)):
        for axis, size in enumerate(shape):
            if not isinstance(size, torch.SymInt):
                continue
            expression = size.node.expr
            if expression.is_symbol:
                axes.setdefault(index, {})[axis] = str(expression)
            else:
                bound |= {str(symbol) for symbol in expression.free_symbols}
    free = {
        index: {axis: symbol for axis, symbol in symbols.items() if symbol not in bound}
        for index, symbols in axes.items()
    }
    return {index: symbols for index, symbols in free.items() if symbols}, ranges_of(program)


def axis_names(program: ExportedProgram) -> dict[str, str]:
    """A readable name for every free symbol: batch, height and width where the place says so.

    The first axis of an input is its batch; the last two of a rank of four are height and width; the last
    one of a rank of three is a length, and a volume (rank five) has depth, height and width. Any other is
    called by its input and axis. A name that another symbol has gets the input's name in front.
    """
    names: dict[str, str] = {}
    for name, shape in input_shapes(program):
        for axis, size in enumerate(shape):
            if not (isinstance(size, torch.SymInt) and size.node.expr.is_symbol):
                continue
            symbol = str(size.node.expr)
            if symbol in names:
                continue
            readable = "batch" if axis == 0 else ROLES.get(len(shape), {}).get(axis, f"{name}_axis{axis}")
            names[symbol] = readable if readable not in names.values() else f"{name}_{readable}"
    return names


def inner_sizes_of(program: ExportedProgram, names: Mapping[str, str]) -> InnerSizes:
    """The sizes inside an exported program as a function of those of its free axes.

    `names` is symbol -> what its size is called; by default its own name.
    """
    symbols: dict[Any, tuple[str, int]] = {}
    for _, shape in input_shapes(program):
        for size in shape:
            if isinstance(size, torch.SymInt) and size.node.expr.is_symbol:
                symbols.setdefault(
                    size.node.expr, (names.get(str(size), str(size)), int(size.node.hint or 0))
                )
    texts = inner_sizes(program.graph, {symbol: f"n{i}" for i, symbol in enumerate(symbols)})
    formulas = [compiled((known,), len(symbols)) for text in texts if (known := spelt(text)) is not None]

    def of(sizes: Sizes) -> list[int]:
        given = [sizes.get(name, hint) for name, hint in symbols.values()]
        values: list[int] = []
        for formula in formulas:
            try:
                values += formula(*given)
            except ArithmeticError:
                values.append(-1)
        return values

    return of


def freed_example(args: Args, kwargs: Kwargs, axes: DynamicAxes) -> tuple[Args, Kwargs]:
    """An example with two of whatever is free and one: torch.export would fix a size of one."""

    def widened(index: int, tensor: torch.Tensor) -> torch.Tensor:
        for axis in axes.get(index, {}):
            if tensor.shape[axis] == 1:
                tensor = torch.cat([tensor, tensor], axis)
        return tensor

    return map_tensors(widened, args, kwargs)


def free_shapes(args: Args, kwargs: Kwargs, axes: DynamicAxes, ends: Mapping[str, int] | None = None) -> Any:
    """`dynamic_shapes` for torch.export that free these axes and no others; None where there are none.

    `ends` is symbol -> largest size, for those that are to have one.
    """
    if not axes:
        return None
    index = -1

    def of(leaf: Any) -> Any:
        nonlocal index
        if not isinstance(leaf, torch.Tensor):
            return None
        index += 1
        return {axis: free(symbol) for axis, symbol in axes.get(index, {}).items()} or None

    def free(symbol: str) -> Any:
        end = (ends or {}).get(symbol)
        return Dim.AUTO if end is None else Dim.AUTO(max=end)

    positional = tuple(shapes_tree(pytree.tree_map(of, a)) for a in args)
    named = {name: shapes_tree(pytree.tree_map(of, value)) for name, value in kwargs.items()}
    return named if named and not positional else (*positional, *named.values())
