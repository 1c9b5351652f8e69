"""Files of other back ends, which are timed as they are: nothing can be folded in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reparamkit.benchmark.backends import BACKENDS, Backend
from reparamkit.compare.inputs.example_inputs import supply
from reparamkit.compare.inputs.input_spec import Described
from reparamkit.compare.network import open_network
from reparamkit.errors import UnusableInput
from reparamkit.support.inputs import Args, Kwargs

SUFFIXES = tuple(dict.fromkeys(suffix for backend in BACKENDS.values() for suffix in backend.files))
"""Of all files that some back end runs as they are."""


@dataclass(frozen=True)
class File:
    """A file of another back end, with what one call takes.

    Attributes:
        name: as it was named.
        path: where it lies.
        args, kwargs: the inputs.
    """

    name: str
    path: Path
    args: Args
    kwargs: Kwargs

    def backends(self, chosen: Sequence[Backend], *, asked: bool) -> list[Backend]:
        """Those of the chosen back ends that run it; with `asked` no others are thought of.

        Raises:
            UnusableInput: none of them does.
            MissingExtra: the back end is not installed.
        """
        fitting = [backend for backend in chosen if self.path.suffix in backend.files]
        if fitting:
            return fitting
        able = [backend for backend in BACKENDS.values() if self.path.suffix in backend.files]
        if asked:
            names = " and ".join(backend.name for backend in able)
            raise UnusableInput(
                f"{self.name} runs on {names}, and --backends names neither"
                if len(able) > 1
                else f"{self.name} runs on {names}, which --backends does not name"
            )
        able[0].require()
        return able[:1]


def opened_file(path: Path, described: Sequence[Described] = (), inputs: Any = None) -> File:
    """A file with inputs as it declares them, or as they are described.

    Raises:
        UnusableInput: it cannot be opened, or neither says what its inputs look like.
        MissingExtra: the package of its back end is not installed.
    """
    network = open_network(path)
    supplied = supply(network, network, inputs, described, None, 0)
    return File(str(path), path, supplied.args, supplied.kwargs)
