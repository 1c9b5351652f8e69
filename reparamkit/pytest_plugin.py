"""A fixture for pytest: `assert_equivalent(reference, candidate, inputs)`.

    def test_the_export(assert_equivalent):
        assert_equivalent(build(), "net.onnx", torch.randn(1, 3, 224, 224))

pytest loads this by itself where reparamkit is installed. It imports nothing until the fixture is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from reparamkit.compare.comparison import Comparison
    from reparamkit.compare.verdict import OutputError


class AssertEquivalent(Protocol):
    """What the fixture returns."""

    def __call__(
        self,
        reference: object,
        candidate: object,
        inputs: object = None,
        *,
        seed: int = 0,
        locate: bool = True,
        model: str | None = None,
        model_args: str | Mapping[str, Any] | None = None,
        key: str | None = None,
        trust_pickle: bool = False,
        **budget: float,
    ) -> Comparison:
        """Fail the test unless the two compute the same.

        Args:
            reference, candidate: each an `nn.Module`, an `ExportedProgram`, or whatever `reparamkit check`
                takes as text or path.
            inputs: a tensor, a tuple or a dict, as the reference's forward takes them; a description such
                as "1x3x224x224" or a list of them; None where either side knows its own.
            seed: of the inputs that are drawn.
            locate: where they differ, look for the first place that does.
            model, model_args, key, trust_pickle: as in `reparamkit.load`.
            budget: limits in place of the error budget: `atol`, `rtol`, `psnr`, `cosine`, `top1`.

        Returns:
            The comparison, which has passed.

        Raises:
            AssertionError: they differ, or it cannot be told, with the verdict as its message.
            TypeError: a limit of another name.
            UnusableInput: a limit or a description that makes no sense.
        """
        ...


@pytest.fixture(scope="session")
def assert_equivalent() -> AssertEquivalent:
    """Compare two networks as `reparamkit check` does, and fail with its verdict unless they are the same."""
    return _assert_equivalent


def _assert_equivalent(
    reference: object,
    candidate: object,
    inputs: object = None,
    *,
    seed: int = 0,
    locate: bool = True,
    model: str | None = None,
    model_args: str | Mapping[str, Any] | None = None,
    key: str | None = None,
    trust_pickle: bool = False,
    **budget: float,
) -> Comparison:
    __tracebackhide__ = True
    from reparamkit.compare.compare import compare
    from reparamkit.compare.criteria import Criteria
    from reparamkit.compare.inputs.input_spec import parse
    from reparamkit.compare.profile import Profile

    given: dict[str, Any] = {"inputs": inputs}
    texts = [inputs] if isinstance(inputs, str) else inputs
    if isinstance(texts, list) and texts and all(isinstance(entry, str) for entry in texts):
        given = {"described": parse(texts)}
    elif isinstance(inputs, Path):
        given = {"data": inputs}
    comparison = compare(
        reference,
        candidate,
        profile=Profile(criteria=Criteria(**budget)),
        seed=seed,
        where=locate,
        model=model,
        model_args=model_args,
        key=key,
        trust_pickle=trust_pickle,
        **given,
    ).comparison
    if not comparison.passed:
        raise AssertionError(message(comparison))
    return comparison


def message(comparison: Comparison) -> str:
    """The verdict for people: what, how much, where."""
    sides = f"{comparison.candidate.name} against {comparison.reference.name}"
    lines = [f"{comparison.status.upper()}: {sides}", comparison.reason]
    if comparison.location is not None:
        lines.append(comparison.location.text())
    worst = comparison.equivalence.worst() if comparison.equivalence is not None else None
    if worst is not None:
        lines.append(_element(worst))
    if comparison.rule:
        lines.append(f"judged by: {comparison.rule}")
    failing = [probe.name for probe in comparison.probes if not probe.passed]
    if failing:
        lines.append(f"{len(failing)} of {len(comparison.probes)} probes fail: {', '.join(failing)}")
    lines += [f"note: {note}" for note in comparison.notes]
    return "\n".join([*lines, f"seed {comparison.seed}"])


def _element(worst: OutputError) -> str:
    where = "[" + ", ".join(map(str, worst.index)) + "]" if worst.index else ""
    return (
        f"worst element: {worst.output}{where} on the probe {worst.probe!r}: candidate "
        f"{worst.candidate_value:.6e}, reference {worst.reference_value:.6e}"
    )
