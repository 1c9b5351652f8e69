"""A network as lines of Python, and who writes them: each runs at once, for the shape of its value."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.engine import spellings
from tests.nets import noise, randomised

Draw = Callable[[st.SearchStrategy[Any]], Any]
_NAMES = {"torch": torch, "F": F, "math": math, "spelt": spellings}
_MOST_ELEMENTS = 20_000


class RandomNet(nn.Module):
    """Runs `lines` of the form (name, expression in earlier names and `self`) and returns `outputs`."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str]] = []
        self.built: list[str] = []
        self.outputs: list[str] = []
        self._code: dict[str, Any] = {}

    def forward(self, x: Tensor) -> Any:
        env: dict[str, Any] = {"self": self, "x": x}
        for name, expression in self.lines:
            env[name] = self.run(expression, env)
        results = tuple(env[name] for name in self.outputs)
        return results[0] if len(results) == 1 else results

    def run(self, expression: str, env: dict[str, Any]) -> Any:
        if expression not in self._code:
            self._code[expression] = compile(expression, "<random net>", "eval")
        return eval(self._code[expression], _NAMES, env)

    @property
    def source(self) -> str:
        """The network as text."""
        lines = [f"{name} = {expression}" for name, expression in self.lines]
        return "\n".join([*self.built, *lines, f"return {', '.join(self.outputs)}"])


class Lines:
    """Grows a network line by line, and runs each at once to know the shape of its value."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.net = RandomNet()
        self.layout: dict[str, int] = {}
        """Value -> its spatial axes when it is (N, C, *spatial); -1: channels last."""
        self.env: dict[str, Any] = {"self": self.net}
        self.read: set[str] = set()
        dims = self.pick([2, 2, 2, 2, 1, 3])
        sides = [self.int(4, 8) for _ in range(dims)] if dims < 3 else [self.int(3, 5) for _ in range(3)]
        shape = (2, self.pick([2, 3, 4, 6]), *sides)
        self.example = noise(*shape)
        self.env["x"] = self.example.clone()
        self.layout["x"] = dims

    # choices

    def pick(self, options: list[Any]) -> Any:
        return self.draw(st.sampled_from(options))

    def int(self, low: builtins.int, high: builtins.int) -> builtins.int:
        return builtins.int(self.draw(st.integers(low, high)))

    def coin(self) -> bool:
        return bool(self.draw(st.booleans()))

    def factor(self) -> float:
        return float(self.pick([-1.0, 0.5, -0.75, 1.0, 1.5, 2.0]))

    # lines

    def shape(self, name: str) -> tuple[builtins.int, ...]:
        return tuple(self.env[name].shape)

    def line(self, expression: str, *reads: str, dims: builtins.int) -> str:
        """Append a line; the name of its value, or of the first value read where it does not run."""
        with torch.no_grad():
            try:
                value = self.net.run(expression, self.env)
            except (RuntimeError, ValueError):
                return reads[0]
        if value.numel() == 0 or value.numel() > _MOST_ELEMENTS or value.abs().max() > 1e4:
            # Undo what an in-place form may have done: every value is computed anew.
            self._rerun()
            return reads[0]
        name = f"v{len(self.net.lines)}"
        self.net.lines.append((name, expression))
        self.env[name] = value
        self.layout[name] = dims
        self.read.update(reads)
        return name

    def _rerun(self) -> None:
        self.env = {"self": self.net, "x": self.example.clone()}
        with torch.no_grad():
            for name, expression in self.net.lines:
                self.env[name] = self.net.run(expression, self.env)

    def module(self, module: nn.Module) -> str:
        name = f"m{len(self.net.built)}"
        randomised(module.double(), len(self.net.built))
        self.net.add_module(name, module)
        self.net.built.append(f"self.{name} = {module}".replace("\n", " "))
        return f"self.{name}"

    def tensor(self, *shape: builtins.int, parameter: bool | None = None) -> str:
        name = f"p{len(self.net.built)}"
        value = noise(*shape, seed=len(self.net.built))
        value = torch.where(value < 0, value - 0.3, value + 0.3)
        kind = self.coin() if parameter is None else parameter
        if kind:
            self.net.register_parameter(name, nn.Parameter(value))
        else:
            self.net.register_buffer(name, value)
        self.net.built.append(f"self.{name} = {'Parameter' if kind else 'buffer'}{tuple(shape)}")
        return f"self.{name}"

    def values(self, layout: builtins.int | None = None) -> list[str]:
        """Values to go on from, the latest three times as likely as the older ones."""
        names = [n for n, d in self.layout.items() if layout is None or d == layout]
        return [*names, *names[-2:], *names[-2:]]
