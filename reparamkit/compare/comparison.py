"""The answer of `reparamkit.compare.compare`: same, different, or cannot tell, and everything behind it."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from reparamkit.compare.locate.location import Location
from reparamkit.compare.metrics import plain
from reparamkit.compare.verdict import Equivalence, OutputError, exceeds
from reparamkit.support.version import __version__

SAME, DIFFERENT, CANNOT_TELL = "same", "different", "cannot tell"
EXIT_STATUS = {SAME: 0, DIFFERENT: 1, CANNOT_TELL: 2}

FORMAT = "reparamkit-check-1"

_PACKAGES = {
    "ONNX Runtime": "onnxruntime",
    "OpenVINO": "openvino",
    "Core ML program, evaluated": "coremltools",
    "Core ML": "coremltools",
}


@dataclass(frozen=True)
class Side:
    """One of the two networks: how the user called it, what runs it, and its precision."""

    name: str
    runner: str
    precision: str


@dataclass(frozen=True)
class InputFact:
    """One input as the reference takes it: name, shape and dtype of the example, and the kind of values."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    kind: str


@dataclass(frozen=True)
class ProbeFact:
    """One probe: its name, its group, and whether the candidate passed on every output of it.

    One that was set aside counts as passed, and `set_aside` says why it was not judged.
    """

    name: str
    group: str
    passed: bool
    sizes: dict[str, int] = field(default_factory=dict)
    failure: str = ""
    set_aside: str = ""


@dataclass(frozen=True)
class Comparison:
    """Whether a candidate computes what the reference does.

    Attributes:
        status: "same", "different" or "cannot tell".
        reason: why it is not the same, in words; empty when it is.
        reference, candidate: the two sides.
        rule: what decided, in words: the error budget, or the limits given.
        seed: reproduces the probes.
        equivalence: the numbers; None where there are none.
        inputs: what was fed.
        probes: what was tried, in order.
        blind: output -> why it is no evidence.
        notes: what a reader must know before trusting the verdict.
        versions: package -> version.
        location: where they begin to differ; None where they do not, or where nobody asked.
        inputs_hash: one SHA-256 over all inputs of all probes; empty where nothing was run.
        seconds: probe -> how long both sides took on it together; no part of `as_dict`, which is the same
            each time.
    """

    status: str
    reason: str
    reference: Side
    candidate: Side
    rule: str
    seed: int
    equivalence: Equivalence | None = None
    inputs: tuple[InputFact, ...] = ()
    probes: tuple[ProbeFact, ...] = ()
    blind: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    inputs_hash: str = ""
    location: Location | None = None
    seconds: dict[str, float] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return f"<Comparison: {self.summary()}>"

    @property
    def passed(self) -> bool:
        return self.status == SAME

    @property
    def exit_status(self) -> int:
        """0 same, 1 different, 2 cannot tell."""
        return EXIT_STATUS[self.status]

    def summary(self) -> str:
        """The verdict in one line."""
        if not self.passed or self.equivalence is None:
            return f"{self.status}: {self.reason}"
        worst = self.equivalence.worst()
        if worst is None:
            return self.status
        error = f"at worst an error of {worst.e1:.1e} of the output's scale"
        limit = f", where {worst.budget:.1e} is allowed" if worst.failures is None and worst.judged else ""
        aside = sum(bool(probe.set_aside) for probe in self.probes)
        counted = f"{len(self.probes)} probes{f', {aside} of them set aside' if aside else ''}"
        return f"{self.status}: {error}{limit} ({counted}, seed {self.seed})"

    def as_dict(self, command: str = "") -> dict[str, Any]:
        """The comparison as plain JSON, as `reparamkit/report/schemas/check-1.schema.json` describes it.

        A number that JSON lacks becomes the text "inf", "-inf" or "nan".
        """
        verdict = self.equivalence
        entries = verdict.outputs if verdict is not None else ()
        return {
            "format": FORMAT,
            "status": self.status,
            "exit_status": self.exit_status,
            "reason": self.reason,
            "summary": self.summary(),
            "reference": vars(self.reference),
            "candidate": vars(self.candidate),
            "rule": self.rule,
            "seed": self.seed,
            "oracle": verdict.oracle if verdict is not None else None,
            "floor": plain(verdict.floor) if verdict is not None else None,
            "inputs": plain(self.inputs),
            "inputs_hash": self.inputs_hash,
            "probes": plain(self.probes),
            "outputs": [self._output(name, entries) for name in dict.fromkeys(e.output for e in entries)],
            "location": self.location.as_dict() if self.location is not None else None,
            "notes": plain(self.notes),
            "versions": self.versions,
            "command": command,
        }

    def _output(self, name: str, entries: tuple[OutputError, ...]) -> dict[str, Any]:
        own = [entry for entry in entries if entry.output == name]
        worst = max(own, key=exceeds)
        return {
            "name": name,
            "passed": all(entry.passed for entry in own),
            "evidence": name not in self.blind,
            "why_no_evidence": self.blind.get(name, ""),
            "worst_probe": worst.probe,
            "probes": [_entry(entry) for entry in own],
        }


def _entry(entry: OutputError) -> dict[str, Any]:
    metrics = entry.metrics.as_dict() if entry.metrics is not None else {}
    unjudged = entry.failures is not None or not entry.judged
    document = {
        "probe": entry.probe,
        "passed": entry.passed,
        "judged": entry.judged,
        "failures": entry.failures or (),
        "error": entry.e1,
        "own_error": entry.e0,
        "allowed": None if unjudged else entry.budget,
        "scale": entry.scale,
        "metrics": {
            name: metrics.get(name) for name in ("max_abs", "max_rel", "rms", "psnr", "cosine", "top1")
        },
        "worst": {
            "index": entry.index,
            "channel": entry.channel,
            "reference": entry.reference_value,
            "candidate": entry.candidate_value,
        },
    }
    return dict(plain(document))


def versions(runners: Iterable[str] | None) -> dict[str, str]:
    """Package -> version, with those of the back ends that these runners stand for."""
    wanted = ["torch", "numpy", *(_PACKAGES[name] for name in runners or () if name in _PACKAGES)]
    installed = {"reparamkit": __version__, "python": platform.python_version()}
    for package in dict.fromkeys(wanted):
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed
