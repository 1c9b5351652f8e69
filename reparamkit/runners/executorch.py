"""Runs an ExecuTorch program (`.pte`) in ExecuTorch's own runtime, on the CPU.

The runtime is written in C++ and ends its process where it finds something that it takes for impossible; it
says why on stderr and gives a number. So it runs in a process of its own, under a limit of memory, whose last
words become the error here.

A program knows the sizes that memory was planned for, and neither names nor which sizes are free. Files of
reparamkit's say these things themselves: a method of the program named `TOLD` returns them as JSON.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from reparamkit.errors import MissingExtra, UnusableInput
from reparamkit.loading.door.rehearsal import LIMITS, room_apart
from reparamkit.runners.apart import CHILD, Apart
from reparamkit.runners.base import InputSpec, NamedTensors, match_inputs
from reparamkit.runners.pte_outline import Outline, outline
from reparamkit.support.inputs import tensor_leaves
from reparamkit.support.quiet import quiet

TOLD = "reparamkit"
"""The method of a program of ours that returns, as JSON: "inputs", a list with the name, the shape (numbers,
and names of free sizes) and the usual shape of each tensor, or the value of what is no tensor; "sizes", the
smallest and largest of each free size; "outputs", the names of those that are something."""

_DTYPES = {
    0: torch.uint8,
    1: torch.int8,
    2: torch.int16,
    3: torch.int32,
    4: torch.int64,
    5: torch.float16,
    6: torch.float32,
    7: torch.float64,
    11: torch.bool,
    15: torch.bfloat16,
}
_NOISE = ("[cpuinfo", "Failed to load ")
_WORDS = re.compile(r"^\[\w+\.(?:cpp|h|cc):\d+\] (.*)$", re.M)
_CHECKED = re.compile(r"^Check failed \(.*?\): (?=.)")
_OPERATOR = re.compile(r"in operator (\S+?):? ")

_RUNTIME = """
import io, json

try:
    import torch
    # Not executorch.runtime: that imports the whole exporter, which takes four seconds more.
    from executorch.extension.pybindings import _C as runtime

    limit()

    def opened():
        return runtime._load_program(
            sys.argv[1], program_verification=runtime.Verification.InternalConsistency
        )

    def loaded():
        try:
            return program.load_method(method)
        except RuntimeError:
            import executorch.kernels.quantized  # registers the operators of quantised programs
            return program.load_method(method)

    def ports(meta, count, of):
        tensors = []
        for place in range(count):
            try:
                tensor = of(place)
                tensors.append([list(tensor.sizes()), tensor.dtype()])
            except Exception:
                tensors.append(None)
        return tensors

    program = opened()
    names = [program.get_method_name(place) for place in range(program.num_methods())]
    takers = [name for name in names if program.method_meta(name).num_inputs()]
    method = "forward" if "forward" in names or len(takers) != 1 else takers[0]
    if method not in names:
        raise ValueError("it has no method 'forward', but " + ", ".join(names))
    meta = program.method_meta(method)
    told = program.load_method(sys.argv[3])(()) if sys.argv[3] in names else None
    forward = loaded()
    answer_now = {
        "method": method,
        "inputs": ports(meta, meta.num_inputs(), meta.input_tensor_meta),
        "told": told[0] if told and isinstance(told[0], str) else None,
    }
    give(json.dumps(answer_now).encode())
except Exception as error:
    give(b"")
    give(str(error).encode("utf-8", "replace") or b"an error without words")
    sys.exit(0)

while True:
    given_now = take()
    if not given_now:
        break
    fed = torch.load(io.BytesIO(given_now), weights_only=True)
    try:
        values = list(forward(tuple(fed)))
        part = io.BytesIO()
        torch.save(values, part)
        give(part.getvalue())
    except Exception as error:
        give(b"")
        give(str(error).encode("utf-8", "replace") or b"an error without words")
"""


class ExecuTorchRunner:
    """A program, opened once, in a process that ends with this object.

    Attributes:
        declared: the inputs that are tensors.
        ranges: smallest and largest of each free size, where the file says so.

    Raises:
        MissingExtra: executorch is not installed.
        UnusableInput: ExecuTorch cannot open the file.
    """

    name = "ExecuTorch"
    structured = False

    def __init__(self, path: Path) -> None:
        require_executorch()
        self.path = path
        self._process: Apart | None = None
        opened = json.loads(self._open())
        self.method: str = opened["method"]
        told = _told(opened["told"], opened["inputs"])
        self._slots = told["inputs"] if told else _slots(opened["inputs"], path)
        self._outputs: list[str] = told["outputs"] if told else []
        self.ranges: dict[str, tuple[int, int | None]] = {}
        if told:
            self.ranges = {name: (low, high) for name, (low, high) in told["sizes"].items()}
        self.listed: dict[str, tuple[tuple[int, ...], ...]] = {}
        self.declared = [
            InputSpec(
                slot["name"],
                tuple(slot["shape"]),
                _DTYPES.get(port[1]),
                tuple(slot.get("usual", port[0])),
            )
            for slot, port in zip(self._slots, opened["inputs"], strict=True)
            if port is not None
        ]

    @cached_property
    def outline(self) -> Outline:
        """What the program is made of.

        Raises:
            UnusableInput: it cannot be read.
        """
        return outline(self.path, self.method)

    @property
    def precision(self) -> str:
        """The least precise type among weights, inputs and outputs; "int8" if quantised."""
        return self.outline.precision

    def accepts(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether inputs are of sizes that the file says it was made for."""
        try:
            matched = match_inputs(self.declared, tensor_leaves(args, kwargs), self.path.name)
        except UnusableInput:
            return False
        known: dict[str, int] = {}
        for spec in self.declared:
            shape = tuple(matched[spec.name].shape)
            assert spec.shape is not None
            if len(shape) != len(spec.shape):
                return False
            for size, axis in zip(shape, spec.shape, strict=True):
                if isinstance(axis, int):
                    if size != axis:
                        return False
                    continue
                low, high = self.ranges.get(axis, (1, None))
                if known.setdefault(axis, size) != size or size < low or (high is not None and size > high):
                    return False
        return True

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NamedTensors:
        """Outputs under the names that the file gives them; inputs are matched as `match_inputs` does.

        Raises:
            UnusableInput: the file takes another number of tensors, or tensors of another dtype.
            RuntimeError: what ExecuTorch says, or that it ended its process.
        """
        part = io.BytesIO()
        torch.save(self._fed(args, kwargs), part)
        if self._process is None:
            self._open()
        values = self._asked(part.getvalue())
        outputs = torch.load(io.BytesIO(values), weights_only=True)
        present = [
            value if isinstance(value, torch.Tensor) else torch.tensor(value)
            for value in outputs
            if value is not None
        ]
        names = self._outputs
        if len(names) != len(present):
            names = [f"output_{place}" for place in range(len(present))]
        return list(zip(names, present, strict=True))

    def _fed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """What the program takes for these inputs, in order."""
        matched = match_inputs(self.declared, tensor_leaves(args, kwargs), self.path.name)
        tensors = iter(matched.values())
        return [
            next(tensors).detach().cpu().contiguous() if "shape" in slot else slot["value"]
            for slot in self._slots
        ]

    def here(self, args: tuple[Any, ...], kwargs: dict[str, Any], threads: int) -> Callable[[], object]:
        """A call of the program in this process, with so many threads: nothing is copied to another one.

        It has run on these inputs apart before, so that what would end a process does not end this one.

        Raises:
            RuntimeError: what ExecuTorch says.
        """
        self.run(args, kwargs)
        with quiet():
            runtime = import_module("executorch.extension.pybindings._C")
            runtime._unsafe_reset_threadpool(threads)
            program = runtime._load_program(str(self.path))
            try:
                method = program.load_method(self.method)
            except RuntimeError:
                import_module("executorch.kernels.quantized")  # registers operators of quantised programs
                method = program.load_method(self.method)
        fed = tuple(self._fed(args, kwargs))

        def call(_program: object = program) -> object:  # a method does not keep its program
            return method(fed)

        return call

    def _open(self) -> bytes:
        """Start the process, and have it open the file.

        Raises:
            UnusableInput: it cannot, or no process can be started.
        """
        try:
            arguments = (str(self.path), str(room_apart()), TOLD)
            self._process = Apart(LIMITS + CHILD + _RUNTIME, *arguments)
        except (OSError, ValueError) as error:
            raise UnusableInput(
                f"ExecuTorch runs in a process of its own, and none can be started for {self.path}: {error}"
            ) from error
        try:
            return self._asked()
        except RuntimeError as error:
            raise UnusableInput(f"ExecuTorch cannot open {self.path}: {error}") from error

    def _asked(self, *pieces: bytes) -> bytes:
        """What the process answers.

        Raises:
            RuntimeError: in ExecuTorch's words, that it failed.
        """
        process = self._process
        assert process is not None
        before = process.told_so_far() if pieces else 0
        try:
            process.give(*pieces)
            answer = process.take()
            if answer:
                return answer
            said = process.take().decode("utf-8", "replace")
        except (OSError, EOFError):
            self._process = None
            way = process.end()
            words = _reason(process.told(before))
            raise RuntimeError(
                f"ExecuTorch ends its process ({way})" + (f": {words}" if words else "")
            ) from None
        raise RuntimeError(_reason(process.told(before)) or " ".join(said.split())[:300])


def require_executorch() -> None:
    """Find out whether the package is there; it is not imported.

    Raises:
        MissingExtra: it is not.
    """
    if find_spec("executorch") is None:
        raise MissingExtra("executorch", "executorch", "running an ExecuTorch program (.pte)")


def _slots(ports: list[Any], path: Path) -> list[dict[str, Any]]:
    """The inputs of a file that says nothing of them.

    Raises:
        UnusableInput: one is no tensor, so that nobody knows what to give.
    """
    for place, port in enumerate(ports):
        if port is None:
            raise UnusableInput(
                f"input {place} of {path} is no tensor but a value that the program was made with, which it "
                "does not say; export it without that argument"
            )
    return [{"name": f"input_{place}", "shape": port[0]} for place, port in enumerate(ports)]


def _told(text: str | None, ports: list[Any]) -> dict[str, Any] | None:
    """What a file of ours says of itself; None where it says nothing that fits its inputs."""
    try:
        told = json.loads(text or "")
        fits = len(told["inputs"]) == len(ports) and all(map(_fits, told["inputs"], ports))
        names = [slot["name"] for slot in told["inputs"] if "shape" in slot]
        fits &= all(isinstance(name, str) for name in [*names, *told["outputs"]])
        fits &= len(set(names)) == len(names) and len(set(told["outputs"])) == len(told["outputs"])
        fits &= all(isinstance(low, int) and isinstance(high, int) for low, high in told["sizes"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return told if fits else None


def _fits(slot: Mapping[str, Any], port: Any) -> bool:
    if port is None:
        return "value" in slot and not isinstance(slot["value"], (str, list, dict))
    shape, usual = slot["shape"], slot["usual"]
    if len(usual) != len(shape) or not all(isinstance(size, int) for size in usual):
        return False
    return len(shape) == len(port[0]) and all(isinstance(size, (int, str)) for size in shape)


def _reason(text: str) -> str:
    """The cause among what the runtime has written, and the operator; "" for nothing."""
    lines = [line for line in text.splitlines() if not line.startswith(_NOISE)]
    said = [words for words in _WORDS.findall("\n".join(lines)) if not words.startswith("arg ")]
    if not said:
        return ""
    cause = _CHECKED.sub("", said[0]).rstrip(" .:,")
    operator = next((match[1] for words in said if (match := _OPERATOR.search(words))), "")
    return " ".join(f"{cause} ({operator})".split() if operator else cause.split())[:300]
