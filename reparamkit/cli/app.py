"""The command line: arguments in, calls of the public API, exit status out. `check` has a file of its own.

Exit status: 0 done and verified, 1 verification failed (nothing written), 2 unusable input, 3 an error of
reparamkit itself.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from reparamkit.cli import console as cli_console
from reparamkit.cli import coreml as cli_coreml
from reparamkit.cli import files as cli_files
from reparamkit.cli import github as cli_github
from reparamkit.cli import into as cli_into
from reparamkit.cli import progress as cli_progress
from reparamkit.cli import reports as cli_reports
from reparamkit.cli import sources as cli_sources
from reparamkit.cli.bench import bench
from reparamkit.cli.check import check
from reparamkit.cli.expand import expand
from reparamkit.cli.settings import grouped
from reparamkit.cli.train import pretrain, train
from reparamkit.cli.usage import Command, Commands
from reparamkit.cli.validate import validate
from reparamkit.errors import CannotCapture, NotEquivalent, ReparamkitError, UnusableInput
from reparamkit.lower.formats import format_of
from reparamkit.lower.request import Request
from reparamkit.support.version import __version__

if TYPE_CHECKING:
    from reparamkit.result import Folded, Inspection

app = typer.Typer(
    name="reparamkit",
    cls=Commands,
    help="Fold structural re-parameterization out of a trained network: parallel branches, batch norms "
    "and scales become single convolutions, every fold is proven in float64, and the result is written as "
    "ONNX, Core ML or torch.export and verified again.",
    epilog="Exit status: 0 done and verified, 1 verification failed (nothing written), 2 unusable input, "
    "3 an error of reparamkit itself.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


SourceArgument = Annotated[str, typer.Argument(metavar="SOURCE", help=cli_sources.SOURCE_HELP)]
InputOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="[NAME:]SHAPE[:DTYPE][:KIND]",
        help="An input, such as 1x3x224x224, image:1x3x224x224:uint8 or ids:1x77:int64:0..999; once for "
        "every input, in order, or all by name. KIND is normal, image, mask or A..B. Needed where the source "
        "does not know its own.",
    ),
]
DynamicOption = Annotated[
    str,
    typer.Option(
        "--dynamic",
        metavar="auto|batch|none",
        help="Sizes to keep free: batch and spatial sizes as far as the network allows, the batch size, "
        "or none.",
    ),
]


StrictOption = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Fail with status 1, and write nothing, if a fold failed its own check, although it was taken "
        "back.",
    ),
]


MergeOption = Annotated[
    bool,
    typer.Option(
        "--merge-siblings",
        help="Make one wider layer, and a split, of layers that read the same value (q, k and v).",
    ),
]


IntoOption = Annotated[
    str | None,
    typer.Option(
        "--into",
        metavar="MODULE:CALLABLE",
        help="A class of your own that takes the folded numbers: a callable that returns the network in its "
        "deployed form. Written is its state dict, to .pth or .safetensors.",
    ),
]


OutputsOption = Annotated[
    str | None,
    typer.Option(
        "--outputs",
        metavar="NAME,…|N",
        help="Keep these outputs, or the first N, and drop what only the others need; those kept are "
        "compared.",
    ),
]


UntoldOption = Annotated[
    bool,
    typer.Option(
        "--allow-untold",
        help="Write files of which it cannot be told whether they are right, too (without it: status 2, and "
        "nothing is written).",
    ),
]


@app.command(cls=Command)
@grouped
def fold(
    source: SourceArgument,
    *,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Where to write, by suffix: .onnx, .mlpackage (Core ML), .pte (ExecuTorch), .pt2, .py "
            "(plain PyTorch code, its weights beside it), or .pt for the whole module, pickled; with --into "
            "or --adapter .pth or .safetensors, and with --adapter a folder that from_pretrained loads. May "
            "be given several times. Default: STEM.folded.pt2 beside the source, in the current folder for a "
            "reference model; STEM.folded.pt for a network that can be folded in parts only.",
        ),
    ] = None,
    shapes: InputOption = None,
    model: cli_sources.ModelOption = None,
    model_args: cli_sources.ArgumentsOption = None,
    key: cli_sources.KeyOption = None,
    adapter: cli_sources.AdapterOption = None,
    into: IntoOption = None,
    trust_pickle: cli_sources.TrustOption = False,
    wanted: cli_reports.Reports,
    dynamic: DynamicOption = "auto",
    strict: StrictOption = False,
    merge_siblings: MergeOption = False,
    outputs: OutputsOption = None,
    allow_untold: UntoldOption = False,
    files: cli_files.FileArguments,
    coreml: cli_coreml.CoreMlArguments,
    verbose: cli_progress.VerboseOption = False,
) -> None:
    """Fold SOURCE, prove it, and write it; the report goes to stdout."""
    sizes = _dynamic(dynamic)
    own_class = into is not None or cli_into.is_for_base(output or [], adapter)
    keep = cli_files.keep(outputs, own_class)
    for path in output or []:
        if own_class:
            cli_into.check(path)
        else:
            format_of(path).require()
    asked = files.asked()
    request = Request(**asked)
    request.check_for(output or [])
    target = None if into is None else cli_into.target(into)
    package = cli_coreml.coreml_options(coreml, output or [])
    cli_console.check_distinct([*(output or []), *wanted.files])
    wanted.check(source)
    cli_sources.check_ahead(source, model, model_args, adapter, shapes)
    steps = 4 + own_class + max(1, len(output or []))
    kept: list[tuple[str, Folded]] = []
    loaded = None
    progress = cli_progress.progress(steps, quiet=wanted.quiet, verbose=verbose)
    with _told_if_refused(source, kept, wanted), progress as shown:
        opened, inputs = cli_sources.opened(source, model, trust_pickle, model_args, key, shapes, adapter)
        if into is None and own_class:
            target = cli_into.base_of(opened, output or [])
        paths = output or [cli_sources.beside(opened, ".folded.pt2")]
        if target is not None and not output:
            paths = [path.with_suffix(".pth") for path in paths]
        cli_console.check_distinct([*paths, *wanted.files])
        import reparamkit as rk
        from reparamkit.api import names_of, require_none_undone

        if request.input_names or request.output_names:
            request.check_counts(*names_of(opened, inputs, keep))
        folded = rk.fold(opened, inputs, dynamic=sizes, merge_siblings=merge_siblings, outputs=keep)
        kept.append((opened.name, folded))
        if strict:
            require_none_undone(folded)
        if folded.parts and not output and target is None:
            paths = [path.with_suffix(".pt") for path in paths]
            cli_console.check_distinct([*paths, *wanted.files])
        if target is not None:
            loaded = rk.load_into(folded, target)
            loaded.save(*paths, allow_untold=allow_untold)
        else:
            folded.save(*paths, coreml=package, allow_untold=allow_untold, **asked)
    cli_reports.tell(source, opened.name, folded, wanted, shown.as_dict())
    for note in loaded.notes if loaded is not None else ():
        cli_console.complain(f"note: {note}")
    if loaded is not None and not wanted.quiet:
        with cli_console.report() as console:
            cli_into.show(loaded, paths, console)


@app.command(cls=Command)
@grouped
def inspect(
    source: SourceArgument,
    *,
    shapes: InputOption = None,
    model: cli_sources.ModelOption = None,
    model_args: cli_sources.ArgumentsOption = None,
    key: cli_sources.KeyOption = None,
    adapter: cli_sources.AdapterOption = None,
    trust_pickle: cli_sources.TrustOption = False,
    wanted: cli_reports.Reports,
    node: cli_reports.NodeOption = None,
    dynamic: DynamicOption = "auto",
    strict: StrictOption = False,
    merge_siblings: MergeOption = False,
    outputs: OutputsOption = None,
    verbose: cli_progress.VerboseOption = False,
) -> None:
    """Print what would fold in SOURCE, what would not, and why. Nothing is written."""
    sizes = _dynamic(dynamic)
    keep = cli_files.keep(outputs)
    cli_console.check_distinct(wanted.files)
    wanted.check(source)
    cli_sources.check_ahead(source, model, model_args, adapter, shapes)
    kept: list[tuple[str, Inspection]] = []
    progress = cli_progress.progress(3, quiet=wanted.quiet, verbose=verbose)
    with _told_if_refused(source, kept, wanted), progress as shown:
        opened, inputs = cli_sources.opened(source, model, trust_pickle, model_args, key, shapes, adapter)
        import reparamkit as rk
        from reparamkit.api import require_none_undone

        findings = rk.inspect(opened, inputs, dynamic=sizes, merge_siblings=merge_siblings, outputs=keep)
        kept.append((opened.name, findings))
        if strict:
            require_none_undone(findings)
    cli_reports.tell(source, opened.name, findings, wanted, shown.as_dict(), node)


@app.command(cls=Command)
def models(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One model in detail.")] = None,
) -> None:
    """List the reference models."""
    from reparamkit.models import info, names
    from reparamkit.report.catalogue import show_all, show_one

    entries = [info(n) for n in (names() if name is None else [name])]
    with cli_console.report() as console:
        if name is None:
            show_all(entries, console)
        else:
            show_one(entries[0], console)


app.command(cls=Command)(bench)
app.command(cls=Command)(check)
app.command(cls=Command)(expand)
app.command(cls=Command)(train)
app.command(cls=Command)(pretrain)
app.command(cls=Command)(validate)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"reparamkit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and exit; an error of ours that nobody foresaw ends with status 3."""
    try:
        app(prog_name="reparamkit")  # under `python -m` too
    except NotEquivalent as error:
        _refuse(f"verification failed: {error}")
        sys.exit(1)
    except ReparamkitError as error:
        _refuse(f"error: {error}")
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "DefaultCPUAllocator" not in str(error):
            _report_bug()
        _refuse("error: there is not enough memory for this; give smaller inputs, or free some")
        sys.exit(2)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # typer's 1 for a reader of --help that has left
            sys.exit(0)
        raise
    except Exception:
        _report_bug()


def _refuse(text: str) -> None:
    cli_console.complain(text)
    cli_github.complain(text)


def _report_bug() -> NoReturn:
    traceback.print_exc()
    _refuse("error: this should not have happened; please report it with the lines above")
    sys.exit(3)


def _dynamic(given: str) -> str | bool:
    if given not in ("auto", "batch", "none"):
        raise UnusableInput(f"--dynamic {given}: it is one of auto, batch and none")
    return False if given == "none" else given


@contextlib.contextmanager
def _told_if_refused(
    source: str, kept: Sequence[tuple[str, Folded | Inspection]], wanted: cli_reports.Reports
) -> Iterator[None]:
    """Tell of a network that is not written, once there is one: the findings would be lost."""
    try:
        yield
    except (CannotCapture, NotEquivalent) as error:
        for name, findings in kept:
            if isinstance(error, CannotCapture) or findings.undone:
                cli_reports.tell(source, name, findings, wanted.printed_only())
        raise


if __name__ == "__main__":
    main()
