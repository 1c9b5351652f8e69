"""A rotation over the shares of the slow tests reaches each of them once."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.slow_share import LISTED, Share, few, on_diagonal

pytest_plugins = ("pytester",)

SHARES = 3
ALWAYS = {"test_it.py::test_fast", "test_it.py::test_some[0]"}
CASES = """
import pytest

SOME = [n if n == 0 else pytest.param(n, marks=pytest.mark.slow) for n in range(40)]

def test_fast(): pass

@pytest.mark.slow
def test_alone(): pass

@pytest.mark.parametrize("n", SOME)
def test_some(n): pass

@pytest.mark.slow
@pytest.mark.parametrize("n", range(1, 40))
def test_others(n): pass
"""
SETTINGS = """
[pytest]
addopts = --strict-markers -m "not slow" -p tests.slow_share -p no:hypothesispytest
markers =
    slow: takes long
    diagonal: of the combinations, those with a new value
"""


@pytest.fixture
def cases(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makepyfile(test_it=CASES)
    pytester.makeini(SETTINGS)
    return pytester


def selected(cases: pytest.Pytester, *arguments: str) -> list[str]:
    result = cases.runpytest("--collect-only", "-q", "-p", "no:cacheprovider", *arguments)
    assert result.ret == pytest.ExitCode.OK
    tests = [line for line in result.outlines if line.startswith("test_it.py::")]
    assert tests
    return tests


def slow(*values: object) -> object:
    return pytest.param(*values, marks=pytest.mark.slow)


def every(cases: pytest.Pytester) -> set[str]:
    return set(selected(cases, "-m", ""))


def test_nothing_slow_runs_where_nobody_asks(cases: pytest.Pytester) -> None:
    assert set(selected(cases)) == ALWAYS


@pytest.mark.parametrize("start", [0, 20_000])
def test_a_rotation_reaches_every_case_once(cases: pytest.Pytester, start: int) -> None:
    runs = [selected(cases, "--slow-share", f"{start + i}/{SHARES}") for i in range(SHARES)]
    times = Counter(test for run in runs for test in run)
    assert set(times) == every(cases)
    assert {test for test, count in times.items() if count != 1} == ALWAYS
    assert all(len(run) > len(ALWAYS) for run in runs)


def test_a_share_of_the_slow_ones_alone(cases: pytest.Pytester) -> None:
    runs = [selected(cases, "-m", "slow", "--slow-share", f"{i}/{SHARES}") for i in range(SHARES)]
    assert sorted(test for run in runs for test in run) == sorted(every(cases) - ALWAYS)


def test_cases_of_the_same_parameters_stay_together(cases: pytest.Pytester) -> None:
    for i in range(SHARES):
        run = set(selected(cases, "--slow-share", f"{i}/{SHARES}")) - ALWAYS
        some, others = ({t.split("[")[1] for t in run if name in t} for name in ("_some", "_others"))
        assert some == others


def test_one_share_is_all(cases: pytest.Pytester) -> None:
    assert set(selected(cases, "--slow-share", "5/1")) == every(cases)


def test_what_is_no_share_is_refused_in_a_line(cases: pytest.Pytester) -> None:
    result = cases.runpytest("--slow-share=3")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert [line for line in result.errlines if "--slow-share takes NUMBER/SHARES" in line]


@pytest.mark.parametrize("text", ["", "3", "3/", "/3", "3/0", "-1/3", "1.5/3", "a/b"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(pytest.UsageError, match="takes NUMBER/SHARES, such as 3/20"):
        Share.parse(text)


def test_the_shares_are_of_about_one_size() -> None:
    counts = Counter(
        next(i for i in range(20) if Share(i, 20).holds(f"tests/a.py::test[{case}]")) for case in range(2000)
    )
    assert max(counts.values()) < 140
    assert min(counts.values()) > 60


COMBINATIONS = """
import pytest

@pytest.mark.diagonal
@pytest.mark.parametrize("a", "xyz")
@pytest.mark.parametrize(("b", "c"), [(1, 2), (3, 2)])
def test_all(a, b, c): pass

class TestHere:
    @pytest.mark.diagonal
    @pytest.mark.parametrize("a", [False, True])
    @pytest.mark.parametrize("b", [False, pytest.param(True, marks=pytest.mark.slow)])
    def test_all(self, a, b): pass
"""


def test_every_value_of_every_parameter_is_fast_once(cases: pytest.Pytester) -> None:
    cases.makepyfile(test_it=COMBINATIONS)
    assert selected(cases) == [
        "test_it.py::test_all[1-2-x]",
        "test_it.py::test_all[1-2-z]",
        "test_it.py::test_all[3-2-y]",
        "test_it.py::TestHere::test_all[False-False]",
    ]
    runs = [selected(cases, "-m", "slow", "--slow-share", f"{i}/{SHARES}") for i in range(SHARES)]
    assert sorted([*selected(cases), *(test for run in runs for test in run)]) == sorted(every(cases))
    assert len(every(cases)) == 10


@pytest.mark.parametrize("sizes", [(1,), (5,), (2, 2), (3, 2), (2, 5, 3), (4, 1, 2)])
def test_a_diagonal_is_as_long_as_the_longest_list(sizes: tuple[int, ...]) -> None:
    names = dict(zip("abc", sizes, strict=False))
    every_place = itertools.product(*map(range, sizes))
    diagonal = [d for d in every_place if on_diagonal(dict(zip(names, d, strict=True)), names)]
    assert len(diagonal) == max(sizes)
    assert [len({places[axis] for places in diagonal}) for axis in range(len(sizes))] == list(sizes)


@pytest.mark.parametrize(
    ("most", "fast"),
    [(None, range(9)), (1, [0]), (2, [0, 8]), (3, [0, 4, 8]), (5, [0, 2, 4, 6, 8]), (20, range(9))],
)
def test_a_few_of_a_diagonal_are_spread_evenly(most: int | None, fast: Sequence[int]) -> None:
    sizes = {"a": 9, "b": 2}
    diagonal = [n for n in range(9) if on_diagonal({"a": n, "b": n % 2}, sizes, most)]
    assert diagonal == list(fast)


def test_a_few_of_a_table_are_fast() -> None:
    assert few("abc", "b") == [slow("a"), "b", slow("c")]
    assert few([("a", 0), ("b", 1)], ("a", 0)) == [("a", 0), slow("b", 1)]
    with pytest.raises(ValueError, match=r"not among the values: \['d'\]"):
        few("abc", "a", "d")
    with pytest.raises(ValueError, match="nothing of it is fast"):
        few("abc")


def test_what_is_listed_is_there() -> None:
    root = Path(__file__).parents[1]
    for test in LISTED:
        file, _, name = test.partition("::")
        function = name.partition("[")[0].rpartition("::")[2]
        assert f"def {function}(" in (root / file).read_text(encoding="utf-8"), test
