"""The forms of one network that are timed: as it came, after other tools, and folded.

| form | module | file |
|---|---|---|
| original | as it came, in evaluation mode | exported by torch.onnx |
| onnxsim | | the same file after onnxsim |
| hand | after its own library's fold | exported, and after onnxsim |
| folded | after `reparamkit.fold` | as `reparamkit` writes it |

A file is .onnx, or .pte, lowered for XNNPACK, which no simplifier has seen.

All have the sizes of the example, so that a runtime may plan for them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from reparamkit.api import fold
from reparamkit.benchmark.own_folds import own_fold
from reparamkit.compare.float64.reference import Reference
from reparamkit.compare.profile import EXCHANGEABLE, judge_candidate
from reparamkit.errors import CannotWrite
from reparamkit.loading.opened import Source
from reparamkit.runners.base import Runner
from reparamkit.runners.open import open_runner
from reparamkit.runners.torch import TorchRunner
from reparamkit.support.inputs import Args, Kwargs
from reparamkit.support.quiet import quiet
from reparamkit.support.text import first_line

if TYPE_CHECKING:
    from reparamkit.result import Folded

ORIGINAL, ONNXSIM, HAND, FOLDED = "original", "onnxsim", "hand", "folded"
FORMS = (ORIGINAL, ONNXSIM, HAND, FOLDED)


class NoSuchForm(Exception):
    """The network has no such form; the text says why."""


@dataclass
class Forms:
    """The forms of a network, each made when it is first asked for. Files are written into `folder`."""

    name: str
    model: nn.Module
    args: Args
    kwargs: Kwargs
    folder: Path
    _files: dict[tuple[str, str], Path | NoSuchForm] = field(default_factory=dict)
    _file_differs: dict[tuple[str, str], str] = field(default_factory=dict)

    def module(self, form: str) -> nn.Module:
        """The form as a module.

        Raises:
            NoSuchForm: there is none.
        """
        if form == ORIGINAL:
            return self.original
        if form == FOLDED:
            return self.folded.module
        if form == HAND:
            if isinstance(self._hand, NoSuchForm):
                raise self._hand
            return self._hand
        raise NoSuchForm(f"{form} is a form of files")

    def file(self, form: str, suffix: str = ".onnx") -> Path:
        """The form as a file.

        Raises:
            NoSuchForm: there is none, or torch.onnx, onnxsim or ExecuTorch refuse it.
        """
        key = form, suffix
        if key not in self._files:
            try:
                self._files[key] = self._lowered(form) if suffix == ".pte" else self._written(form)
            except NoSuchForm as reason:
                self._files[key] = reason
        file = self._files[key]
        if isinstance(file, NoSuchForm):
            raise file
        return file

    @cached_property
    def original(self) -> nn.Module:
        """A copy in evaluation mode."""
        return copy.deepcopy(self.model).eval()

    @cached_property
    def folded(self) -> Folded:
        """What `reparamkit.fold` makes of it, with fixed sizes.

        Raises:
            ReparamkitError: it cannot be folded.
        """
        return fold(Source(self.model, self.name, None, self.args, dict(self.kwargs)), dynamic=False)

    @cached_property
    def reference(self) -> Reference:
        """What the network as it came computes."""
        return self.folded.network.reference

    def differs(self, runner: Runner) -> str:
        """By how much a form is not the network that it is a form of; "" if it is, or nobody can tell."""
        verdict = judge_candidate(self.reference, runner, EXCHANGEABLE)
        return verdict.summary() if verdict.differs else ""

    @property
    def untold(self) -> str:
        """Why it cannot be told whether the folded network is the same, as of weights that are all zero."""
        equivalence = self.folded.equivalence
        return "" if equivalence is None else equivalence.untold

    def file_differs(self, form: str, suffix: str = ".onnx") -> str:
        """As `differs`, of a form as a file, which several back ends run."""
        key = form, suffix
        if key not in self._file_differs:
            self._file_differs[key] = self.differs(open_runner(self.file(form, suffix)))
        return self._file_differs[key]

    def module_differs(self, form: str) -> str:
        """As `differs`, of a form as a module."""
        if form in (ORIGINAL, FOLDED):  # the one is the reference, and `fold` has verified the other
            return ""
        return self.differs(TorchRunner(self.module(form)))

    @cached_property
    def _hand(self) -> nn.Module | NoSuchForm:
        try:
            folded = own_fold(self.model)
        except Exception as error:
            return NoSuchForm(f"its library's own fold fails: {first_line(error)}")
        return NoSuchForm("its library has no fold for it") if folded is None else folded

    def _lowered(self, form: str) -> Path:
        path = self.folder / f"{form}.pte"
        module = self.module(form)
        try:
            if form == FOLDED:
                self.folded.save(path, allow_untold=True)
            else:
                from reparamkit.lower.executorch import lowered

                with quiet(), torch.no_grad():
                    program = torch.export.export(module, self.args, self.kwargs or None, strict=False)
                path.write_bytes(lowered(program, "xnnpack", "{}"))
        except CannotWrite as error:
            raise NoSuchForm(str(error)) from error
        return path

    def _written(self, form: str) -> Path:
        path = self.folder / f"{form}.onnx"
        if form == FOLDED:
            self.folded.save(path, allow_untold=True)  # what is timed need not be told; `untold` says so
        elif form == ONNXSIM:
            _simplify(self.file(ORIGINAL), path)
        else:
            module = self.module(form)
            exported = self.folder / f"{form}.exported.onnx" if form == HAND else path
            _export(module, self.args, self.kwargs, exported)
            if form == HAND:
                _simplify(exported, path)
        return path


def _export(module: nn.Module, args: Args, kwargs: Kwargs, path: Path) -> None:
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(module, args, kwargs or None, strict=False)
            exported: Any = torch.onnx.export(program, (), None, dynamo=True, verbose=False)
            exported.save(str(path))
    except Exception as error:
        raise NoSuchForm(f"torch.onnx refuses it: {first_line(error)}") from error


def _simplify(source: Path, path: Path) -> None:
    import onnx
    import onnxsim

    simplify: Callable[..., Any] = onnxsim.simplify
    try:
        with quiet():
            model, fine = simplify(onnx.load(str(source)))
    except Exception as error:
        raise NoSuchForm(f"onnxsim refuses it: {first_line(error)}") from error
    if not fine:
        raise NoSuchForm("onnxsim finds its own result to differ")
    onnx.save(model, str(path))
