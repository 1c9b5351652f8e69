"""timm's networks: ``timm:NAME`` with random weights, ``timm:NAME.TAG`` and ``hf-hub:timm/…`` pretrained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from reparamkit.errors import UnusableInput
from reparamkit.loading.inputs_said import said
from reparamkit.loading.libraries.importing import (
    RANDOM,
    drawn_from_seed,
    fitted,
    hub_reached_or_offline,
    imported,
    mentioned,
    registered,
)
from reparamkit.loading.registry import Named, Stored, nearest
from reparamkit.support.text import one_line

_HUB = ("hf-hub:", "hf_hub:", "local-dir:")


def names() -> Iterable[str]:
    """timm's networks, as its sources have them."""
    return registered("timm")


def known(name: str) -> bool:
    """Whether timm has it, under its own name or an older one; the tag behind a dot does not matter."""
    base = name.partition(".")[0]
    return name.startswith(_HUB) or "/" in name or base in registered("timm") or base in mentioned("timm")


def build(name: str, arguments: Mapping[str, Any], stored: Stored | None, *, trusted: bool) -> Named:
    """The network in evaluation mode; see `reparamkit.loading.registry.Provider`."""
    timm = imported("timm", name)
    own = name.removeprefix("timm:")
    if not own.startswith(_HUB):
        _require(timm, own)
    base, _, tag = own.partition(".")
    asked = {"pretrained": bool(tag) or own.startswith(_HUB), **arguments}
    if stored is not None:
        asked["pretrained"] = False
    from reparamkit.support.quiet import quiet

    try:
        with quiet(), drawn_from_seed(), hub_reached_or_offline():
            model = timm.create_model(own, **asked).eval()
    except TypeError as error:
        raise UnusableInput(f"--model-args: timm's {own} does not take them: {error}") from error
    except Exception as error:
        raise _refused(timm, own, base, asked, error) from error
    notes: tuple[str, ...] = ()
    if stored is not None:
        notes = fitted(model, stored, name)
    elif not asked["pretrained"]:
        notes = (f"{name}: {RANDOM} (pretrained ones have a tag, such as {_tagged(timm, base)})",)
    inputs, who = said(model)
    return Named(model, base.rpartition("/")[2], inputs, who, notes)


def _require(timm: Any, own: str) -> None:
    base = own.partition(".")[0]
    if timm.is_model(base):
        return
    close = nearest(base, timm.list_models())
    meant = f"; did you mean {', '.join(f'timm:{one}' for one in close)}?" if close else ""
    raise UnusableInput(f"timm has no network {base!r}{meant}")


def _tags(timm: Any, base: str) -> list[str]:
    try:
        return [one for one in timm.list_pretrained(f"{base}.*") if one.startswith(f"{base}.")]
    except Exception:  # only what a message says depends on it
        return []


def _tagged(timm: Any, base: str) -> str:
    tags = _tags(timm, base)
    return f"timm:{tags[0]}" if tags else "timm:NAME.TAG"


def _refused(timm: Any, own: str, base: str, asked: Mapping[str, Any], error: Exception) -> UnusableInput:
    text = one_line(error, 200)
    if "pretrained tag" in text:
        tags = nearest(own, _tags(timm, base)) or _tags(timm, base)[:3]
        has = f"; it has {', '.join(f'timm:{one}' for one in tags)}" if tags else "; it has none"
        return UnusableInput(f"timm has no weights {own!r}{has}")
    if own.startswith(_HUB) or asked["pretrained"]:
        repository = own.partition(":")[2] if own.startswith(_HUB) else f"timm/{own}"
        otherwise = "" if own.startswith(_HUB) else f", or say timm:{base} for random weights"
        return UnusableInput(
            f"the weights of {own} cannot be had here ({type(error).__name__}: {text}). With a connection, "
            f"hf download {repository} --local-dir DIR; then give DIR{otherwise}"
        )
    return UnusableInput(f"timm cannot build {own}: {type(error).__name__}: {text}")
