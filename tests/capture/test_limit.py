"""The time limit on captures: it ends what runs, spares what has run, and leaves nothing behind."""

from __future__ import annotations

import importlib
import sys
import threading
import time
from pathlib import Path

import pytest

from reparamkit.capture.limit import OutOfTime, limited


def _busy(seconds: float) -> int:
    until, count = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        count += 1
    return count


def _watchers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "reparamkit-limit"]


def test_a_block_that_takes_too_long_is_ended_in_time() -> None:
    start = time.monotonic()
    with pytest.raises(OutOfTime), limited(0.1):
        _busy(20)
    assert time.monotonic() - start < 5


def _work(seconds: float) -> None:
    """Use that much of the processor's time."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere Python cannot tell how long a thread worked")
def test_what_others_do_meanwhile_takes_no_time_away() -> None:
    stop = threading.Event()

    def compete() -> None:
        while not stop.is_set():
            pass

    others = [threading.Thread(target=compete, daemon=True) for _ in range(4)]
    for other in others:
        other.start()
    start = time.monotonic()
    try:
        with limited(0.4):
            _work(0.2)
        assert time.monotonic() - start > 0.4  # by the clock on the wall it was over
        with pytest.raises(OutOfTime), limited(0.1):
            _work(20)
    finally:
        stop.set()
        for other in others:
            other.join()


def _wait(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.01)


def test_a_block_that_only_waits_is_ended_too() -> None:
    start = time.monotonic()
    with pytest.raises(OutOfTime), limited(0.05):
        _wait(20)
    assert time.monotonic() - start < 5


def _swallowing(kind: type[BaseException], times: int) -> list[BaseException]:
    """Work for 20 s, and swallow the first few exceptions of that kind."""
    caught: list[BaseException] = []
    start = time.monotonic()
    while time.monotonic() - start < 20:
        try:
            _busy(0.05)
        except kind as error:
            caught.append(error)
            if len(caught) > times:
                raise
    return caught


def test_a_block_that_swallows_every_exception_is_ended_all_the_same() -> None:
    """Solvers do; so it is no `Exception`."""
    start = time.monotonic()
    with pytest.raises(OutOfTime), limited(0.1):
        _swallowing(Exception, 1000)
    assert time.monotonic() - start < 5


def test_a_block_that_swallows_the_first_one_gets_another() -> None:
    start = time.monotonic()
    with pytest.raises(OutOfTime), limited(0.1):
        _swallowing(OutOfTime, 1)
    assert 1 < time.monotonic() - start < 8


def test_a_block_in_time_gives_its_result_and_nothing_arrives_later() -> None:
    with limited(0.15):
        result = _busy(0.01)
    assert result > 0
    _busy(0.4)
    assert _watchers() == []


def test_an_error_of_the_block_passes() -> None:
    with pytest.raises(ZeroDivisionError), limited(5):
        _ = 1 / 0
    assert _watchers() == []


def test_no_limit_starts_no_watcher() -> None:
    with limited(None):
        assert _watchers() == []


def test_a_limit_in_another_thread_ends_that_thread_only() -> None:
    ended: list[str] = []

    def work() -> None:
        try:
            with limited(0.1):
                _busy(20)
        except OutOfTime:
            ended.append("worker")

    thread = threading.Thread(target=work)
    thread.start()
    _busy(0.3)
    thread.join(10)
    assert ended == ["worker"]


@pytest.mark.parametrize("length", [0.04, 0.05, 0.06])
def test_a_block_that_ends_as_the_limit_strikes_leaves_nothing_pending(length: float) -> None:
    for _ in range(10):
        try:
            with limited(0.05):
                _busy(length)
        except OutOfTime:
            pass
        _busy(0.005)
    assert _watchers() == []


def test_what_follows_is_not_slowed_down() -> None:
    """Clearing a pending exception leaves CPython's eval breaker set."""
    before = max(_busy(0.05) for _ in range(5))
    with pytest.raises(OutOfTime), limited(0.05):
        _busy(10)
    after = max(_busy(0.05) for _ in range(5))
    assert after > before / 4


def test_no_import_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of which only a part was imported would be broken for the rest of the process."""
    package = tmp_path / "slow_to_import"
    package.mkdir()
    (package / "__init__.py").write_text("import slow_to_import.first\nimport slow_to_import.second\n")
    waiting = (
        "import time\nuntil = time.monotonic() + 0.3\nwhile time.monotonic() < until:\n    pass\nx = 1\n"
    )
    (package / "first.py").write_text(waiting)
    (package / "second.py").write_text(waiting)
    monkeypatch.syspath_prepend(tmp_path)

    def imports_and_works() -> None:
        importlib.import_module("slow_to_import")
        _busy(20)

    with pytest.raises(OutOfTime), limited(0.4):
        imports_and_works()
    assert importlib.import_module("slow_to_import").first.x == 1
