"""The rooms: which may know which, read off the table in `docs/architecture.md` and off the sources."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from functools import cache

import pytest

from tests.import_graph import (
    PACKAGE,
    circles,
    files,
    import_graph,
    outside,
    room,
    rooms_of,
    sources,
    taken_names,
)
from tests.picture import END, PAGE, START, picture

NOT_OUTSIDE = {
    "errors": ("torch", "onnx", "numpy"),
    "report": ("torch", "onnx", "numpy"),
    "algebra": ("torch.fx", "torch.nn", "onnx"),
    "operators": ("torch.fx", "onnx"),
    "engine": ("torch.fx", "onnx"),
}
"""Packages that a room does without, beside the rooms that it may not import."""


OTHERS_PRIVATE = {
    "_rename",
    "_parameters",
    "_buffers",
    "_modules",
    "_version",
    "_name",
    "_fields",
    "_update",
    "_schema",
}
"""Attributes of torch's and Python's own objects, whose names modules of this package use for theirs too."""


@cache
def table() -> dict[str, list[str]]:
    """Room -> the rooms that it may import, in the order of the page."""
    text = PAGE.read_text(encoding="utf-8")
    lines = text.partition("<!-- rooms -->")[2].partition("<!-- /rooms -->")[0].strip().splitlines()[2:]
    rooms = {}
    for line in lines:
        name, _, may = (cell.strip() for cell in line.strip("|").split(" |", 2))
        rooms[name.strip("`")] = re.findall(r"`(\w+)`", may)
    return rooms


def test_the_table_names_every_room_and_no_other() -> None:
    assert list(table()) != []
    assert set(table()) == {room(module) for module in sources()}


def test_the_table_runs_one_way() -> None:
    """A room may import what stands above it: no choice of imports that the table allows makes a circle."""
    before: set[str] = set()
    for name, may in table().items():
        assert set(may) <= before, f"{name} may import a room that stands below it"
        before.add(name)


@pytest.mark.parametrize("name", sorted({room(module) for module in files()}))
def test_a_room_imports_only_what_the_table_allows(name: str) -> None:
    allowed = {name, *table()[name]}
    beyond = {
        f"{module} imports {other}"
        for module, imported in import_graph().items()
        if room(module) == name
        for other in imported
        if room(other) not in allowed
    }
    assert beyond == set()


@pytest.mark.parametrize("name", NOT_OUTSIDE)
def test_a_room_does_without(name: str) -> None:
    modules = [module for module in sources() if room(module) == name]
    assert modules
    for module in modules:
        for package in outside(module):
            for banned in NOT_OUTSIDE[name]:
                assert not f"{package}.".startswith(f"{banned}."), f"{module} imports {package}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(import_graph()) == []
    assert circles(rooms_of(import_graph())) == []


def test_a_circle_is_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set[str]()}
    assert circles(graph) == [["b", "c"]]


def test_no_module_takes_a_private_name_out_of_another() -> None:
    private = {
        f"{module} takes {name} out of {other}"
        for module in sources()
        for other, name in taken_names(module)
        if name.startswith("_") and not name.startswith("__")
    }
    assert private == set()


def test_no_module_reads_a_private_attribute_of_another_ones_objects() -> None:
    """As far as names tell: an attribute that this module does not define, and another one does."""
    own = {module: _defined(tree) for module, tree in sources().items()}
    read = {
        (module.removeprefix("reparamkit."), node.attr)
        for module, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and node.attr not in OTHERS_PRIVATE | own[module]
        and any(node.attr in names for names in own.values())
    }
    assert read == set()


def _defined(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    return names


def test_the_picture_is_drawn_from_the_imports() -> None:
    drawn = PAGE.read_text(encoding="utf-8").partition(START)[2].partition(END)[0]
    assert drawn == picture(import_graph()), "stale: python -m tests.picture"


def test_the_page_names_files_that_are_there() -> None:
    text = PAGE.read_text(encoding="utf-8")
    paths = re.findall(r"`(?:reparamkit/)?([a-z_0-9]+/[a-z_0-9/]*(?:\.py)?)`", text)
    assert len(paths) > 15
    root = PACKAGE.parent
    assert [path for path in paths if not (PACKAGE / path).exists() and not (root / path).exists()] == []


_IMPORT_EACH = """
import os, sys, warnings
warnings.simplefilter("ignore")
for package in ("torch", "torch.export", "numpy"):
    __import__(package)
assert not [name for name in sys.modules if name.partition(".")[0] == "reparamkit"]
failed = 0
for module in sys.stdin.read().split():
    child = os.fork()
    if child == 0:
        try:
            __import__(module)
        except BaseException as error:
            print(f"{module}: {type(error).__name__}: {error}", flush=True)
            os._exit(1)
        os._exit(0)
    failed += os.waitpid(child, 0)[1] != 0
sys.exit(bool(failed))
"""


def _assert_each_imports_alone(modules: list[str]) -> None:
    """Import every module in a process that holds nothing of this package yet, and torch already."""
    finished = subprocess.run(
        [sys.executable, "-c", _IMPORT_EACH],
        input="\n".join(modules),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_the_first_module_of_each_room_can_be_imported_alone() -> None:
    firsts = {room(module): module for module in sorted(sources(), reverse=True) if module.count(".") > 1}
    _assert_each_imports_alone([*firsts.values(), "reparamkit.api", "reparamkit.result", "reparamkit.errors"])


@pytest.mark.slow
def test_every_module_can_be_imported_alone() -> None:
    _assert_each_imports_alone([module for module in sources() if module != "reparamkit.__main__"])


def test_each_law_has_a_file_and_an_equation() -> None:
    from reparamkit.engine.laws import LAWS

    for law in LAWS:
        module = __import__(law.__module__, fromlist=["__doc__"])
        assert law.__module__.endswith(f".{law.__name__}")
        assert "=" in (module.__doc__ or "").split('"""')[0]
