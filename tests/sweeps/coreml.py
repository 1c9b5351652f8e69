"""Lower the reference models and timm's families to Core ML, and say what became of each.

    python -m tests.sweeps.coreml [--precision float32] [--reference | --timm] [--model NAME] [--seconds 900]

Each network is folded, saved as an .mlpackage, read back from the disk, evaluated and compared, in a process
of its own with limits of its own. What is measured stays in a file of JSON lines and is not measured again
without --fresh; the page beside this file is written anew each time.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

import reparamkit as rk
from reparamkit.errors import NotEquivalent, UnusableInput
from reparamkit.lower.coreml.options import CoreMlOptions
from reparamkit.lower.coreml.toolbox import CannotConvert, coremltools
from tests.sweeps.jobs import GIGABYTE, _commit, default_results
from tests.sweeps.networks import build_timm, timm_jobs
from tests.sweeps.tables import say
from tests.timm_import import import_timm

PAGE = Path(__file__).with_name("coreml.md")
MOST_PARAMETERS = 100_000_000
REFERENCE_SIDE = 64
PRECISIONS = ("float32", "float16")


@dataclass
class Row:
    """What is known of one network in one precision."""

    name: str
    kind: str
    precision: str
    size: str = ""
    parameters: int = 0
    status: str = "exception"
    reason: str = ""
    folded: int = 0
    converted: int = 0
    operators: int = 0
    takes: str = ""
    e0: float | None = None
    e1: float = 0.0
    budget: float = 0.0
    megabytes: float = 0.0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    made: str = ""
    commit: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.name, self.precision


def main() -> None:
    """Measure what is not measured yet, and write the page."""
    options = _options()
    path = options.results or default_results("coreml")
    kept = {} if options.fresh else kept_rows(path)
    jobs = [job for job in jobs_of(options) if job.key not in kept]
    for number, job in enumerate(jobs, 1):
        row = _measured(job, options.seconds, options.memory)
        kept[row.key] = row
        with path.open("a") as lines:
            lines.write(json.dumps(asdict(row)) + "\n")
        say(f"{number}/{len(jobs)} {' | '.join(cells(row))}")
    PAGE.write_text(page(list(kept.values())))
    raise SystemExit(any(row.status == "different" for row in kept.values()))


def jobs_of(options: argparse.Namespace) -> list[Row]:
    """A row to fill for each network and precision."""
    names: list[tuple[str, str]] = []
    if not options.timm:
        names += [
            (name, "reference") for name in rk.models.names() if not options.model or name in options.model
        ]
    if not options.reference:
        jobs = (
            timm_jobs([], options.model, every=False, recompute=False)
            if options.model
            else timm_jobs([], [], every=False, recompute=False)
        )
        names += [(job.name, "timm") for job in jobs]
    rows = [Row(name, kind, precision) for name, kind in names for precision in options.precision]
    return [row for row in rows if row.kind == "timm" or parameters_of(row.name) <= MOST_PARAMETERS]


def kept_rows(path: Path) -> dict[tuple[str, str], Row]:
    """The last row of each network and precision."""
    known = {each.name for each in fields(Row)}
    found: dict[tuple[str, str], Row] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        row = Row(**{key: value for key, value in json.loads(line).items() if key in known})
        found[row.key] = row
    return found


def parameters_of(name: str) -> int:
    """How many a reference model has before it is folded."""
    from reparamkit.models import families

    canonical, _ = families.resolve(name)
    return sum(parameter.numel() for parameter in families.on_meta(canonical, num_classes=None).parameters())


def _measured(row: Row, seconds: float, memory: float) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "row.json"
        process = multiprocessing.get_context("fork").Process(target=_work, args=(row, target, memory))
        started = time.monotonic()
        process.start()
        process.join(seconds)
        if process.is_alive():
            process.kill()
            process.join()
            row.status, row.reason = "no answer", f"no answer within {seconds:.0f} s"
        elif target.exists():
            row = Row(**json.loads(target.read_text()))
        else:
            row.reason = f"the process ended with exit code {process.exitcode}"
    row.seconds = time.monotonic() - started
    row.made, row.commit = datetime.now().isoformat(timespec="seconds"), _commit()
    return row


def _work(row: Row, target: Path, memory: float) -> None:
    """In the child."""
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (int(memory * GIGABYTE),) * 2)
    try:
        lower(row, target.with_name("net.mlpackage"))
    except (CannotConvert, rk.CannotCapture) as error:
        row.status, row.reason = "cannot convert", error.reason
    except NotEquivalent as error:
        row.status, row.reason = "different", str(error)
    except UnusableInput as error:
        row.status, row.reason = "cannot tell", str(error)
    except Exception as error:
        row.reason = f"{type(error).__name__}: {error}"
    row.reason = row.reason.replace(f"{target.parent}/", "")
    target.write_text(json.dumps(asdict(row)))


def lower(row: Row, path: Path) -> None:
    """Fold and save one network, and fill its row."""
    model, inputs = network_of(row.name, row.kind)
    row.size = "x".join(map(str, inputs[0].shape))
    row.parameters = sum(parameter.numel() for parameter in model.parameters())
    dynamic = "auto" if row.kind == "reference" else False
    folded = rk.fold(model, inputs, dynamic=dynamic)
    del model
    row.folded = sum(count for name, count in folded.after.items() if name in ("conv1d", "conv2d", "conv3d"))
    saved = _saved(folded, row, path)
    row.converted = saved.operators["conv"]
    row.operators = sum(saved.operators.values())
    verdict = saved.equivalence
    row.e0, row.e1, row.budget = verdict.e0, verdict.e1, verdict.budget
    row.megabytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6
    row.takes = next(note for note in saved.notes if note.startswith("for ")).partition("; ")[2]
    row.notes += [note for note in saved.notes if "could not be kept" in note or "it holds" in note]
    row.status = "ok"


def _saved(folded: rk.Folded, row: Row, path: Path) -> Any:
    """In float16 with what needs it in float32, if it does not pass without."""
    try:
        return folded.save(path, coreml=CoreMlOptions(precision=row.precision))[0]
    except NotEquivalent:
        if row.precision != "float16":
            raise
    saved = folded.save(path, coreml=CoreMlOptions(precision=row.precision, keep_float32="auto"))[0]
    kept = next(note for note in saved.notes if "stay in float32" in note)
    row.notes.append(f"with `--coreml-keep-float32 auto`: {kept}")
    return saved


def network_of(name: str, kind: str) -> tuple[torch.nn.Module, tuple[Any, ...]]:
    """A reference model or one of timm's, and what it is fed."""
    return _network(name) if kind == "reference" else _of_timm(name)


def _network(name: str) -> tuple[torch.nn.Module, tuple[Any, ...]]:
    source = rk.load(name)
    assert isinstance(source.model, torch.nn.Module)
    args = source.example_inputs
    assert args is not None
    image, *others = args
    if not others and not name.startswith("fcmae"):
        side = REFERENCE_SIDE
        image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    return source.model, (image, *others)


def _of_timm(name: str) -> tuple[torch.nn.Module, tuple[Any, ...]]:
    network = build_timm(name, "auto")
    return network.module, network.args


def header() -> list[str]:
    """The columns of the table."""
    return [
        *("network", "parameters", "input", "precision", "verdict", "e0", "e1", "allowed"),
        *("conv folded", "conv in the package", "operators", "MB", "takes", "s"),
    ]


def cells(row: Row) -> list[str]:
    """A row of the table."""
    if row.status != "ok":
        verdict = f"{row.status}: {' '.join(row.reason.split())[:240]}".replace("|", "/")
        return [
            row.name,
            f"{row.parameters / 1e6:.1f} M",
            row.size,
            row.precision,
            verdict,
            *[""] * 8,
            f"{row.seconds:.0f}",
        ]
    return [
        *(row.name, f"{row.parameters / 1e6:.1f} M", row.size, row.precision, row.status),
        *("-" if row.e0 is None else f"{row.e0:.1e}", f"{row.e1:.1e}", f"{row.budget:.1e}"),
        *(str(row.folded), str(row.converted), str(row.operators), f"{row.megabytes:.1f}", row.takes),
        f"{row.seconds:.0f}",
    ]


def page(rows: list[Row]) -> str:
    """The page: a summary and two tables."""
    made_with = f"coremltools {coremltools().__version__}, torch {torch.__version__}"
    versions = f"{made_with}, timm {import_timm().__version__}"
    made = f"rows made {min(r.made for r in rows)} to {max(r.made for r in rows)}"
    commits = ", ".join(sorted({r.commit for r in rows}))
    parts = [
        "# Networks lowered to Core ML",
        f"`python -m tests.sweeps.coreml`; {versions}; {made} with reparamkit {commits}.",
        _EXPLAINED,
        "## Summary",
    ]
    for kind in ("reference", "timm"):
        for precision in PRECISIONS:
            found = [row for row in rows if row.kind == kind and row.precision == precision]
            if found:
                parts.append(f"- {kind}, {precision}: {_summary(found)}")
    families = {row.name for row in rows if row.kind == "timm"}
    for kind, title in (
        ("reference", "Reference models"),
        ("timm", f"timm: the smallest network of {len(families)} families"),
    ):
        parts.append(f"## {title}")
        table = [header(), ["---"] * len(header())]
        table += [
            cells(row)
            for row in sorted(rows, key=lambda r: PRECISIONS.index(r.precision))
            if row.kind == kind
        ]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in table))
    noted = [f"- {row.name}, {row.precision}: {note}" for row in rows for note in row.notes]
    if noted:
        parts += ["## Notes", "\n".join(noted)]
    return "\n\n".join(parts) + "\n"


def _summary(rows: list[Row]) -> str:
    counts = Counter(row.status for row in rows)
    same = sum(row.folded == row.converted for row in rows if row.status == "ok")
    said = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    return f"{said}; as many conv as the folded network: {same} of {counts['ok']}"


_EXPLAINED = """\
Each network is folded, saved as an .mlpackage, read back from the disk, evaluated and compared with the
original's float64 run. e0 is the original's own rounding error relative to the output's scale (rounded to
float16 where the package is float16), e1 the package's, at the place where it is worst against what is
allowed. Weights and statistics are random. *cannot tell*: rounding errors in that precision are as large as
the outputs of the network with these weights."""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--precision", action="append", choices=PRECISIONS)
    parser.add_argument("--reference", action="store_true", help="the reference models only")
    parser.add_argument("--timm", action="store_true", help="timm's families only")
    parser.add_argument("--model", action="append", default=[], metavar="NAME")
    parser.add_argument("--seconds", type=float, default=900, help="time limit of one network")
    parser.add_argument("--memory", type=float, default=10, help="memory limit of one network, GiB")
    parser.add_argument("--results", type=Path, help="the JSON lines (default: in the user's cache)")
    parser.add_argument("--fresh", action="store_true", help="measure again what is there already")
    options = parser.parse_args()
    options.precision = options.precision or list(PRECISIONS)
    return options


if __name__ == "__main__":
    main()
