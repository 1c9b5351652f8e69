"""The options that say what is opened and how, for every command that opens a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reparamkit.compare.inputs.input_text import check_words
from reparamkit.errors import MissingExtra, ReparamkitError, UnusableInput
from reparamkit.loading.arguments import parse_arguments
from reparamkit.loading.inputs_said import proposal
from reparamkit.loading.registry import is_installed, provider
from reparamkit.support.progress import phase

if TYPE_CHECKING:
    from reparamkit.loading.source import Source

SOURCE_HELP = (
    "A file (.pt2, TorchScript, weights, safetensors, pickled module; recognised by its content), a folder "
    "of Hugging Face's or of a training run, a name (a reference model's, see 'reparamkit models'; "
    "timm:NAME, torchvision:NAME, transformers:FOLDER, ultralytics:NAME.yaml, hf-hub:timm/NAME), or a "
    "callable: package.module:callable or file.py:callable."
)
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME|MODULE:CALLABLE",
        help="What a file of weights alone belongs to: a network's name, as SOURCE takes it, or a callable "
        "that returns the network.",
    ),
]
ArgumentsOption = Annotated[
    str | None,
    typer.Option(
        "--model-args",
        metavar="NAME=VALUE,…",
        help="Arguments for the callable or name that builds the network, values as in Python: "
        "num_classes=10,act='relu'.",
    ),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="KEY",
        help="What inside the file is meant, such as ema.model; of a training checkpoint ema or raw.",
    ),
]
AdapterOption = Annotated[
    Path | None,
    typer.Option(
        "--adapter",
        metavar="FOLDER",
        help="An adapter of PEFT's (LoRA, DoRA, IA3, …) for SOURCE, as its save_pretrained wrote it. It is "
        "put in unmerged, and folded. -o FOLDER, .pth and .safetensors then have the network's own names.",
    ),
]
TrustOption = Annotated[
    bool,
    typer.Option("--trust-pickle", help="Open a file that can run code while it is opened, as a pickle can."),
]


def check_ahead(
    source: str,
    model: str | None,
    model_args: str | None,
    adapter: Path | None = None,
    shapes: list[str] | None = None,
    *,
    side: bool = False,
) -> None:
    """Say at once, before torch is imported, what keeps a network from being opened.

    `side` says that a file of another back end will do as well.
    """
    from reparamkit.loading.ahead import check_ahead, check_side

    parse_arguments(model_args)
    check_words(shapes or [])
    if adapter is not None:
        from reparamkit.loading.adapters import describe_adapter

        describe_adapter(adapter)
        if not is_installed("peft"):
            raise MissingExtra("peft", None, f"--adapter {adapter}")
    if side:
        check_side(source, model)
    else:
        check_ahead(source, model)


def check_trained(model: str | None, model_args: str | None) -> None:
    """As `check_ahead`, of a network that is trained: timm's go by their plain names there too."""
    from reparamkit.loading.ahead import check_name

    parse_arguments(model_args)
    if model is not None and not (is_installed("timm") and provider("timm").known(model)):
        check_name(model)


def wrong_ahead(sides: list[str], model: str | None, model_args: str | None) -> str:
    """What keeps one side of a comparison from being opened, as far as it shows at once; "" for nothing."""
    from reparamkit.loading.ahead import check_side

    parse_arguments(model_args)
    try:
        for side in sides:
            check_side(side, model)
    except ReparamkitError as error:
        return str(error)
    return ""


def beside(source: Source, ending: str) -> Path:
    """Where a network goes by default: beside its file, in the current folder where it has none."""
    folder = source.path.parent if source.path is not None else Path()
    return folder / f"{source.name}{ending}"


def opened(
    source: str,
    model: str | None,
    trust_pickle: bool,
    model_args: str | None,
    key: str | None,
    shapes: list[str] | None,
    adapter: Path | None = None,
) -> tuple[Source, Any]:
    """The network and the inputs that were described for it, None where it brings its own.

    Raises:
        UnusableInput: it cannot be opened, or nobody says what its inputs look like.
    """
    with phase(f"opening {source}"):
        with phase("importing torch"):
            import reparamkit.api
            from reparamkit.compare.inputs.input_spec import examples, parse
        inputs = examples(parse(shapes)) if shapes else None
        network = reparamkit.load(
            source, model=model, trust_pickle=trust_pickle, model_args=model_args, key=key, adapter=adapter
        )
    if inputs is None and network.example_inputs is None and not network.example_kwargs:
        raise UnusableInput(f"{source} does not say what its inputs look like; {proposal(network.model)}")
    return network, inputs
