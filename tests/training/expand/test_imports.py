"""Expanding stands on what anybody can call, and on what the package shares: nothing of the engine."""

from __future__ import annotations

import ast
from pathlib import Path

import reparamkit

ROOT = Path(reparamkit.__file__).parent
ALLOWED = {
    "api",
    "capture.source",
    "errors",
    "inputs",
    "quiet",
    "surroundings",
    "training.expand",
    "untouched",
    "verify",
    "verify.oracle",
    "weights",
    "wrappers",
}


def test_what_expanding_imports() -> None:
    files = sorted((ROOT / "training" / "expand").glob("*.py"))
    assert files
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("reparamkit."):
                name = str(node.module).removeprefix("reparamkit.")
                assert name in ALLOWED or name.startswith("training.expand."), f"{file.name} imports {name}"


def test_only_the_doors_import_it() -> None:
    for file in sorted(ROOT.rglob("*.py")):
        path = file.relative_to(ROOT)
        if path.parts[0] == "training" or path.name in ("__init__.py", "cli_expand.py"):
            continue
        text = file.read_text(encoding="utf-8")
        if "training.expand" in text:
            assert path == Path("report/expansion.py"), path
            assert text.index("if TYPE_CHECKING:") < text.index("training.expand")
