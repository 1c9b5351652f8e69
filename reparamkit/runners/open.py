"""Which back end runs what: the choice among the runners."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn
from torch.export import ExportedProgram

from reparamkit.errors import UnusableInput
from reparamkit.loading.door.files import exists, in_words, steady
from reparamkit.loading.door.onnx_file import check_onnx
from reparamkit.loading.door.openvino_ir import check_ir
from reparamkit.loading.door.pte_file import check_pte
from reparamkit.loading.door.rehearsal import ONNX_RUNTIME, OPENVINO, rehearse
from reparamkit.runners.base import Runner
from reparamkit.runners.torch import TorchRunner, program_runner

EVALUATE, NATIVE = "evaluate", "native"
"""How a Core ML program is run: evaluated with torch, on any system, or under Core ML itself, on macOS."""


def open_runner(subject: object) -> Runner:
    """A runner for an `nn.Module`, an `ExportedProgram`, a file (`str` or `Path`), or a runner as it is.

    An `.onnx` file runs under ONNX Runtime, an OpenVINO IR (`.xml`) under OpenVINO, a `.pte` under
    ExecuTorch, the `.mlpackage` of a Core ML program is evaluated; any other file is opened by
    `reparamkit.loading.source.load`, which never unpickles what it does not trust.

    Raises:
        UnusableInput: it is none of these, or there is no such file.
        MissingExtra: the package for this kind of file is not installed.
    """
    if isinstance(subject, nn.Module):
        return TorchRunner(subject)
    if isinstance(subject, ExportedProgram):
        return program_runner(subject)
    if isinstance(subject, (str, Path)):
        return _open_file(Path(subject))
    if isinstance(subject, Runner):
        return subject
    raise UnusableInput(
        f"cannot run a {type(subject).__name__}: give an nn.Module, an ExportedProgram or the path of a file"
    )


def open_foreign(path: Path, coreml: str = EVALUATE) -> Runner | None:
    """The runner for a file that is not PyTorch's, told by its suffix; None for any other.

    Args:
        path: the file.
        coreml: how a Core ML program is run, `EVALUATE` or `NATIVE`.

    Raises:
        UnusableInput: the back end cannot open it, or does not run here.
        MissingExtra: the package of that back end is not installed.
    """
    opener = NATIVE_OPENERS.get(path.suffix) if coreml == NATIVE else None
    opener = opener or OPENERS.get(path.suffix)
    if opener is None:
        return None
    with in_words(path):
        return opener(path)


def _open_onnx(path: Path) -> Runner:
    from reparamkit.runners.onnxruntime import OnnxRuntimeRunner, require_onnxruntime

    require_onnxruntime()
    with steady(check_onnx(path)):
        rehearse(path, ONNX_RUNTIME)
        return OnnxRuntimeRunner(path)


def _open_ir(path: Path) -> Runner:
    from reparamkit.runners.openvino import OpenVinoRunner, require_openvino

    require_openvino()
    with steady(check_ir(path)):
        rehearse(path, OPENVINO)
        return OpenVinoRunner(path)


def _open_pte(path: Path) -> Runner:
    from reparamkit.runners.executorch import ExecuTorchRunner, require_executorch

    require_executorch()
    with steady(check_pte(path)):
        return ExecuTorchRunner(path)


def _evaluated(path: Path) -> Runner:
    from reparamkit.runners.coreml import CoreMlRunner

    return CoreMlRunner(path)


def _native(path: Path) -> Runner:
    from reparamkit.runners.coreml_native import CoreMlNativeRunner

    return CoreMlNativeRunner(path)


OPENERS: dict[str, Callable[[Path], Runner]] = {
    ".onnx": _open_onnx,
    ".xml": _open_ir,
    ".pte": _open_pte,
    ".mlpackage": _evaluated,
    ".mlmodel": _evaluated,
}
"""Suffix -> what opens a file of another back end. A new runner is a file of this room and a line here."""

NATIVE_OPENERS: dict[str, Callable[[Path], Runner]] = {".mlpackage": _native, ".mlmodel": _native}
"""What opens it instead where the back end itself was asked for."""


def _open_file(path: Path) -> Runner:
    if not exists(path):
        raise UnusableInput(f"there is no file {path}")
    runner = open_foreign(path)
    if runner is not None:
        return runner
    from reparamkit.loading.source import load

    model: nn.Module | ExportedProgram = load(path).model
    if isinstance(model, nn.Module):
        return TorchRunner(model, path.name)
    return program_runner(model, path.name)
