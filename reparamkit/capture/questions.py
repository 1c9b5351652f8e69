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
_ANSWERS = (
    (torch.SymBool, "__bool__"),
    (torch.SymBool, "__int__"),
    (torch.SymFloat, "__bool__"),
    (torch.SymInt, "__int__"),
    (torch.SymInt, "__index__"),
)
"""How a symbol becomes an answer. A `SymInt` asks for itself != 0, and by `int` for its value."""
_TORCH = f"{Path(torch.__file__).parent}/"
_LAYERS = f"{_TORCH}nn/"


@contextmanager
def questions_recorded() -> Iterator[list[Any]]:
    """What Python code outside of torch's operators finds to be true of symbolic sizes meanwhile."""
    true: list[Any] = []
    before = [(kind, name, vars(kind)[name]) for kind, name in _ANSWERS]
    for kind, name, answer in before:
        setattr(kind, name, _recording(answer, true))
    try:
        yield true
    finally:
        for kind, name, answer in before:
            setattr(kind, name, answer)


def _recording(answer: Callable[[Any], Any], true: list[Any]) -> Callable[[Any], Any]:
    def recorded(self: Any) -> Any:
        asked = getattr(self.node, "expr", None)
        if not isinstance(asked, sympy.Basic) or not asked.free_symbols or not _network_asks():
            return answer(self)
        if isinstance(self, torch.SymFloat):
            asked = sympy.Ne(asked, 0)
        answered = answer(self)
        if isinstance(self, torch.SymInt):
            true.append(sympy.Eq(asked, answered))
            return answered
        is_so = answered if isinstance(answered, bool) else self.node.bool_()
        true.append(asked if is_so else sympy.Not(asked))
        return answered

    return recorded


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
