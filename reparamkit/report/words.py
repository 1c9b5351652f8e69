"""Operators, layers and places in words, the same in every report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol


class Drawn(Protocol):
    """One operator of a network (see `Outlined` in `report.findings`)."""

    @property
    def operator(self) -> str: ...
    @property
    def window(self) -> Sequence[int]: ...
    @property
    def stride(self) -> Sequence[int]: ...
    @property
    def dilation(self) -> Sequence[int]: ...
    @property
    def channels(self) -> tuple[int, int] | None: ...
    @property
    def groups(self) -> int: ...


def short(operator: str) -> str:
    """aten.batch_norm.default -> batch_norm."""
    parts = operator.split(".")
    return parts[1] if len(parts) > 1 else operator


def number(count: int, what: str) -> str:
    """Such as "1 fold" and "2 folds"."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def operator_words(call: Drawn) -> str:
    """Such as "conv2d 3×3, stride 2, groups 4"; what is one is left out."""
    words = [f"{call.operator} {'×'.join(map(str, call.window))}" if call.window else call.operator]
    for name, values in (("stride", call.stride), ("dilation", call.dilation)):
        if any(value != 1 for value in values):
            same = len(set(values)) == 1
            words.append(f"{name} {values[0] if same else '×'.join(map(str, values))}")
    if call.groups > 1:
        words.append("depthwise" if _is_depthwise(call) else f"groups {call.groups}")
    return ", ".join(words)


def _is_depthwise(call: Drawn) -> bool:
    return call.channels is not None and call.groups == call.channels[0] == call.channels[1]


def channels_words(call: Drawn) -> str:
    """Such as "48 → 64"; "" where it has none."""
    return "" if call.channels is None else f"{call.channels[0]} → {call.channels[1]}"


def counted_words(operators: dict[str, int]) -> str:
    """Such as "5 conv2d + 4 add"."""
    return " + ".join(f"{count} {short(name)}" for name, count in operators.items())


def size_words(count: float) -> str:
    """A number with three digits and its power of a thousand: "1.05 G", "275 M", "512"."""
    for power, sign in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= power:
            value = count / power
            return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}{sign}"
    return f"{count:.0f}"


def ratio_words(old: float, new: float) -> str:
    """How many times fewer, or by how much if it is little: "3.82 × fewer", "−0.7 %"."""
    if not old or not new:
        return ""
    change = new / old
    if 0.9995 <= change < 1.0005:
        return "unchanged"
    if 0.9 <= change < 1.1:
        return f"{'+' if change > 1 else '−'}{abs(100 * (change - 1)):.1f} %"
    return f"{old / new:.2f} × fewer" if change < 1 else f"{change:.2f} × as many"


def places_words(places: Sequence[str]) -> str:
    """Places in one phrase: "stem", "stage2.1, stage2.3", "stage2.1 … stage2.15"."""
    named = [place or "(the network)" for place in dict.fromkeys(places)]
    return ", ".join(named) if len(named) <= 2 else f"{named[0]} … {named[-1]}"


def without_names(text: str) -> str:
    """A reason without the names and numbers in it: equal for reasons of one kind."""
    return re.sub(r"\b[A-Za-z_]\w*(\.\w+)+\b|'[^']*'|[0-9.]+", "", text)
