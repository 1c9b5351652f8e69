"""Devices, precision and processes: one accelerator for a run."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

from reparamkit.errors import UnusableInput


def accelerator_for(amp: str) -> Accelerator:
    """The GPUs that are there, else the processor; as many processes as torchrun or accelerate started.

    Raises UnusableInput for float16 on a processor.
    """
    on_processor = not torch.cuda.is_available()
    if on_processor and amp == "fp16":
        raise UnusableInput("amp fp16 needs a GPU; a processor can do --amp bf16")
    # accelerate keeps one state for a process and refuses a second run that wants another precision.
    AcceleratorState._reset_state()
    GradientState._reset_state()
    return Accelerator(cpu=on_processor, mixed_precision=amp)
