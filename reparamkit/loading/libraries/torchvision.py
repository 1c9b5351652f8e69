"""torchvision's networks: ``torchvision:NAME``, with random weights unless ``weights=…`` says which."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from reparamkit.errors import UnusableInput
from reparamkit.loading.inputs_said import image
from reparamkit.loading.libraries.importing import RANDOM, drawn_from_seed, fitted, imported, registered
from reparamkit.loading.registry import Named, Stored
from reparamkit.support.text import one_line


def names() -> Iterable[str]:
    """torchvision's networks, as its sources have them."""
    return registered("torchvision")


def known(name: str) -> bool:
    """Whether torchvision has it; case does not matter there."""
    return name.lower() in registered("torchvision")


def build(name: str, arguments: Mapping[str, Any], stored: Stored | None, *, trusted: bool) -> Named:
    """The network in evaluation mode; see `reparamkit.loading.registry.Provider`."""
    models = imported("torchvision.models", name)
    own = name.partition(":")[2].lower()
    builder = models.get_model_builder(own)
    takes = inspect.signature(builder).parameters
    none = dict.fromkeys(name for name in ("weights", "weights_backbone") if name in takes)
    asked = {**none, **arguments}
    try:
        with drawn_from_seed():
            model = builder(**asked).eval()
    except (TypeError, KeyError, ValueError) as error:
        text = one_line(error, 200)
        raise UnusableInput(f"--model-args: torchvision's {own} does not take them: {text}") from error
    except Exception as error:
        text = one_line(error, 200)
        raise UnusableInput(
            f"torchvision cannot give {own} ({type(error).__name__}: {text}); without a connection, give the "
            f"file of its weights and --model {name}"
        ) from error
    notes: tuple[str, ...] = ()
    if stored is not None:
        notes = fitted(model, stored, name)
    elif asked.get("weights") is None:
        notes = (f"{name}: {RANDOM} (--model-args weights=DEFAULT has torchvision's)",)
    side = _side(models, builder)
    if side is None:
        return Named(model, own, notes=notes)
    return Named(model, own, image(3, side, side), "the transforms of torchvision's weights", notes)


def _side(models: Any, builder: Any) -> int | None:
    """The side of the images that its weights were trained on; None where they do not say."""
    try:
        transforms = models.get_model_weights(builder).DEFAULT.transforms()
        return int(transforms.crop_size[0])
    except (AttributeError, ValueError, TypeError, IndexError, KeyError):
        return None
