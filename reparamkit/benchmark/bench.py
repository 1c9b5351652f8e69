"""Time the forms of networks on several back ends, side by side."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from reparamkit.benchmark.backends import BACKENDS, USUAL, Backend, Call, torch_threads
from reparamkit.benchmark.files import File
from reparamkit.benchmark.floor import node_times, share_of_layers
from reparamkit.benchmark.forms import FOLDED, FORMS, HAND, ONNXSIM, ORIGINAL, Forms, NoSuchForm
from reparamkit.benchmark.timing import Ratio, Timing, interleaved, ratio
from reparamkit.errors import ReparamkitError, UnusableInput
from reparamkit.loading.opened import Source
from reparamkit.support.inputs import Args, Kwargs, map_tensors
from reparamkit.support.isolation import random_state_kept
from reparamkit.support.memory import peak_added
from reparamkit.support.surroundings import undisturbed
from reparamkit.support.text import first_line
from reparamkit.support.version import __version__

FILE = "file"
"""The form of what came as a file of another back end."""
TOLD_ABOVE = 1.15
"""Where a folded network takes this many times its floor in ONNX Runtime, what takes the rest is told."""

Say = Callable[[str], object]


@dataclass(frozen=True)
class Row:
    """One form of a network on one back end.

    Attributes:
        network: its name.
        timing: None where it does not run there; `note` then says why.
        ratios: other form -> how many times as long this one takes.
        floor: seconds of the layers alone, of a folded network where that is known; `rest` is what else
            takes time, operator -> seconds, if it is much.
        macs, parameters: multiply-accumulates for the example, and numbers in parameters.
        peak_memory: bytes that the first call added to the process; None where nobody counts them.
        file_bytes: size of the file, of a form that is one.
        note: what a reader must know: why it does not run, or that it is another function.
    """

    network: str
    backend: str
    form: str
    timing: Timing | None = None
    ratios: Mapping[str, Ratio] = field(default_factory=dict)
    floor: float | None = None
    rest: Mapping[str, float] = field(default_factory=dict)
    macs: int | None = None
    parameters: int | None = None
    peak_memory: int | None = None
    file_bytes: int | None = None
    note: str = ""

    @property
    def over_floor(self) -> float | None:
        """How many times as long as its layers alone it takes."""
        return None if self.floor is None or self.timing is None else self.timing.median / self.floor


@dataclass(frozen=True)
class Bench:
    """All rows, and where and how they were measured."""

    rows: tuple[Row, ...]
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    threads: int
    rounds: int
    inputs: Mapping[str, str]
    """Network -> the shapes of its inputs."""


@undisturbed()
@random_state_kept()
def bench(
    sources: Sequence[Source | File],
    *,
    backends: Sequence[str] | None = None,
    threads: int = 1,
    batch: int | None = None,
    size: tuple[int, ...] | None = None,
    rounds: int = 30,
    warmup: int = 5,
    say: Say = lambda text: None,
) -> Bench:
    """Time every network as it came, after onnxsim, after its own library's fold, and folded.

    The forms take turns (`reparamkit.benchmark.timing`); every form but the first is held against the first.

    Args:
        sources: what `reparamkit.load` returned, each with an example of its inputs; or files of other back
            ends (`reparamkit.benchmark.files.opened_file`), which are timed as they are where they run.
        backends: of "eager", "compile", "onnxruntime", "openvino", "executorch"; by default the first, third
            and fourth, as far as they are installed, and the last for its own files.
        threads: that a back end may use.
        batch: the first size of every input, in place of the example's.
        size: the last sizes of every input with as many axes behind the channels.
        rounds, warmup: rounds that count, and before them rounds that do not.
        say: is told what is being done.

    Raises:
        UnusableInput: an unknown back end; a network without an example, or that does not take it; numbers
            that make no sense.
        MissingExtra: a back end that was asked for is not installed.
        NotEquivalent: a network does not fold to the same function.
    """
    chosen = chosen_backends(backends)
    _require_positive(threads=threads, rounds=rounds, batch=batch, size=min(size) if size else None)
    rows: list[Row] = []
    examples: dict[str, tuple[Args, Kwargs]] = {}
    running = {source.name: _running(source, chosen, backends) for source in sources}
    for source in sources:
        if source.name in examples:
            raise UnusableInput(f"{source.name} is named twice")
        examples[source.name] = _example(source, batch, size)
    for source in sources:
        args, kwargs = examples[source.name]
        if isinstance(source, File):
            file = replace(source, args=args, kwargs=kwargs)
            for backend in running[source.name]:
                say(f"timing {source.name} on {backend.name}")
                rows.append(_row_of_file(file, backend, threads, rounds, warmup))
            continue
        with tempfile.TemporaryDirectory(prefix="reparamkit-bench-") as folder, torch_threads(threads):
            forms = Forms(source.name, _module(source), args, kwargs, Path(folder))
            say(f"folding {source.name}")
            _ = forms.folded
            for backend in running[source.name]:
                say(f"timing {source.name} on {backend.name}")
                torch.compiler.reset()  # it compiles a class so many times only
                rows += _rows(forms, backend, threads, rounds, warmup)
    every = [backend for each in running.values() for backend in each]
    used = {backend.package: backend.version for backend in every}
    versions = {"reparamkit": __version__, "torch": torch.__version__, **used, **_simplifier(every)}
    inputs = {name: ", ".join(_shapes(args, kwargs)) for name, (args, kwargs) in examples.items()}
    return Bench(tuple(rows), _machine(), versions, threads, rounds, inputs)


def chosen_backends(names: Sequence[str] | None) -> list[Backend]:
    """The back ends of these names; without names the usual ones that are installed.

    Raises:
        UnusableInput: there is no such back end.
        MissingExtra: one is not installed.
    """
    if names is None:
        return [BACKENDS[name] for name in USUAL if BACKENDS[name].is_installed]
    for name in names:
        if name not in BACKENDS:
            raise UnusableInput(f"there is no back end {name!r}; there are {', '.join(BACKENDS)}")
        BACKENDS[name].require()
    return [BACKENDS[name] for name in dict.fromkeys(names)]


def _running(
    source: Source | File, chosen: Sequence[Backend], asked: Sequence[str] | None
) -> Sequence[Backend]:
    return source.backends(chosen, asked=asked is not None) if isinstance(source, File) else chosen


def _row_of_file(file: File, backend: Backend, threads: int, rounds: int, warmup: int) -> Row:
    row = Row(file.name, backend.name, FILE, file_bytes=_bytes_of(file.path))
    assert backend.opened is not None
    try:
        call = backend.opened(file.path, file.args, file.kwargs, threads)
        memory = peak_added(call)
    except ReparamkitError:
        raise
    except Exception as error:  # whatever a back end raises on a file that it cannot run
        return replace(row, note=f"it does not run: {first_line(error)}")
    timing = interleaved({FILE: call}, warmup=warmup, rounds=rounds)[FILE]
    return replace(row, timing=timing, peak_memory=memory)


def _rows(forms: Forms, backend: Backend, threads: int, rounds: int, warmup: int) -> list[Row]:
    calls: dict[str, Call] = {}
    notes: dict[str, str] = {}
    memory: dict[str, int | None] = {}
    for form in FORMS:
        if form == ONNXSIM and ".onnx" not in backend.files:
            continue
        try:
            call = backend.prepare(forms, form, threads)
            memory[form] = peak_added(call)
            notes[form] = _difference(forms, backend, form)
        except NoSuchForm as reason:
            if form != HAND or "fails" in str(reason):
                notes[form] = str(reason)
            continue
        except ReparamkitError:
            raise
        except Exception as error:  # whatever a back end raises on a network that it cannot run
            notes[form] = f"it does not run: {first_line(error)}"
            continue
        calls[form] = call
    timings = interleaved(calls, warmup=warmup, rounds=rounds)
    rows = []
    for form in notes:
        timing = timings.get(form)
        ratios = {
            other: ratio(timing, timings[other])
            for other in (ORIGINAL, ONNXSIM, HAND)
            if timing is not None and other in timings and other != form
        }
        row = Row(
            forms.name,
            backend.name,
            form,
            timing,
            ratios,
            note=notes[form],
            peak_memory=memory.get(form),
        )
        row = _counted(row, forms, backend)
        if form == FOLDED and timing is not None:
            row = _with_floor(row, timing, forms, backend, threads)
        rows.append(row)
    return rows


def _difference(forms: Forms, backend: Backend, form: str) -> str:
    """That a form is another function than the network as it came, if it is."""
    if form == FOLDED:  # `fold` and `save` have verified it
        return f"it cannot be told whether it is the same: {forms.untold}" if forms.untold else ""
    if backend.takes_files:
        differs = forms.file_differs(form, backend.files[0])
    else:
        differs = forms.module_differs(form)
    return f"another function than the network: {differs}" if differs else ""


def _with_floor(row: Row, timing: Timing, forms: Forms, backend: Backend, threads: int) -> Row:
    with suppress(Exception):  # where the time goes is a help, not a result
        if backend.name == "eager":
            share = share_of_layers(forms.module(row.form), forms.args, forms.kwargs)
            return row if share is None else replace(row, floor=timing.median * share)
        if backend.name == "onnxruntime":
            times = node_times(forms, row.form, threads)
            if not times.layers:
                return row
            scale = timing.median / (times.layers + sum(times.others.values()))
            rest = {operator: seconds * scale for operator, seconds in times.others.items()}
            told = rest if times.over_floor > TOLD_ABOVE else {}
            return replace(row, floor=timing.median / times.over_floor, rest=told)
    return row


def _counted(row: Row, forms: Forms, backend: Backend) -> Row:
    with suppress(NoSuchForm):
        module = forms.module(ORIGINAL if row.form == ONNXSIM else row.form)
        return replace(
            row,
            macs=multiply_accumulates(module, forms.args, forms.kwargs),
            parameters=sum(parameter.numel() for parameter in module.parameters()),
            file_bytes=_bytes_of(forms.file(row.form, backend.files[0])) if backend.takes_files else None,
        )
    return row


def multiply_accumulates(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int | None:
    """Of the matrix products, convolutions and attention in one call, as torch counts them.

    Attention runs as its two products: torch's counter does not know what a processor has for it.
    """
    counter = FlopCounterMode(display=False)
    try:
        with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            module(*args, **kwargs)
    except Exception:  # not every module runs under a mode
        return None
    return int(counter.get_total_flops()) // 2


def _bytes_of(path: Path) -> int:
    """Of a file and of the weights beside it."""
    beside = [*path.parent.glob(f"{path.name}.*data*")]
    beside += (
        [path.with_suffix(".bin")] if path.suffix == ".xml" and path.with_suffix(".bin").exists() else []
    )
    return path.stat().st_size + sum(other.stat().st_size for other in beside)


def _module(source: Source) -> nn.Module:
    model = source.model
    return model if isinstance(model, nn.Module) else model.module()


def _example(
    source: Source | File, batch: int | None, size: tuple[int, ...] | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(source, File):
        args, kwargs = source.args, source.kwargs
    elif source.example_inputs is None and not source.example_kwargs:
        raise UnusableInput(f"{source.name} does not say what its inputs look like: give --input")
    else:
        args, kwargs = source.example_inputs or (), source.example_kwargs

    def resized(_: object, tensor: Tensor) -> Tensor:
        shape = list(tensor.shape)
        if batch is not None and shape:
            shape[0] = batch
        if size is not None and len(shape) == len(size) + 2:
            shape[2:] = size
        if shape == list(tensor.shape):
            return tensor
        if not tensor.is_floating_point():
            raise UnusableInput(
                f"{source.name} takes {tensor.dtype}: give --input in place of a batch or size"
            )
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(tensor)

    args, kwargs = map_tensors(resized, args, kwargs)
    return args, kwargs


def _shapes(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str]:
    values = [*args, *kwargs.values()]
    return ["x".join(map(str, value.shape)) for value in values if isinstance(value, Tensor)]


def _require_positive(**numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise UnusableInput(f"--{name} has to be at least 1, and is {number}")


def _simplifier(chosen: Sequence[Backend]) -> dict[str, str]:
    files = any(".onnx" in backend.files for backend in chosen)
    return {name: metadata.version(name) for name in ("onnx", "onnxsim") if files}


def _machine() -> dict[str, str]:
    return {
        "processor": _processor(),
        "cores": f"{os.cpu_count() or 1} cores",
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"Python {platform.python_version()}",
    }


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
