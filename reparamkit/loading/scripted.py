"""TorchScript archives: what is in them that could reach beyond the network, and then the module.

``torch.jit.load`` unpickles with its own reader, which knows TorchScript's types and imports nothing of
Python. What can run all the same is TorchScript: ``__setstate__`` and computed defaults while the file is
opened, any method later, and a few operators write or map files. So: the pickles may name only what
TorchScript writes, the code may hold neither of the first two nor the names of those operators, and once it
is compiled its graphs, where every alias is resolved, are searched for those operators again.
"""

from __future__ import annotations

import ast
import io
import warnings
from collections.abc import Iterator

import torch
from torch.jit import ScriptModule

from reparamkit.errors import UntrustedPickle, UnusableInput
from reparamkit.loading.archive import Archive
from reparamkit.loading.debug_ranges import check_ranges
from reparamkit.loading.door.pickle_survey import survey
from reparamkit.loading.pickles import NotAPickle, beyond, references

_TYPES = (
    *("__torch__", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_qtensor", "torch.jit._pickle"),
    *(
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_sparse_tensor",
    ),
    *("torch._utils._rebuild_meta_tensor_no_storage", "collections.OrderedDict", "torch.device"),
)
_CUSTOM_CLASSES = "__torch__.torch.classes"
_NAMESPACES = {
    "aten",
    "prim",
    "prims",
    "quantized",
    "_quantized",
    "mkldnn",
    "mkldnn_prepacked",
    "torchvision",
    "sparse",
}
_REFUSED_OPERATORS = {"save", "from_file", "_print", "rpc_sync", "rpc_async", "rpc_remote", "PythonOp"}
_OPENED = ("data.pkl", "constants.pkl")
_RUN_ON_LOADING = {"__setstate__", "__new__", "__del__"}
_CONSTANT_CALLS = {"annotate", "uninitialized", "device"}


def is_scripted(archive: Archive) -> bool:
    """Whether the archive is of ``torch.jit.save``."""
    return bool(archive.root) and (
        "constants.pkl" in archive.records or any(record.startswith("code/") for record in archive.records)
    )


def load_scripted(archive: Archive, *, trust_pickle: bool) -> ScriptModule:
    """The module in the archive, on the CPU.

    Raises `UntrustedPickle` for anything in it that could run code on opening or touch files, unless
    `trust_pickle`, and `UnusableInput` where torch cannot read it.
    """
    _check_pickles(archive)
    if not trust_pickle:
        _refuse_foreign_pickles(archive)
        _refuse_code(archive)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module: ScriptModule = torch.jit.load(  # type: ignore[no-untyped-call]
                str(archive.path), map_location="cpu"
            )
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UnusableInput(
            f"{archive.path} is a TorchScript archive that torch {torch.__version__} cannot read: "
            f"{lines[0] if lines else type(error).__name__}. Script or trace the model again with this torch"
        ) from error
    if not trust_pickle:
        _refuse_operators(archive, module)
    return module


def _check_pickles(archive: Archive) -> None:
    """Depths and sizes in every pickle, and the storages that those which torch opens ask for."""
    for record in archive.records:
        if not record.lower().endswith((".pkl", ".debug_pkl")):
            continue
        folder = record[: -len(".pkl")].lower() + "/"
        storages = {
            name[len(folder) :]: size
            for name, size in archive.sizes.items()
            if name.lower().startswith(folder)
        }
        stream = archive.read(record)
        where = f"{archive.path}, in its entry {record!r},"
        survey(io.BytesIO(stream), len(stream), where, storages if record.lower() in _OPENED else None)
        if record.lower().endswith(".debug_pkl"):
            check_ranges(stream, where)


def _refuse_foreign_pickles(archive: Archive) -> None:
    for record in archive.records:
        if not record.lower().endswith((".pkl", ".debug_pkl")):
            continue
        try:
            names = references(archive.read(record), literal=True)
        except NotAPickle as error:
            raise UnusableInput(
                f"{archive.path} is damaged: its entry {record!r} is no pickle. Save it again"
            ) from error
        foreign = [name for name in beyond(names, _TYPES) if not _is_storage(name)]
        foreign += [name for name in names if name.startswith(_CUSTOM_CLASSES)]
        if foreign:
            raise _refusal(archive, f"the pickle {record} refers to {foreign[0]}")


def _is_storage(name: str) -> bool:
    module, _, kind = name.rpartition(".")
    return module == "torch" and kind.endswith("Storage") and kind.isidentifier()


def _refuse_code(archive: Archive) -> None:
    for record in archive.records:
        if not (record.lower().startswith("code/") and record.lower().endswith(".py")):
            continue
        try:
            tree = ast.parse(archive.read(record).decode())
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise _refusal(archive, f"{record} cannot be checked ({type(error).__name__})") from error
        finding = next(_findings(tree), None)
        if finding:
            raise _refusal(archive, f"{record} {finding}")


def _findings(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            if isinstance(node, ast.FunctionDef) and node.name in _RUN_ON_LOADING:
                yield f"defines {node.name}, which runs when the file is opened"
            defaults = [*node.args.defaults, *(default for default in node.args.kw_defaults if default)]
            if not all(_is_constant(default) for default in defaults):
                yield "computes a default value when the file is opened"
        elif isinstance(node, ast.Attribute) and node.attr in _REFUSED_OPERATORS:
            yield f"calls the operator {node.attr}, which reaches beyond the network"
        elif isinstance(node, ast.Attribute) and node.attr == "classes":
            yield "uses a class that is implemented outside TorchScript"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            if any(
                isinstance(a, ast.Constant) and a.value in {*_REFUSED_OPERATORS, "classes"} for a in node.args
            ):
                yield "calls an operator which reaches beyond the network"
        elif isinstance(node, ast.ClassDef):
            values = [item for item in node.body if not isinstance(item, ast.FunctionDef)]
            if not all(_is_constant(value) for value in values):
                yield "computes a constant when the file is opened"
    for item in tree.body:
        if not isinstance(item, (ast.FunctionDef, ast.ClassDef)) and not _is_constant(item):
            yield "computes a value when the file is opened"


def _is_constant(value: ast.AST) -> bool:
    return all(
        _last_name(node.func) in _CONSTANT_CALLS for node in ast.walk(value) if isinstance(node, ast.Call)
    )


def _last_name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _refuse_operators(archive: Archive, module: ScriptModule) -> None:
    for path, part in module.named_modules():
        compiled = getattr(part, "_c", None)
        if compiled is None:
            continue
        for name in compiled._method_names():
            for kind in kinds(compiled._get_method(name).inlined_graph):
                namespace, _, operator = kind.partition("::")
                if operator in _REFUSED_OPERATORS or namespace not in _NAMESPACES:
                    where = f"{path}.{name}" if path else name
                    raise _refusal(archive, f"{where} calls {kind}, which reaches beyond the network")


def kinds(graph: torch._C.Graph | torch._C.Block) -> Iterator[str]:
    """The kind of every node of a compiled graph, as "aten::relu", those of inner blocks included."""
    for node in graph.nodes():
        yield node.kind()
        for block in node.blocks():
            yield from kinds(block)
        if node.hasAttribute("Subgraph"):
            yield from kinds(node.g("Subgraph"))


def _refusal(archive: Archive, what: str) -> UntrustedPickle:
    return UntrustedPickle(
        f"{archive.path} is a TorchScript archive that could do more than compute: {what}. It was not run; "
        f"pass --trust-pickle (trust_pickle=True) if you trust whoever made the file"
    )
