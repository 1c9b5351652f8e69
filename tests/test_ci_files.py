"""`action.yml` and `.pre-commit-hooks.yaml`: their steps are run as GitHub and pre-commit run them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from reparamkit.cli.app import app
from tests.compare.files import write_onnx, write_pt2

ROOT = Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
HOOKS = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"]}


def run_step(
    name: str, folder: Path, **inputs: str
) -> tuple[subprocess.CompletedProcess[str], dict[str, str]]:
    """A step of the action in a folder, its expressions filled in as GitHub does; and what it set."""
    step = STEPS[name]
    values = {key: given.get("default", "") for key, given in ACTION["inputs"].items()} | inputs
    filled = {
        key: re.sub(r"\$\{\{ inputs\.([a-z-]+) \}\}", lambda found: values[found[1]], text)
        for key, text in step["env"].items()
    }
    outputs = folder / "output"
    outputs.write_text("")
    environment = {"GITHUB_OUTPUT": str(outputs), "GITHUB_ACTION_PATH": str(ROOT), "RUNNER_TEMP": str(folder)}
    ended = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment, **filled},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return ended, dict(line.split("=", 1) for line in outputs.read_text().splitlines())


def test_the_action_is_one_that_github_takes() -> None:
    assert set(ACTION) <= {"name", "description", "author", "branding", "inputs", "outputs", "runs"}
    assert ACTION["runs"]["using"] == "composite"
    for step in STEPS.values():
        assert step["shell"] == "bash"
        assert "${{" not in step["run"], "an input in a script could run as a command"
    used = set(re.findall(r"inputs\.([a-z-]+)", (ROOT / "action.yml").read_text(encoding="utf-8")))
    assert used == set(ACTION["inputs"])
    for name, given in ACTION["inputs"].items():
        assert given["description"]
        assert given.get("required") is True or isinstance(given["default"], str), name
    identifiers = {step.get("id") for step in STEPS.values()}
    for output in ACTION["outputs"].values():
        (step,) = re.findall(r"steps\.(\w+)\.outputs", output["value"])
        assert step in identifiers


def test_it_installs_this_very_package(tmp_path: Path) -> None:
    echo = tmp_path / "echo"
    echo.write_text('#!/bin/sh\nfor word in "$@"; do printf "%s\\n" "$word"; done\n')
    echo.chmod(0o755)
    ended, _ = run_step("Install reparamkit", tmp_path, python=str(echo), extras="onnx,openvino")
    words = ended.stdout.splitlines()
    assert words[:3] == ["-m", "pip", "install"]
    assert words[-1] == f"{ROOT}[onnx,openvino]"
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert ACTION["inputs"]["extras"]["default"] in known


@pytest.mark.parametrize(("broken", "status", "said"), [(False, 0, "same"), (True, 1, "different")])
def test_it_checks(tmp_path: Path, broken: bool, status: int, said: str) -> None:
    write_pt2(tmp_path / "my net.pt2")
    write_onnx(tmp_path / "net.onnx", broken=broken)
    given = "--seed 3 --junit 'a check.xml' --no-locate"
    ended, outputs = run_step(
        "Check",
        tmp_path,
        python=sys.executable,
        reference="my net.pt2",
        candidate="net.onnx",
        arguments=given,
    )
    assert ended.returncode == status, ended.stderr
    assert outputs["status"] == said
    assert json.loads(Path(outputs["report"]).read_text())["seed"] == 3
    assert (tmp_path / "a check.xml").exists()


def test_what_cannot_be_told_fails_the_step(tmp_path: Path) -> None:
    inputs = {"reference": "$(touch ran)", "candidate": "; touch ran", "arguments": "--seed '$(touch ran)'"}
    ended, outputs = run_step("Check", tmp_path, python=sys.executable, **inputs)
    assert ended.returncode == 2
    assert outputs == {"status": "cannot tell", "report": ""}
    assert not (tmp_path / "ran").exists()


def test_the_pages_use_what_is_there() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    found = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", text, re.M | re.S)]
    blocks = [block for block in found if isinstance(block, list)]
    steps = [one for block in blocks for one in block if "/reparamkit@" in one.get("uses", "")]
    assert steps
    for step in steps:
        assert set(step["with"]) <= set(ACTION["inputs"])
    hooks = [hook for block in blocks for one in block for hook in one.get("hooks", ())]
    assert hooks
    assert {hook["id"] for hook in hooks} <= {hook["id"] for hook in HOOKS}


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
def test_a_hook_runs_as_pre_commit_runs_it(hook: dict[str, Any], tmp_path: Path) -> None:
    assert {"id", "name", "entry", "language"} <= set(hook)
    program, command = shlex.split(hook["entry"])
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert program in scripts
    assert command in {known.callback.__name__ for known in app.registered_commands if known.callback}
    assert hook["pass_filenames"] is False
    write_pt2(tmp_path / "net.pt2")
    write_onnx(tmp_path / "net.onnx")
    call = [sys.executable, "-m", program, command, "net.pt2", "net.onnx"]
    ended = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
