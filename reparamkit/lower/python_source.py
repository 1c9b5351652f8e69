"""`net.py` beside `net.safetensors`: a folded network as plain PyTorch code, and its weights.

The code is one `nn.Module` with named layers, and a forward in the words of torch: no fx, no reparamkit.
`python_expressions` says how an operator is written.
"""

from __future__ import annotations

import ast
import importlib.util
import keyword
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.graph import _PyTreeCodeGen
from torch.utils import _pytree as pytree

from reparamkit.capture.sizes import SizeGuards
from reparamkit.engine.layers import ChannelScale
from reparamkit.errors import CannotWrite, UnusableInput
from reparamkit.lower.module import layer_counts
from reparamkit.lower.python_expressions import Unwritable, call_text, layer_of_call, layer_text, literal
from reparamkit.lower.writer import FileWriter, Work
from reparamkit.runners.torch import TorchRunner

_HEAD = '''"""{title}

Plain PyTorch. `load()` reads the weights from {weights} beside this file.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn


class {name}(nn.Module):
    def __init__(self):
        super().__init__()
{init}

    def forward(self, {arguments}):
{forward}
{checks}


def load(weights=Path(__file__).with_suffix(".safetensors")):
    """The network with its weights, in evaluation mode."""
    net = {name}()
    net.load_state_dict(load_file(weights))
    return net.eval()
'''


def write(module: nn.Module, path: Path) -> None:
    """Write a folded network as source code, and its weights beside it.

    Args:
        module: the `module` of what `fold` returned.
        path: ends in .py; the weights get the same name with .safetensors.

    Raises:
        CannotWrite: something in the network has no plain spelling, by name.
    """
    if not isinstance(module, fx.GraphModule):
        raise CannotWrite(
            f"cannot write {path.name}: the network was folded in parts, and is no single graph"
        )
    if not path.stem.isidentifier():
        raise CannotWrite(f"cannot write {path.name}: {path.stem!r} is no name that Python can import")
    try:
        source = _Writer(module)
        text = source.text(path)
    except Unwritable as reason:
        raise CannotWrite(f"cannot write {path.name}: {reason}") from reason
    from safetensors.torch import save_file

    path.write_text(re.sub(r"\n\n\n\n+", "\n\n\n", re.sub(r"[ ]+\n", "\n", text)), encoding="utf-8")
    save_file(source.weights, path.with_suffix(".safetensors"))


def open_source(path: Path) -> nn.Module:
    """Run what `write` wrote: the network with its weights. The file is code, and runs."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UnusableInput(f"{path} cannot be read as Python code")
    source = importlib.util.module_from_spec(spec)
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # nothing appears beside it
    try:
        spec.loader.exec_module(source)
    finally:
        sys.dont_write_bytecode = writes_bytecode
    module: nn.Module = source.load()
    return module


class _Writer:
    def __init__(self, module: fx.GraphModule) -> None:
        self._module = module
        self._init: list[str] = []
        self._names: dict[str, str] = {}
        self._taken = {"self", "torch", "F", "nn", "training", "forward", "check_sizes"}
        self._lines: list[str] = []
        self._checks: list[str] = []
        self._values: dict[fx.Node, str] = {}
        self._pending: tuple[fx.Node, str] | None = None
        self.weights: dict[str, Tensor] = {}
        self._last = {operand: node for node in module.graph.nodes for operand in node.all_input_nodes}

    def text(self, path: Path) -> str:
        arguments = self._arguments()
        for node in self._module.graph.nodes:
            if node.op == "call_module":
                self._layer(node)
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                self._return(node)
        name = "".join(part.capitalize() for part in re.split(r"_+", path.stem) if part) or "Net"
        return _HEAD.format(
            title=f"{name}, folded by reparamkit.",
            weights=path.with_suffix(".safetensors").name,
            name=name if name.isidentifier() and not keyword.iskeyword(name) else "Net",
            init=textwrap.indent("\n".join(self._init) or "pass", " " * 8),
            arguments=arguments,
            forward=textwrap.indent("\n".join(self._lines), " " * 8),
            checks=textwrap.indent("\n".join(self._checks), " " * 4),
        )

    def _arguments(self) -> str:
        codegen = self._module.graph._codegen
        inputs = [node for node in self._module.graph.nodes if node.op == "placeholder"]
        if not isinstance(codegen, _PyTreeCodeGen):
            raise Unwritable("the network has no calling convention")
        spec = codegen.pytree_info.in_spec
        positional, named = spec.child(0), spec.child(1)
        if any(not child.is_leaf() for child in [*positional.children(), *named.children()]):
            raise Unwritable("it takes containers of tensors; its inputs have to be plain arguments")
        for node, name in zip(inputs, codegen.pytree_info.orig_args, strict=True):
            self._values[node] = name
            self._taken.add(name)
        names = [self._values[node] for node in inputs]
        front, behind = names[: positional.num_children], names[positional.num_children :]
        return ", ".join([*front, *(["*", *behind] if behind else [])])

    def _layer(self, node: fx.Node) -> None:
        layer = self._module.get_submodule(str(node.target))
        if isinstance(layer, SizeGuards):
            self._guard(node, layer)
            return
        if type(layer).__name__ in ("SettledArguments", "LayoutGuard"):
            raise Unwritable("the network takes one value, or one memory layout, of an argument only")
        name = self._named(str(node.target))
        (x,) = node.args
        assert isinstance(x, fx.Node)
        if isinstance(layer, ChannelScale):
            weight = self._tensor(f"{node.target}.weight", layer.weight)
            shift = "" if layer.bias is None else f" + self.{self._tensor(f'{node.target}.bias', layer.bias)}"
            self._assign(node, [x], lambda texts: f"{texts[0]} * self.{weight}{shift}", str(node.target), ())
            return
        self._add_layer(name, layer)
        self._assign(node, [x], lambda texts: f"self.{name}({texts[0]})", str(node.target), None)

    def _add_layer(self, name: str, layer: nn.Module) -> None:
        text = f"self.{name} = {layer_text(layer)}"
        if text not in self._init:
            self._init.append(text)
        for key, tensor in layer.state_dict().items():
            self.weights[f"{name}.{key}"] = tensor.detach().cpu().contiguous().clone()

    def _call(self, node: fx.Node) -> None:
        call = layer_of_call(node, self._state)
        if call is not None:
            layer, path, x = call
            name = self._named(path)
            self._add_layer(name, layer)
            self._assign(node, [x], lambda texts: f"self.{name}({texts[0]})", path, None)
            return
        operands = list(dict.fromkeys(node.all_input_nodes))

        def text(texts: list[str]) -> str:
            return call_text(node, dict(zip(operands, texts, strict=True)))

        self._assign(node, operands, text, "", ())

    def _state(self, node: Any) -> tuple[str, Tensor] | None:
        """A stored tensor that one call alone reads, with its path."""
        if not isinstance(node, fx.Node) or node.op != "get_attr" or len(node.users) != 1:
            return None
        path = str(node.target)
        value = self._attribute(path)
        same = [n for n in self._module.graph.nodes if n.op == "get_attr" and n.target == path]
        return (path, value) if isinstance(value, Tensor) and len(same) == 1 else None

    def _attribute(self, path: str) -> Any:
        owner, _, last = path.rpartition(".")
        return getattr(self._module.get_submodule(owner), last)

    def _read(self, node: fx.Node) -> str:
        """The text of a value where it is read."""
        if node.op == "get_attr":
            value = self._attribute(str(node.target))
            if not isinstance(value, Tensor):
                raise Unwritable(f"{node.target} is a graph of its own, which runs on a condition")
            return f"self.{self._tensor(str(node.target), value)}"
        if self._pending is not None and self._pending[0] is node:
            text, self._pending = self._pending[1], None
            return text
        return self._values[node]

    def _tensor(self, path: str, value: Tensor) -> str:
        if path in self._names:
            return self._names[path]
        name = self._named(path)
        shape = ", ".join(map(str, value.shape))
        dtype = "" if value.dtype == torch.float32 else f", dtype={value.dtype}"
        empty = f"torch.empty({f'({shape},)' if value.ndim == 1 else f'({shape})'}{dtype})"
        if isinstance(value, nn.Parameter):
            grad = "" if value.is_floating_point() else ", requires_grad=False"
            self._init.append(f"self.{name} = nn.Parameter({empty}{grad})")
        else:
            self._init.append(f'self.register_buffer("{name}", {empty})')
        self.weights[name] = value.detach().cpu().contiguous().clone()
        return name

    def _named(self, path: str) -> str:
        """The attribute for a path: blocks.0.reparam_conv is blocks_0_conv."""
        if path not in self._names:
            name = re.sub(r"\W", "_", path.replace(".", "_"))
            name = f"layer_{name}" if not name[:1].isalpha() or keyword.iskeyword(name) else name
            while name in self._taken or hasattr(nn.Module, name):
                name += "_"
            self._taken.add(name)
            self._names[path] = name
        return self._names[path]

    def _assign(
        self, node: fx.Node, operands: list[fx.Node], text: Any, path: str, simple: tuple[()] | None
    ) -> None:
        """A line for a value, or the value is written into the line of its only reader, which is the next."""
        if self._pending is not None and self._pending[0] not in operands:
            self._flush()
        dying = [o for o in operands if self._last.get(o) is node and o.op != "get_attr"]
        reused = [self._values[o] for o in dying if o in self._values]
        inlined = self._pending[0] if self._pending is not None else None
        if inlined is not None and list(_uses(node)).count(inlined) > 1:
            self._flush()
            reused = [self._values[o] for o in dying if o in self._values]
        written: str = text([self._read(operand) for operand in operands])
        if not node.users:
            self._lines.append(written)
            return
        tensor_like = (
            isinstance(node.meta.get("val"), Tensor) or node.op == "call_module" or simple is not None
        )
        self._values[node] = self._variable(node, path, reused)
        following = node.next
        while following.op == "get_attr":
            following = following.next
        alone = list(node.users) == [following] and list(_uses(following)).count(node) == 1
        if alone and tensor_like and len(written) < 48 and following.op in ("call_function", "call_module"):
            self._pending = node, written
            return
        self._lines.append(f"{self._values[node]} = {written}")

    def _flush(self) -> None:
        if self._pending is not None:
            node, text = self._pending
            self._lines.append(f"{self._values[node]} = {text}")
            self._pending = None

    def _variable(self, node: fx.Node, path: str, reused: list[str]) -> str:
        if len(reused) == 1 or (reused and len(set(reused)) == 1):
            return reused[0]
        parts = [part for part in path.split(".") if part and not part.isdigit()]
        parts = [part for part in parts if part not in ("reparam_conv", "reparam_linear", "conv")] or parts
        last = self._last
        live = {name for other, name in self._values.items() if other in last and last[other] >= node}
        if node.op == "call_function" and not path:
            is_size = str(node.target).startswith("aten.sym_size")
            plain = next((letter for letter in "xyzuvw" if letter not in live), "value")
            parts = [f"size_{node.args[1]}" if is_size else plain]
        base = re.sub(r"\W|_+$", "", parts[-1]) if parts else "x"
        base = base if base.isidentifier() and not keyword.iskeyword(base) else "x"
        name, number = base, 1
        while name in live or name in ("torch", "F", "nn", "self", "max", "min"):
            number += 1
            name = f"{base}_{number}"
        return name

    def _return(self, node: fx.Node) -> None:
        self._flush()
        codegen = self._module.graph._codegen
        assert isinstance(codegen, _PyTreeCodeGen)
        results: Any = node.args[0]
        texts = iter([self._read(r) if isinstance(r, fx.Node) else literal(r) for r in results])
        assert codegen.pytree_info.out_spec is not None
        self._lines.append(f"return {_container(codegen.pytree_info.out_spec, texts)}")

    def _guard(self, node: fx.Node, guards: SizeGuards) -> None:
        tensors = [self._values[arg] for arg in node.args if isinstance(arg, fx.Node)]
        read = [tensors[i] for i in dict.fromkeys(index for index, _ in guards.places)]
        self._lines.append(f"self.check_sizes({', '.join(read)})")
        self._checks = ["", f"def check_sizes(self, {', '.join(read)}):"]
        for text in guards.assumptions:
            plain = re.sub(r"\bsym_(max|min|float|int)\b", r"\1", text)
            _require_plain(plain)

            def size(number: re.Match[str]) -> str:
                index, axis = guards.places[int(number[1])]
                return f"{tensors[index]}.shape[{axis}]"

            condition = re.sub(r"\bn(\d+)\b", size, plain)
            told = f"this network was captured for {guards.spoken(text)}"
            self._checks += [f"    if not ({condition}):", f"        raise ValueError({told!r})"]


def _uses(node: fx.Node) -> Iterator[fx.Node]:
    for leaf in pytree.tree_leaves((list(node.args), dict(node.kwargs))):
        if isinstance(leaf, fx.Node):
            yield leaf


def _container(spec: pytree.TreeSpec, texts: Iterator[str]) -> str:
    if spec.is_leaf():
        return next(texts)
    items = [_container(child, texts) for child in spec.children()]
    if spec.type is tuple:
        return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
    if spec.type is list:
        return f"[{', '.join(items)}]"
    if spec.type is dict:
        return f"{{{', '.join(f'{key!r}: {item}' for key, item in zip(spec.context, items, strict=True))}}}"
    raise Unwritable(
        f"it returns a {getattr(spec.type, '__name__', spec.type)}, a class of the network's own"
    )


def _require_plain(text: str) -> None:
    """Raises Unwritable for a condition on sizes that is more than arithmetic."""
    allowed = (
        ast.Expression, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Name, ast.Load, ast.Constant,
        ast.boolop, ast.operator, ast.unaryop, ast.cmpop, ast.Call,
    )  # fmt: skip
    for node in ast.walk(ast.parse(text, mode="eval")):
        known = not isinstance(node, ast.Name) or re.fullmatch(r"n\d+|max|min|int|float", node.id)
        if not isinstance(node, allowed) or not known:
            raise Unwritable(f"its sizes have to meet {text}, which is no plain arithmetic")


class SourceWriter(FileWriter):
    """`.py`, executed by itself, with its weights beside it."""

    exports = False

    def write(self, work: Work, target: Path) -> Sequence[str]:
        assert work.module is not None
        weights = work.path.with_suffix(".safetensors")
        if weights.exists() and not work.path.exists():
            raise UnusableInput(
                f"cannot write {work.path}: its weights go into {weights}, and there is another file of that "
                f"name; move it, or choose another name"
            )
        write(work.module, target)
        return [f"its weights are in {weights.name}"]

    def reopen(self, target: Path, work: Work) -> TorchRunner:
        return TorchRunner(open_source(target), work.path.name)

    def count(self, target: Path, work: Work) -> Counter[str]:
        return layer_counts(open_source(target))


WRITER = SourceWriter()
