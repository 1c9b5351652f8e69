"""Mutation testing of the engine: one wrong line at a time, and who notices.

    python -m tests.engine.mutants.campaign [--only NAME …] [--subjects NAME …] [--json FILE]

The networks are captured and run once. Every mutant then has a child of its own, forked before anything of
the engine was imported: one source file is changed while it is loaded, and every network that reaches the
changed lines is folded. What becomes of a mutant, the worst first:

    whole       the folded network answers wrongly, and nothing but the comparison of the whole noticed
    not held    the walk could not be done, although it can with the engine as it stands
    in place    the walk beside the captured graph refuses the network
    proof       the proof of a region takes a fold back
    crash       an exception
    plan        right numbers from another plan: other folds, or other reasons
    nothing     nothing differs
"""

from __future__ import annotations

import argparse
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import pickle
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from reparamkit.capture.export import capture
from tests.engine.mutants.mutants import MUTANTS, Mutant
from tests.engine.mutants.nets import SUBJECTS

ROOT = Path(__file__).parents[3] / "reparamkit"
ROOMS = ("engine", "hosts", "algebra", "operators")
ORDER = ("whole", "not held", "in place", "proof", "crash", "plan", "nothing")
_CLOSE = {torch.float32: 2e-4, torch.bfloat16: 0.2}


@dataclass
class Found:
    """What one network says of the engine as it stands, or of a mutant."""

    verdict: str
    plan: Any
    detail: str = ""


@dataclass
class Result:
    """What became of a mutant, and by which networks."""

    name: str
    verdict: str
    by: dict[str, str]
    detail: str


class Prepared:
    """A captured network, and what its original answers."""

    def __init__(self, name: str) -> None:
        self.subject = SUBJECTS[name]
        network = self.subject.network()
        inputs = self.subject.inputs(self.subject.shapes)
        wide = copy.deepcopy(network).double()
        self.program = capture(network, inputs, dynamic=self.subject.dynamic)
        self.state = {k: v.clone() for k, v in wide.state_dict().items()}
        self.cases = [self.subject.inputs(s) for s in (self.subject.shapes, *self.subject.others)]
        with torch.no_grad():
            self.answers = []
            for case in self.cases:
                wide.load_state_dict(self.state)
                given = [x.double() for x in case]
                self.answers.append((pytree.tree_leaves(wide(*given)), given, dict(wide.state_dict())))

    def fold(self) -> Found:
        """Fold it with the engine that is loaded, and compare."""
        from reparamkit.errors import NotEquivalent
        from reparamkit.hosts.fx.census import census
        from reparamkit.hosts.fx.fold import fold_program

        try:
            outcome = fold_program(self.program, merge_siblings=self.subject.merge)
        except NotEquivalent as error:
            return Found("in place", None, str(error))
        except Exception as error:
            return Found("crash", None, f"{type(error).__name__}: {error}")
        folds = [str(f).split("(float64")[0] for f in outcome.folds]
        counts = census(outcome.module.graph, dict(outcome.module.named_modules()))
        plan = (folds, [str(r) for r in outcome.refusals], counts)
        wrong = self._wrong(outcome.module)
        if wrong:
            return Found("whole", plan, wrong)
        if outcome.undone:
            return Found("proof", plan, outcome.undone[0].reason)
        return Found("nothing" if outcome.in_place else "not held", plan)

    def _wrong(self, module: torch.nn.Module) -> str:
        module = module.double()
        own = {k: v.clone() for k, v in module.state_dict().items()}
        try:
            with torch.no_grad():
                for case, (answers, _, state) in zip(self.cases, self.answers, strict=True):
                    module.load_state_dict(own)
                    given = [x.double() for x in case]
                    found = pytree.tree_leaves(module(*given))
                    for a, b in zip(answers, found, strict=True):
                        problem = self._apart(a, b)
                        if problem:
                            return problem
                    for key, value in module.state_dict().items():
                        if key in state and key in self.changed():
                            problem = self._apart(state[key], value)
                            if problem:
                                return f"{key}: {problem}"
                    if _overlaps(given, found) - _overlaps(given, answers_of(self, given)):
                        return "a result shares memory with an input"
        except Exception as error:
            return f"it does not run: {type(error).__name__}: {error}"
        for shapes in self.subject.refused:
            try:
                module(*(x.double() for x in self.subject.inputs(shapes)))
            except ValueError:
                continue
            except Exception as error:
                return f"a size is refused by {type(error).__name__} alone"
            return f"sizes {shapes} are not refused"
        return ""

    def changed(self) -> set[str]:
        """The state that a call of the network changes."""
        return {k for k, v in self.answers[0][2].items() if not torch.equal(v, self.state[k])}

    def _apart(self, expected: Tensor, found: Tensor) -> str:
        if expected.shape != found.shape:
            return f"shape {list(found.shape)} instead of {list(expected.shape)}"
        bar = _CLOSE[self.subject.dtype]
        off, size = (expected - found).abs(), expected.abs()
        channels = range(min(2, expected.ndim), max(2, expected.ndim))
        others = [0, *channels] if expected.ndim > 1 else []
        a, b = (off.amax(others), size.amax(others)) if others else (off, size)
        ratio = float((a / b.clamp(min=1e-12)).max()) if a.numel() else 0.0
        return "" if ratio <= bar else f"off by {ratio:.1e}"


def answers_of(prepared: Prepared, given: list[Tensor]) -> list[Tensor]:
    """What the original hands out for these very tensors."""
    network = prepared.subject.network().double()
    return pytree.tree_leaves(network(*given))


def _overlaps(given: list[Tensor], found: list[Tensor]) -> set[tuple[int, int]]:
    places = [t.untyped_storage().data_ptr() for t in (*given, *found)]
    count = len(given)
    return {
        (i, j)
        for i in range(len(places))
        for j in range(max(count, i + 1), len(places))
        if places[i] == places[j]
    }


class _Mutating(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads one module from changed source text."""

    def __init__(self, mutant: Mutant) -> None:
        self.name = "reparamkit." + mutant.file.removesuffix(".py").replace("/", ".")
        self.path = ROOT / mutant.file
        self.source = mutant.applied(self.path.read_text())

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: Any) -> None:
        exec(compile(self.source, str(self.path), "exec"), module.__dict__)


def _in_child(function: Any) -> Any:
    """The function's result, from a fork that shares nothing afterwards."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            result = pickle.dumps(function())
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(result)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        result = pipe.read()
    os.waitpid(child, 0)
    return pickle.loads(result) if result else None


def _lines(prepared: Prepared) -> tuple[Found, set[tuple[str, int]]]:
    """Fold with the engine as it is, and the lines of it that ran, also while it was loaded."""
    lines: set[tuple[str, int]] = set()
    own = tuple(str(ROOT / room) for room in ROOMS)

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(own):
            return None
        lines.add((name[len(str(ROOT)) + 1 :], frame.f_lineno))
        return trace

    sys.settrace(trace)
    try:
        found = prepared.fold()
    finally:
        sys.settrace(None)
    return found, lines


class Campaign:
    """The networks, captured once, with what the engine as it stands makes of them."""

    def __init__(self, names: list[str]) -> None:
        loaded = [m for m in sys.modules if m.startswith(tuple(f"reparamkit.{room}" for room in ROOMS))]
        if loaded:
            raise RuntimeError(f"the engine is loaded already, its mutants cannot be: {loaded}")
        self.prepared = {name: Prepared(name) for name in names}
        self.right: dict[str, Found] = {}
        self.reached: dict[str, set[tuple[str, int]]] = {}
        for name, one in self.prepared.items():
            self.right[name], self.reached[name] = _in_child(lambda one=one: _lines(one))

    def judge(self, mutant: Mutant) -> Result:
        """What becomes of a mutant."""
        lines = mutant.lines((ROOT / mutant.file).read_text())
        names = [n for n, reached in self.reached.items() if any((mutant.file, i) in reached for i in lines)]
        if not names:
            return Result(mutant.name, "not reached", {}, "")

        def run() -> dict[str, Found]:
            sys.meta_path.insert(0, _Mutating(mutant))
            return {name: self.prepared[name].fold() for name in names}

        found = _in_child(run)
        if found is None:
            return Result(mutant.name, "crash", {}, "the process ended")
        by: dict[str, str] = {}
        details: dict[str, str] = {}
        for name, one in found.items():
            verdict = one.verdict
            if verdict == self.right[name].verdict:
                verdict = "nothing" if one.plan == self.right[name].plan else "plan"
            by[name] = verdict
            details.setdefault(verdict, f"{name}: {one.detail}")
        worst = min(by.values(), key=lambda v: ORDER.index(v) if v in ORDER else 0)
        return Result(mutant.name, worst, by, details[worst])


def _say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def main() -> int:
    """The command line; the exit status is 1 where something else than expected becomes of a mutant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", default=None)
    parser.add_argument("--subjects", nargs="+", default=None)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    started = time.perf_counter()
    campaign = Campaign(arguments.subjects or list(SUBJECTS))
    broken = [f"{n}: {f.verdict}: {f.detail}" for n, f in campaign.right.items() if f.verdict != "nothing"]
    if broken:
        _say("the engine as it stands:", *broken)
        return 1
    results = []
    for mutant in MUTANTS:
        if arguments.only is None or mutant.name in arguments.only:
            results.append(campaign.judge(mutant))
            one = results[-1]
            expected = mutant.expected(one.verdict)
            _say(f"{'' if expected else 'UNEXPECTED '}{one.verdict:10} {one.name:44} {one.detail[:90]}")
    _say(dict(Counter(r.verdict for r in results)), f"{time.perf_counter() - started:.0f} s")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(r) for r in results], indent=1))
    known = {m.name: m for m in MUTANTS}
    return int(not all(known[r.name].expected(r.verdict) for r in results))


if __name__ == "__main__":
    raise SystemExit(main())
