"""The reference models, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.table import Table


class Paper(Protocol):
    """Where an architecture was published."""

    @property
    def title(self) -> str:
        """As printed."""

    @property
    def authors(self) -> str:
        """All of them."""

    @property
    def year(self) -> int:
        """Of publication."""

    @property
    def arxiv(self) -> str:
        """The arXiv identifier."""


class Model(Protocol):
    """What is known of a reference model."""

    @property
    def name(self) -> str:
        """As `create` takes it."""

    @property
    def family(self) -> str:
        """The architecture."""

    @property
    def paper(self) -> Paper:
        """Its source."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""

    @property
    def parameters(self) -> int:
        """Of the training-time network."""

    @property
    def folded_parameters(self) -> int:
        """Of what is left of it after folding."""


def show_all(models: Sequence[Model], console: Console) -> None:
    """One line a model."""
    table = Table(box=None, pad_edge=False)
    table.add_column("model")
    table.add_column("parameters", justify="right")
    table.add_column("folded", justify="right")
    table.add_column("input")
    table.add_column("paper")
    for model in models:
        table.add_row(
            model.name,
            _millions(model.parameters),
            _millions(model.folded_parameters),
            _shape(model),
            f"{model.paper.title} ({model.paper.year})",
        )
    console.print(table)


def show_one(model: Model, console: Console) -> None:
    """All that is known of one model."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("model", model.name)
    table.add_row("family", model.family)
    table.add_row("parameters", f"{_millions(model.parameters)} as trained")
    table.add_row("", f"{_millions(model.folded_parameters)} folded")
    table.add_row("input", _shape(model))
    table.add_row("paper", f"{model.paper.authors}: {model.paper.title}. {model.paper.year}")
    table.add_row("", f"https://arxiv.org/abs/{model.paper.arxiv}")
    table.add_row("fold it", f"reparamkit fold {model.name} -o {model.name}.onnx")
    console.print(table)


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.3f} M"


def _shape(model: Model) -> str:
    return "x".join(map(str, model.input_shape))
