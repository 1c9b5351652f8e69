"""One random network with its inputs, at the sizes of its example and at any others."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tests.hostile.text import IMPORTS, NAMES, Text

Size = int | str
MOST_SIZES = 14


@dataclass(frozen=True)
class Input:
    """A tensor that the network takes; a size that may vary is called by a name."""

    name: str
    shape: tuple[Size, ...]
    kind: str = "float"  # or "int", "bool"

    def tensor(self, sizes: Mapping[str, int], seed: int, dtype: torch.dtype) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        shape = [sizes[s] if isinstance(s, str) else s for s in self.shape]
        if self.kind == "int":
            return torch.randint(0, 10, shape, generator=generator)
        if self.kind == "bool":
            return torch.rand(shape, generator=generator) < 0.6
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


@dataclass
class Sample:
    """A network as text, the inputs it takes, and what the comparison has to know.

    Attributes:
        call: the example as `fold` takes it, an expression in the names of the inputs.
        sizes: name of a size -> its value in the example.
        near: name of a size -> values that the network compares it with.
        wide: folded in float64.
        coarse: it rounds to half precision inside, so that errors of 1e-2 prove nothing in float32.
        options: of `fold`.
    """

    seed: int
    text: Text
    inputs: tuple[Input, ...]
    call: str
    sizes: dict[str, int]
    near: dict[str, set[int]] = field(default_factory=dict)
    wide: bool = False
    coarse: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.wide else torch.float32

    def module(self) -> nn.Module:
        return self.text.build(self.seed).to(self.dtype)

    def example(
        self, sizes: Mapping[str, int] | None = None, seed: int = 0, dtype: torch.dtype | None = None
    ) -> Any:
        """Random inputs, as `fold` takes them."""
        tensors = {
            given.name: given.tensor(sizes or self.sizes, 1000 * seed + i, dtype or self.dtype)
            for i, given in enumerate(self.inputs)
        }
        return eval(self.call, dict(NAMES), tensors)

    def ideas(self) -> list[str]:
        return [step.idea for step in self.text.steps]

    def script(self, sizes: Mapping[str, int] | None = None) -> str:
        """A whole program that folds the network, and compares at `sizes`."""

        def call(at: Mapping[str, int]) -> str:
            lines = []
            for given in self.inputs:
                shape = ", ".join(str(at[s] if isinstance(s, str) else s) for s in given.shape)
                made = {
                    "int": f"torch.randint(0, 10, ({shape},))",
                    "bool": f"torch.rand({shape}) < 0.6",
                    "float": f"torch.randn({shape})" if shape else "torch.randn(())",
                }[given.kind]
                if given.kind == "float" and self.wide:
                    made += ".double()"
                lines.append(f"{given.name} = {made}")
            return "\n".join(lines)

        wide = ".double()" if self.wide else ""
        lines = [IMPORTS, self.text.source(), f"m = randomised(Net(), {self.seed}){wide}", call(self.sizes)]
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        lines += [f"f = rk.fold(m, {self.call}{options})", "print(f.sizes, f.notes)"]
        if sizes is not None:
            lines += [
                call(sizes),
                f"inputs = {self.call}",
                "args, kwargs = rk.inputs.normalise_inputs(inputs)",
            ]
            lines += ["print(m(*args, **kwargs))", "print(f.module(*args, **kwargs))"]
        return "\n".join(lines)


def arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments from an example as `fold` takes it."""
    if isinstance(example, Tensor):
        return (example,), {}
    if isinstance(example, dict):
        return (), example
    return tuple(example), {}


def many_sizes(sample: Sample) -> list[dict[str, int]]:
    """The example's sizes and up to thirteen others: ones, equal sides, odd and even, thresholds, zero."""
    rng = random.Random(sample.seed)
    example = sample.sizes
    names = [n for n in example if any(n in given.shape for given in sample.inputs)]
    if not names:
        return [dict(example)]
    sides = [n for n in names if not n.startswith("n")]
    tried: list[dict[str, int]] = [dict(example), dict.fromkeys(names, 1)]
    tried += [{**example, name: 1} for name in rng.sample(names, min(3, len(names)))]
    if len(sides) > 1:
        common = rng.choice([example[s] for s in sides] + [rng.randint(2, 9)])
        tried.append({**example, **dict.fromkeys(sides, common)})
        tried.append({**dict.fromkeys(names, rng.randint(2, 6))})
    near = [(name, value + d) for name, values in sample.near.items() for value in values for d in (-1, 0, 1)]
    tried += [{**example, name: size} for name, size in rng.sample(near, min(3, len(near))) if size > 0]
    tried.append({name: size + 1 for name, size in example.items()})
    tried.append({**example, rng.choice(names): 0})
    tried.append(
        {**example, **{n: 1 for n in names if n.startswith("n")}, **{s: example[s] + 2 for s in sides}}
    )
    while len(tried) < 2 * MOST_SIZES:
        tried.append(
            {**example, **{n: rng.randint(1, 10) for n in rng.sample(names, rng.randint(1, len(names)))}}
        )
    distinct: list[dict[str, int]] = []
    for sizes in tried:
        full = {**example, **sizes}
        if full not in distinct:
            distinct.append(full)
    return distinct[:MOST_SIZES]
