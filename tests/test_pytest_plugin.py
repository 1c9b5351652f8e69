"""The fixture `assert_equivalent`, in a pytest of its own that finds the plugin as an installed package."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

from tests.test_import import HEAVY, modules_after

pytest_plugins = ("pytester",)

NETS = """
import torch
from torch import nn

def build(factor=1.0):
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 5))
    with torch.no_grad():
        made[2].weight[3] *= factor
    return made.eval()

IMAGE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
"""


def outcome(pytester: pytest.Pytester, body: str) -> pytest.RunResult:
    pytester.makepyfile(nets=NETS)
    pytester.makepyfile(test_it=f"from nets import *\n\n{body}")
    return pytester.runpytest_subprocess("-p", "no:cacheprovider")


def test_it_is_installed() -> None:
    (found,) = entry_points(group="pytest11", name="reparamkit")
    assert found.value == "reparamkit.pytest_plugin"


def test_it_imports_nothing_before_it_is_used() -> None:
    found = modules_after("import reparamkit.pytest_plugin")
    assert "pytest" in found
    assert found & {*HEAVY, "numpy"} == set()


def test_pytest_itself_does_not_import_torch_for_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import sys\n\ndef test_it():\n    assert 'torch' not in sys.modules")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
    listed = pytester.runpytest_subprocess("--fixtures")
    listed.stdout.fnmatch_lines(["assert_equivalent *", "*Compare two networks as `reparamkit check` does*"])


def test_equivalent_networks_pass(pytester: pytest.Pytester) -> None:
    result = outcome(
        pytester,
        """
def test_tensor(assert_equivalent):
    found = assert_equivalent(build(), build(), IMAGE)
    assert found.status == "same" and found.exit_status == 0

def test_words(assert_equivalent):
    assert_equivalent(build(), build(), "1x3x8x8")
    assert_equivalent(build(), build(), ["1x3x8x8:float32"])
    assert_equivalent(build(), build(), (IMAGE,), seed=3)

def test_addresses(assert_equivalent):
    assert_equivalent("nets:build", "nets:build", IMAGE)

def test_arguments(assert_equivalent):
    assert_equivalent("nets:build", "nets.build", IMAGE, model_args={"factor": 2.0})
    assert_equivalent(build(2.0), "nets:build", IMAGE, model_args="factor=2.0")

def test_budget(assert_equivalent):
    assert_equivalent(build(), build(1.01), IMAGE, atol=0.5, cosine=0.9, top1=0.0)
""",
    )
    result.assert_outcomes(passed=5)


def test_a_failure_says_what_how_much_and_where(pytester: pytest.Pytester) -> None:
    result = outcome(
        pytester,
        """
def test_default(assert_equivalent):
    assert_equivalent(build(), build(1.01), IMAGE)
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E * AssertionError: DIFFERENT: Sequential against Sequential",
            "E * output 'output'[[]*[]] is * and should be * on the probe *",
            "E * first differs at 2 (convolution 2): error * of the value's rms, before it *",
            "E * worst element: output[[]*[]] on the probe *: candidate *, reference *",
            "E * judged by: error budget: four times the reference's own rounding error*",
            "E * probes fail: *",
            "E * seed 0",
        ]
    )
    shown = result.stdout.str()
    assert "pytest_plugin.py" not in shown.split("short test summary")[0]


@pytest.mark.slow
def test_a_failure_elsewhere_is_elsewhere_and_it_can_be_left_out(pytester: pytest.Pytester) -> None:
    result = outcome(
        pytester,
        """
def spoilt():
    made = build()
    with torch.no_grad():
        made[0].weight[1] *= 1.01
    return made

def test_first(assert_equivalent):
    assert_equivalent(build(), spoilt(), IMAGE)

def test_without(assert_equivalent):
    assert_equivalent(build(), spoilt(), IMAGE, locate=False)
""",
    )
    result.assert_outcomes(failed=2)
    failures = result.stdout.str().split("short test summary")[0]
    first, without = failures.split("_ test_without _")
    assert "first differs at 0 (convolution 0)" in first
    assert "differs at" not in without
    assert "DIFFERENT" in without


@pytest.mark.slow
def test_what_cannot_be_told_fails_as_well(pytester: pytest.Pytester) -> None:
    result = outcome(
        pytester,
        """
import pytest

class Nan(nn.Module):
    def forward(self, x):
        return x * float("nan")

def test_nan(assert_equivalent):
    assert_equivalent(Nan(), Nan(), IMAGE)

def test_inputs(assert_equivalent):
    assert_equivalent(build(), build())

def test_limits(assert_equivalent):
    with pytest.raises(TypeError, match="unexpected keyword argument 'tolerance'"):
        assert_equivalent(build(), build(), IMAGE, tolerance=1.0)
""",
    )
    result.assert_outcomes(failed=2, passed=1)
    result.stdout.fnmatch_lines(["E * CANNOT TELL: Nan against Nan", "E * says what its inputs look like*"])
