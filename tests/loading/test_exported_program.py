"""What counts as code in the JSON of an exported program, case by case."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reparamkit.loading.exported_program import computes, find_code
from reparamkit.loading.expressions import is_guard, is_size


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s53', positive=True, integer=True)",
        "Mul(Integer(3), Max(Integer(1), FloorDiv(Symbol('s0', integer=True), Integer(2))))",
        "s0 + 2*s1 // 3",
        "Piecewise(ExprCondPair(Integer(1), Eq(s0, 2)), ExprCondPair(-s0, True))",
    ],
)
def test_sizes(text: str) -> None:
    assert is_size(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "Max(2, '__import__(1)')",
        "Symbol('a(1)')",
        "Symbol('s0', assumption='x')",
        "sympify('1')",
        "S('1')",
        "s0.__class__",
        "s0[0]",
        "(lambda: 1)()",
        "[x for x in s0]",
        "_s",
        "f'{s0}'",
        "b'x'",
        "s0\n",
        "1 +",
        "(" * 3000,
    ],
)
def test_what_is_no_size(text: str) -> None:
    assert not is_size(text)


@pytest.mark.parametrize(
    "text",
    [
        "(L['x'].size()[2] // 2) != 1",
        "L['args'][0]['pixel values'].stride()[0] == L['x'].size()[1]*3",
        "max(1, L['x'].size()[0]) <= 4 and not L['n'] == 2",
        "math.floor(L['s']) < inf",
        "torch.sym_float(L['x'].size()[0]) > 0.5",
    ],
)
def test_guards(text: str) -> None:
    assert is_guard(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "torch.load(L['x'])",
        "torch.os.system(L['x'])",
        "L['x'].tofile(1)",
        "L['x'].size.__globals__",
        "L['\"'] == 1",
        "L['x'] == '\\''",
        "eval(L['x'])",
        "max(1, key=eval)",
        "[L for L in ()]",
        "x := 1",
        "open",
    ],
)
def test_what_is_no_guard(text: str) -> None:
    assert not is_guard(text)


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.conv2d.default",
        "torch.ops.aten.add.Tensor",
        "torch.ops.aten.__and__.Tensor",
        "torch.ops.prims.convert_element_type.default",
        "torch.ops.higher_order.wrap_with_set_grad_enabled",
        "_operator.getitem",
        "math.ceil",
        "torch.sym_max",
        "torch._sym_sqrt",
    ],
)
def test_operators(target: str) -> None:
    assert computes(target)


@pytest.mark.parametrize(
    "target",
    [
        "torch.load",
        "torch.os.system",
        "torch.hub.load",
        "torch.ops.load_library",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.__class__.mro",
        "torch.ops.aten.add._op",
        "torch.ops.image.write_file.default",
        "torch.ops.higher_order.triton_kernel_wrapper_mutation",
        "_operator.methodcaller",
        "_operator.call",
        "math.__loader__",
        "#aoti:op",
        "os.system",
    ],
)
def test_what_is_no_operator(target: str) -> None:
    assert not computes(target)


def structure(spec: Any) -> bytes:
    return json.dumps({"signature": {"in_spec": json.dumps([1, spec])}}).encode()


def node(kind: str | None, context: Any = None, *children: Any) -> dict[str, Any]:
    return {"type": kind, "context": context, "children_spec": list(children)}


LEAF = node(None)


def test_structures() -> None:
    keywords = node("builtins.dict", '["scale"]', LEAF)
    assert (
        find_code(structure(node("builtins.tuple", "null", node("builtins.tuple", "null", LEAF), keywords)))
        is None
    )
    nested = node("builtins.dict", '["a key", 3]', LEAF, LEAF)
    assert find_code(structure(nested)) is None


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        (node("builtins.dict", json.dumps(["a'b"]), LEAF), 'the key "a\'b" of an input or output'),
        (
            node(
                "builtins.tuple",
                "null",
                node("builtins.tuple", "null"),
                node("builtins.dict", '["a=f()"]', LEAF),
            ),
            "the argument names",
        ),
        (
            node("collections.defaultdict", {"default_factory_module": "os", "default_factory_name": "x"}),
            "the default 'os', for which a module would be imported",
        ),
        (node("builtins.dict", '[{"__enum__": true, "fqn": "m:A"}]', LEAF), "the enumeration 'm:A'"),
    ],
)
def test_structures_with_code(spec: Any, found: str) -> None:
    assert found in str(find_code(structure(spec)))


def test_a_long_finding_is_cut() -> None:
    found = find_code(json.dumps({"target": "torch.load" + "x" * 500}).encode())
    assert found is not None
    assert len(found) < 160


def test_text_that_leaves_its_quotes() -> None:
    assert "the text" in str(find_code(b'{"parameter_name": "a\\"b"}'))
    assert "the key" in str(find_code(b'{"as_string_to_argument": {"a\'b": {"as_int": 1}}}'))
    assert find_code(b'{"parameter_name": "layers.a-b.weight", "as_string": "it\'s"}') is None
    assert find_code(b'{"metadata": {"stack_trace": "File \\"x\\""}}') is None
    assert "torch.load" in str(
        find_code(b'{"as_string_to_argument": {"metadata": {"as_operator": "torch.load"}}}')
    )
