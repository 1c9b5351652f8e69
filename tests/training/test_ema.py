"""The average against a sum written out, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reparamkit.training.ema import averaged, decay_at


def test_the_decay_grows_to_its_bound() -> None:
    assert decay_at(0, 0.9) == pytest.approx(0.1)
    assert decay_at(8, 0.9) == pytest.approx(0.5)
    assert decay_at(10_000, 0.9) == 0.9


def test_the_average_is_the_weighted_sum_of_all_weights_so_far() -> None:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    average = averaged(model, 0.6)
    expected: dict[str, torch.Tensor] = {}
    for update in range(12):
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.randn(value.shape, generator=generator, dtype=torch.float64))
        average.update_parameters(model)
        for name, value in model.state_dict().items():
            d = 0.0 if update == 0 else min(0.6, (1 + update) / (10 + update))
            expected[name] = d * expected.get(name, torch.zeros(())) + (1 - d) * value
    for name, value in average.module.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-14)
