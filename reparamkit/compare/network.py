"""A network that can be run, with what it says of its own inputs, and what it has to agree with.

A PyTorch network says how its inputs are called, an exported program and a file of another back end how they
look as well. A folded network knows its original too, the sizes that may vary, and an example: all that it
takes to judge it, or a file made of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, TensorArgument

from reparamkit.compare.float64.reference import Reference
from reparamkit.compare.inputs.input_spec import NORMAL_KIND, Described
from reparamkit.compare.inputs.sizes import FreeSizes, ranges_of
from reparamkit.errors import UnusableInput
from reparamkit.loading.door.files import exists
from reparamkit.loading.source import Source, load
from reparamkit.loading.wrappers import unwrapped
from reparamkit.runners.base import BoundsSizes, DeclaresInputs, InputSpec, Runner, StatesPrecision
from reparamkit.runners.open import EVALUATE, open_foreign
from reparamkit.runners.torch import TorchRunner, program_runner
from reparamkit.support.inputs import Args, Kwargs

Ranges = dict[str, tuple[int, int | None]]


@dataclass(frozen=True)
class Network:
    """A network that can be run, and what it must agree with.

    Attributes:
        label: as the user named it.
        runner: runs it.
        positional, keyword: names of the inputs that it takes by place and by keyword only; empty where it
            does not say (a forward with `*args`).
        optional: those among them that may be left out.
        declared: shape and dtype of each input, in order; None for a PyTorch module, which does not say.
        ranges: symbol in `declared` -> (smallest, largest size).
        example: inputs that come with it, or None.
        described: those inputs as a description, where their values do not matter.
        program: the exported program, where it is one.
        notes: for the report.
        free: the sizes that may vary, of a folded network; None where `declared` says it, or nobody.
        original: what it must agree with; None for a network that stands for itself.
    """

    label: str
    runner: Runner
    positional: tuple[str, ...] = ()
    keyword: tuple[str, ...] = ()
    optional: frozenset[str] = frozenset()
    declared: tuple[InputSpec, ...] | None = None
    ranges: Ranges = field(default_factory=dict)
    example: tuple[Args, Kwargs] | None = None
    described: tuple[Described, ...] | None = None
    program: ExportedProgram | None = None
    notes: tuple[str, ...] = ()
    free: FreeSizes | None = None
    original: Network | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All input names, in order."""
        return (*self.positional, *self.keyword)

    def slots(self, count: int) -> tuple[str, ...]:
        """The names of the inputs that get `count` tensors in order: those that have to be given go first."""
        required = tuple(name for name in self.names if name not in self.optional)
        return required[:count] if count <= len(required) else self.names[:count]

    @property
    def precision(self) -> str:
        """As in `StatesPrecision`; "float32" where the runner does not say."""
        return self.runner.precision if isinstance(self.runner, StatesPrecision) else "float32"

    @property
    def is_torch(self) -> bool:
        """Whether PyTorch runs it."""
        return isinstance(self.runner, TorchRunner)

    @cached_property
    def reference(self) -> Reference:
        """What the original computes on every probe, run once: at the example's size and at the free ones.

        A network without an original is held against itself.

        Raises:
            UnusableInput: there is no example, or the original rejects it.
        """
        if self.example is None:
            raise UnusableInput(f"{self.label} comes without an example: give its inputs")
        return Reference((self.original or self).runner, *self.example, free=self.free)


@dataclass(frozen=True)
class Opening:
    """How what is named is to be opened: as `reparamkit.load` takes it, for whichever side needs it."""

    model: str | None = None
    trust_pickle: bool = False
    model_args: str | Mapping[str, Any] | None = None
    key: str | None = None


_AS_IT_IS = Opening()


def open_network(given: object, *, how: Opening = _AS_IT_IS, coreml: str = EVALUATE) -> Network:
    """Open one side.

    Args:
        given: an `nn.Module`, an `ExportedProgram`, a `Source`, a `Runner`; or as text or path whatever
            `reparamkit.load` takes, an `.onnx` file, an OpenVINO IR (`.xml`), a `.pte` or an `.mlpackage`.
        how: what a file of weights alone belongs to, and more that `reparamkit.load` takes.
        coreml: as in `reparamkit.runners.open_foreign`.

    Raises:
        UnusableInput: it cannot be opened.
        MissingExtra: the package of its back end is not installed.
    """
    if isinstance(given, (str, Path)):
        path = Path(given)
        runner = open_foreign(path, coreml) if exists(path) else None
        if runner is not None:
            return _foreign(str(given), runner)
        if path.suffix in (".onnx", ".xml", ".pte", ".mlpackage") and not exists(path):
            raise UnusableInput(f"there is no file {path}")
        return _from_source(str(given), _load(path, str(given), how))
    if isinstance(given, Source):
        return _from_source(given.name, given)
    if isinstance(given, nn.Module):
        return _from_module(type(given).__name__, given)
    if isinstance(given, ExportedProgram):
        return _from_program("ExportedProgram", given)
    if isinstance(given, Runner):
        return _foreign(given.name, given)
    raise UnusableInput(
        f"cannot run a {type(given).__name__}: give an nn.Module, an ExportedProgram or the path of a file"
    )


def _load(path: Path, text: str, how: Opening) -> Source:
    if not exists(path):
        return load(text, trust_pickle=how.trust_pickle, model_args=how.model_args)
    try:
        return load(path, **vars(how))
    except UnusableInput:
        if how == Opening(trust_pickle=how.trust_pickle):
            raise
        try:
            # what was said of the other side is nothing that this one takes
            return load(path, trust_pickle=how.trust_pickle)
        except UnusableInput:
            pass
        raise


def _from_source(label: str, source: Source) -> Network:
    if isinstance(source.model, ExportedProgram):
        network = _from_program(label, source.model)
    else:
        network = _from_module(label, source.model)
        if source.example_inputs is not None:
            # A reference model's example is noise of a shape; any other noise of that shape is as good.
            names = [*network.positional, *[""] * len(source.example_inputs)]
            described = tuple(
                Described(name, tuple(tensor.shape), tensor.dtype, NORMAL_KIND)
                for name, tensor in zip(names, source.example_inputs, strict=False)
                if isinstance(tensor, torch.Tensor)
            )
            network = replace(network, described=described)
    return replace(network, notes=(*network.notes, *source.notes))


def _from_module(label: str, module: nn.Module) -> Network:
    module, notes = unwrapped(module)
    positional, keyword, optional = _parameters(module)
    return Network(label, TorchRunner(module), positional, keyword, optional, notes=tuple(notes))


def _from_program(label: str, program: ExportedProgram) -> Network:
    specs, ranges = declared_by(program)
    names = tuple(spec.name for spec in specs)
    signature: Any = program.call_spec.in_spec
    count = len(names)
    keyword: tuple[str, ...] = ()
    if signature is not None and signature.num_children == 2:
        count = signature.child(0).num_leaves
        keyword = tuple(str(name) for name in signature.child(1).context or ())
    example = None
    if program.example_inputs is not None:
        args, kwargs = program.example_inputs
        example = tuple(args), dict(kwargs)
    return Network(
        label,
        program_runner(program),
        names[:count],
        keyword,
        declared=tuple(specs),
        ranges=ranges,
        example=example,
        program=program,
    )


def _foreign(label: str, runner: Runner) -> Network:
    declared = tuple(runner.declared) if isinstance(runner, DeclaresInputs) else None
    ranges = dict(runner.ranges) if isinstance(runner, BoundsSizes) else {}
    names = tuple(spec.name for spec in declared or ())
    return Network(label, runner, names, declared=declared, ranges=ranges)


def declared_by(program: ExportedProgram) -> tuple[list[InputSpec], Ranges]:
    """Every tensor that an exported program takes, and how far its free sizes go.

    The size of an axis that is a formula of others' ("2*s0") stands as that formula.
    """
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    specs = []
    for spec in program.graph_signature.input_specs:
        if spec.kind is not InputKind.USER_INPUT or not isinstance(spec.arg, TensorArgument):
            continue
        value = values.get(spec.arg.name)
        if isinstance(value, torch.Tensor):
            shape = tuple(size if isinstance(size, int) else str(size.node.expr) for size in value.shape)
            specs.append(InputSpec(spec.arg.name, shape, value.dtype))
    return specs, dict(ranges_of(program))


def _parameters(module: nn.Module) -> tuple[tuple[str, ...], tuple[str, ...], frozenset[str]]:
    """Names of the arguments of forward: by place, by keyword only, and those that have a default."""
    if isinstance(module, torch.jit.ScriptModule):
        schema: Any = getattr(module.forward, "schema", None)
        arguments = schema.arguments[1:] if schema is not None else []
        return (
            tuple(entry.name for entry in arguments if not entry.kwarg_only),
            tuple(entry.name for entry in arguments if entry.kwarg_only),
            frozenset(entry.name for entry in arguments if entry.has_default_value()),
        )
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return (), (), frozenset()
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return (
        tuple(entry.name for entry in parameters if entry.kind in places),
        tuple(entry.name for entry in parameters if entry.kind is inspect.Parameter.KEYWORD_ONLY),
        frozenset(entry.name for entry in parameters if entry.default is not inspect.Parameter.empty),
    )
