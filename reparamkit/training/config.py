"""Every setting of a training run: one typed class, from which the YAML file and the flags follow.

    defaults  <  the YAML file  <  flags

What a setting means is written once, in its `help`, and what it may be in its `within` or `choices`.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from reparamkit.errors import UnusableInput

_UNBOUNDED = (-math.inf, math.inf)


def setting(
    default: Any,
    help: str,
    *,
    within: tuple[float, float] = _UNBOUNDED,
    choices: tuple[str, ...] = (),
    above: float | None = None,
) -> Any:
    """A field of a settings class: `within` is its closed range, `above` what it has to exceed."""
    return field(
        default=default, metadata={"help": help, "within": within, "choices": choices, "above": above}
    )


@dataclass(frozen=True)
class Settings:
    """What any settings class can do: be read, overridden, checked, and written."""

    what: ClassVar[str] = "setting"

    @classmethod
    def resolve(cls, file: Path | None = None, **flags: Any) -> Self:
        """The defaults, overridden by a YAML file, overridden by those of `flags` that are not None.

        Raises UnusableInput for a file that cannot be read or is no YAML mapping, for an unknown setting
        (with the nearest names) and for a value of another type or outside its range.
        """
        values = cls.stated(file) if file is not None else {}
        for name in flags:
            cls._check_known(name, "")
        values |= {name: value for name, value in flags.items() if value is not None}
        types = typing.get_type_hints(cls)
        converted = {name: _converted(name, value, types[name]) for name, value in values.items()}
        settings = cls(**converted)
        settings.check()
        return settings

    @classmethod
    def stated(cls, file: Path) -> dict[str, Any]:
        """What a YAML file says, each name a setting's.

        Raises UnusableInput for a file that cannot be read or is no YAML mapping, and for an unknown setting.
        """
        values = _read(file)
        for name in values:
            cls._check_known(name, str(file))
        return values

    @classmethod
    def _check_known(cls, name: str, where: str) -> None:
        known = [entry.name for entry in dataclasses.fields(cls)]
        if name in known:
            return
        normal = str(name).replace("-", "_")
        close = [normal] if normal in known else difflib.get_close_matches(normal, known, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known)}"
        place = f"{where}: " if where else ""
        raise UnusableInput(f"{place}there is no {cls.what} {str(name)!r}; {hint}")

    def check(self) -> None:
        """Raise UnusableInput for a value outside its range, or for settings that contradict each other."""
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if value is None:
                continue
            choices, above = entry.metadata["choices"], entry.metadata["above"]
            if choices and value not in choices:
                raise UnusableInput(f"{entry.name} is one of {', '.join(choices)}, not {value!r}")
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            low, high = entry.metadata["within"]
            if not low <= value <= high:
                raise UnusableInput(f"{entry.name} is {_range(low, high)}, not {value}")
            if above is not None and not value > above:
                raise UnusableInput(f"{entry.name} is greater than {above:g}, not {value}")

    def as_dict(self) -> dict[str, Any]:
        """All settings in the order in which they are declared."""
        return dataclasses.asdict(self)

    def as_yaml(self) -> str:
        """A file that `resolve` reads back as it is."""
        import yaml

        text: str = yaml.safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True)
        return text


@dataclass(frozen=True)
class DataSettings(Settings):
    """Where images come from and how they are batched, for every kind of run."""

    data: str = setting(
        "digits",
        "Images and labels: digits (scikit-learn's, no download), a folder of classes, a file that "
        "Hugging Face datasets reads (.parquet, .arrow, .jsonl, .csv, .tar), hf:NAME of its hub, "
        "or module:callable.",
    )
    seed: int = setting(0, "Draws weights, order, augmentation.", within=(0, 2**31 - 1))
    epochs: int = setting(10, "Passes over the training images.", within=(1, 10**6))
    batch_size: int = setting(
        64, "Images per update, over all processes and micro-batches together.", within=(1, 10**7)
    )
    accumulate: int = setting(
        1, "Micro-batches whose gradients make one update, so that less memory is needed.", within=(1, 10**6)
    )
    input_size: int | None = setting(
        None, "Side of the square images in pixels. Default: what the network is made for.", within=(1, 2**16)
    )
    min_crop: float = setting(
        1.0, "Random resized crops: their smallest share of the image's area; 1 for none.", within=(0.01, 1)
    )
    crop: float = setting(
        1.0, "Share of the shorter side that the central crop keeps in validation.", within=(0.1, 1)
    )
    flip: float = setting(0.0, "Probability of a horizontal flip.", within=(0, 1))
    valid_share: float = setting(
        0.2,
        "Share of the training images that is held back where the data has no validation split.",
        within=(0.01, 0.9),
    )
    stream: bool = setting(False, "Read the training images as a stream: for data that fit no disk.")
    epoch_size: int | None = setting(
        None, "Images per epoch of a stream whose length is not known.", within=(1, 2**60)
    )
    corrupt: str = setting("fatal", "What an image that cannot be read does.", choices=("fatal", "skip"))
    workers: int = setting(0, "Processes that read images, for each process that trains.", within=(0, 1024))
    channels_last: bool = setting(False, "Keep images and weights with the channels innermost.")
    amp: str = setting("no", "Automatic mixed precision.", choices=("no", "fp16", "bf16"))
    clip_grad: float | None = setting(None, "Largest norm of the gradient.", above=0)
    lr: float = setting(1e-3, "Learning rate after the warm-up.", above=0)
    min_lr: float = setting(1e-6, "Learning rate at the end of the cosine.", within=(0, math.inf))
    warmup_lr: float = setting(1e-6, "Learning rate at the start of the warm-up.", within=(0, math.inf))
    warmup_epochs: float | None = setting(
        None, "Length of the linear warm-up. Default: a twentieth of the epochs.", within=(0, math.inf)
    )
    weight_decay: float = setting(
        0.05, "Decay of weights; biases, norms and scales have none.", within=(0, 1)
    )
    weight_decay_end: float | None = setting(
        None, "Weight decay at the end of a cosine that starts at weight_decay.", within=(0, 1)
    )
    checkpoint_every: int | None = setting(
        None,
        "Updates between two checkpoints within an epoch; there is one after every epoch.",
        within=(1, 2**60),
    )


@dataclass(frozen=True)
class Config(DataSettings):
    """The settings of `train`."""

    model: str = setting(
        "repnets_toy", "A reference model, a timm model (timm:NAME), or module:callable that returns one."
    )
    finetune: str | None = setting(
        None,
        "Weights to start from: a training checkpoint's folder, a file of weights. A head for other classes "
        "starts anew.",
    )
    model_args: str | None = setting(
        None, "Arguments for what builds the model, values as in Python: act='relu',depth=3."
    )
    drop_path: float | None = setting(None, "Stochastic depth: the rate of the last block.", within=(0, 0.99))
    layer_scale: float | None = setting(
        None, "Start value of the scales of residual branches (layer_scale, gamma).", within=(0, 10)
    )
    optimizer: str = setting("adamw", "The optimizer.", choices=("adamw", "sgd"))
    momentum: float = setting(0.9, "Momentum of sgd (with Nesterov's correction).", within=(0, 0.9999))
    layer_decay: float = setting(
        1.0,
        "Factor on the learning rate from each layer to the one before it, for finetuning.",
        within=(0.01, 1),
    )
    sync_bn: bool = setting(False, "Batch norms take their statistics over all processes.")
    label_smoothing: float = setting(0.0, "Probability that is spread over all classes.", within=(0, 0.99))
    distillation: str = setting(
        "none",
        "Learn from a teacher: from its probabilities or its decisions.",
        choices=("none", "soft", "hard"),
    )
    teacher: str | None = setting(None, "The teacher: as model, or a training checkpoint's folder.")
    alpha: float = setting(0.5, "Weight of the distillation; the labels' loss has the rest.", within=(0, 1))
    tau: float = setting(1.0, "Temperature of soft distillation.", above=0)
    randaugment: int = setting(0, "RandAugment: its magnitude; 0 for none.", within=(0, 29))
    randaugment_layers: int = setting(2, "RandAugment: operations for each image.", within=(1, 15))
    erasing: float = setting(0.0, "Probability that a rectangle of an image is erased.", within=(0, 1))
    mixup: float = setting(0.0, "Share of the batches whose images are mixed in pairs.", within=(0, 1))
    cutmix: float = setting(0.0, "Share of the batches whose images get a piece of another.", within=(0, 1))
    ema: float = setting(
        0.999, "Decay of the exponential moving average of the weights; 0 for none.", within=(0, 0.999999)
    )

    def check(self) -> None:
        super().check()
        check_schedule(self)
        if self.distillation != "none" and self.teacher is None:
            raise UnusableInput(f"distillation {self.distillation} needs a teacher: give --teacher MODEL")
        if self.distillation == "none" and self.teacher is not None:
            raise UnusableInput(
                "a teacher is given, and distillation is none: give --distillation soft or hard"
            )
        if self.mixup + self.cutmix > 1:
            raise UnusableInput(
                f"mixup {self.mixup} and cutmix {self.cutmix} are shares of the batches, and more than all"
            )


@dataclass(frozen=True)
class PretrainConfig(DataSettings):
    """The settings of `pretrain`."""

    model: str = setting("convnextv2_atto", "The ConvNeXt V2 whose encoder is pre-trained.")
    mask_ratio: float = setting(0.6, "Share of the patches that is removed.", within=(0.01, 0.99))
    normalise_patches: bool = setting(True, "Targets are patches of mean 0 and variance 1.")
    decoder_depth: int = setting(1, "Blocks of the decoder.", within=(1, 64))
    decoder_width: int = setting(512, "Channels of the decoder.", within=(1, 65536))

    def check(self) -> None:
        super().check()
        check_schedule(self)
        if self.input_size is not None and self.input_size % 32:
            raise UnusableInput(f"input_size is a multiple of 32, the side of a patch, not {self.input_size}")


def check_schedule(settings: DataSettings) -> None:
    """Raise UnusableInput where the warm-up leaves no time to train, or batches cannot be cut evenly."""
    if settings.warmup_epochs is not None and settings.warmup_epochs >= settings.epochs:
        raise UnusableInput(
            f"a warm-up of {settings.warmup_epochs:g} epochs leaves nothing of {settings.epochs}; "
            "give a shorter --warmup-epochs"
        )
    if settings.batch_size % settings.accumulate:
        raise UnusableInput(
            f"a batch of {settings.batch_size} cannot be cut into {settings.accumulate} equal micro-batches"
        )


def _read(file: Path) -> dict[str, Any]:
    import yaml

    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnusableInput(f"the configuration {file} cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise UnusableInput(f"the configuration {file} is no YAML: {text}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise UnusableInput(f"the configuration {file} has to be a mapping of settings to values")
    return {str(name): value for name, value in loaded.items()}


def _converted(name: str, value: Any, kind: Any) -> Any:
    options = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    if value is None and type(None) in options:
        return None
    wanted = next(option for option in options if option is not type(None))
    if wanted is float and isinstance(value, str):
        # YAML reads 1e-3 as text, because its own grammar wants 1.0e-3.
        try:
            value = float(value)
        except ValueError:
            raise UnusableInput(f"{name} is a number, not {value!r}") from None
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if wanted is str and isinstance(value, Path):
        value = str(value)
    # YAML 1.1 reads a bare no as false.
    if wanted is str and value is False:
        value = "no"
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
        raise UnusableInput(f"{name} is {words[wanted]}, not {value!r}")
    if wanted is float and not math.isfinite(value):
        raise UnusableInput(f"{name} is a finite number, not {value!r}")
    return value


def _range(low: float, high: float) -> str:
    if high == math.inf:
        return f"at least {low:g}"
    return f"from {low:g} to {high:g}"
