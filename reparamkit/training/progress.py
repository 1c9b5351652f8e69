"""A bar for each epoch, on a terminal: loss, accuracy, images per second, time left."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from tqdm import tqdm


class Progress:
    """One epoch of `updates`, of which `first` are over; it goes away when it is done."""

    def __init__(self, title: str, updates: int, first: int, *, enabled: bool) -> None:
        self._bar: Any = tqdm(
            total=updates,
            initial=first,
            desc=title,
            unit="update",
            leave=False,
            dynamic_ncols=True,
            disable=None if enabled else True,  # None: off where stderr is no terminal
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def step(self, loss: float, accuracy: float, images_per_second: float) -> None:
        """One update more, and the means of the epoch so far."""
        figures = {"loss": f"{loss:.4f}"}
        if accuracy == accuracy:
            figures["top-1"] = f"{accuracy:.1%}"
        figures["images/s"] = f"{images_per_second:.0f}"
        self._bar.set_postfix(figures, refresh=False)
        self._bar.update()
