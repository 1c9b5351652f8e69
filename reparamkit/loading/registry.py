"""Who builds the network of a name: rooms above say so, and are imported when a name of theirs is asked for.

A name has a scheme, ``timm:resnet18``, or none, ``mobileone_s0``. Behind each stands a module with the
functions of `Provider`. Nothing here imports torch, so what is wrong with a name is known at once.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from reparamkit.errors import MissingExtra, UnusableInput

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reparamkit.loading.opened import Source


@dataclass(frozen=True)
class Named:
    """A network that was built by its name.

    Attributes:
        model: in whatever mode it comes.
        stem: names the files that are made of it.
        example_inputs: what to call it with; None where its library does not say.
        inferred: who says so, for a note: "timm's pretrained_cfg"; empty for what needs no note.
        notes: what else was done.
    """

    model: nn.Module
    stem: str
    example_inputs: tuple[Any, ...] | None = None
    inferred: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stored:
    """Weights that go into a network: `tensors` by name, `where` they come from, for messages."""

    tensors: Mapping[str, Tensor]
    where: str


class Provider(Protocol):
    """What a module that builds networks by name has."""

    def names(self) -> Iterable[str]:
        """All names, without the scheme; empty where there is no end of them. Imports no torch."""

    def known(self, name: str) -> bool:
        """Whether there may be a network of that name, given without the scheme. Imports no torch."""

    def build(
        self, name: str, arguments: Mapping[str, Any], stored: Stored | None, *, trusted: bool
    ) -> Named:
        """The network.

        Args:
            name: with its scheme.
            arguments: for the library's own function.
            stored: weights to put in, in place of random ones.
            trusted: code that the name leads to may run.

        Raises:
            UnusableInput: there is none of that name, it does not take these arguments, or the weights are
                another's.
            MissingExtra: the library is not installed.
        """


class Checkpoints(Protocol):
    """What a module that opens folders of training has."""

    def open_source(
        self, path: Path, *, model: str | None, trusted: bool, kind: str | None, arguments: str | None
    ) -> Source:
        """The network in the folder; see `reparamkit.loading.source.load`."""


@dataclass(frozen=True)
class _Entry:
    home: str
    package: str | None


_ENTRIES: dict[str, _Entry] = {}
_CHECKPOINTS: list[str] = []


def register(scheme: str, home: str, package: str | None = None) -> None:
    """Say who builds the names of a scheme.

    Args:
        scheme: "timm"; empty for plain names.
        home: the module, by its name, with the functions of `Provider`.
        package: what has to be installed for it.
    """
    _ENTRIES[scheme] = _Entry(home, package)


def register_checkpoints(home: str) -> None:
    """Say who opens folders of training: the module, by its name, with the functions of `Checkpoints`."""
    _CHECKPOINTS[:] = [home]


def scheme_of(text: str) -> str:
    """The scheme of a name; empty where it has none that is known."""
    scheme, colon, rest = text.partition(":")
    return scheme if colon and rest and scheme in _ENTRIES else ""


def schemes() -> list[str]:
    """All schemes, in the order in which they were registered."""
    return [scheme for scheme in _ENTRIES if scheme]


def provider(scheme: str) -> Provider:
    """The module behind a scheme.

    Raises:
        MissingExtra: the package that it needs is not installed.
    """
    require_package(scheme)
    return cast(Provider, importlib.import_module(_ENTRIES[scheme].home))


def require_package(scheme: str, wanted: str = "") -> None:
    """Find out whether what a scheme needs is installed, without importing it.

    Args:
        wanted: what needs it, for the message; by default names of the scheme.

    Raises:
        MissingExtra: it is not.
    """
    package = _ENTRIES[scheme].package
    if package is not None and not is_installed(package):
        raise MissingExtra(package, None, wanted or f"a name that begins with {scheme}:")


def is_installed(package: str) -> bool:
    """Whether a package can be found; nothing is imported."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def checkpoints() -> Checkpoints:
    """The module that opens folders of training."""
    return cast(Checkpoints, importlib.import_module(_CHECKPOINTS[0]))


def plain_names() -> list[str]:
    """All names without a scheme."""
    return list(provider("").names()) if "" in _ENTRIES else []


def is_plain(text: str) -> bool:
    """Whether the text is a name without a scheme; case, ``-`` and ``_`` do not matter."""
    return "" in _ENTRIES and provider("").known(text)


def _squeezed(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def nearest(name: str, among: Iterable[str], count: int = 3) -> list[str]:
    """The names that are most like one, at most `count`."""
    return difflib.get_close_matches(name.strip().lower().replace("-", "_"), list(among), n=count, cutoff=0.6)


def require_known(scheme: str, text: str) -> None:
    """Find out whether a name with a scheme can be one, without importing its library.

    Raises:
        UnusableInput: it cannot, with the names that are most like it.
        MissingExtra: the library is not installed.
    """
    require_package(scheme, text)
    behind, name = provider(scheme), text.partition(":")[2]
    if behind.known(name):
        return
    close = nearest(name.partition(".")[0], behind.names())
    meant = f"; did you mean {', '.join(f'{scheme}:{one}' for one in close)}?" if close else ""
    raise UnusableInput(f"{_ENTRIES[scheme].package or scheme} has no network {name!r}{meant}")


def unknown_plain(text: str, option: str = "") -> UnusableInput:
    """What to say of a name without a scheme that nobody has; `option` is where it was given, "--model "."""
    for scheme in ("timm", "torchvision"):
        package = _ENTRIES[scheme].package if scheme in _ENTRIES else None
        if package is None or not is_installed(package):
            continue
        own = _squeezed(text.partition(".")[0])
        named = next((name for name in sorted(provider(scheme).names()) if _squeezed(name) == own), None)
        if named is not None:
            tag = text[len(text.partition(".")[0]) :]
            return UnusableInput(
                f"{option}{text!r} is no reference model; {scheme} has it: say {scheme}:{named}{tag}"
            )
    close = nearest(text, plain_names())
    meant = f"did you mean {', '.join(close)}? " if close else ""
    what = "is" if option else "is no file and"
    return UnusableInput(
        f"{option}{text!r} {what} not the name of a reference model: {meant}`reparamkit models` lists "
        f"them; other networks are named {', '.join(f'{one}:NAME' for one in schemes())}, "
        f"package.module:callable or file.py:callable"
    )
