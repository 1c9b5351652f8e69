"""What `expand` did, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from reparamkit.errors import UnusableInput

_ATTRIBUTE = "reparamkit_expansion"


@dataclass(frozen=True)
class Expansion:
    """A convolution that became a block.

    Attributes:
        where: its name in the network, that of the block now.
        also: further names of the same module.
        layer: what it was ("Conv2d 64 -> 64, 3x3").
        branches: the names of the branches.
    """

    where: str
    also: tuple[str, ...]
    layer: str
    branches: tuple[str, ...]


@dataclass(frozen=True)
class LeftAlone:
    """A convolution that stays as it was, and why."""

    where: str
    layer: str
    reason: str


@dataclass(frozen=True)
class ExpansionReport:
    """What became of the convolutions that were asked for.

    Attributes:
        kind: repvgg, mobileone, dbb, acb or replk.
        expanded: those that became blocks, in the order of the network.
        left: those that did not, each with the reason.
        error: the largest error of the network's outputs and of any block, in float64, relative to the
            largest value of the output.
        notes: what else the caller should know.
    """

    kind: str
    expanded: tuple[Expansion, ...]
    left: tuple[LeftAlone, ...]
    error: float
    notes: tuple[str, ...]

    def __str__(self) -> str:
        layers = f"{len(self.expanded)} convolution{'s' if len(self.expanded) != 1 else ''}"
        lines = [
            f"{layers} expanded into {self.kind} blocks; largest relative error in float64 {self.error:.0e}"
        ]
        lines += [f"{one.where}: {one.layer} -> {' + '.join(one.branches)}" for one in self.expanded]
        lines += [f"{one.where}: {one.layer} left as it is: {one.reason}" for one in self.left]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def attach(module: nn.Module, report: ExpansionReport) -> None:
    """Keep a report with the network; it goes along into copies and pickles."""
    setattr(module, _ATTRIBUTE, report)


def expansion_report(module: nn.Module) -> ExpansionReport:
    """What `rk.expand` did to make this network: each block, and each convolution left alone with the reason.

    Args:
        module: what `rk.expand` returned, or a copy of it.

    Raises:
        UnusableInput: `rk.expand` did not make it.
    """
    report = getattr(module, _ATTRIBUTE, None)
    if not isinstance(report, ExpansionReport):
        raise UnusableInput(f"there is no report: rk.expand did not make this {type(module).__name__}")
    return report
