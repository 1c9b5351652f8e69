"""Where code is: ``package.module:callable``, ``package/module.py:callable``, ``package.module.callable``."""

from __future__ import annotations

import ast
import importlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reparamkit.loading.registry import is_installed, scheme_of

_DOTTED = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_MODULE = re.compile(_DOTTED)
FILE_SUFFIXES = frozenset(
    (
        *("pt", "pth", "pt2", "pte", "bin", "ckpt", "pkl", "th", "torchscript", "safetensors", "gguf"),
        *("onnx", "xml", "pte", "mlpackage", "mlmodel", "tflite", "h5", "npz", "npy"),
        *("json", "yaml", "yml", "txt", "py", "zip", "tar", "gz"),
    )
)


@dataclass(frozen=True)
class Address:
    """A callable's place: in a module, by name, or in a file. `attribute` is what in it is meant."""

    text: str
    module: str | None
    file: Path | None
    attribute: str


def address_of(text: str) -> Address | None:
    """The place that a text names; None where it is no address.

    ``package.module.callable`` is one if such a package can be found. Nothing is imported.
    """
    if scheme_of(text) or "://" in text:
        return None
    left, colon, attribute = text.rpartition(":")
    if colon:
        if not _MODULE.fullmatch(attribute):
            return None
        if _MODULE.fullmatch(left) and not left.endswith(".py"):
            return Address(text, left, None, attribute)
        file = _source_file(left)
        return None if file is None else Address(text, None, file, attribute)
    if not _MODULE.fullmatch(text) or "." not in text or text.rpartition(".")[2].lower() in FILE_SUFFIXES:
        return None
    with importable(Path.cwd()):
        if not is_installed(text.partition(".")[0]):
            return None
    module, _, attribute = text.rpartition(".")
    return Address(text, module, None, attribute)


def looks_like_code(text: str) -> bool:
    """Whether a name may lead to a callable, which would run; it need not be there."""
    return not scheme_of(text) and any(sign in text for sign in ":./\\")


def _source_file(left: str) -> Path | None:
    if left.endswith(".py"):
        return Path(left)
    if "/" not in left and "\\" not in left:
        return None
    for candidate in (Path(f"{left}.py"), Path(left) / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def defined_in(file: Path, limit: int = 5) -> list[str]:
    """Names of the functions and classes at the top of a file of Python source, which is not run."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    kinds = (ast.FunctionDef, ast.ClassDef)
    names = [node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
    return names[:limit]


def names_bound_in(file: Path) -> set[str] | None:
    """Every name in a file of Python source, wherever it is bound; None where there may be more."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    return None if names & {"*", "__getattr__", "globals", "exec", "vars", "setattr"} else names


@contextmanager
def importable(*folders: Path) -> Iterator[None]:
    """Modules of these folders can be imported inside, the first folder's before all others."""
    known = {str(Path.cwd()) if entry == "" else entry for entry in sys.path}
    added = [str(folder) for folder in dict.fromkeys(folders) if str(folder) not in known]
    sys.path[:0] = added
    if added:
        importlib.invalidate_caches()
    try:
        yield
    finally:
        for folder in added:
            if folder in sys.path:
                sys.path.remove(folder)


def package_of(file: Path) -> tuple[Path, str]:
    """The folder from which a file of Python source is imported, and its name there.

    A file in folders with an ``__init__.py`` is a module of that package. Another one below the current
    folder goes by its way from there; else by its own name.
    """
    file = Path(os.path.abspath(file))
    folder = file.parent
    parts = [] if file.stem == "__init__" else [file.stem]
    while (folder / "__init__.py").is_file() and folder.parent != folder:
        parts.insert(0, folder.name)
        folder = folder.parent
    inside = Path(os.path.abspath(Path.cwd()))
    if folder != inside and folder.is_relative_to(inside):
        between = folder.relative_to(inside).parts
        if all(part.isidentifier() for part in between):
            return inside, ".".join([*between, *parts])
    return folder, ".".join(parts)
