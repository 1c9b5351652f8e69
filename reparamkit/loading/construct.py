"""A model from code: ``package.module:callable``, imported as if from the current folder."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from reparamkit.errors import UnusableInput

_ADDRESS = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def is_address(text: str) -> bool:
    """Whether the text has the form ``package.module:callable``."""
    return _ADDRESS.fullmatch(text) is not None


def construct(address: str) -> nn.Module | torch.export.ExportedProgram:
    """The module that ``package.module:callable`` is, or returns when it is called without arguments.

    Raises `UnusableInput` where the module cannot be imported, has no such name, or where the call raises or
    returns something else; the message carries the type and the text of what went wrong.
    """
    module_name, _, attribute = address.partition(":")
    with current_folder_importable():
        try:
            found: Any = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:
            raise UnusableInput(f"{address!r}: importing {module_name} raised {_said(error)}") from error
        for name in attribute.split("."):
            try:
                found = getattr(found, name)
            except AttributeError as error:
                raise UnusableInput(
                    f"{address!r}: the module {module_name} has no {attribute!r}{_models_of(module_name)}"
                ) from error
        if isinstance(found, (nn.Module, torch.export.ExportedProgram)):
            return found
        if not callable(found):
            raise UnusableInput(
                f"{address!r} is {_article(found)}; it has to be a torch.nn.Module, or to return one when "
                f"called"
            )
        try:
            made = found()
        except (Exception, SystemExit) as error:
            raise UnusableInput(
                f"{address!r} raised {_said(error)} when it was called without arguments; give a callable "
                f"that needs none and returns the model"
            ) from error
    if not isinstance(made, (nn.Module, torch.export.ExportedProgram)):
        raise UnusableInput(f"{address!r} returned {_article(made)}; it has to return a torch.nn.Module")
    return made


@contextmanager
def current_folder_importable() -> Iterator[None]:
    """Modules of the current folder can be imported inside, as by ``python -m``."""
    folder = os.getcwd()
    if folder in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def _article(value: object) -> str:
    return "None" if value is None else f"a {type(value).__module__}.{type(value).__qualname__}"


def _models_of(module_name: str) -> str:
    members = vars(sys.modules[module_name])
    classes = sorted(name for name, member in members.items() if _is_model_class(member, module_name))
    return f"; it defines {', '.join(classes[:5])}" if classes else ""


def _is_model_class(member: object, module_name: str) -> bool:
    return isinstance(member, type) and issubclass(member, nn.Module) and member.__module__ == module_name
