"""Grows a network step by step: what does not run on the example is not written."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from reparamkit.support.quiet import quiet
from tests.hostile.sample import Input, Sample, arguments
from tests.hostile.text import Step, Text

T = TypeVar("T")
Lines = str | list[str] | tuple[list[str], list[str]] | None
Idea = Callable[["Writer"], Lines]
IDEAS: dict[str, list[Idea]] = {}
"""Theme -> what may be written. An idea gives the lines of `forward`, or these and those of `__init__`."""

_MOST_ELEMENTS = 30_000


def idea(theme: str, times: int = 1) -> Callable[[Idea], Idea]:
    """Enter an idea under a theme, to be drawn `times` as often as others."""

    def enter(function: Idea) -> Idea:
        IDEAS.setdefault(theme, []).extend([function] * times)
        return function

    return enter


class Writer:
    """What an idea sees: the current value `y`, its input `x` (and `z`), and a source of randomness."""

    def __init__(
        self, seed: int, rng: random.Random, inputs: tuple[Input, ...], sizes: dict[str, int]
    ) -> None:
        self.seed, self.rng, self.inputs, self.sizes = seed, rng, inputs, sizes
        self.call = "x"
        self.text = Text()
        self.near: dict[str, set[int]] = {}
        self.coarse = False
        self.ncs = False
        """y is (N, 4, *spatial), the spatial axes those of x."""
        self.y: Tensor = torch.zeros(())
        self._names = 0

    # drawing

    def pick(self, choices: Sequence[T]) -> T:
        return self.rng.choice(choices)

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def name(self, stem: str = "m") -> str:
        self._names += 1
        return f"{stem}{self._names}"

    @property
    def rank(self) -> int:
        return self.y.ndim

    def axis(self) -> int:
        """Some axis of y, counted from either end."""
        axis = self.rng.randrange(max(1, self.rank))
        return axis - self.rank if self.chance(0.4) and self.rank else axis

    @property
    def free(self) -> list[tuple[int, str]]:
        """Axis of x -> the name of its size, for those that may vary."""
        return [(axis, size) for axis, size in enumerate(self.inputs[0].shape) if isinstance(size, str)]

    def size(self) -> tuple[str, str]:
        """A size of x as an expression, and its name."""
        axis, name = self.pick(self.free)
        rank = len(self.inputs[0].shape)
        spellings = [
            f"x.shape[{axis}]",
            f"x.size({axis})",
            f"x.shape[{axis - rank}]",
            f"x.size({axis - rank})",
        ]
        if axis == 0:
            spellings += ["len(x)", "x.shape[0]"]
        return self.pick(spellings), name

    def close_to(self, name: str, but_example: bool = False) -> int:
        """A number near the example's value of a size, which the comparison will try."""
        size = self.sizes[name]
        value = max(1, size + self.pick([-3, -2, -1, -1, 1, 1, 2, 3] + ([] if but_example else [0, 0])))
        if but_example and value == size:
            value += 1
        self.near.setdefault(name, set()).add(value)
        return value

    # writing

    def lines(self, which: Idea) -> Step | None:
        drawn = which(self)
        if drawn is None:
            return None
        body, init = drawn if isinstance(drawn, tuple) else (drawn, [])
        body = [body] if isinstance(body, str) else body
        return Step(tuple(body), tuple(init), which.__name__)

    def write(self, which: Idea) -> bool:
        """Write what an idea gives, if it applies and runs on the example."""
        near = {name: set(values) for name, values in self.near.items()}
        step = self.lines(which)
        if step is not None and self.accepts(step):
            return True
        self.near = near
        return False

    def accepts(self, step: Step) -> bool:
        """Take a step, if the network runs with it and gives finite numbers of a moderate count."""
        grown = self.text.with_step(step)
        y = self.run(grown)
        if not isinstance(y, Tensor) or not _moderate(y):
            return False
        self.text, self.y = grown, y
        sides = [self.sizes[s] if isinstance(s, str) else s for s in self.inputs[0].shape[2:]]
        self.ncs = y.is_floating_point() and list(y.shape[1:]) == [4, *sides]
        return True

    def run(self, text: Text) -> Any:
        """What a text returns for the example; None if it raises."""
        sample = self.sample(text)
        args, kwargs = arguments(sample.example())
        try:
            with torch.no_grad(), quiet():
                return text.build(self.seed)(*args, **kwargs)
        except Exception:  # whatever the line raises: it is not written
            return None

    def close(self, result: str, closing: Sequence[str] = ()) -> bool:
        """Return an expression instead of y, if that runs."""
        closed = replace(self.text, result=result, closing=tuple(closing))
        if self.run(closed) is None:
            return False
        self.text = closed
        return True

    def sample(self, text: Text | None = None) -> Sample:
        return Sample(
            seed=self.seed,
            text=text or self.text,
            inputs=self.inputs,
            call=self.call,
            sizes=self.sizes,
            near=self.near,
            coarse=self.coarse,
        )


def _moderate(y: Tensor) -> bool:
    if y.numel() > _MOST_ELEMENTS:
        return False
    if not y.is_floating_point():
        return True
    return bool(y.isfinite().all()) and (not y.numel() or float(y.abs().max()) < 1e4)
