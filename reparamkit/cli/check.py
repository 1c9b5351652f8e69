"""`reparamkit check`: arguments in, one comparison, its reports out."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from reparamkit.cli import console as cli_console
from reparamkit.cli import github as cli_github
from reparamkit.cli import progress as cli_progress
from reparamkit.cli import sources as cli_sources
from reparamkit.compare.inputs.input_text import check_words
from reparamkit.errors import UnusableInput
from reparamkit.lower.files import write_text, write_verified
from reparamkit.support.output_names import keep_of

if TYPE_CHECKING:
    from reparamkit.compare.compare import Compared
    from reparamkit.report.check_document import Document

_SIDE = (
    "an .onnx file, an OpenVINO IR (.xml), a .pte (ExecuTorch), an .mlpackage, a .pt2, TorchScript, a "
    "pickled module (with --trust-pickle), the name of a reference model, or package.module:callable"
)


def check(
    reference: Annotated[
        str,
        typer.Argument(metavar="REFERENCE", help=f"What is right: {_SIDE}; '-' with --reference-outputs."),
    ],
    candidate: Annotated[str, typer.Argument(metavar="CANDIDATE", help=f"What is to be tested: {_SIDE}.")],
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="[NAME:]SHAPE[:DTYPE][:KIND]",
            help="An input, such as 1x3x224x224, image:1x3x224x224:uint8:image, ids:1x77:int64:0..999 or "
            "mask:1x77:bool; once for every input. KIND is normal, image, mask or A..B. Needed where neither "
            "side knows its own.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--inputs",
            metavar="FILE|FOLDER",
            help="Real inputs to try as well: .npz (arrays by input name or arr_0, arr_1, …), .npy, .pt "
            "(tensor, tuple, dict or a list of them), a folder of such files; or what --save-inputs wrote, "
            "and then nothing else is tried.",
        ),
    ] = None,
    save_inputs: Annotated[
        Path | None,
        typer.Option("--save-inputs", metavar="FILE.npz", help="Keep every input that was tried."),
    ] = None,
    save_outputs: Annotated[
        Path | None,
        typer.Option(
            "--save-outputs", metavar="FILE.npz", help="Keep the reference's outputs, to compare with later."
        ),
    ] = None,
    reference_outputs: Annotated[
        Path | None,
        typer.Option(
            "--reference-outputs",
            metavar="FILE.npz",
            help="Compare with what --save-outputs kept; REFERENCE is '-' then, and not run. Refused where "
            "the inputs are not those of the outputs.",
        ),
    ] = None,
    atol: Annotated[
        float | None, typer.Option("--atol", metavar="X", help="Limit: the largest absolute error.")
    ] = None,
    rtol: Annotated[
        float | None,
        typer.Option(
            "--rtol", metavar="X", help="Limit: the largest error, as a share of the output's scale."
        ),
    ] = None,
    psnr: Annotated[
        float | None, typer.Option("--psnr", metavar="DB", help="Limit: the smallest PSNR.")
    ] = None,
    cosine: Annotated[
        float | None, typer.Option("--cosine", metavar="X", help="Limit: the smallest cosine similarity.")
    ] = None,
    top1: Annotated[
        float | None,
        typer.Option(
            "--top1", metavar="SHARE", help="Limit: the smallest share of rows with the same best class."
        ),
    ] = None,
    outputs: Annotated[
        str | None,
        typer.Option(
            "--outputs",
            metavar="NAME,…|N",
            help="Compare these outputs of REFERENCE, or its first N: CANDIDATE has no others (as a file of "
            "'fold --outputs').",
        ),
    ] = None,
    locate: Annotated[
        bool,
        typer.Option(
            "--locate/--no-locate",
            help="Where they differ, look inside both for the first place that does (two minutes at most).",
        ),
    ] = True,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Draw other inputs.")] = 0,
    model: cli_sources.ModelOption = None,
    model_args: cli_sources.ArgumentsOption = None,
    key: cli_sources.KeyOption = None,
    trust_pickle: cli_sources.TrustOption = False,
    coreml_runtime: Annotated[
        str,
        typer.Option(
            "--coreml-runtime",
            metavar="evaluate|native|both",
            help="How an .mlpackage is run: evaluated by its operators' definitions, on any system; under "
            "Core ML itself, on macOS; or there, with the evaluator checked against it.",
        ),
    ] = "evaluate",
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all findings as JSON.")
    ] = None,
    junit_file: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML for a CI system.")
    ] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page for a browser.")
    ] = None,
    quiet: cli_progress.QuietOption = False,
    verbose: cli_progress.VerboseOption = False,
) -> None:
    """Compare CANDIDATE with REFERENCE on inputs that expose mistakes; the report goes to stdout.

    Without a limit the candidate may be four times as far off the reference's float64 run as the reference
    is itself, plus a few ulp; a float16 or int8 candidate is judged by its precision, and the report says
    so. With limits, each must hold on every probe instead.

    In a GitHub Actions job the verdict is annotated as well, and put on the job's summary page.

    Exit status: 0 same, 1 different, 2 cannot tell. The reports are written in each case.
    """
    started = time.monotonic()
    if (reference == "-") != (reference_outputs is not None):
        raise UnusableInput(
            "REFERENCE is '-' exactly where --reference-outputs FILE stands in for it"
            if reference == "-"
            else f"--reference-outputs stands in for the reference: give '-' in place of {reference}"
        )
    check_words(shapes or [])
    keep = None if outputs is None else keep_of(outputs)
    if keep is not None and reference_outputs is not None:
        raise UnusableInput(
            "--outputs leaves outputs out of REFERENCE, and --reference-outputs stands in for it"
        )
    written = [path for path in (save_inputs, save_outputs, json_file, junit_file, html_file) if path]
    _check_outputs(written, [reference, candidate], [data, reference_outputs])
    sides = [side for side in (reference, candidate) if side != "-"]
    wrong = cli_sources.wrong_ahead(sides, model, model_args)
    if wrong and not written and not cli_github.inside():
        typer.echo(f"CANNOT TELL: {candidate} against {reference}\n{wrong}")
        raise typer.Exit(2)
    from reparamkit.compare.criteria import Criteria
    from reparamkit.compare.inputs.input_spec import parse
    from reparamkit.compare.profile import Profile

    limits = Criteria(atol, rtol, psnr, cosine, top1)
    described = parse(shapes or [])
    with cli_progress.progress(5 if locate else 4, quiet=quiet, verbose=verbose):
        compared = _comparer(coreml_runtime)(
            None if reference_outputs else reference,
            candidate,
            described=described,
            data=data,
            saved=reference_outputs,
            profile=Profile(criteria=limits),
            seed=seed,
            model=model,
            model_args=model_args,
            key=key,
            trust_pickle=trust_pickle,
            where=locate,
            outputs=keep,
        )
    document = _document(compared, _command(seed))
    _keep(compared, save_inputs, save_outputs)
    taken = time.monotonic() - started, compared.comparison.seconds
    _write_reports(document, json_file, junit_file, html_file, *taken)
    from reparamkit.report.check_text import show_check

    with cli_console.report() as console:
        show_check(document, console)
    cli_github.tell(document)
    raise typer.Exit(compared.comparison.exit_status)


def _comparer(coreml_runtime: str) -> Callable[..., Compared]:
    from reparamkit.compare.compare import compare
    from reparamkit.compare.coreml_cross_check import compare_both

    if coreml_runtime == "both":
        return compare_both
    if coreml_runtime not in ("evaluate", "native"):
        raise UnusableInput(f"--coreml-runtime is evaluate, native or both, not {coreml_runtime!r}")
    return partial(compare, coreml=coreml_runtime)


def _document(compared: Compared, command: str) -> Document:
    """What was found, in characters that can be written: a file's name may hold bytes that are no text."""
    import json

    text = json.dumps(compared.comparison.as_dict(command), ensure_ascii=False, allow_nan=False)
    return cast("Document", json.loads(text.encode("utf-8", "replace").decode()))


def _check_outputs(outputs: list[Path], sides: list[str], read: list[Path | None]) -> None:
    cli_console.check_distinct(outputs)
    # Links that lead in a circle are told of later, where they are opened.
    taken = {os.path.realpath(side): side for side in (*sides, *(str(path) for path in read if path))}
    for path in outputs:
        if os.path.realpath(path) in taken:
            raise UnusableInput(f"{path} would replace {taken[os.path.realpath(path)]}, which is read")


def _keep(compared: Compared, save_inputs: Path | None, save_outputs: Path | None) -> None:
    """Write the inputs and the reference's outputs; neither where the comparison did not come to them."""
    from reparamkit.compare.saved import load_outputs, load_probes
    from reparamkit.compare.saved import save_outputs as write_outputs
    from reparamkit.compare.saved import save_probes as write_probes

    recorded, fed = compared.recorded, compared.supply
    if recorded is None or fed is None:
        return
    probes = [record.probe for record in recorded.records]
    reference = compared.comparison.reference.name
    if save_inputs is not None:
        write_verified(
            save_inputs,
            lambda target: write_probes(target, probes, fed.names, recorded.seed),
            load_probes,
        )
    if save_outputs is not None:
        write_verified(
            save_outputs,
            lambda target: write_outputs(target, recorded, reference, fed.names, fed.described),
            load_outputs,
        )


def _write_reports(
    document: Document,
    json_file: Path | None,
    junit_file: Path | None,
    html_file: Path | None,
    seconds: float,
    by_probe: Mapping[str, float],
) -> None:
    import json

    from reparamkit.report.check_html import html
    from reparamkit.report.check_junit import junit

    if json_file is not None:
        write_text(json_file, json.dumps(document, indent=2, allow_nan=False) + "\n")
    if junit_file is not None:
        write_text(junit_file, junit(document, seconds, by_probe))
    if html_file is not None:
        write_text(html_file, html(document))


def _command(seed: int) -> str:
    """What to type to do it again."""
    given = sys.argv[1:]
    stated = (
        [] if any(word == "--seed" or word.startswith("--seed=") for word in given) else ["--seed", str(seed)]
    )
    return shlex.join(["reparamkit", *given, *stated])
