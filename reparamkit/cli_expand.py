"""`reparamkit expand`: arguments in, one expanded network out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reparamkit.capture.source import Source

_SUFFIXES = (".pt", ".pth", ".safetensors")


def expand(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="What 'fold' takes: a file, the name of a reference model, or package.module:callable.",
        ),
    ],
    kind: Annotated[
        str,
        typer.Option("--as", metavar="repvgg|mobileone|dbb|acb|replk", help="The kind of the blocks."),
    ],
    branches: Annotated[
        int | None,
        typer.Option(
            "--branches", metavar="N", help="Branches with the whole kernel (4 for mobileone, else 1)."
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            metavar="PATTERN",
            help="Which convolutions: a module's name (it, or all inside it) or a pattern such as "
            "'layer1.*'; may be given several times. All by default.",
        ),
    ] = None,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Where to write: .pt, the whole module, pickled, to load and train; .pth or .safetensors, "
            "its weights. May be given several times. Default: STEM.expanded.pt beside the source.",
        ),
    ] = None,
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="[NAME:]SHAPE[:DTYPE][:KIND]",
            help="An input, such as 8x3x224x224, as for 'fold'. The batch norms' statistics are those on it.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Draw other shares.")] = 0,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODULE:CALLABLE", help="What a file of weights alone belongs to."),
    ] = None,
    trust_pickle: Annotated[
        bool,
        typer.Option("--trust-pickle", help="Open a file that can run code while it is opened."),
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the report to FILE as JSON.")
    ] = None,
) -> None:
    """Make training-time branches of MODEL's convolutions, the same function, and write the network.

    The inverse of 'fold': train what it writes, then fold that.
    """
    from reparamkit import cli_console

    for path in output or []:
        _check_suffix(path)
    _check_outputs(source, [*(output or []), *([json_file] if json_file else [])])
    with cli_console.progress() as say:
        import reparamkit as rk
        from reparamkit.verify.described import examples, parse

        inputs = examples(parse(shapes)) if shapes else None
        say(f"opening {source}")
        opened = rk.load(source, model=model, trust_pickle=trust_pickle)
        if inputs is None and opened.example_inputs is None and not opened.example_kwargs:
            raise rk.UnusableInput(
                f"{source} does not say what its inputs look like; give --input, for instance "
                "--input 8x3x224x224"
            )
        paths = output or [_default_output(opened)]
        _check_outputs(source, [*paths, *([json_file] if json_file else [])])
        say(f"expanding {opened.name}")
        expanded = rk.expand(opened, inputs, kind, branches, where or None, seed=seed)
        say(f"writing and reading back {', '.join(map(str, paths))}")
        files = _write(expanded, paths)
    _tell(opened.name, expanded, files, json_file)


def _check_suffix(path: Path) -> None:
    from reparamkit.errors import UnusableInput

    if path.suffix == ".safetensors":
        from importlib.util import find_spec

        from reparamkit.errors import MissingExtra

        if find_spec("safetensors") is None:
            raise MissingExtra("safetensors", "train", f"writing {path}")
    if path.suffix not in _SUFFIXES:
        asked = f"the suffix {path.suffix!r}" if path.suffix else "no suffix"
        raise UnusableInput(
            f"cannot write {path}: it has {asked}, and an expanded network goes into {', '.join(_SUFFIXES)}"
        )


def _check_outputs(source: str, paths: list[Path]) -> None:
    from reparamkit import cli_console
    from reparamkit.errors import UnusableInput

    cli_console.check_distinct(paths)
    for path in paths:
        if os.path.realpath(path) == os.path.realpath(source):
            raise UnusableInput(f"{path} would replace the source")


def _default_output(opened: Source) -> Path:
    folder = opened.path.parent if opened.path is not None else Path()
    return folder / f"{opened.name}.expanded.pt"


def _write(expanded: nn.Module, paths: Sequence[Path]) -> list[tuple[str, str]]:
    """Write each file once those behind it have been read back: all appear, or none."""
    from reparamkit.lower import write_verified

    if not paths:
        return []
    path, *others = paths
    write, compare, said = _format(expanded, path)
    following: list[tuple[str, str]] = []

    def verify(target: Path) -> None:
        compare(target)
        following.extend(_write(expanded, others))

    write_verified(path, write, verify)
    return [(str(path), said), *following]


def _format(expanded: nn.Module, path: Path) -> tuple[Callable[[Path], None], Callable[[Path], None], str]:
    """How a file of that suffix is written, read back and compared, and what is then true of it."""
    import torch

    tensors = {name: value.detach().contiguous().clone() for name, value in expanded.state_dict().items()}
    size = f"{sum(value.numel() for value in expanded.parameters()) / 1e6:.2f} M parameters"
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file, save

        return (
            lambda target: _write_bytes(target, save(tensors)),
            lambda target: _require_same(tensors, load_file(target), path),
            f"weights of {size}, read back bit by bit",
        )
    if path.suffix == ".pth":
        return (
            lambda target: torch.save(tensors, target),
            lambda target: _require_same(tensors, torch.load(target, weights_only=True), path),
            f"weights of {size}, read back bit by bit",
        )
    archive = _pickled(expanded, path)

    def read(target: Path) -> None:
        _require_same(tensors, _unpickled(target, path).state_dict(), path)

    return (
        lambda target: _write_bytes(target, archive),
        read,
        f"the whole module, {size}, read back bit by bit; torch.load(..., weights_only=False) opens it",
    )


def _write_bytes(target: Path, archive: bytes) -> None:
    target.write_bytes(archive)


def _pickled(expanded: nn.Module, path: Path) -> bytes:
    import io

    import torch

    from reparamkit.errors import UnusableInput
    from reparamkit.quiet import quiet

    archive = io.BytesIO()
    try:
        with quiet():
            torch.save(expanded, archive)
    except Exception as error:  # a local class, a lambda, an open file: each has an error of its own
        raise UnusableInput(
            f"cannot write {path}: the network (a {type(expanded).__qualname__}) cannot be pickled "
            f"({type(error).__name__}: {error}); its weights can be written, as .pth or .safetensors"
        ) from error
    return archive.getvalue()


def _unpickled(target: Path, path: Path) -> nn.Module:
    import torch

    from reparamkit.errors import UnusableInput
    from reparamkit.quiet import quiet

    try:
        with quiet():
            module: nn.Module = torch.load(target, weights_only=False)
    except Exception as error:
        raise UnusableInput(
            f"cannot write {path}: the file cannot be read again: {type(error).__name__}: {error}"
        ) from error
    return module


def _require_same(tensors: dict[str, Tensor], read: dict[str, Tensor], path: Path) -> None:
    import torch

    from reparamkit.errors import NotEquivalent

    same = tensors.keys() == read.keys() and all(
        value.dtype == read[name].dtype and torch.equal(value.cpu(), read[name].cpu())
        for name, value in tensors.items()
    )
    if not same:
        raise NotEquivalent(f"{path} was not written: what was read back holds other weights")


def _tell(name: str, expanded: nn.Module, files: list[tuple[str, str]], json_file: Path | None) -> None:
    import json

    import reparamkit as rk
    from reparamkit import cli_console
    from reparamkit.lower import write_text
    from reparamkit.report.expansion import expansion_as_dict, show_expansion

    report = rk.expansion_report(expanded)
    if json_file is not None:
        write_text(json_file, json.dumps(expansion_as_dict(name, report, files), indent=2) + "\n")
    with cli_console.report() as console:
        show_expansion(name, report, files, console)
