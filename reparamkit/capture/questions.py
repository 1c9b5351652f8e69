"""What the network itself asks of sizes while it is captured.

torch.export writes down how each question was answered, and not what hangs on it: behind `batch == 1` there
may be another question (`batch == 1 and width > 20`) that is never asked at the example. That the network
does the same at one point where the answer is another shows nothing of the points around it. What torch's
operators ask on their own account is no branch of the network, and is left out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sympy  # type: ignore[import-untyped]
import torch
from torch.export import ExportedProgram

_ASKED = "what the network asked of sizes"
_TORCH = f"{Path(torch.__file__).parent}/"
_LAYERS = f"{_TORCH}nn/"


@contextmanager
def questions_recorded() -> Iterator[list[Any]]:
    """What Python code outside of torch's operators finds to be true of symbolic sizes meanwhile."""
    true: list[Any] = []
    answer: Callable[[Any], bool] = torch.SymBool.__bool__

    def recorded(self: Any) -> bool:
        asked = getattr(self.node, "expr", None)
        answered = answer(self)
        if isinstance(asked, sympy.Basic) and asked.free_symbols and _network_asks():
            true.append(asked if answered else sympy.Not(asked))
        return answered

    torch.SymBool.__bool__ = recorded  # type: ignore[method-assign]
    try:
        yield true
    finally:
        torch.SymBool.__bool__ = answer  # type: ignore[method-assign]


def remember(exported: ExportedProgram, questions: list[Any]) -> None:
    """Note with a program what was asked while it was captured."""
    exported.graph_module.meta[_ASKED] = questions


def questions_of(exported: ExportedProgram) -> list[Any]:
    """What was found to be true of symbolic sizes, each once, in terms of what they turned out to be."""
    shapes = [
        n.meta["val"].shape for n in exported.graph.nodes if isinstance(n.meta.get("val"), torch.Tensor)
    ]
    environment = next(
        (s.node.shape_env for shape in shapes for s in shape if isinstance(s, torch.SymInt)), None
    )
    if environment is None:
        return []
    asked = dict.fromkeys(exported.graph_module.meta.get(_ASKED, ()))
    return list(dict.fromkeys(environment.simplify(environment.replace(each)) for each in asked))


def _network_asks() -> bool:
    frame = sys._getframe(2)
    while frame.f_code.co_filename == torch.__file__ and frame.f_back is not None:
        frame = frame.f_back
    asker = frame.f_code.co_filename
    return not asker.startswith(_TORCH) or asker.startswith(_LAYERS)
