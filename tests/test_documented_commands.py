"""Every command in README and docs runs as it stands, or is named with the reason why not."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import typer

from reparamkit.cli.app import app
from tests.documented import NOT_RUN, PAGES, commands, prepare
from tests.shell import ROOT, bash, environment

WITH_COMMANDS = [page for page in PAGES if commands(page)]
RUN = [page for page in WITH_COMMANDS if any(not command.reason for command in commands(page))]


def test_reasons_are_for_commands_that_are_there() -> None:
    texts = [command.text for page in WITH_COMMANDS for command in commands(page)]
    assert len(texts) > 60
    assert [part for part in NOT_RUN if not any(part in text for text in texts)] == []
    run = [command for page in WITH_COMMANDS for command in commands(page) if not command.reason]
    assert 2 * len(run) > len(texts), "most of them run"


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.stem)
def test_every_option_is_one(page: Path) -> None:
    """Also of the commands that are not run: their arguments are read as the command line reads them."""
    group = typer.main.get_command(app)
    for command in commands(page):
        program, *arguments = shlex.split(command.text, comments=True)
        if program != "reparamkit":
            continue
        subcommand = group.commands[arguments[0]]  # type: ignore[attr-defined]
        with subcommand.make_context(arguments[0], arguments[1:]):
            pass


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.* is deprecated:DeprecationWarning")
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_the_commands_of_a_page_run_in_order(page: Path, tmp_path: Path) -> None:
    work, variables = tmp_path / "work", environment(tmp_path / "bin")
    work.mkdir()
    prepare(work, page)
    for command in commands(page):
        if command.reason:
            continue
        _make_ready(command.text, work, variables)
        ended = bash(["-c", command.text], work, variables)
        assert ended.returncode == command.status, f"{command.text}\n{ended.stdout}\n{ended.stderr}"


def _make_ready(text: str, work: Path, variables: dict[str, str]) -> None:
    """What is about another network than the page's first."""
    if "wrong.onnx" in text:
        _spoil(work / "mobileone_s0.onnx", work / "wrong.onnx")
    if "scores,boxes" in text:
        _with_two_outputs(work / "net.pt2")
    elif "net.pt2" in text and (work / "one.pt2").exists():
        (work / "one.pt2").replace(work / "net.pt2")
    if "yolov9.py" in text and not (work / "yolov9.py").exists():
        (work / "yolov9.py").write_text(
            "import torch\nfrom my.nets import Detector\n\n"
            "class Named(Detector):\n"
            "    def forward(self, image):\n"
            "        scores, boxes = super().forward(image)\n"
            "        return {'scores': scores, 'maps': [boxes, boxes + 1]}\n\n"
            "def build():\n    torch.manual_seed(0)\n    return Named().eval()\n"
        )


def _spoil(right: Path, wrong: Path) -> None:
    """One weight tensor is off by 1 %."""
    import onnx

    if not right.exists():
        import reparamkit as rk

        rk.fold(rk.load(right.stem)).save(right)
    model = onnx.load(right)
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.dims) == 4 and tensor.dims[1] > 8)
    changed = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(largest) * 1.01, largest.name)
    largest.CopyFrom(changed)
    onnx.save(model, wrong)


def _with_two_outputs(path: Path) -> None:
    import torch

    from tests.documented import NETS

    path.replace(path.with_name("one.pt2"))
    space: dict[str, object] = {}
    exec(compile(NETS, "nets", "exec"), space)
    detector = space["Detector"]()  # type: ignore[operator]
    torch.export.save(torch.export.export(detector.eval(), (torch.randn(1, 3, 32, 32),)), path)


def test_the_page_on_sources_is_run_elsewhere() -> None:
    text = (ROOT / "tests" / "cli" / "test_sources.py").read_text(encoding="utf-8")
    assert "test_the_commands_of_the_page_run_and_say_what_it_shows" in text
