"""Lower the reference models and thirty of timm's families to ExecuTorch, and say what became of each.

    python -m tests.sweeps.executorch [--backend xnnpack] [--reference | --timm] [--model NAME]

Each network is folded, saved as a .pte, run in ExecuTorch's runtime and compared, in a process of its own
with limits of its own. What is measured stays in a file of JSON lines and is not measured again without
--fresh; the page beside this file is written anew each time.
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
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path

import torch

import reparamkit as rk
from reparamkit.errors import CannotWrite, NotEquivalent, UnusableInput
from tests.sweeps.coreml import MOST_PARAMETERS, network_of, parameters_of
from tests.sweeps.jobs import GIGABYTE, _commit, default_results
from tests.sweeps.networks import timm_jobs
from tests.sweeps.tables import say
from tests.timm_import import import_timm

PAGE = Path(__file__).with_name("executorch.md")
FAMILIES = 30
BACKENDS = ("xnnpack", "portable")


@dataclass
class Row:
    """What is known of one network on one backend."""

    name: str
    kind: str
    backend: str
    size: str = ""
    parameters: int = 0
    status: str = "exception"
    reason: str = ""
    folded: int = 0
    convolutions: int = 0
    operators: int = 0
    told: str = ""
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
        return self.name, self.backend


def main() -> None:
    """Measure what is not measured yet, and write the page."""
    options = _options()
    path = options.results or default_results("executorch")
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
    """A row to fill for each network and backend."""
    names: list[tuple[str, str]] = []
    if not options.timm:
        names += [
            (name, "reference")
            for name in rk.models.names()
            if (not options.model or name in options.model) and parameters_of(name) <= MOST_PARAMETERS
        ]
        names.sort(key=lambda entry: parameters_of(entry[0]))
    if not options.reference:
        jobs = [job.name for job in timm_jobs([], options.model, every=False, recompute=False)]
        # Spread over the alphabet, so that nobody chose them.
        step = 1 if options.model else len(jobs) / FAMILIES
        chosen = [(jobs[int(place * step)], "timm") for place in range(int(len(jobs) / step))]
        # By turns, so that what was measured before an interruption is some of both.
        names = [entry for pair in zip_longest(names, chosen) for entry in pair if entry is not None]
    return [Row(name, kind, backend) for name, kind in names for backend in options.backend]


def kept_rows(path: Path) -> dict[tuple[str, str], Row]:
    """The last row of each network and backend."""
    known = {each.name for each in fields(Row)}
    rows: dict[tuple[str, str], Row] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        row = Row(**{key: value for key, value in json.loads(line).items() if key in known})
        rows[row.key] = row
    return rows


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
        lower(row, target.with_name("net.pte"))
    except (CannotWrite, rk.CannotCapture) as error:
        row.status, row.reason = "refused", str(error)
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
    folded = rk.fold(model, inputs, dynamic="auto" if row.kind == "reference" else False)
    del model
    row.folded = sum(count for name, count in folded.after.items() if name in ("conv1d", "conv2d", "conv3d"))
    (saved,) = folded.save(path, executorch_backend=row.backend)
    row.convolutions = sum(
        count for name, count in saved.operators.items() if name.lower().endswith(("conv2d", "convolution"))
    )
    row.operators = saved.operators.total()
    verdict = saved.equivalence
    row.e0, row.e1, row.budget = verdict.e0, verdict.e1, verdict.budget
    row.megabytes = path.stat().st_size / 1e6
    row.told = (
        next(note for note in saved.notes if note.startswith("for ")).partition("kernels")[2].strip("; ,")
    )
    row.notes += [note for note in saved.notes if not note.startswith("for ")]
    row.status = "ok"


def header() -> list[str]:
    """The columns of the table."""
    return [
        *("network", "parameters", "input", "backend", "verdict", "e0", "e1", "allowed"),
        *("conv folded", "conv in the file", "operators", "MB", "the file", "s"),
    ]


def cells(row: Row) -> list[str]:
    """A row of the table."""
    first = [row.name, f"{row.parameters / 1e6:.1f} M", row.size, row.backend]
    if row.status != "ok":
        verdict = f"{row.status}: {' '.join(row.reason.split())[:300]}".replace("|", "/")
        return [*first, verdict, *[""] * 8, f"{row.seconds:.0f}"]
    return [
        *(*first, row.status),
        *("-" if row.e0 is None else f"{row.e0:.1e}", f"{row.e1:.1e}", f"{row.budget:.1e}"),
        *(str(row.folded), str(row.convolutions), str(row.operators), f"{row.megabytes:.1f}", row.told),
        f"{row.seconds:.0f}",
    ]


def page(rows: list[Row]) -> str:
    """The page: a summary and two tables."""
    versions = (
        f"executorch {version('executorch')}, torch {torch.__version__}, timm {import_timm().__version__}"
    )
    made = f"rows made {min(r.made for r in rows)} to {max(r.made for r in rows)}"
    commits = ", ".join(sorted({r.commit for r in rows}))
    parts = [
        "# Networks lowered to ExecuTorch",
        f"`python -m tests.sweeps.executorch`; {versions}; {made} with reparamkit {commits}.",
        _EXPLAINED,
        "## Summary",
    ]
    for kind in ("reference", "timm"):
        for backend in BACKENDS:
            chosen = [row for row in rows if row.kind == kind and row.backend == backend]
            if chosen:
                counts = Counter(row.status for row in chosen)
                said = ", ".join(f"{count} {status}" for status, count in counts.most_common())
                parts.append(f"- {kind}, {backend}: {said}")
    families = {row.name for row in rows if row.kind == "timm"}
    for kind, title in (
        ("reference", f"Reference models up to {MOST_PARAMETERS // 10**6} M parameters"),
        ("timm", f"timm: the smallest network of {len(families)} families, spread over the alphabet"),
    ):
        parts.append(f"## {title}")
        table = [header(), ["---"] * len(header()), *(cells(row) for row in rows if row.kind == kind)]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in table))
    noted = [f"- {row.name}, {row.backend}: {note}" for row in rows for note in row.notes]
    if noted:
        parts += ["## Notes", "\n".join(noted)]
    return "\n\n".join(parts) + "\n"


_EXPLAINED = """\
Each network is folded, saved as a .pte, run in ExecuTorch's runtime and compared with the original's float64
run. e0 is the original's own rounding error relative to the output's scale, e1 the file's, at the place where
it is worst against what is allowed. Weights and statistics are random. *refused*: ExecuTorch cannot lower the
network, with its reason. Reference models keep their sizes free, timm's have their one size."""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backend", action="append", choices=BACKENDS)
    parser.add_argument("--reference", action="store_true", help="the reference models only")
    parser.add_argument("--timm", action="store_true", help="timm's families only")
    parser.add_argument("--model", action="append", default=[], metavar="NAME")
    parser.add_argument("--seconds", type=float, default=900, help="time limit of one network")
    parser.add_argument("--memory", type=float, default=8, help="memory limit of one network, GiB")
    parser.add_argument("--results", type=Path, help="the JSON lines (default: in the user's cache)")
    parser.add_argument("--fresh", action="store_true", help="measure again what is there already")
    options = parser.parse_args()
    options.backend = options.backend or ["xnnpack"]
    return options


if __name__ == "__main__":
    main()
