"""The two kinds of Python expression that a torch.export archive carries as text, and that torch evaluates.

Sizes are written as sympy expressions, which ``sympy.sympify`` hands to ``eval``; conditions on the inputs
are written as Python, which ``ExportedProgram.module()`` hands to ``exec``. Either can call anything, so
both are parsed here against the grammar that torch itself writes, and everything beyond it counts as code.
"""

from __future__ import annotations

import ast
import re
from functools import lru_cache

_SIZE_FUNCTIONS = {
    *("Symbol", "Dummy", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Max", "Min", "Abs", "Mod"),
    *("Eq", "Ne", "Equality", "Unequality", "Lt", "Le", "Gt", "Ge", "Not", "And", "Or", "Xor", "Piecewise"),
    *("LessThan", "GreaterThan", "StrictLessThan", "StrictGreaterThan", "ExprCondPair", "floor", "ceiling"),
    *("FloorDiv", "ModularIndexing", "Where", "PythonMod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv"),
    *("LShift", "RShift", "PowByNatural", "FloatPow", "FloatTrueDiv", "IntTrueDiv", "TruncToFloat"),
    *("IsNonOverlappingAndDenseIndicator", "TruncToInt", "RoundToInt", "RoundDecimal", "ToFloat", "Identity"),
}
_GUARD_FUNCTIONS = {"max", "min", "abs", "int", "float", "IsNonOverlappingAndDenseIndicator"}
_GUARD_METHODS = {"size", "stride", "storage_offset", "item"}
_ARITHMETIC = (
    *(ast.Expression, ast.Load, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.operator),
    *(ast.unaryop, ast.boolop, ast.cmpop, ast.keyword),
)
_SYMBOL = re.compile(r"[A-Za-z]\w*")
_KEY = re.compile(r"[\w .\-/:]*")
_LONGEST = 100_000


@lru_cache(maxsize=4096)
def is_size(text: str) -> bool:
    """Whether the text is a sympy expression of sizes and nothing more."""
    tree = _parse(text)
    if tree is None:
        return False
    # sympy evaluates any text that one of its functions is given, except where a symbol takes its name
    symbols = {
        call.args[0]
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and _name(call.func) in {"Symbol", "Dummy"} and len(call.args) == 1
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str) and not (node in symbols and _SYMBOL.fullmatch(node.value)):
                return False
            if not isinstance(node.value, (str, int, float)):
                return False
        elif isinstance(node, ast.Call):
            if _name(node.func) not in _SIZE_FUNCTIONS:
                return False
        elif isinstance(node, ast.Name):
            if not _SYMBOL.fullmatch(node.id):
                return False
        elif not isinstance(node, (*_ARITHMETIC, ast.Tuple)):
            return False
    return True


def is_guard(text: str) -> bool:
    """Whether the text is a condition on the sizes and values of the inputs and nothing more."""
    tree = _parse(text)
    return tree is not None and all(_is_guard_node(node) for node in ast.walk(tree))


def _is_guard_node(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        # torch pastes the condition between double quotes for its message
        return not isinstance(node.value, (str, bytes)) or (
            isinstance(node.value, str) and _KEY.fullmatch(node.value) is not None
        )
    if isinstance(node, ast.Call):
        name = _name(node.func)
        return not node.keywords and (
            isinstance(node.func, ast.Attribute) if name is None else name in _GUARD_FUNCTIONS
        )
    if isinstance(node, ast.Attribute):
        owner = _name(node.value)
        if owner == "torch":
            return re.fullmatch(r"_?sym_\w+", node.attr) is not None
        return not node.attr.startswith("_") if owner == "math" else node.attr in _GUARD_METHODS
    if isinstance(node, ast.Name):
        return node.id in {"L", "inf", "math", "torch", *_GUARD_FUNCTIONS}
    return isinstance(node, (*_ARITHMETIC, ast.Subscript))


def _parse(text: str) -> ast.Expression | None:
    if len(text) > _LONGEST or not text.isprintable():
        return None
    try:
        return ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _name(node: ast.expr) -> str | None:
    return node.id if isinstance(node, ast.Name) else None
