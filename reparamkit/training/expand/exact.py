"""Numbers that are exact in a network's own precision, so that rounding changes nothing.

A precision of p significant bits (24 in float32) holds a sum or a product exactly if

    product:  a and b have p/2 significant bits each                      a·b has p
    sum:      parts of w are multiples of ulp(w), and none exceeds w      w = w₁ + … + wₙ

The parts that a kernel is shared out in are of the second kind. The numbers of a batch norm are of the first:
with a standard deviation s of p/2 bits, ε a power of two and the variance s² − ε, it multiplies by γ / s
exactly.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[np.float64]


class NotRepresentable(Exception):
    """A number that the branches need is beyond what the precision can hold."""


def significant_bits(dtype: torch.dtype) -> int:
    """p of the text above: 53, 24, 11 and 8 for float64, float32, float16 and bfloat16."""
    return 1 - round(math.log2(torch.finfo(dtype).eps))


def units(values: Array, dtype: torch.dtype) -> Array:
    """The distance from each value to the next of that precision; 0 for a zero."""
    _, exponents = np.frexp(values)
    lowest = round(math.log2(torch.finfo(dtype).smallest_normal)) + 1
    bits = significant_bits(dtype)
    unit: Array = np.where(values == 0, 0.0, np.ldexp(1.0, np.maximum(exponents, lowest) - bits))
    return unit


def cut(values: Array, unit: Array) -> Array:
    """The values brought to multiples of a unit, towards zero; 0 where the unit is."""
    multiples: Array = np.trunc(np.divide(values, unit, out=np.zeros_like(values), where=unit > 0))
    return multiples * unit


def rounded(values: Array, bits: int) -> Array:
    """The nearest values of so many significant bits."""
    mantissas, exponents = np.frexp(values)
    result: Array = np.ldexp(np.round(np.ldexp(mantissas, bits)), exponents - bits)
    return result


def norm_numbers(
    factor: Array, mean: Array, variance: Array, dtype: torch.dtype
) -> tuple[dict[str, Array], float]:
    """Weight, bias, running mean and variance, and ε, of a batch norm that multiplies by `factor`.

    The mean and the variance are those given, to half of the precision's bits (a mean with a factor that is a
    power of two to all of them), and the bias is such that the norm maps zero to zero.

    Raises:
        NotRepresentable: a number overflows in that precision.
    """
    half = significant_bits(dtype) // 2
    _, exponents = np.frexp(np.sqrt(variance))
    # A multiple of the last bit of s², so that s² − ε has no more bits than s².
    epsilon = 2.0 ** max(_least_epsilon(dtype), 2 * (int(exponents.max(initial=-100)) + 1 - half))
    deviation = rounded(np.sqrt(variance + epsilon), half)
    mantissas, exponents = np.frexp(deviation)
    above = np.ldexp(np.ldexp(mantissas, half) + 1, exponents - half)
    deviation = np.where(deviation**2 < epsilon, above, deviation)
    mantissas, _ = np.frexp(np.abs(factor))
    mean = np.where(np.isin(mantissas, (0.0, 0.5)), nearest(mean, dtype), rounded(mean, half))
    mean = np.where(nearest(factor * mean, dtype) == factor * mean, mean, 0.0)
    numbers = {
        "weight": factor * deviation,
        "bias": factor * mean,
        "running_mean": mean,
        "running_var": deviation**2 - epsilon,
    }
    largest = max(float(np.abs(value).max(initial=0.0)) for value in numbers.values())
    if not largest <= torch.finfo(dtype).max:
        name = str(dtype).removeprefix("torch.")
        raise NotRepresentable(f"the statistics of its branches overflow in {name}")
    return numbers, epsilon


def factor_unit(dtype: torch.dtype) -> float:
    """What the factor of a norm has to be a multiple of, so that γ does not underflow."""
    return 2.0**-12 if dtype is torch.float16 else 0.0


def _least_epsilon(dtype: torch.dtype) -> int:
    return -13 if dtype is torch.float16 else -17


def nearest(values: Array, dtype: torch.dtype) -> Array:
    """The values rounded once to a precision."""
    held = torch.from_numpy(np.ascontiguousarray(values)).to(dtype).double()
    return np.asarray(held.numpy())


def tensor(values: Array, like: torch.Tensor) -> torch.Tensor:
    """The same numbers in the precision, and on the device, of a tensor."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(like.dtype).to(like.device)


def array(values: torch.Tensor) -> Array:
    """The same numbers in float64, on the CPU."""
    held: Any = values.detach().to("cpu", torch.float64).numpy()
    return np.array(held)
