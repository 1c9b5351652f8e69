"""The floor: what the convolutions and linear layers of a network cost alone, with nothing between them.

No fold of layers can be faster than the layers that are left. What they take is measured where they stand:

    folded / floor  =  time of the network / Σ time of its layers

Eagerly, every layer is timed as it is called. In ONNX Runtime, the runtime's own profile says what each node
took, and what the rest is.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reparamkit.benchmark.backends import fed, session
from reparamkit.benchmark.forms import Forms

_LAYERS = (nn.Linear, nn.modules.conv._ConvNd)
_LAYER_NODES = ("Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose", "Gemm", "FusedGemm")
_PRODUCTS = ("MatMul", "FusedMatMul")
_RUNS, _WARM_UP = 20, 5


def share_of_layers(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float | None:
    """The part of a module's time that its layers take, median over some calls; None without layers."""
    layers = [layer for layer in module.modules() if isinstance(layer, _LAYERS)]
    if not layers:
        return None
    inside = started = 0.0

    def before(*_: object) -> None:
        nonlocal started
        started = time.perf_counter()

    def behind(*_: object) -> None:
        nonlocal inside
        inside += time.perf_counter() - started

    shares = []
    with ExitStack() as stack, torch.no_grad():
        for layer in layers:
            stack.callback(layer.register_forward_pre_hook(before).remove)
            stack.callback(layer.register_forward_hook(behind).remove)
        for number in range(_WARM_UP + _RUNS):
            inside, began = 0.0, time.perf_counter()
            module(*args, **kwargs)
            if number >= _WARM_UP:
                shares.append(inside / (time.perf_counter() - began))
    return statistics.median(shares)


@dataclass(frozen=True)
class NodeTimes:
    """Seconds in ONNX Runtime: of the layers, and of everything else by operator, the longest first."""

    layers: float
    others: Mapping[str, float]

    @property
    def over_floor(self) -> float:
        """How many times as long all of it takes as the layers alone; 1 without layers."""
        total = self.layers + sum(self.others.values())
        return total / self.layers if self.layers else 1.0


def node_times(forms: Forms, form: str, threads: int) -> NodeTimes:
    """What ONNX Runtime's profile says of a form's file.

    Raises:
        Exception: whatever the runtime raises.
    """
    path = forms.file(form)
    optimised = path.with_suffix(".optimised.onnx")
    opened = session(
        path,
        threads,
        enable_profiling=True,
        profile_file_prefix=str(path.with_suffix("")),
        optimized_model_filepath=str(optimised),
    )
    feed = fed(opened, forms.args, forms.kwargs)
    for _ in range(_WARM_UP + _RUNS):
        opened.run(None, feed)
    profile = Path(opened.end_profiling())
    products = _products_with_weights(optimised)
    durations: dict[tuple[str, str], list[float]] = {}
    for event in json.loads(profile.read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            node = event["name"].removesuffix("_kernel_time")
            durations.setdefault((event["args"]["op_name"], node), []).append(event["dur"] * 1e-6)
    profile.unlink()
    layers, others = 0.0, defaultdict[str, float](float)
    for (operator, node), seconds in durations.items():
        per_run = sum(seconds[len(seconds) * _WARM_UP // (_WARM_UP + _RUNS) :]) / _RUNS
        if operator in _LAYER_NODES or (operator in _PRODUCTS and node in products):
            layers += per_run
        else:
            others[operator] += per_run
    return NodeTimes(layers, dict(sorted(others.items(), key=lambda item: -item[1])))


def _products_with_weights(path: Path) -> set[str]:
    """The names of the products of matrices of which one is a weight."""
    import onnx

    graph = onnx.load(str(path)).graph
    weights = {tensor.name for tensor in graph.initializer}
    return {node.name for node in graph.node if node.op_type in _PRODUCTS and weights & {*node.input}}
