"""The Python code of a folded graph: torch's own functions, and modules that are fetched once.

torch.fx writes `torch.ops.aten.relu.default(x)`, which reaches the operator through a layer of Python more
than `torch.relu(x)` does, and fetches every layer by all modules from the root on. Both cost a microsecond
or two a call, a tenth of a small network's time. The graph keeps its operators.

`torch.jit.trace` records a size that one of torch's own functions takes as what it is computed from, and
one that `torch.ops` takes as a number: where any is left, the code says so while it is traced.
"""

from __future__ import annotations

import builtins
import keyword
import re
import sys
from collections import Counter
from collections.abc import Iterator

import torch
from torch import fx
from torch._ops import OpOverload

_FUNCTIONS = (
    *("abs.default", "add.Tensor", "batch_norm.default", "bmm.default", "cat.default", "chunk.default"),
    *("clamp.default", "clamp_min.default", "conv1d.default", "conv2d.default", "conv3d.default"),
    *("div.Tensor", "exp.default", "flatten.using_ints", "layer_norm.default", "matmul.default", "mean.dim"),
    *("mul.Tensor", "neg.default", "permute.default", "relu.default", "reshape.default", "rsqrt.default"),
    *("select.int", "sigmoid.default", "softmax.int", "split.Tensor", "split_with_sizes.default"),
    *("sqrt.default", "squeeze.dim", "stack.default", "sub.Tensor", "sum.dim_IntList", "tanh.default"),
    *("transpose.int", "unbind.int", "unsqueeze.default"),
    *("arange.default", "arange.start", "full.default", "narrow.default", "ones.default", "zeros.default"),
)
_LAYERS = ("gelu.default", "hardswish.default", "linear.default", "scaled_dot_product_attention.default")
_SIZED = ("pad.default", "adaptive_avg_pool1d.default", "adaptive_avg_pool2d.default")
_INTERPOLATIONS = ("upsample_nearest2d.vec", "upsample_bilinear2d.vec", "upsample_bicubic2d.vec")
_METHODS = {
    "expand.default": "expand",
    "repeat.default": "repeat",
    "sym_size.int": "size",
    "view.default": "view",
}
SPELT = {
    **{operator: f"torch.{operator.split('.')[0]}" for operator in _FUNCTIONS},
    **{
        operator: f"torch.nn.functional.{operator.split('.')[0]}"
        for operator in (*_LAYERS, *_SIZED, "silu.default")
    },
    **{operator: f"torch._C._nn.{operator.split('.')[0]}" for operator in _INTERPOLATIONS},
    **{operator: f"torch.Tensor.{name}" for operator, name in _METHODS.items()},
}
"""The function of torch that calls an operator of aten with the arguments that it gets."""

_OPERATOR = re.compile(r"torch\.ops\.aten\.(\w+\.\w+)\(")
_SLICE = re.compile(r"torch\.ops\.aten\.slice\.Tensor\((\w+), (\d+), (-?\w+)(?:, (-?\w+))?(?:, (\d+))?\)")
_METHOD = re.compile(r"torch\.Tensor\.(\w+)\(([a-zA-Z_]\w*)(?:, )?")
_COUNTER = re.compile(r"# COUNTER: (\d+)")


def written(graph: fx.Graph, lines: list[str]) -> list[str]:
    """The lines of a graph's code, as torch.fx writes them, in other words."""
    nodes = list(graph.nodes)
    modules = _Modules(nodes, set(re.findall(r"\w+", "".join(lines))))
    rewritten: list[str] = []
    numbers: set[fx.Node] = set()
    told = False
    node: fx.Node | None = None
    for line in lines:
        counter = _COUNTER.search(line)
        if counter is not None:
            node = nodes[int(counter[1])]
        elif node is not None and node.op in ("call_module", "get_attr"):
            *path, last = str(node.target).split(".")
            rewritten += modules.fetched(path)
            line = line.replace(_as_fx("self", [*path, last]), _spelt(modules.name(path), [last]), 1)
        elif node is not None and node.op == "call_function":
            line = _SLICE.sub(_indexed, line, count=1)
            line = _OPERATOR.sub(_plainly, line, count=1)
            line = _METHOD.sub(r"\2.\1(", line, count=1)
            if _is_number(node, numbers):
                numbers.add(node)
            elif "torch.ops." in line and numbers.intersection(node.all_input_nodes):
                rewritten += [] if told else ["if torch.jit.is_tracing(): self.warn_of_fixed_sizes()\n"]
                told = True
        rewritten.append(line)
    return rewritten


def _is_number(node: fx.Node, numbers: set[fx.Node]) -> bool:
    """Whether a node is a size, or computed of sizes alone."""
    if isinstance(node.target, OpOverload):
        return node.target is torch.ops.aten.sym_size.int
    reads = node.all_input_nodes
    return bool(reads) and numbers.issuperset(reads)


def _indexed(match: re.Match[str]) -> str:
    """A slice as Python writes it; one that takes everything would become an alias."""
    x, axis, start, end, step = match.groups()
    if start in ("None", "0") and end in (None, "None", str(sys.maxsize)):
        return match[0]
    return f"{x}[{':, ' * int(axis)}{start}:{end or ''}{f':{step}' if step else ''}]"


def _plainly(match: re.Match[str]) -> str:
    function = SPELT.get(match[1])
    return match[0] if function is None else f"{function}("


def _spelt(root: str, path: list[str]) -> str:
    """An attribute of an attribute."""
    for name in path:
        plain = name.isidentifier() and not keyword.iskeyword(name)
        root = f"{root}.{name}" if plain else f'getattr({root}, "{name}")'
    return root


def _as_fx(root: str, path: list[str]) -> str:
    """The same as torch.fx writes it, which takes a module called `global` for a name like any other."""
    for name in path:
        root = f"{root}.{name}" if name.isidentifier() else f'getattr({root}, "{name}")'
    return root


class _Modules:
    """Local names for the modules on the way to what a graph calls, where several calls pass by them."""

    def __init__(self, nodes: list[fx.Node], words: set[str]) -> None:
        ways = [str(n.target).split(".")[:-1] for n in nodes if n.op in ("call_module", "get_attr")]
        passing = Counter(tuple(way[:length]) for way in ways for length in range(1, len(way) + 1))
        taken = {"self", *dir(builtins), *words, *(str(n.target) for n in nodes if n.op == "placeholder")}
        # A module from which all ways go on to one and the same is passed by, too.
        alone = {path[:-1] for path, count in passing.items() if passing[path[:-1]] == count}
        self._names: dict[tuple[str, ...], str] = {}
        for path in (path for path, count in passing.items() if count > 1 and path not in alone):
            name = re.sub(r"\W", "_", "_".join(path))
            while name in taken or keyword.iskeyword(name) or not name.isidentifier():
                name = f"m_{name}"
            taken.add(name)
            self._names[path] = name
        self._fetched: set[tuple[str, ...]] = set()

    def fetched(self, path: list[str]) -> Iterator[str]:
        """The lines that give the modules of a path their names, if none has before."""
        for length in range(1, len(path) + 1):
            here = tuple(path[:length])
            if here in self._names and here not in self._fetched:
                self._fetched.add(here)
                owner, rest = self._named(path[: length - 1])
                yield f"{self._names[here]} = {_spelt(owner, [*rest, path[length - 1]])}\n"

    def name(self, path: list[str]) -> str:
        """How a module is called in the code."""
        owner, rest = self._named(path)
        return _spelt(owner, rest)

    def _named(self, path: list[str]) -> tuple[str, list[str]]:
        """The last module on the way that has a name, and the way from there."""
        for length in range(len(path), 0, -1):
            if tuple(path[:length]) in self._names:
                return self._names[tuple(path[:length])], path[length:]
        return "self", path
