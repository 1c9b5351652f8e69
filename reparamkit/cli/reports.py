"""What `fold` and `inspect` say of their findings: in the terminal, and in the files that were asked for."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reparamkit.cli import console as cli_console
from reparamkit.errors import UnusableInput
from reparamkit.lower.files import write_text
from reparamkit.support.version import __version__

if TYPE_CHECKING:
    from reparamkit.result import Folded, Inspection

JsonOption = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write all findings to FILE as JSON.")
]
HtmlOption = Annotated[
    Path | None,
    typer.Option(
        "--html",
        metavar="FILE",
        help="Write a page for a browser, one file: what changed, the network drawn before and after, every "
        "fold's branches and error, and what stays and why. Needs the extra 'html'.",
    ),
]
SvgOption = Annotated[
    Path | None,
    typer.Option(
        "--svg",
        metavar="FILE",
        help="Write the picture of the network before and after alone. Needs the extra 'html'.",
    ),
]
AllOption = Annotated[
    bool, typer.Option("--all", help="Print every fold and every operator that stays, one by one.")
]
QuietOption = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="Print neither progress nor a report; errors and warnings are still told."
    ),
]
BenchOption = Annotated[
    Path | None,
    typer.Option(
        "--bench",
        metavar="FILE",
        help="Figures that 'reparamkit bench --json FILE' has written of this network: the page shows what "
        "the fold saves.",
    ),
]
NodeOption = Annotated[
    str | None,
    typer.Option(
        "--node",
        metavar="NAME",
        help="Tell of one operator, or of those of one module, why it folds or stays, in place of the "
        "report. NAME is an operator's name as in the reports, or a module's path.",
    ),
]


@dataclass(frozen=True)
class Wanted:
    """The reports that were asked for, of a source."""

    source: str
    json_file: Path | None = None
    html_file: Path | None = None
    svg_file: Path | None = None
    everything: bool = False
    quiet: bool = False
    node: str | None = None
    bench_file: Path | None = None

    def printed_only(self) -> Wanted:
        """The same without files, for a network that is not written."""
        return Wanted(self.source, everything=self.everything, quiet=self.quiet)

    @property
    def files(self) -> list[Path]:
        """The files that are to be written."""
        return [path for path in (self.json_file, self.html_file, self.svg_file) if path is not None]

    def check(self) -> None:
        """Find out before the work whether they can be written."""
        from reparamkit.report import drawing

        for option, path in (
            ("--json", self.json_file),
            ("--html", self.html_file),
            ("--svg", self.svg_file),
        ):
            if path is not None and os.path.realpath(path) == os.path.realpath(self.source):
                raise UnusableInput(f"{option} {path} would replace the source")
        if self.html_file is not None or self.svg_file is not None:
            drawing.require()
        if self.bench_file is not None:
            read_bench(self.bench_file)


def tell(
    name: str, findings: Folded | Inspection, wanted: Wanted, seconds: dict[str, Any] | None = None
) -> None:
    """Write the reports and print one; `seconds` is how long it all took, for the JSON report."""
    from reparamkit.lower.saved import size_on_disk
    from reparamkit.report.explain import explain
    from reparamkit.report.fold_html import fold_html, network_svg
    from reparamkit.report.machine import as_dict
    from reparamkit.report.text import show
    from reparamkit.result import report_of

    source = Path(wanted.source)
    report = report_of(
        findings,
        name,
        source_bytes=size_on_disk(source) if source.exists() else None,
        command=shlex.join(["reparamkit", *sys.argv[1:]]),
        versions=_versions(),
    )
    if wanted.bench_file is not None:
        report = replace(report, latency=_latency(wanted.bench_file, name))
    timings = {} if seconds is None else {"seconds": seconds}
    if wanted.json_file is not None:
        write_text(wanted.json_file, json.dumps(as_dict(report) | timings, indent=2) + "\n")
    if wanted.html_file is not None:
        write_text(wanted.html_file, writable(fold_html(report)))
    if wanted.svg_file is not None:
        write_text(wanted.svg_file, writable(network_svg(report)))
    if wanted.node is not None:
        text = explain(report, wanted.node)
        with cli_console.report() as console:
            console.print(text, soft_wrap=True)
    elif not wanted.quiet:
        with cli_console.report() as console:
            show(report, console, everything=wanted.everything)


def read_bench(path: Path) -> dict[str, Any]:
    """The figures of an earlier run of `reparamkit bench --json`.

    Raises:
        UnusableInput: the file is none.
    """
    from reparamkit.report.bench_document import FORMAT

    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnusableInput(f"--bench {path} cannot be read: {error.strerror or error}") from error
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UnusableInput(f"--bench {path} is not what 'reparamkit bench --json' of this version writes")
    return document


def _latency(path: Path, name: str) -> list[dict[str, Any]]:
    """What was measured of a network, as it came and folded."""
    document = read_bench(path)
    networks = list(document["inputs"])
    if name not in networks:
        raise UnusableInput(f"--bench {path} has no figures of {name}, but of {', '.join(networks)}")
    return [row for row in document["rows"] if row["network"] == name]


def _versions() -> dict[str, str]:
    import torch

    return {"reparamkit": __version__, "torch": str(torch.__version__)}


def writable(text: str) -> str:
    """The text in characters that can be written: a file's name may hold bytes that are no text."""
    return text.encode("utf-8", "replace").decode()
