"""Names of outputs: in files, and of those that are to be kept."""

from __future__ import annotations

from collections.abc import Sequence

from reparamkit.errors import UnusableInput


def plain_names(outputs: Sequence[str]) -> list[str]:
    """Names for a file's outputs from places in a Python structure ("map.0" becomes "map_0")."""
    plain = [name.replace(".", "_") for name in outputs]
    return [f"output_{name}" if name[0].isdigit() else name for name in plain]


def keep_of(text: str) -> int | tuple[str, ...]:
    """Which outputs a user asks for on the command line: how many of the first, or their names.

    Raises:
        UnusableInput: none, or an empty name.
    """
    if text.isascii() and text.isdigit():
        if int(text) == 0:
            raise UnusableInput(
                "--outputs 0 keeps nothing: say how many of the first outputs, or their names"
            )
        return int(text)
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise UnusableInput(f"--outputs {text}: a name is empty; give names with commas between")
    return names


def chosen(keep: int | str | Sequence[str], names: Sequence[str]) -> list[str]:
    """Which outputs are meant, in the network's own order.

    Args:
        keep: how many of the first; or names: an output's own ("map.0"), what it is called in files
            ("map_0"), or that of something that holds several ("map").
        names: all outputs.

    Raises:
        UnusableInput: there is no such output, with those that there are.
    """
    listed = ", ".join(
        f"{name} ({plain})" if name != plain else name
        for name, plain in zip(names, plain_names(names), strict=True)
    )
    if isinstance(keep, bool) or not isinstance(keep, (int, str, list, tuple)):
        raise UnusableInput(f"outputs to keep are a number or names, not a {type(keep).__name__}")
    if isinstance(keep, int):
        if not 0 < keep <= len(names):
            raise UnusableInput(
                f"the first {keep} outputs cannot be kept: the network has {len(names)} ({listed})"
            )
        return list(names[:keep])
    wanted = [keep] if isinstance(keep, str) else list(keep)
    if not wanted:
        raise UnusableInput(f"no output is to be kept: name some of {listed}")
    kept = set()
    for name in wanted:
        meant = [
            own
            for own, plain in zip(names, plain_names(names), strict=True)
            if name in (own, plain) or own.startswith(f"{name}.")
        ]
        if not meant:
            raise UnusableInput(f"the network has no output {name!r}: its outputs are {listed}")
        kept |= set(meant)
    return [name for name in names if name in kept]
