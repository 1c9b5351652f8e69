"""What became of one network: folded, saved, and compared with the original at ten sizes or more."""

from __future__ import annotations

import re
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import reparamkit as rk
from reparamkit.support.quiet import quiet
from tests.hostile import agreement
from tests.hostile.candidates import (
    Answer,
    OnnxFile,
    ask,
    ask_original,
    ask_shaken,
    state_kept,
    state_of,
)
from tests.hostile.sample import Sample, arguments, many_sizes

SECONDS = 10.0
"""Of each attempt to capture with free sizes."""

FAILURES = ("silent", "leak", "hang", "changed", "mode", "broken")
_MODES_TOLD = re.compile(r"grad|memory format|channels.last|stride|layout|contiguous|autocast|mode", re.I)


@dataclass
class Finding:
    """`kind` is one of FAILURES, or "looser", "rough", "told" (no failures); `where` names the candidate."""

    kind: str
    where: str
    detail: str
    sizes: dict[str, int] | None = None


@dataclass
class Outcome:
    seed: int
    status: str = "ok"
    reason: str = ""
    ideas: list[str] = field(default_factory=list)
    wide: bool = False
    folds: int = 0
    sizes: str = ""
    compared: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    unwritten: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0

    def row(self) -> dict[str, Any]:
        return asdict(self)

    def note(self, kind: str, where: str, detail: str, sizes: dict[str, int] | None = None) -> None:
        self.findings.append(Finding(kind, where, detail, sizes))

    def settle(self) -> None:
        """The status is the worst that was found."""
        kinds = [found.kind for found in self.findings]
        worst = next((kind for kind in FAILURES if kind in kinds), None)
        if worst is not None:
            self.status = worst
            self.reason = next(f"{f.where}: {f.detail}" for f in self.findings if f.kind == worst)


def run(sample: Sample, files: bool = True) -> Outcome:
    """Fold, save and compare one network."""
    outcome = Outcome(sample.seed, ideas=sample.ideas(), wide=sample.wide)
    started = time.monotonic()
    folded = _folded(sample, outcome)
    if folded is not None:
        outcome.folds, outcome.sizes = len(folded.folds), folded.sizes
        with tempfile.TemporaryDirectory() as folder:
            candidates: dict[str, nn.Module | OnnxFile] = {"module": folded.module}
            if files:
                candidates |= _files(sample, folded, Path(folder), outcome)
            _compare(sample, candidates, outcome)
        _compare_modes(sample, folded, outcome)
        _other_calls(sample, folded, outcome)
    outcome.settle()
    outcome.seconds = time.monotonic() - started
    return outcome


def _folded(sample: Sample, outcome: Outcome) -> rk.Folded | None:
    model, example = sample.module(), sample.example()
    before = state_of(model)
    folded = None
    try:
        with _leaks(outcome, "fold"):
            folded = rk.fold(model, example, seconds=SECONDS, **sample.options)
    except rk.ReparamkitError as error:
        outcome.status, outcome.reason = "refused", f"{type(error).__name__}: {_line(error)}"
    after = state_of(model)
    changed = [name for name in before if before[name] != after.get(name)]
    if changed or before.keys() != after.keys():
        outcome.note("changed", "fold", f"the model's {changed or sorted(before.keys() ^ after.keys())}")
    again = sample.example()
    if not _same_inputs(agreement.leaves(example)[0], agreement.leaves(again)[0]):
        outcome.note("changed", "fold", "the example inputs")
    return folded


def _files(
    sample: Sample, folded: rk.Folded, folder: Path, outcome: Outcome
) -> dict[str, nn.Module | OnnxFile]:
    opened: dict[str, nn.Module | OnnxFile] = {}
    # ONNX Runtime has no convolution in float64
    kinds = ("pt2",) if sample.wide and "nn.Conv" in sample.text.source() else ("pt2", "onnx")
    for kind in kinds:
        path = folder / f"net.{kind}"
        try:
            with _leaks(outcome, f"save {kind}"):
                folded.save(path)
        except rk.ReparamkitError as error:
            outcome.unwritten[kind] = f"{type(error).__name__}: {_line(error)}"
        if path.exists():
            with quiet():
                opened[kind] = OnnxFile(path) if kind == "onnx" else torch.export.load(path).module()
    return opened


def _compare(sample: Sample, candidates: dict[str, nn.Module | OnnxFile], outcome: Outcome) -> None:
    bar = agreement.WIDE if sample.wide else agreement.COARSE if sample.coarse else agreement.NARROW
    for number, sizes in enumerate(many_sizes(sample)):
        example = sample.example(sizes, seed=number + 1)
        native = ask_original(sample, example)
        exact = native if sample.wide else ask_original(sample, example, wide=True)
        for where, candidate in candidates.items():
            if isinstance(candidate, OnnxFile):
                answer = candidate.ask(example)
            else:
                with state_kept(candidate):
                    answer = ask(candidate, example)
            if answer.error is not None:
                outcome.refusals[where] = outcome.refusals.get(where, 0) + 1
                if number == 0:
                    outcome.note(
                        "silent", where, f"refuses the example's sizes: {_line(answer.error)}", sizes
                    )
                elif native.error is None and where == "module" and not isinstance(answer.error, ValueError):
                    outcome.note(
                        "rough", where, f"{type(answer.error).__name__}: {_line(answer.error)}", sizes
                    )
                continue
            if native.error is not None:
                outcome.note("looser", where, f"the network: {_line(native.error)}", sizes)
                continue
            told = _difference(native, exact, answer, where, bar)
            if told is not None:
                told = _difference(native, exact, answer, where, bar, ask_shaken(sample, example))
            outcome.compared[where] = outcome.compared.get(where, 0) + 1
            if told is not None:
                # The README promises nothing for ONNX on tensors without elements: a file cannot refuse them.
                promised = where != "onnx" or 0 not in (sizes or {}).values()
                outcome.note("silent" if promised else "told", where, told, sizes)


def _difference(
    native: Answer,
    exact: Answer,
    answer: Answer,
    where: str,
    bar: agreement.Bar,
    shaken: Sequence[Any] = (),
) -> str | None:
    best = exact.value if exact.error is None else None
    if where != "onnx":
        told = agreement.difference(native.value, best, answer.value, bar, shaken)
        if told is not None:
            return told
        if not _same_inputs(native.inputs, answer.inputs):
            return "the caller's tensors are written to otherwise"
        for name, value in (native.buffers or {}).items():
            other = (answer.buffers or {}).get(name)
            if other is not None:
                told = agreement.tensor_difference(value, None, other, bar)
                if told is not None:
                    return f"buffer {name}: {told}"
        return None
    expected = agreement.leaves(native.value)[0]
    kept = [i for i, leaf in enumerate(expected) if isinstance(leaf, Tensor)]
    found = answer.value
    if len(found) != len(kept):
        kept = [i for i, leaf in enumerate(expected) if leaf is not None and not isinstance(leaf, str)]
    if len(found) != len(kept):
        return f"{len(found)} outputs instead of {len(expected)}"
    wanted = [torch.as_tensor(expected[i]) for i in kept]
    found = [
        got.to(want.dtype) if not isinstance(expected[i], Tensor) else got
        for i, want, got in zip(kept, wanted, found, strict=True)
    ]
    finest = agreement.matching(expected, best)
    others = [[agreement.matching(expected, each)[i] for i in kept] for each in shaken]
    return agreement.leaf_difference(wanted, [finest[i] for i in kept], found, bar, others)


def _compare_modes(sample: Sample, folded: rk.Folded, outcome: Outcome) -> None:
    """Other modes than that of the capture: what comes out otherwise has to be told in a note."""
    bar = agreement.WIDE if sample.wide else agreement.COARSE if sample.coarse else agreement.NARROW
    told = any(_MODES_TOLD.search(note) for note in folded.notes)
    for mode in ("grad mode", "requires_grad", "channels_last", "transposed", "offset"):
        example = sample.example(seed=99)
        if mode != "grad mode":
            example = _mapped(example, mode)
            if example is None:
                continue
        grad = mode in ("grad mode", "requires_grad")
        native = ask_original(sample, example, grad)
        with state_kept(folded.module):
            answer = ask(folded.module, example, grad)
        if native.error is not None:
            continue
        if answer.error is not None:
            detail = f"{mode}: {type(answer.error).__name__}: {_line(answer.error)}"
            outcome.note(
                "told" if told or isinstance(answer.error, ValueError) else "rough", "module", detail
            )
            continue
        exact = native if sample.wide else ask_original(sample, example, grad, wide=True)
        different = _difference(native, exact, answer, "module", bar)
        if different is not None:
            shaken = ask_shaken(sample, example, grad)
            different = _difference(native, exact, answer, "module", bar, shaken)
        if different is not None:
            outcome.note("told" if told else "mode", "module", f"{mode}: {different}")


def _mapped(example: Any, mode: str) -> Any:
    """The example with its first float tensor in another mode; None if there is no such."""
    done = False

    def of(value: Any) -> Any:
        nonlocal done
        if isinstance(value, Tensor):
            if done or not value.is_floating_point() or value.ndim < 2:
                return value
            if mode == "channels_last" and value.ndim != 4:
                return value
            done = True
            if mode == "requires_grad":
                return value.clone().requires_grad_()
            if mode == "channels_last":
                return value.contiguous(memory_format=torch.channels_last)
            if mode == "transposed":
                return value.transpose(-1, -2).contiguous().transpose(-1, -2)
            return torch.cat([value.flatten()[:3], value.flatten()])[3:].view(value.shape)
        if isinstance(value, dict):
            return {key: of(part) for key, part in value.items()}
        if isinstance(value, tuple | list):
            return type(value)([of(part) for part in value])
        if hasattr(value, "first"):
            return type(value)(of(value.first), of(value.second))
        return value

    changed = of(example)
    return changed if done else None


def _other_calls(sample: Sample, folded: rk.Folded, outcome: Outcome) -> None:
    """`inspect` and `check`, for some seeds: only that nothing leaks from them, and that they agree."""
    if sample.seed % 5 == 0:
        try:
            with _leaks(outcome, "inspect"):
                rk.inspect(sample.module(), sample.example(), seconds=SECONDS)
        except rk.ReparamkitError as error:
            outcome.note("rough", "inspect", f"refuses what fold took: {_line(error)}")
    if sample.seed % 5 == 1:
        try:
            with _leaks(outcome, "check"):
                verdict = rk.check(sample.module(), folded.module, sample.example())
                if not verdict.passed:
                    outcome.note(
                        "rough", "check", f"calls different what fold called equivalent: {verdict.summary()}"
                    )
        except rk.ReparamkitError as error:
            outcome.note("rough", "check", _line(error))


@contextmanager
def _leaks(outcome: Outcome, where: str) -> Iterator[None]:
    """Record whatever leaves the block that is no error of the package."""
    try:
        yield
    except rk.ReparamkitError:
        raise
    except Exception as error:
        tail = traceback.extract_tb(error.__traceback__)
        own = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in tail if "reparamkit" in f.filename]
        outcome.note("leak", where, f"{type(error).__name__}: {_line(error)} | {' < '.join(own[::-1][:4])}")


def _same_inputs(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(
        torch.allclose(a.double(), b.double(), 1e-4, 1e-6, equal_nan=True)
        if isinstance(a, Tensor)
        else a == b
        for a, b in zip(one, other, strict=True)
    )


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


__all__ = ["FAILURES", "Finding", "Outcome", "arguments", "run"]
