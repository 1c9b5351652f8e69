"""Weights that are no finite numbers: nothing computed from them could be compared."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn


def non_finite(model: nn.Module | torch.export.ExportedProgram) -> list[str]:
    """Names of the parameters and buffers that hold NaN or an infinity.

    A buffer of two or more axes whose only such value is minus infinity is an attention mask: it is left out.
    """
    return [name for name, value, is_parameter in _tensors(model) if _spoilt(value, is_parameter)]


def _tensors(model: nn.Module | torch.export.ExportedProgram) -> Iterator[tuple[str, Tensor, bool]]:
    for name, parameter in model.named_parameters():
        yield name, parameter, True
    for name, buffer in model.named_buffers():
        yield name, buffer, False
    if isinstance(model, torch.export.ExportedProgram):
        for name, constant in model.constants.items():
            if isinstance(constant, Tensor) and name not in model.state_dict:
                yield name, constant, False


def _spoilt(value: Tensor, is_parameter: bool) -> bool:
    if nn.parameter.is_lazy(value) or value.is_meta or not (value.is_floating_point() or value.is_complex()):
        return False
    values = value.detach()
    if values.layout is not torch.strided:
        values = values.to_dense()
    if values.is_floating_point() and values.element_size() == 1:
        values = values.float()
    wrong = ~torch.isfinite(values)
    if not bool(wrong.any()):
        return False
    is_mask = not is_parameter and values.dim() >= 2 and bool(torch.isneginf(values[wrong]).all())
    return not is_mask
