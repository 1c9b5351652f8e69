"""The JSON of an exported program, searched for what could make torch run something else than the network.

torch turns this JSON into a graph by looking up operators by name, by evaluating expressions, and by
generating Python source into which the names of values and modules are pasted. So an operator must be one
that computes, an expression must be one (`expressions`), and a name must be a name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from reparamkit.loading.expressions import is_guard, is_size

_NAMESPACES = {
    *("aten", "prims", "prim", "quantized", "_quantized", "quantized_decomposed", "torchvision"),
    *("mkldnn", "mkldnn_prepacked", "onednn", "_native"),
}
_TOUCHES_FILES = {"from_file", "save", "load", "_print"}
_HIGHER_ORDER = {
    *("cond", "while_loop", "scan", "associative_scan", "map_impl", "wrap", "out_dtype", "strict_mode"),
    *("wrap_with_set_grad_enabled", "wrap_with_autocast", "wrap_activation_checkpoint", "hints_wrapper"),
    *("tag_activation_checkpoint", "invoke_subgraph", "auto_functionalized", "auto_functionalized_v2"),
    *("flex_attention", "run_const_graph", "foreach_map", "_export_tracepoint"),
}
_PYTHON_OPERATORS = {
    *("getitem", "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "neg", "pos", "abs", "eq", "ne"),
    *("lt", "le", "gt", "ge", "and_", "or_", "xor", "not_", "invert", "lshift", "rshift", "index", "matmul"),
}
_BATCHING = {
    *("_vmap_increment_nesting", "_vmap_decrement_nesting", "_add_batch_dim", "_remove_batch_dim"),
    "lazy_load_decompositions",
}
_OPERATOR = re.compile(r"torch\.ops\.(\w+)\.(__\w+__|[A-Za-z_]\w*)(?:\.([A-Za-z]\w*))?")
_DUNDERS = {
    f"__{prefix}{name}__" for name in ("and", "or", "xor", "lshift", "rshift") for prefix in ("", "i")
}
# quotes, backslashes and control characters are what a name needs to leave the quotes it is pasted between
_UNPASTEABLE = re.compile(r"[\"'\\\x00-\x1f\x7f\u2028\u2029]")
_NAMES = {"name", "as_name"}
_NAMED_VALUES = {
    *("tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values", "custom_obj_values"),
    "range_constraints",
}
_CHOSEN_KEYS = {*_NAMED_VALUES, "as_string_to_argument"}
_FREE_TEXT = {"as_string", "as_strings"}
_SHORT = 80


def find_code(program: bytes) -> str | None:
    """What in the JSON of an exported program could run code, in words; None where there is nothing.

    Raises ValueError where the bytes are no JSON object.
    """
    parsed = json.loads(program.decode())
    if not isinstance(parsed, dict):
        raise ValueError("not a JSON object")
    return next(_findings(parsed, ""), None)


def _findings(value: Any, key: str) -> Iterator[str]:
    """`key` is the nearest key above `value`; lists pass it on to their items."""
    if isinstance(value, dict):
        for inner, item in value.items():
            # notes for people, unless the file's author chose this word as the name of a value
            if inner == "metadata" and key not in _CHOSEN_KEYS and _is_text(item):
                continue
            if key in _NAMED_VALUES and not _is_name(inner):
                yield f"the value name {_short(inner)}"
            if _UNPASTEABLE.search(inner):
                yield f"the key {_short(inner)}"
            yield from _findings(item, inner)
    elif isinstance(value, list):
        for item in value:
            yield from _findings(item, key)
    elif isinstance(value, str):
        complaint = _complaint(value, key)
        if complaint:
            yield complaint


def _complaint(text: str, key: str) -> str | None:
    if key in _FREE_TEXT:
        return None
    if key in {"target", "as_operator"}:
        return None if computes(text) else f"a call of {_short(text)}, which is no operator of a network"
    if key == "expr_str":
        return None if is_size(text) else f"the size {_short(text)}"
    if key == "guards_code":
        return None if is_guard(text) else f"the condition {_short(text)}"
    if key in {"in_spec", "out_spec"}:
        return _structure_complaint(text)
    if key in _NAMES or key == "forward_arg_names":
        return None if _is_name(text) else f"the value name {_short(text)}"
    return f"the text {_short(text)}" if _UNPASTEABLE.search(text) else None


def computes(target: str) -> bool:
    """Whether the target of a call is an operator that computes, and reaches no file, process or module."""
    match = _OPERATOR.fullmatch(target)
    if match:
        namespace, name, _ = match.groups()
        if namespace == "higher_order":
            return name in _HIGHER_ORDER
        known = name in _DUNDERS if name.startswith("__") else name not in _TOUCHES_FILES
        return namespace in _NAMESPACES and known
    module, _, name = target.rpartition(".")
    if module == "_operator":
        return name in _PYTHON_OPERATORS
    if module == "torch._functorch.predispatch":
        return name in _BATCHING
    if module == "torch":
        return re.fullmatch(r"_?sym_[a-z0-9_]+", name) is not None
    return module == "math" and re.fullmatch(r"[a-z][a-z0-9]*", name) is not None


def _structure_complaint(text: str) -> str | None:
    """The nesting of inputs or outputs: JSON in which torch looks up types, and imports modules for two of
    them."""
    if not text:
        return None
    try:
        spec = json.loads(text)
    except ValueError:
        return f"the structure {_short(text)}"
    complaint = next(_structure_findings(spec), None)
    if complaint is None and not all(_is_name(name) for name in _keyword_names(spec)):
        return f"the argument names in {_short(text)}"
    return complaint


def _structure_findings(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        if "__enum__" in value:
            yield f"the enumeration {_short(str(value.get('fqn')))}, for which a module would be imported"
        module = value.get("default_factory_module", "builtins")
        if module not in {"builtins", "collections"}:
            yield f"the default {_short(str(module))}, for which a module would be imported"
        for inner, item in value.items():
            yield from _structure_findings(inner)
            yield from _structure_findings(item, inner)
    elif isinstance(value, list):
        for item in value:
            yield from _structure_findings(item)
    elif isinstance(value, str):
        if key == "context" and value[:1] in {"[", "{", '"'}:
            try:
                yield from _structure_findings(json.loads(value))
            except ValueError:
                yield f"the structure {_short(value)}"
        elif _UNPASTEABLE.search(value):
            yield f"the key {_short(value)} of an input or output"


def _keyword_names(spec: Any) -> list[str]:
    """The names of the keyword arguments in the structure ((arguments), {keyword arguments})."""
    try:
        keywords = spec[1]["children_spec"][1]
        context = keywords["context"]
        names = json.loads(context) if isinstance(context, str) else context
    except (LookupError, TypeError, ValueError):
        return []
    is_call = str(spec[1].get("type")).endswith("tuple") and len(spec[1]["children_spec"]) == 2
    is_dict = str(keywords.get("type")) == "builtins.dict"
    return [str(name) for name in names] if is_call and is_dict and isinstance(names, list) else []


def _is_text(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _is_name(text: str) -> bool:
    return text == "" or text.isidentifier()


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHORT else f"{text[:_SHORT]}…")
