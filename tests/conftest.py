"""What holds for every test: one thread, and a collector of garbage that leaves alone what stays to the end.

Small tensors gain nothing from several threads, and lose a great deal on a machine that is busy. Modules and
tests are a million objects that the collector would walk again and again for nothing.
"""

import gc
from collections.abc import Generator

import pytest
import torch

pytest_plugins = ["tests.slow_share"]
torch.set_num_threads(1)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()
