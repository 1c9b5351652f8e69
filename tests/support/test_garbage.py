"""The collector walks through what is new alone, unless somebody else has told it what to leave out."""

from __future__ import annotations

import pytest

from reparamkit.support import garbage


class Collector:
    """Counts as `gc` does."""

    def __init__(self, frozen: int = 0) -> None:
        self.frozen, self.asked = frozen, 0

    def freeze(self) -> None:
        self.frozen += 10

    def unfreeze(self) -> None:
        self.frozen = 0

    def get_freeze_count(self) -> int:
        self.asked += 1
        return self.frozen


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Collector:
    made = Collector()
    monkeypatch.setattr(garbage, "gc", made)
    monkeypatch.setattr(garbage, "_frozen", {"by us": False, "by others": False})
    return made


def test_what_was_there_is_frozen_while_it_lasts(collector: Collector) -> None:
    with garbage.only_new_garbage():
        assert collector.frozen
        garbage.make_old()
        with garbage.only_new_garbage():
            pass
        assert collector.frozen, "what lies inside must not undo it"
    assert not collector.frozen
    garbage.make_old()
    assert not collector.frozen


def test_what_others_have_frozen_stays_so_and_is_counted_once(collector: Collector) -> None:
    collector.frozen = 7
    for _ in range(3):
        garbage.make_old()
        with garbage.only_new_garbage():
            assert collector.frozen == 7
    assert (collector.frozen, collector.asked) == (7, 1)
