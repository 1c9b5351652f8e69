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
class Reports:
    """The reports that were asked for."""

    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all findings to FILE as JSON.")
    ] = None
    html_file: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Write a page for a browser, one file: what changed, the network drawn before and after, "
            "every fold's branches and error, and what stays and why. Needs the extra 'html'.",
        ),
    ] = None
    svg_file: Annotated[
        Path | None,
        typer.Option(
            "--svg",
            metavar="FILE",
            help="Write the picture of the network before and after alone. Needs the extra 'html'.",
        ),
    ] = None
    bench_file: Annotated[
        Path | None,
        typer.Option(
            "--bench",
            metavar="FILE",
            help="Figures that 'reparamkit bench --json FILE' has written of this network: the page shows "
            "what the fold saves.",
        ),
    ] = None
    everything: Annotated[
        bool, typer.Option("--all", help="Print every fold and every operator that stays, one by one.")
    ] = False
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", help="Print neither progress nor a report; errors and warnings are still told."
        ),
    ] = False

    def printed_only(self) -> Reports:
        """The same without files, for a network that is not written."""
        return Reports(everything=self.everything, quiet=self.quiet)

    @property
    def files(self) -> list[Path]:
        """The files that are to be written."""
        return [path for path in (self.json_file, self.html_file, self.svg_file) if path is not None]

    def check(self, source: str) -> None:
        """Find out before the work whether they can be written."""
        from reparamkit.report import drawing

        for option, path in (
            ("--json", self.json_file),
            ("--html", self.html_file),
            ("--svg", self.svg_file),
        ):
            if path is not None and os.path.realpath(path) == os.path.realpath(source):
                raise UnusableInput(f"{option} {path} would replace the source")
        if self.html_file is not None or self.svg_file is not None:
            drawing.require()
        if self.bench_file is not None:
            read_bench(self.bench_file)


def tell(
    source: str,
    name: str,
    findings: Folded | Inspection,
    wanted: Reports,
    seconds: dict[str, Any] | None = None,
    node: str | None = None,
) -> None:
    """Write the reports of a source and print one.

    Args:
        seconds: how long it all took, for the JSON report.
        node: the operator or module to tell of in place of the report.
    """
    import torch

    from reparamkit.lower.saved import size_on_disk
    from reparamkit.report.explain import explain
    from reparamkit.report.fold_html import fold_html, network_svg
    from reparamkit.report.machine import as_dict
    from reparamkit.report.text import show
    from reparamkit.result import report_of

    file = Path(source)
    report = report_of(
        findings,
        name,
        source_bytes=size_on_disk(file) if file.exists() else None,
        command=shlex.join(["reparamkit", *sys.argv[1:]]),
        versions={"reparamkit": __version__, "torch": str(torch.__version__)},
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
    if node is not None:
        text = explain(report, node)
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


def writable(text: str) -> str:
    """The text in characters that can be written: a file's name may hold bytes that are no text."""
    return text.encode("utf-8", "replace").decode()
