"""Which module imports which, read off the sources: the graph that the table and the picture of rooms are of.

An import counts wherever it stands, inside functions and under `TYPE_CHECKING` too, and so does a text that
is a module's name, which `import_module` may be given. Two modules only hand
names on, `reparamkit` and `reparamkit.training`: what they name under `TYPE_CHECKING` is imported by whoever
uses the name, and does not count as theirs.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "reparamkit"
FACADES = ("reparamkit", "reparamkit.training")

Graph = Mapping[str, frozenset[str]]


@cache
def files() -> dict[str, Path]:
    """Every module by its full name, and where it lies."""
    names = {
        file: ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
        for file in sorted(PACKAGE.rglob("*.py"))
    }
    return {name.removesuffix(".__init__"): file for file, name in names.items()}


@cache
def sources() -> dict[str, ast.Module]:
    """Every module by its full name, parsed."""
    return {name: ast.parse(file.read_text(encoding="utf-8"), str(file)) for name, file in files().items()}


@cache
def import_graph() -> dict[str, frozenset[str]]:
    """Module -> the modules of this package that it imports."""
    return {name: frozenset(_imported(name, tree)) for name, tree in sources().items()}


def outside(module: str) -> set[str]:
    """The full names of what a module imports from elsewhere."""
    names: set[str] = set()
    for node in ast.walk(sources()[module]):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.partition(".")[0] != "reparamkit"}


def taken_names(module: str) -> set[tuple[str, str]]:
    """The names that a module takes out of others: (module, name)."""
    return {
        (str(node.module), alias.name)
        for node in ast.walk(sources()[module])
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "reparamkit"
        for alias in node.names
    }


def _imported(module: str, tree: ast.Module) -> set[str]:
    skipped: set[int] = set()
    if module in FACADES:
        blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If)]
        skipped = {id(n) for block in blocks if _is_type_checking(block.test) for n in ast.walk(block)}
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name in sources()}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import in line {node.lineno}"
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            names |= {name if name in sources() else str(node.module) for name in full}
        elif module not in FACADES and isinstance(node, ast.Constant) and "." in str(node.value):
            names.add(str(node.value))  # for `import_module`
    return {name for name in names if name in sources() and name != module}


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def room(module: str) -> str:
    """The folder or the top-level file in which a module lies; `__init__` is the package's own names."""
    if module == "reparamkit.__main__":
        return "cli"
    return module.split(".")[1] if "." in module else "__init__"


def rooms_of(graph: Graph) -> dict[str, set[str]]:
    """Room -> the other rooms that it imports."""
    rooms: dict[str, set[str]] = {}
    for module, imported in graph.items():
        rooms.setdefault(room(module), set()).update(room(other) for other in imported)
    return {name: others - {name} for name, others in rooms.items()}


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The groups of nodes that reach each other (strongly connected components of two and more)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in graph[node]:
            if other not in order:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], order[other])
        if low[node] == order[node]:
            place = stack.index(node)
            group = sorted(stack[place:])
            del stack[place:]
            if len(group) > 1:
                groups.append(group)

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return groups


def reduced(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """A graph without circles, without the arrows that follow from others (its transitive reduction)."""

    @cache
    def reached(node: str) -> frozenset[str]:
        return frozenset(graph[node]).union(*(reached(other) for other in graph[node]))

    return {
        node: {other for other in others if not any(other in reached(via) for via in others)}
        for node, others in graph.items()
    }
