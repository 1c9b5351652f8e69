"""What the two networks are fed: from real data, from a description, or from what either says it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from reparamkit.compare.inputs.data_files import Sample, load_samples
from reparamkit.compare.inputs.input_spec import NORMAL_KIND, Described, Kind
from reparamkit.compare.inputs.probes import DATA, EXAMPLE, Probe
from reparamkit.compare.network import Network
from reparamkit.compare.saved import SavedOutputs, again, load_probes
from reparamkit.errors import UnusableInput
from reparamkit.runners.base import InputSpec
from reparamkit.support.inputs import Args, Kwargs, map_tensors, normalise_inputs, tensor_leaves
from reparamkit.support.text import dtype_name

_FREE_SIZE = 64


@dataclass
class Supply:
    """The example, in the form in which the reference takes it, and what else was given.

    Attributes:
        args, kwargs: the example.
        names: of its tensors, in call order.
        seed: of everything drawn.
        described: how the example was drawn, if it was.
        samples: the real data, the example first; empty where there is none.
        probes: all that is to be tried, where a file of probes was given.
        notes: for the report.
    """

    args: Args
    kwargs: Kwargs
    names: list[str]
    seed: int
    described: list[Described] | None = None
    samples: list[Probe] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [tensor for _, tensor in tensor_leaves(self.args, self.kwargs)]

    @property
    def kinds(self) -> dict[int, Kind]:
        """The kinds of values that inputs have to keep to, by flat index."""
        bounds = {index: entry.bounded for index, entry in enumerate(self.described or ())}
        return {index: kind for index, kind in bounds.items() if kind is not None}

    def kind(self, index: int) -> str:
        """Where the values of an input come from, in a word."""
        if self.described is not None:
            return self.described[index].kind.name
        return "data" if self.samples else "probes" if self.probes else "example"

    def with_samples(self, planned: Sequence[Probe]) -> list[Probe]:
        """The planned probes with the real data in place of the first, the example."""
        return [*self.samples, *planned[1:]] if self.samples else list(planned)

    def again(self, held: SavedOutputs) -> list[Probe]:
        """The probes that saved outputs belong to, made from these inputs anew."""
        if self.probes:
            return self.probes
        given = {probe.name: probe for probe in self.samples}
        return [
            given.get(facts["name"]) or again(facts, held.seed, self.args, self.kwargs, self.kinds)
            for facts in held.probe_facts
        ]


def supply(
    ours: Network | None,
    theirs: Network,
    inputs: object,
    described: Sequence[Described],
    data: Path | None,
    seed: int,
    held: SavedOutputs | None = None,
) -> Supply:
    """Find out what to feed.

    Args:
        ours, theirs: reference and candidate; no reference where `held`, its saved outputs, stand in.
        inputs, described, data: what the user gave, at most one of them.
        seed: of what is drawn.

    Raises:
        UnusableInput: nobody says what the inputs look like, or what was given does not fit.
    """
    if sum(given for given in (inputs is not None, bool(described), data is not None)) > 1:
        raise UnusableInput("inputs are given twice: give a file of inputs, or describe them, not both")
    positional: Sequence[str] = theirs.names if ours is not None else ()
    keyword: Sequence[str] = ()
    if ours is None and held is not None:
        positional, keyword = held.positional, held.keyword
    elif ours is not None and ours.names:
        positional, keyword = ours.positional, ours.keyword
    count = len(described)
    slots = ours.slots(count) if ours is not None and ours.names else [*positional, *keyword][:count]
    if data is not None:
        return _from_data(data, ours, theirs, positional, keyword, seed)
    if inputs is not None:
        args, kwargs = normalise_inputs(inputs)
        return _supply(args, kwargs, positional, seed)
    if described:
        in_order = _in_order(described, slots, theirs.slots(len(described)))
        if ours is not None:
            in_order = _in_precision(in_order, ours)
        return _from_description(in_order, positional, keyword, seed)
    return _declared(ours, theirs, positional, keyword, seed, held)


def _supply(args: Args, kwargs: Kwargs, positional: Sequence[str], seed: int) -> Supply:
    names = []
    for name, _ in tensor_leaves(args, {}):
        first, dot, rest = name.partition(".")
        place = int(first)
        names.append((positional[place] if place < len(positional) else f"input_{place}") + dot + rest)
    return Supply(args, kwargs, [*names, *(name for name, _ in tensor_leaves((), kwargs))], seed)


def _from_description(
    described: Sequence[Described], positional: Sequence[str], keyword: Sequence[str], seed: int
) -> Supply:
    args: list[torch.Tensor] = []
    kwargs: Kwargs = {}
    for place, entry in enumerate(described):
        value = entry.example(seed, place)
        here = positional[len(args)] if len(args) < len(positional) else ""
        if not kwargs and (not entry.name or entry.name == here or entry.name not in (*positional, *keyword)):
            args.append(value)
        else:
            kwargs[entry.name] = value
    supplied = _supply(tuple(args), kwargs, positional, seed)
    supplied.described = [
        replace(entry, name=name) for entry, name in zip(described, supplied.names, strict=True)
    ]
    return supplied


def _in_precision(described: Sequence[Described], ours: Network) -> list[Described]:
    """Floating-point inputs whose type was left open become what the reference computes in."""
    own = torch.float32
    if ours.precision in ("float64", "float16", "bfloat16"):
        own = getattr(torch, ours.precision)
    entries = []
    for place, entry in enumerate(described):
        if not entry.stated and entry.dtype.is_floating_point:
            spec = ours.declared[place] if ours.declared and place < len(ours.declared) else None
            dtype = spec.dtype if spec is not None and spec.dtype is not None else own
            if dtype.is_floating_point:
                entry = replace(entry, dtype=dtype)
        entries.append(entry)
    return entries


def _in_order(described: Sequence[Described], ours: Sequence[str], theirs: Sequence[str]) -> list[Described]:
    """Each under its name: those that have one, and the others for the names that are left, in order.

    Descriptions under the candidate's names are taken for the inputs at the same places.
    """
    asked = [entry.name for entry in described if entry.name]
    for names in (ours, theirs):
        if not all(name in names for name in asked):
            continue
        rest = iter([name for name in names if name not in asked])
        ordered = [replace(entry, name=entry.name or next(rest, "")) for entry in described]
        ordered.sort(key=lambda entry: names.index(entry.name) if entry.name else len(names))
        if names is ours:
            return ordered
        return [
            replace(entry, name=ours[place] if place < len(ours) else "")
            for place, entry in enumerate(ordered)
        ]
    unknown = next(name for name in asked if name not in ours)
    known = ", ".join(ours) or ", ".join(theirs) or "not known by name"
    raise UnusableInput(f"there is no input {unknown!r}; the reference's inputs are {known}")


def _declared(
    ours: Network | None,
    theirs: Network,
    positional: Sequence[str],
    keyword: Sequence[str],
    seed: int,
    held: SavedOutputs | None,
) -> Supply:
    """From whichever side says what it takes, the reference first."""
    if held is not None:
        if held.described is None:
            raise UnusableInput(
                f"{held.path}: the inputs of the saved outputs cannot be drawn again; give those that "
                f"--save-inputs wrote along with it (--inputs FILE)"
            )
        return _from_description(held.described, positional, keyword, seed)
    assert ours is not None
    for side in (ours, theirs):
        if side.example is not None:
            args, kwargs = side.example
            if side is theirs and not ours.keyword:
                args, kwargs = (*args, *kwargs.values()), {}
            return _supply(args, kwargs, positional, seed)
    for side in (ours, theirs):
        if side.described is not None:
            return _from_description(side.described, positional, keyword, seed)
    if ours.declared is None and theirs.declared is None:
        raise UnusableInput(
            f"neither {ours.label} nor {theirs.label} says what its inputs look like; describe them, for "
            f"instance --input 1x3x224x224, or give a file of inputs (--inputs FILE)"
        )
    notes: list[str] = []
    specs = ours.declared if ours.declared is not None else theirs.declared
    others = theirs.declared if ours.declared is not None else None
    described = [
        _of_spec(spec, others[i] if others is not None and i < len(others) else None, notes)
        for i, spec in enumerate(specs or ())
    ]
    supplied = _from_description(described, positional, keyword, seed)
    supplied.notes += notes
    return supplied


def _of_spec(spec: InputSpec, other: InputSpec | None, notes: list[str]) -> Described:
    if spec.shape is None:
        raise UnusableInput(f"the input {spec.name!r} has no declared shape; describe it with --input")
    dtype = spec.dtype or torch.float32
    shape = []
    for axis, size in enumerate(spec.shape):
        there = other.shape[axis] if other and other.shape and axis < len(other.shape) else None
        if isinstance(size, str) and isinstance(there, int):
            size = there
        usual = next((each.usual for each in (spec, other) if each is not None and each.usual), None)
        if isinstance(size, str) and usual is not None and axis < len(usual):
            size = usual[axis]
        shape.append(size if isinstance(size, int) else 1 if axis == 0 else _FREE_SIZE)
    if any(isinstance(size, str) for size in spec.shape):
        notes.append(
            f"the input {spec.name!r} leaves sizes free; {'x'.join(map(str, shape))} was taken as the example"
        )
    if not (dtype.is_floating_point or dtype.is_complex):
        short, kind = dtype_name(dtype), {torch.bool: "mask", torch.uint8: "image"}.get(dtype)
        if kind is None:
            raise UnusableInput(
                f"the input {spec.name!r} is {short}, and no side says which values make sense; describe it, "
                f"for instance --input {spec.name}:{'x'.join(map(str, shape))}:{short}:0..999"
            )
        return Described(spec.name, tuple(shape), dtype, Kind(kind, 0.0, 1.0 if kind == "mask" else 255.0))
    return Described(spec.name, tuple(shape), dtype, NORMAL_KIND)


def _from_data(
    data: Path,
    ours: Network | None,
    theirs: Network,
    positional: Sequence[str],
    keyword: Sequence[str],
    seed: int,
) -> Supply:
    if data.suffix == ".npz" and data.is_file():
        probes = load_probes(data)
        if probes is not None:
            if not probes:
                raise UnusableInput(f"{data} holds no probes")
            supplied = _supply(probes[0].args, probes[0].kwargs, positional, probes[0].seed)
            supplied.probes = probes
            return supplied
    try:
        samples = load_samples(data, positional, keyword)
    except UnusableInput:
        # The file may speak of the inputs as the candidate does.
        if not theirs.names or set(theirs.names) == {*positional, *keyword}:
            raise
        try:
            samples = load_samples(data, theirs.names)
        except UnusableInput:
            samples = []
        if not samples:
            raise
    notes: list[str] = []
    samples = [_fitting(sample, ours or theirs, notes) for sample in samples]
    first = samples[0]
    supplied = _supply(first.args, first.kwargs, positional, seed)
    supplied.samples = [
        Probe(
            f"sample {sample.label}",
            DATA if place else EXAMPLE,
            seed,
            sample.args,
            sample.kwargs,
            fixed=True,
        )
        for place, sample in enumerate(samples)
    ]
    supplied.notes += dict.fromkeys(notes)
    return supplied


def _fitting(sample: Sample, side: Network, notes: list[str]) -> Sample:
    """The sample in the floating-point type that the network takes: what NumPy saves is float64."""
    precision = getattr(torch, side.precision) if side.precision != "int8" else torch.float32

    def cast(index: int, tensor: torch.Tensor) -> torch.Tensor:
        wanted = precision
        if side.declared is not None and index < len(side.declared):
            wanted = side.declared[index].dtype or precision
        if tensor.is_floating_point() and wanted.is_floating_point and tensor.dtype is not wanted:
            short = [dtype_name(dtype) for dtype in (tensor.dtype, wanted)]
            notes.append(f"the inputs given are {short[0]} and were rounded to {short[1]}")
            return tensor.to(wanted)
        return tensor

    args, kwargs = map_tensors(cast, sample.args, sample.kwargs)
    return Sample(sample.label, args, kwargs)
