"""Small tensors gain nothing from several threads, and lose a great deal on a machine that is busy."""

import torch

pytest_plugins = ["tests.slow_share"]
torch.set_num_threads(1)
