"""What runs a form: PyTorch eagerly or compiled, ONNX Runtime, OpenVINO; each with a number of threads."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

import torch

from reparamkit.benchmark.forms import Forms
from reparamkit.errors import MissingExtra
from reparamkit.runners.onnxruntime import require_onnxruntime
from reparamkit.runners.openvino import require_openvino
from reparamkit.support.inputs import tensor_leaves

Call = Callable[[], object]


@dataclass(frozen=True)
class Backend:
    """A way to run a form.

    Attributes:
        package: what has to be installed.
        takes_files: it runs ONNX files, and not modules.
        prepare: the form of that name as something to call, ready to run with so many threads. Raises
            `NoSuchForm`, or whatever the back end raises.
    """

    name: str
    package: str
    takes_files: bool
    prepare: Callable[[Forms, str, int], Call]

    @property
    def is_installed(self) -> bool:
        """Whether its package is there."""
        return util.find_spec(self.package) is not None

    @property
    def version(self) -> str:
        """That of its package."""
        return metadata.version(self.package)

    def require(self) -> None:
        """Raise `MissingExtra` if its package is not there."""
        if not self.is_installed:
            extra = "onnx" if self.package == "onnxruntime" else self.package
            raise MissingExtra(self.package, extra, f"the back end {self.name}")


def _eager(forms: Forms, form: str, threads: int) -> Call:
    module = forms.module(form)
    return lambda: module(*forms.args, **forms.kwargs)


def _compiled(forms: Forms, form: str, threads: int) -> Call:
    compiled = torch.compile(forms.module(form), dynamic=False)
    return lambda: compiled(*forms.args, **forms.kwargs)


def _arrays(forms: Forms) -> list[Any]:
    return [
        tensor.detach().cpu().contiguous().numpy() for _, tensor in tensor_leaves(forms.args, forms.kwargs)
    ]


def session(path: Path, threads: int, **settings: Any) -> Any:
    """An ONNX Runtime session on the CPU; `settings` are attributes of its options."""
    onnxruntime = require_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    for name, value in settings.items():
        setattr(options, name, value)
    return onnxruntime.InferenceSession(str(path), sess_options=options, providers=["CPUExecutionProvider"])


def fed(opened: Any, forms: Forms) -> dict[str, Any]:
    """The example under the names of a session's inputs."""
    names = [entry.name for entry in opened.get_inputs()]
    return dict(zip(names, _arrays(forms), strict=True))


def _onnxruntime(forms: Forms, form: str, threads: int) -> Call:
    opened = session(forms.file(form), threads)
    feed = fed(opened, forms)
    return lambda: opened.run(None, feed)


def _openvino(forms: Forms, form: str, threads: int) -> Call:
    core = require_openvino().Core()
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
    }
    compiled = core.compile_model(core.read_model(str(forms.file(form))), "CPU", settings)
    request, feed = compiled.create_infer_request(), dict(enumerate(_arrays(forms)))
    return lambda: request.infer(feed)


BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        Backend("eager", "torch", False, _eager),
        Backend("compile", "torch", False, _compiled),
        Backend("onnxruntime", "onnxruntime", True, _onnxruntime),
        Backend("openvino", "openvino", True, _openvino),
    )
}
"""Back end by name; a further one is a function and a line."""

USUAL = ("eager", "onnxruntime", "openvino")
"""Those that are timed where nobody says which, as far as they are installed."""


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """PyTorch with so many threads, and without gradients."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(before)
