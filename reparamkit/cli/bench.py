"""`reparamkit bench`: how fast networks are, as they came and folded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from reparamkit.cli import console as cli_console
from reparamkit.cli import progress as cli_progress
from reparamkit.cli import reports as cli_reports
from reparamkit.cli import sources as cli_sources
from reparamkit.errors import UnusableInput
from reparamkit.lower.files import write_text


def bench(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE…",
            help=f"What to time. {cli_sources.SOURCE_HELP} A .pte, .onnx or .xml file is timed as it is.",
        ),
    ],
    backends: Annotated[
        str | None,
        typer.Option(
            "--backends",
            metavar="NAME,…",
            help="Of eager, compile, onnxruntime, openvino and executorch. Default: eager, onnxruntime and "
            "openvino, as far as they are installed; of a file those that run it.",
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option("--threads", metavar="N", help="How many threads each back end may use.")
    ] = 1,
    batch: Annotated[
        int | None, typer.Option("--batch", metavar="N", help="The batch size, in place of the example's.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="HxW", help="Height and width, in place of the example's."),
    ] = None,
    rounds: Annotated[
        int, typer.Option("--rounds", metavar="N", help="How often each form is timed, by turns.")
    ] = 30,
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="[NAME:]SHAPE[:DTYPE][:KIND]",
            help="An input, as 'reparamkit fold' takes it; of every network alike.",
        ),
    ] = None,
    model: cli_sources.ModelOption = None,
    model_args: cli_sources.ArgumentsOption = None,
    key: cli_sources.KeyOption = None,
    trust_pickle: cli_sources.TrustOption = False,
    csv_file: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the table.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all figures as JSON.")
    ] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page for a browser, one file.")
    ] = None,
    quiet: cli_progress.QuietOption = False,
    verbose: cli_progress.VerboseOption = False,
) -> None:
    """Time networks as they came, after onnxsim, after their own library's fold, and folded.

    Every form is held against the network as it came; the forms take turns, and each gets the median and the
    quartiles over the rounds, and how many times as fast it is as the network came, with a 95 % interval.
    """
    sizes = _sizes(size)
    _check_numbers(threads=threads, rounds=rounds, batch=batch)
    cli_console.check_distinct([path for path in (csv_file, json_file, html_file) if path])
    for source in sources:
        cli_sources.check_ahead(source, model, model_args, shapes=shapes, side=True)
    import dataclasses

    from reparamkit.benchmark.bench import bench as run
    from reparamkit.benchmark.bench import chosen_backends
    from reparamkit.benchmark.files import SUFFIXES, File, opened_file
    from reparamkit.compare.inputs.input_spec import parse
    from reparamkit.loading.opened import Source
    from reparamkit.report.bench_document import bench_csv, bench_document, show_bench
    from reparamkit.report.bench_html import bench_html
    from reparamkit.support.inputs import normalise_inputs

    names = None if backends is None else [name.strip() for name in backends.split(",") if name.strip()]
    chosen_backends(names)
    with cli_progress.progress(quiet=quiet, verbose=verbose) as shown:
        opened: list[Source | File] = []
        for source in sources:
            path = Path(source)
            if path.suffix == ".mlpackage":
                raise UnusableInput(f"{source}: a Core ML package is timed by Xcode, on a Mac or a phone")
            if path.suffix in SUFFIXES:
                opened.append(opened_file(path, parse(shapes) if shapes else ()))
                continue
            network, inputs = cli_sources.opened(source, model, trust_pickle, model_args, key, shapes)
            if inputs is not None:
                args, kwargs = normalise_inputs(inputs)
                network = dataclasses.replace(network, example_inputs=args, example_kwargs=kwargs)
            opened.append(network)
        result = run(
            opened, backends=names, threads=threads, batch=batch, size=sizes, rounds=rounds, say=shown.say
        )
    if csv_file is not None:
        write_text(csv_file, bench_csv(result))
    document = bench_document(result)
    if json_file is not None:
        write_text(json_file, json.dumps(document, indent=2) + "\n")
    if html_file is not None:
        write_text(html_file, cli_reports.writable(bench_html(document)))
    with cli_console.report() as console:
        show_bench(result, console)


def _sizes(given: str | None) -> tuple[int, ...] | None:
    if given is None:
        return None
    parts = given.lower().split("x")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UnusableInput(f"--size takes sizes such as 224x224, and not {given!r}")
    numbers = tuple(map(int, parts))
    return numbers * 2 if len(numbers) == 1 else numbers


def _check_numbers(**numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise UnusableInput(f"--{name} has to be at least 1, and is {number}")
