"""Writes `docs/benchmarks.md`: the forms of many networks on all back ends, by `reparamkit bench`'s own code.

    python -m tests.benchmarks.page [--rounds 20] [--backends eager,onnxruntime,openvino] [--only NAME …]
                                   [--tool-rounds 1]

The smallest network of each of timm's thirteen files with hand-written folds (both of byobnet's), four
reference networks, and six plain ones. On an idle machine.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import reparamkit as rk
from reparamkit.benchmark.bench import TOLD_ABOVE, Bench, Row, bench
from reparamkit.report.bench_document import bench_document, notes_of, times
from tests.benchmarks.fold_vs_timm import MODELS
from tests.benchmarks.tool_speed import lines_of, measured
from tests.timm_import import import_timm

ROOT = Path(__file__).parents[2]
PAGE, DATA = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmarks.json"
REFERENCE = ("mobileone_s0", "repvgg_a0", "fastvit_t8", "replknet_31b")
PLAIN = (
    *("timm:resnet18", "timm:mobilenetv3_small_100", "timm:efficientnet_b0", "timm:convnext_atto"),
    *("timm:vit_tiny_patch16_224", "timm:regnetx_002"),
)
NETWORKS = (*(f"timm:{name}" for name in MODELS), *REFERENCE, *PLAIN)
HEAD = """# Benchmarks

Milliseconds a call, median and quartiles, of each network as it came (original), after onnxsim, after its own
library's fold (hand), and folded. The forms take turns; a ratio is the median over the rounds, with its 95 %
interval. The floor is what the folded network's convolutions and linear layers take alone."""
TOOL = """## The tool itself

Processor seconds of `rk.fold` with everything on (free sizes, proofs, comparing the whole network), beside
those of torch's export at one size, by `python -m tests.benchmarks.tool_speed`. Most of capturing is torch's
export with free sizes."""
COLUMNS = (
    *("network", "input", "form", "ms", "quartiles", "× as fast as it came", "× as fast as by hand"),
    *("× the floor", "MACs", "file"),
)
SLOWEST = 1.02
"""A folded network takes at most so many times as long as after its library's own fold."""


def geometric_mean(values: Iterable[float]) -> float:
    logarithms = [math.log(value) for value in values]
    return math.exp(sum(logarithms) / len(logarithms))


def against_hand(rows: Sequence[Row], backend: str) -> dict[str, Any]:
    """Network -> how long it takes folded, in units of its library's own fold."""
    return {
        row.network: row.ratios["hand"]
        for row in rows
        if row.backend == backend and row.form == "folded" and "hand" in row.ratios
    }


def goals(result: Bench) -> list[str]:
    """What was to be reached, and what was, a line each."""
    lines = []
    for backend in dict.fromkeys(row.backend for row in result.rows):
        ratios = against_hand(result.rows, backend)
        if not ratios:
            continue
        mean = geometric_mean(ratio.median for ratio in ratios.values())
        slower = [f"{name} {ratio.median:.3f}" for name, ratio in ratios.items() if ratio.low > SLOWEST]
        told = f"; with certainty above {SLOWEST}: {', '.join(slower)}" if slower else ""
        lines.append(
            f"**{backend}**: folded takes {mean:.3f} of the time of the hand folds, in the geometric mean "
            f"over {len(ratios)} networks{told}"
        )
    for row in result.rows:
        if (row.network, row.backend, row.form) == ("mobileone_s0", "onnxruntime", "folded"):
            lines += [
                f"mobileone_s0 in ONNX Runtime: {1 / ratio.median:.2f} times as fast as {other}"
                for other, ratio in row.ratios.items()
            ]
    above = [
        f"{row.network} {row.over_floor:.2f}"
        for row in result.rows
        if row.backend == "onnxruntime" and (row.over_floor or 0) > TOLD_ABOVE
    ]
    lines.append(
        f"more than {TOLD_ABOVE} times its layers alone in ONNX Runtime: {', '.join(above) or 'none'}"
    )
    return lines


def page(result: Bench) -> str:
    """The page as Markdown."""
    threads = "1 thread" if result.threads == 1 else f"{result.threads} threads"
    machine = ", ".join(result.machine.values())
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    lines = [
        *HEAD.splitlines(),
        "",
        f"{machine}; {versions}; {threads}, {result.rounds} rounds. Written by `make bench`, from the "
        "figures of `reparamkit bench` (`docs/benchmarks.json`).",
        "",
        *(f"- {line}" for line in goals(result)),
    ]
    for backend in dict.fromkeys(row.backend for row in result.rows):
        lines += ["", f"## {backend}", "", f"| {' | '.join(COLUMNS)} |", f"|---|---|---|{'---:|' * 7}"]
        lines += [_line(row, result) for row in result.rows if row.backend == backend]
    notes = [
        f"- {row.network}, {row.backend}, {row.form}: {note}" for row in result.rows for note in notes_of(row)
    ]
    return "\n".join([*lines, *(["", "## Notes", "", *notes] if notes else [])]) + "\n"


def _line(row: Row, result: Bench) -> str:
    cells = [row.network, result.inputs[row.network], row.form]
    if row.timing is None:
        return f"| {' | '.join([*cells, *['-'] * 7])} |"
    low, high = row.timing.quartiles
    cells += [f"{1e3 * row.timing.median:.2f}", f"{1e3 * low:.2f} to {1e3 * high:.2f}"]
    cells += [times(row.ratios[other]) if other in row.ratios else "" for other in ("original", "hand")]
    cells.append("" if row.over_floor is None else f"{row.over_floor:.2f}")
    cells.append("" if row.macs is None else f"{row.macs / 1e6:,.0f} M")
    cells.append("" if row.file_bytes is None else f"{row.file_bytes / 1e6:.1f} MB")
    return f"| {' | '.join(cells)} |"


def _merged(results: Sequence[Bench]) -> Bench:
    first = results[0]
    rows = tuple(row for each in results for row in each.rows)
    inputs = {name: shapes for each in results for name, shapes in each.inputs.items()}
    return Bench(rows, first.machine, first.versions, first.threads, first.rounds, inputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--backends", default="eager,onnxruntime,openvino")
    parser.add_argument("--only", nargs="+", default=NETWORKS, metavar="NAME")
    parser.add_argument("--tool-rounds", type=int, default=1, help="0: not how long the tool takes")
    options = parser.parse_args()
    import_timm()
    results: list[Bench] = []
    for name in options.only:
        source = rk.load(name)
        assert isinstance(source.model, nn.Module)
        rk.models.randomize(source.model, 0)  # of norms that start as zeros nothing could be told
        taken = {network for each in results for network in each.inputs}
        if source.name in taken:  # timm's and the reference networks share names
            source = rk.Source(source.model, f"{source.name} (reference)", None, source.example_inputs)
        results.append(bench([source], backends=options.backends.split(","), rounds=options.rounds, say=_say))
        merged = _merged(results)
        DATA.write_text(json.dumps(bench_document(merged), indent=1) + "\n")
        PAGE.write_text(page(merged))
    for line in goals(_merged(results)):
        print(line)
    if options.tool_rounds:
        torch.set_num_threads(1)
        speeds = []
        for name in MODELS:
            _say(f"how long the fold of {name} takes")
            speeds.append(measured(name, options.tool_rounds))
        print(lines_of(speeds)[-1])
        PAGE.write_text("\n".join([page(_merged(results)), *TOOL.splitlines(), "", *lines_of(speeds)]) + "\n")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
