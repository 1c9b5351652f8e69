"""Functions of two numbers, element by element, with NumPy's broadcasting.

    real_div   x / y; of integers rounded towards zero      floor_div  x / y rounded towards minus infinity
    mod        x - y·floor_div(x, y), of the sign of y       pow  x^y
    select     a where cond is true, b elsewhere
    and add, sub, mul, maximum, minimum, equal, not_equal, less, less_equal, greater, greater_equal,
    logical_and, logical_or, logical_xor as their names say; the comparisons make booleans.

Source: coremltools/converters/mil/mil/ops/defs/iOS15/elementwise_binary.py and control_flow.py (select).
"""

from __future__ import annotations

import torch

from reparamkit.mil.operators.base import of_tensors


def _divided(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    whole = not (x.is_floating_point() or y.is_floating_point())
    return torch.div(x, y, rounding_mode="trunc" if whole else None)


of_tensors(
    "x y",
    {
        "add": torch.add,
        "equal": torch.eq,
        "floor_div": torch.floor_divide,
        "greater": torch.gt,
        "greater_equal": torch.ge,
        "less": torch.lt,
        "less_equal": torch.le,
        "logical_and": torch.logical_and,
        "logical_or": torch.logical_or,
        "logical_xor": torch.logical_xor,
        "maximum": torch.maximum,
        "minimum": torch.minimum,
        "mod": torch.remainder,
        "mul": torch.mul,
        "not_equal": torch.ne,
        "pow": torch.pow,
        "real_div": _divided,
        "sub": torch.sub,
    },
)
of_tensors("cond a b", {"select": lambda cond, a, b: torch.where(cond.bool(), a, b)})
