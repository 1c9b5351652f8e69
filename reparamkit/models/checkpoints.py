"""Checkpoints of the reference networks: the original repositories' and timm's, onto our parameter names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Size, Tensor, nn

from reparamkit.errors import UnusableInput
from reparamkit.loading.weights import fit_state_dict, read_state_dict
from reparamkit.models.families import FAMILIES, Family, on_meta

_FOLDED_MARKS = ("reparam_conv.", "rbr_reparam.", "lkb_reparam.")


def load(path: Path, name: str, family: Family, model: nn.Module) -> None:
    """Put the checkpoint at `path` into `model`, the network `name`, which may be on the meta device.

    Raises UnusableInput when the file cannot be read, and when its keys or shapes are not those of
    `model`; the message names the first differences and the registered variant that would fit.
    """
    fit(read_state_dict(path), str(path), name, family, model)


def fit(
    stored: Mapping[str, Tensor], where: str, name: str, family: Family, model: nn.Module
) -> tuple[str, ...]:
    """Put weights that were read from `where` into `model`, as `load` does.

    Returns notes: what was chosen among them, and other types that they were brought to.
    """
    try:
        return tuple(fit_state_dict(model, family.renamed(stored)))
    except UnusableInput as error:
        raise UnusableInput(
            f"the checkpoint {where} does not fit {name}: {error}{_advice(stored)}"
        ) from error


def _advice(stored: Mapping[str, Tensor]) -> str:
    folded = next((key for key in stored if any(mark in key for mark in _FOLDED_MARKS)), None)
    if folded is not None:
        return (
            f"\nIt has the key {folded!r}, so it was saved after its branches had been folded; "
            "a checkpoint of the training-time network is needed."
        )
    fitting = fitting_variants(stored)
    if not fitting:
        return "\nNo registered variant fits it."
    return f"\nIt fits {' or '.join(fitting)}."


def fitting_variants(stored: Mapping[str, Tensor]) -> list[str]:
    """The registered variants whose keys and shapes are exactly those of `stored`.

    The number of classes is taken from the checkpoint's own classifier, and stated where it is not
    1000: "mobileone_s1 with num_classes=10". Networks are compared on the meta device.
    """
    fitting = []
    for family in FAMILIES:
        state = family.renamed(stored)
        classes = None
        if family.head is not None:
            head = state.get(f"{family.head}.weight")
            if head is None or head.ndim == 0:
                continue
            classes = head.shape[0]
        shapes = _shapes(state)
        for variant in family.variants:
            if shapes == _shapes(on_meta(variant, num_classes=classes).state_dict()):
                fitting.append(
                    variant if classes in (None, 1000) else f"{variant} with num_classes={classes}"
                )
    return fitting


def _shapes(state: Mapping[str, Tensor]) -> dict[str, Size]:
    counter = "num_batches_tracked"
    return {key: value.shape for key, value in state.items() if not key.endswith(counter)}
