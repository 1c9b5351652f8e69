"""What runs a form: PyTorch eagerly or compiled, ONNX Runtime, OpenVINO, ExecuTorch; on some threads."""

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
from reparamkit.runners.executorch import ExecuTorchRunner
from reparamkit.runners.onnxruntime import require_onnxruntime
from reparamkit.runners.openvino import the_core
from reparamkit.support.inputs import Args, Kwargs, tensor_leaves

Call = Callable[[], object]


@dataclass(frozen=True)
class Backend:
    """A way to run a form.

    Attributes:
        package: what has to be installed.
        files: suffixes of the files that it runs, the form that is timed first; none for modules.
        prepare: the form of that name as something to call, ready to run with so many threads. Raises
            `NoSuchForm`, or whatever the back end raises.
        opened: a file, and the arguments of one call, as something to call with so many threads.
    """

    name: str
    package: str
    files: tuple[str, ...]
    prepare: Callable[[Forms, str, int], Call]
    opened: Callable[[Path, Args, Kwargs, int], Call] | None = None

    @property
    def takes_files(self) -> bool:
        """It runs files, and not modules."""
        return bool(self.files)

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


def _arrays(args: Args, kwargs: Kwargs) -> list[Any]:
    return [tensor.detach().cpu().contiguous().numpy() for _, tensor in tensor_leaves(args, kwargs)]


def session(path: Path, threads: int, **settings: Any) -> Any:
    """An ONNX Runtime session on the CPU; `settings` are attributes of its options."""
    onnxruntime = require_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    for name, value in settings.items():
        setattr(options, name, value)
    return onnxruntime.InferenceSession(str(path), sess_options=options, providers=["CPUExecutionProvider"])


def fed(opened: Any, args: Args, kwargs: Kwargs) -> dict[str, Any]:
    """The example under the names of a session's inputs."""
    names = [entry.name for entry in opened.get_inputs()]
    return dict(zip(names, _arrays(args, kwargs), strict=True))


def _onnxruntime(path: Path, args: Args, kwargs: Kwargs, threads: int) -> Call:
    opened = session(path, threads)
    feed = fed(opened, args, kwargs)
    return lambda: opened.run(None, feed)


def _openvino(path: Path, args: Args, kwargs: Kwargs, threads: int) -> Call:
    core = the_core()
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
    }
    compiled = core.compile_model(core.read_model(str(path)), "CPU", settings)
    request, feed = compiled.create_infer_request(), dict(enumerate(_arrays(args, kwargs)))
    return lambda: request.infer(feed)


def _executorch(path: Path, args: Args, kwargs: Kwargs, threads: int) -> Call:
    return ExecuTorchRunner(path).here(args, kwargs, threads)


def _of_files(
    name: str, package: str, files: tuple[str, ...], opened: Callable[[Path, Args, Kwargs, int], Call]
) -> Backend:
    def prepare(forms: Forms, form: str, threads: int) -> Call:
        return opened(forms.file(form, files[0]), forms.args, forms.kwargs, threads)

    return Backend(name, package, files, prepare, opened)


BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        Backend("eager", "torch", (), _eager),
        Backend("compile", "torch", (), _compiled),
        _of_files("onnxruntime", "onnxruntime", (".onnx",), _onnxruntime),
        _of_files("openvino", "openvino", (".onnx", ".xml"), _openvino),
        _of_files("executorch", "executorch", (".pte",), _executorch),
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
