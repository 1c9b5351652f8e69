"""Which room may know which: read off the sources."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "reparamkit"
MAY_IMPORT = {
    "algebra": set[str](),
    "operators": {"algebra"},
    "engine": {"algebra", "operators"},
}


def _imported(file: Path) -> set[str]:
    """The full names of the modules, and of what is taken out of them."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_those_before_it(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    for file in files:
        for name in _imported(file):
            top, *rest = name.split(".")
            if top == "reparamkit":
                assert rest[0] == room or rest[0] in MAY_IMPORT[room], f"{file.name} imports {name}"
            assert not name.startswith(("torch.fx", "onnx")), f"{file.name} imports {name}"


def test_training_stands_on_the_public_calls_the_models_and_the_runners() -> None:
    allowed = ("training", "models", "errors", "loading")
    runners = ("compare.network",)  # what `check` opens networks and files with
    for file in sorted((ROOT / "training").rglob("*.py")):
        if "expand" in file.parts:  # it captures and composes: it stands on the engine too
            continue
        for name in _imported(file):
            top, _, rest = name.partition(".")
            if top == "reparamkit" and rest:
                assert rest.startswith((*allowed, *runners)), f"{file.name} imports {name}"


def test_only_the_command_line_and_the_package_itself_know_training() -> None:
    for file in sorted(ROOT.rglob("*.py")):
        place = file.relative_to(ROOT)
        if place.parts[0] == "training" or place.parts[0] == "cli" or place.name == "__init__.py":
            continue
        training = {name for name in _imported(file) if name.startswith("reparamkit.training")}
        assert not {name for name in training if ".training.expand" not in name}, place


def test_each_law_has_a_file_and_an_equation() -> None:
    from reparamkit.engine.laws import LAWS

    for law in LAWS:
        module = __import__(law.__module__, fromlist=["__doc__"])
        assert law.__module__.endswith(f".{law.__name__}")
        assert "=" in (module.__doc__ or "").split('"""')[0]
