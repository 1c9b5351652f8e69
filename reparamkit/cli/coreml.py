"""The command line's options for Core ML packages, and what they amount to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from reparamkit.errors import UnusableInput
from reparamkit.lower.coreml.labels import read_labels
from reparamkit.lower.coreml.options import CoreMlOptions, ImageInput

PANEL = "Core ML (.mlpackage)"


def _option(*names: str, metavar: str | None = None, help: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=help, rich_help_panel=PANEL)


@dataclass(frozen=True)
class CoreMlArguments:
    """The options as they were given, by their own names; None and False where they were not."""

    coreml_target: Annotated[
        str | None,
        _option(
            "--coreml-target",
            metavar="iOS15|…|iOS26|macOS12|…",
            help="The oldest system that is to run an .mlpackage (default: iOS17).",
        ),
    ] = None
    coreml_precision: Annotated[
        str | None,
        _option(
            "--coreml-precision",
            metavar="float32|float16",
            help="What an .mlpackage computes in (default: float32, which computes what the network "
            "computes; float16 halves the file and is what the Neural Engine computes in).",
        ),
    ] = None
    coreml_sizes: Annotated[
        str | None,
        _option(
            "--coreml-sizes",
            metavar="flexible|fixed|SHAPE,…",
            help="Sizes of the input: those that the network leaves free, within bounds (default); the "
            "example's; or shapes, such as 1x3x224x224,1x3x256x256, the first being the default.",
        ),
    ] = None
    coreml_labels: Annotated[
        Path | None,
        _option(
            "--coreml-labels",
            metavar="FILE",
            help="Class names, one per line: the .mlpackage is a classifier.",
        ),
    ] = None
    coreml_keep_float32: Annotated[
        list[str] | None,
        _option(
            "--coreml-keep-float32",
            metavar="auto|PATTERN",
            help="In float16, compute these modules in float32 all the same: a path or a pattern such as "
            "'stages.0.*'; may be given several times.",
        ),
    ] = None
    image_input: Annotated[
        bool,
        _option(
            "--image-input",
            help="The input of the .mlpackage is an image; the network is fed (pixels / scale - mean) / std.",
        ),
    ] = False
    image_scale: Annotated[
        float | None,
        _option("--image-scale", metavar="NUMBER", help="What the pixels are divided by (default: 255)."),
    ] = None
    image_mean: Annotated[
        str | None,
        _option("--image-mean", metavar="M,M,M", help="Mean per channel, or one for all (default: 0)."),
    ] = None
    image_std: Annotated[
        str | None,
        _option(
            "--image-std",
            metavar="S,S,S",
            help="Standard deviation per channel, or one for all (default: 1).",
        ),
    ] = None
    image_colour: Annotated[
        str | None,
        _option(
            "--image-colour",
            metavar="rgb|bgr|gray",
            help="The order of the channels that the network takes (default: rgb).",
        ),
    ] = None

    def given(self) -> list[str]:
        """The names of the options that were given."""
        names = [name for name, value in vars(self).items() if value not in (None, False, [])]
        return [f"--{name.replace('_', '-')}" for name in names]


def coreml_options(arguments: CoreMlArguments, outputs: list[Path]) -> CoreMlOptions | None:
    """What the options amount to; None where no output is an .mlpackage.

    Raises:
        UnusableInput: they are given without an .mlpackage, contradict each other or cannot be read, or the
            file of labels cannot.
        MissingExtra: coremltools is not installed.
    """
    given = arguments.given()
    if not any(path.suffix == ".mlpackage" for path in outputs):
        if given:
            raise UnusableInput(
                f"{given[0]} is for an .mlpackage, and no output is one: give -o FILE.mlpackage"
            )
        return None
    normalising = [name for name in given if name.startswith("--image-") and name != "--image-input"]
    if normalising and not arguments.image_input:
        raise UnusableInput(f"{normalising[0]} is for an image input: give --image-input too")
    labels = read_labels(arguments.coreml_labels) if arguments.coreml_labels is not None else None
    image = None
    if arguments.image_input:
        image = ImageInput(
            255.0 if arguments.image_scale is None else arguments.image_scale,
            _numbers("--image-mean", arguments.image_mean) or (0.0,),
            _numbers("--image-std", arguments.image_std) or (1.0,),
            arguments.image_colour or "rgb",
        )
    chosen = tuple(arguments.coreml_keep_float32 or ())
    options = CoreMlOptions(
        target=arguments.coreml_target or "iOS17",
        precision=arguments.coreml_precision or "float32",
        image=image,
        sizes=_sizes(arguments.coreml_sizes),
        labels=labels,
        keep_float32=chosen[0] if len(chosen) == 1 and chosen[0] in ("auto", "none") else chosen or "none",
    )
    from reparamkit.lower.coreml.toolbox import require_coremltools  # imports torch

    require_coremltools()
    return options


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UnusableInput(
            f"{option} {text}: write one number, or one per channel with commas between, such as "
            "0.485,0.456,0.406"
        ) from error


def _sizes(text: str | None) -> Any:
    from reparamkit.support.inputs import shape_of

    if text is None:
        return "flexible"
    if text in ("flexible", "fixed"):
        return text
    return tuple(shape_of(part) for part in text.split(","))
