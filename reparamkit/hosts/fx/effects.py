"""Whether an operator does more than return a value."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx.node import _side_effectful_functions


@cache
def has_effects(operator: OpOverload) -> bool:
    """Whether it writes into its arguments, is marked as one that must not be left out, or has an order.

    Operators that draw random numbers are none of these.
    """
    try:
        from torch._library.utils import is_impure
    except ImportError:  # before torch 2.10
        from torch._higher_order_ops import effects as module

        effects: Any = module
        schema: torch.FunctionSchema = operator._schema
        known = operator in _side_effectful_functions
        return schema.is_mutable or known or effects.get_effect_key(operator, (), {}) is not None
    return is_impure(operator, impure_random=False)
