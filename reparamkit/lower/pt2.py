"""The `.pt2` file: torch.export's own archive, the same bytes for the same fold.

torch writes into every node where it came from: the addresses in memory of the graphs that it went through,
which are others in every run, and the lines and paths of the source files. Here graphs are numbered as they
come, and the file says nothing of the machine that made it.
"""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.fx
from torch.export import ExportedProgram
from torch.fx.traceback import NodeSource

from reparamkit.errors import CannotWrite
from reparamkit.lower.writer import FileWriter, Work
from reparamkit.runners.base import Runner
from reparamkit.runners.torch import TorchRunner
from reparamkit.support.inputs import Args, Kwargs
from reparamkit.support.isolation import call_untouched
from reparamkit.support.quiet import quiet
from reparamkit.support.text import first_line


def save_pt2(program: ExportedProgram, path: Path) -> None:
    """Write an exported program. Weights lie in the archive as raw bytes, never pickled.

    The archive is made in memory (it takes the file's size once more): torch's writer ends the whole process
    when the disk is full, from C++, where no handler reaches it.

    Raises:
        OSError: the file cannot be written.
        CannotWrite: the program holds something that torch.export has no way to write down.
    """
    archive = io.BytesIO()
    try:
        with quiet(), _origins_numbered(program):
            torch.export.save(program, archive)
    except Exception as error:  # torch's writer has no error of its own
        raise CannotWrite(
            f"cannot write {path.name}: torch.export cannot write this network down: {first_line(error)}"
        ) from error
    with path.open("wb") as file:
        file.write(archive.getbuffer())


@contextlib.contextmanager
def _origins_numbered(program: ExportedProgram) -> Iterator[None]:
    """While it lasts, the nodes of the program say where they came from without addresses and paths."""
    nodes = [
        node
        for module in program.graph_module.modules()
        if isinstance(module, torch.fx.GraphModule)
        for node in module.graph.nodes
    ]
    before = [dict(node.meta) for node in nodes]
    numbers: dict[int, int] = {}
    try:
        for node in nodes:
            node.meta.pop("stack_trace", None)
            if node.meta.get("from_node"):
                origins = [_numbered(source.to_dict(), numbers) for source in node.meta["from_node"]]
                node.meta["from_node"] = [NodeSource._from_dict(each) for each in origins]
        yield
    finally:
        for node, meta in zip(nodes, before, strict=True):
            node.meta.clear()
            node.meta.update(meta)


def _numbered(source: dict[str, Any], numbers: dict[int, int]) -> dict[str, Any]:
    number = numbers.setdefault(source["graph_id"], len(numbers))
    origins = [_numbered(each, numbers) for each in source["from_node"]]
    return {**source, "graph_id": number, "from_node": origins}


def load_pt2(path: Path) -> ExportedProgram:
    """Read back what `save_pt2` wrote. Only for files of our own: see `reparamkit.capture` for others."""
    with quiet():
        return torch.export.load(str(path))


class GuardedRunner(TorchRunner):
    """An exported program, which refuses sizes by torch's own guards.

    torch.export writes down that sizes inside the network are not one, whether or not that matters. A file
    that refuses a size gives no wrong answer.
    """

    def accepts(self, args: Args, kwargs: Kwargs) -> bool:
        """Whether the guards let inputs of these sizes pass."""
        try:
            call_untouched(self.module, args, kwargs)
        except AssertionError as error:
            return not str(error).startswith("Guard failed")
        except Exception:  # for the comparison to tell
            return True
        return True


class Pt2Writer(FileWriter):
    """`.pt2`, read back with torch.export."""

    def write(self, work: Work, target: Path) -> Sequence[str]:
        save_pt2(work.program, target)
        return ()

    def reopen(self, target: Path, work: Work) -> Runner:
        return GuardedRunner(load_pt2(target).module(), target.name)

    def count(self, target: Path, work: Work) -> Counter[str]:
        return Counter(
            str(getattr(node.target, "overloadpacket", node.target)).rsplit(".", 1)[-1]
            for node in work.program.graph.nodes
            if node.op == "call_function"
        )


WRITER = Pt2Writer()
