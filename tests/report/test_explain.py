"""`inspect --node`: why one operator folds or stays."""

from __future__ import annotations

import ast

import pytest

from reparamkit.errors import UnusableInput
from reparamkit.report.explain import explain
from reparamkit.report.remedies import fragments
from tests.import_graph import sources
from tests.report.networks import report


def test_an_operator_that_folds() -> None:
    lines = explain(report(), "conv2d_1").splitlines()
    assert lines[0] == "conv2d 9×9, depthwise, 8 → 8 'conv2d_1' in blocks.0.large.0, gives 1×8×16×16"
    assert lines[1].startswith(
        "  folds, with 2 conv2d + 2 batch_norm + 2 add, into blocks.0.reparam_conv: Conv2d 8 -> 8, 9x9, "
    )
    assert lines[2].startswith("  above it relu 'relu': relu is where a fold ends: ")
    assert lines[3] == "  below it batch_norm 'batch_norm_1': in the same fold"


def test_an_operator_that_stays_names_the_neighbour_and_what_would_have_to_change() -> None:
    lines = explain(report(), "norm").splitlines()
    assert "'norm'" not in lines[0]
    assert " in norm, gives" in lines[0]
    assert lines[1].startswith("  stays: not exact with conv2d 'last'")
    assert any(line.startswith("  what would have to change: Pad with the value") for line in lines)
    below = next(line for line in lines if line.startswith("  below it conv2d"))
    assert "a per-channel shift before zero padding" in below
    above = next(line for line in lines if line.startswith("  above it mul"))
    assert "multiplies two values" in above


def test_a_module_is_all_of_its_operators() -> None:
    text = explain(report(), "blocks.1")
    titles = [line for line in text.splitlines() if line and not line.startswith(" ")]
    assert [line.split()[0] for line in titles].count("conv2d") == 2
    assert all(" in blocks.1" in line for line in titles)
    assert explain(report(), "blocks.1.reparam_conv") == "\n".join(
        text[: text.index("\n\nrelu")].splitlines()
    ), "a new layer is what it stands for"


def test_a_large_module_is_cut_short() -> None:
    assert explain(report(), "blocks").splitlines()[-1].startswith("… and 4 more operators in blocks")


@pytest.mark.parametrize(
    ("name", "words"),
    [("conv2d_99", "there is conv2d"), ("block.1", "there is blocks.1"), ("qqq", "has that name")],
)
def test_a_name_that_nothing_has(name: str, words: str) -> None:
    with pytest.raises(UnusableInput, match=f"--node {name}: no operator.*{words}"):
        explain(report(), name)


def test_remedies_speak_of_reasons_that_are_given() -> None:
    trees = [tree for name, tree in sources().items() if not name.startswith("reparamkit.report")]
    texts = [
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert [piece for piece in fragments() if not any(piece in text for text in texts)] == []
