"""What a user's own code returns: ``module:callable``, imported as if from the current folder."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from reparamkit.errors import UnusableInput
from reparamkit.support.text import one_line


def called(address: str) -> Any:
    """What ``module:callable`` returns when it is called without arguments.

    The current folder stays importable: processes that read images import the module too.
    Raises UnusableInput, with what went wrong, where it cannot be imported, found or called.
    """
    module_name, _, attribute = address.partition(":")
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        sys.path.insert(0, folder)
    try:
        value: Any = importlib.import_module(module_name)
        for name in attribute.split("."):
            value = getattr(value, name)
        return value()
    except Exception as error:
        text = one_line(error)
        raise UnusableInput(f"{address!r}: {type(error).__name__}: {text}") from error
