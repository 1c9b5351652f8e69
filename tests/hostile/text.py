"""A network as lines of Python: easily printed, taken apart line by line, and built anew in a moment."""

from __future__ import annotations

import linecache
import math
import textwrap
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from tests.nets import randomised


@dataclass
class Pair:
    """Two values as one argument or one result."""

    first: Any
    second: Any


class Point(NamedTuple):
    first: Any
    second: Any


NAMES: dict[str, Any] = {
    "torch": torch,
    "nn": nn,
    "F": F,
    "np": np,
    "math": math,
    "Tensor": Tensor,
    "SimpleNamespace": SimpleNamespace,
    "parametrizations": parametrizations,
    "parametrize": parametrize,
    "Pair": Pair,
    "Point": Point,
}
IMPORTS = """\
import math
from types import SimpleNamespace
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from tests.hostile.text import Pair, Point
from tests.nets import randomised
import reparamkit as rk
"""


@dataclass(frozen=True)
class Step:
    """Some lines of `forward`, and those of `__init__` that they need."""

    body: tuple[str, ...]
    init: tuple[str, ...] = ()
    idea: str = ""


@dataclass(frozen=True)
class Text:
    """The source of a network: `forward(signature)` runs `opening`, the steps, and returns `result`."""

    signature: str = "x"
    opening: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    result: str = "y"
    closing: tuple[str, ...] = field(default=())

    def with_step(self, step: Step) -> Text:
        return replace(self, steps=(*self.steps, step))

    def source(self) -> str:
        """The class `Net`, without imports."""
        init = [line for step in self.steps for line in step.init]
        body = [*self.opening, *(line for step in self.steps for line in step.body), *self.closing]
        lines = ["class Net(nn.Module):", "    def __init__(self):", "        super().__init__()"]
        lines += textwrap.indent("\n".join(init), " " * 8).splitlines()
        lines += ["", f"    def forward(self, {self.signature}):"]
        lines += textwrap.indent("\n".join([*body, f"return {self.result}"]), " " * 8).splitlines()
        return "\n".join(lines) + "\n"

    def build(self, seed: int) -> nn.Module:
        """A network in eval mode, its weights drawn from `seed`, float32."""
        source = self.source()
        name = f"<network {seed} {hash(source) & 0xFFFFFFFF:x}>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        space = dict(NAMES)
        exec(compile(source, name, "exec"), space)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return randomised(space["Net"](), seed)
