"""What the command says of itself."""

from __future__ import annotations

import pytest

import reparamkit as rk
from reparamkit.cli import app as cli
from tests.cli.running import Result, Run, assert_refused


def test_models(run: Run) -> None:
    listed = run("models")
    assert listed.status == 0
    names = [line.split()[0] for line in listed.out.splitlines()[1:]]
    assert names == list(rk.models.names())
    assert {"mobileone_s0", "mobileone_s4", "repvgg_a0", "repvgg_b3g4", "repvgg_d2se"} <= set(names)
    one = run("models", "mobileone_s0")
    assert one.status == 0
    for words in (
        "5.293 M as trained",
        "2.079 M folded",
        "1x3x224x224",
        "arxiv.org/abs/",
        "reparamkit fold mobileone_s0",
    ):
        assert words in one.out
    assert_refused(run("models", "mobileone_s9"), "no reference model named 'mobileone_s9'", "did you mean")


def test_version(run: Run) -> None:
    assert run("--version") == Result(0, f"reparamkit {rk.__version__}\n", "")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ((), ["fold", "inspect", "models", "--version", "Exit status: 0", "1 verification failed", "2"]),
        (
            ("fold",),
            [
                "SOURCE",
                "-o",
                "--output",
                "--input",
                "--model",
                "--trust-pickle",
                "--json",
                "--dynamic",
                "--strict",
            ],
        ),
        (("inspect",), ["SOURCE", "--input", "--model", "--trust-pickle", "--json", "--dynamic", "--strict"]),
        (("models",), ["NAME"]),
    ],
)
def test_help_says_it_all(run: Run, command: tuple[str, ...], words: list[str]) -> None:
    result = run(*command, "--help")
    assert result.status == 0
    assert result.err == ""
    for word in [*words, "--help"]:
        assert word in result.out
    if command:
        import typer

        parameters = typer.main.get_command(cli.app).commands[command[0]].params  # type: ignore[attr-defined]
        assert parameters
        for parameter in parameters:
            assert parameter.help
            assert " ".join(parameter.help.split()[:3]) in " ".join(result.out.split())


def test_without_a_command_the_help_is_shown(run: Run) -> None:
    result = run()
    assert result.status == 2
    assert "Usage: reparamkit" in result.out + result.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fold",), "fold needs SOURCE"),
        (("bogus",), "there is no command 'bogus'; there are fold, inspect"),
        (("fold", "x", "--bogus"), "fold has no option --bogus"),
        (("fold", "a", "b"), "unexpected extra argument"),
    ],
)
def test_usage_errors(run: Run, arguments: tuple[str, ...], words: str) -> None:
    result = run(*arguments)
    assert result.status == 2
    assert words in result.err
    assert len(result.err.strip().splitlines()) == 1
