"""The smallest network in which a seed's failure is still there.

python -m tests.hostile.shrink 17 34 --kind silent
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace

import torch

from tests.hostile.campaign import say
from tests.hostile.candidates import ask_original
from tests.hostile.networks import sample
from tests.hostile.outcome import Finding, Outcome, run
from tests.hostile.sample import Sample
from tests.hostile.text import Step, Text


def shrunk(whole: Sample, kind: str, where: str = "") -> tuple[Sample, Finding]:
    """The same failure with fewer lines; `kind` and `where` as in a `Finding`.

    Raises:
        ValueError: the network does not fail in this way.
    """
    failure = _failure(run(whole), kind, where)
    if failure is None:
        raise ValueError(f"seed {whole.seed} does not fail so")
    files = failure.where in ("pt2", "onnx") or failure.where.startswith("save")
    smaller = True
    while smaller:
        smaller = False
        for candidate in _smaller(whole):
            if not _runs(candidate):
                continue
            still = _failure(run(candidate, files), kind, failure.where)
            if still is not None:
                whole, failure, smaller = candidate, still, True
                break
    return whole, failure


def _runs(candidate: Sample) -> bool:
    try:
        return ask_original(candidate, candidate.example()).error is None
    except Exception:  # a line that was taken out leaves no program, or a network that cannot be built
        return False


def _failure(outcome: Outcome, kind: str, where: str) -> Finding | None:
    if kind == "refused":
        return (
            Finding(kind, "", outcome.reason) if outcome.status == kind and where in outcome.reason else None
        )
    fitting = (f for f in outcome.findings if f.kind == kind and (not where or f.where == where))
    return next(fitting, None)


def _smaller(whole: Sample) -> Iterator[Sample]:
    text = whole.text
    for i, step in enumerate(text.steps):
        if i:
            yield replace(whole, text=_with(text, i))
        for j in range(len(step.body)):
            body = step.body[:j] + step.body[j + 1 :]
            if body:
                yield replace(whole, text=_with(text, i, replace(step, body=body)))
        for j in range(len(step.init)):
            yield replace(whole, text=_with(text, i, replace(step, init=step.init[:j] + step.init[j + 1 :])))
        if i == 0 and step.body[0].startswith("y = self.b(self.c(x)) +"):
            yield replace(whole, text=_with(text, i, replace(step, body=("y = self.b(self.c(x))",))))
        if i == 0 and step.body != ("y = x * 2",):
            yield replace(whole, text=_with(text, i, replace(step, body=("y = x * 2",), init=())))
    if text.result != "y":
        yield replace(whole, text=replace(text, result="y"))
    names = ", ".join(given.name for given in whole.inputs)
    if text.signature != names:
        yield replace(whole, text=replace(text, signature=names, opening=()), call=f"({names},)")
    if len(whole.inputs) > 1:
        first = replace(text, signature="x", opening=())
        yield replace(whole, text=first, inputs=whole.inputs[:1], call="x")


def _with(text: Text, index: int, step: Step | None = None) -> Text:
    kept = [step] if step is not None else []
    return replace(text, steps=(*text.steps[:index], *kept, *text.steps[index + 1 :]))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("seeds", nargs="+", type=int)
    parser.add_argument("--kind", default="silent")
    parser.add_argument("--where", default="")
    parser.add_argument("--script", action="store_true", help="a whole program instead of the class")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for seed in options.seeds:
        try:
            smallest, failure = shrunk(sample(seed), options.kind, options.where)
        except ValueError as error:
            say(f"# {error}")
            continue
        say(f"# seed {seed}: {failure.kind} in {failure.where}: {failure.detail}")
        say(f"# example {smallest.sizes}, fails at {failure.sizes}, call {smallest.call}")
        body = [line for step in smallest.text.steps for line in step.body]
        init = [line for step in smallest.text.steps for line in step.init]
        if options.script:
            say(smallest.script(failure.sizes))
        else:
            say("\n".join(f"    {line}" for line in [*init, f"forward({smallest.text.signature}):", *body]))
            say(f"    return {smallest.text.result}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
