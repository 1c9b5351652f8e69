"""Keep a third-party exporter from talking: what it says is about itself, and its user is us."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

_LOGGERS = (
    "torch.onnx",
    "torch.export",
    "torch._export",
    "torch._subclasses",
    "torch.fx.experimental",
    "torch._dynamo",
    "torch._functorch",
    "onnxscript",
    "onnx_ir",
    "onnx",
    "onnxsim",
    "coremltools",
    "executorch",
    "torchao",
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop warnings, log records below a critical one, and text printed from Python, while it lasts."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    # Setting a level makes every logger of the process forget what it knew.
    levels = {logger: logger.level for logger in loggers if logger.level != logging.CRITICAL}
    try:
        for logger in levels:
            logger.setLevel(logging.CRITICAL)
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
