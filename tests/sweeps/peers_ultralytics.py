"""ultralytics' YAML networks, folded beside what their own `fuse()` leaves.

Each is taken at its smallest scale, on small images, with its first output: what the heads decode.
"""

from __future__ import annotations

import copy
import os
import tempfile
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tests.sweeps.networks import Job, Network, filled
from tests.torchvision_import import import_torchvision

LIBRARY = "ultralytics"
_SIDES = (64, 96)
_CLASSIFIED = (64, 64)

NETWORKS = (
    *("yolov3-tiny", "yolov5n", "yolov6n", "yolov8n", "yolov8n-p2", "yolov8n-ghost", "yolov8n-world"),
    *(
        "yolov8n-worldv2",
        "yolov8n-seg",
        "yolov8n-pose",
        "yolov8n-obb",
        "yolov8n-cls",
        "yolov9t",
        "yolov9c-seg",
    ),
    *(
        "yolov10n",
        "yolov10s",
        "yolov10b",
        "yolo11n",
        "yolo11n-seg",
        "yolo11n-pose",
        "yolo11n-obb",
        "yolo11n-cls",
    ),
    *("yolo12n", "yolo12n-cls", "yolo26n", "yolo26n-seg", "yolo26n-pose", "yolo26n-obb"),
    *(
        "yolo26n-sem",
        "yolo26n-depth",
        "yoloe-11n",
        "yoloe-v8n",
        "yolov8n-rtdetr",
        "rtdetr-resnet50",
        "rtdetr-l",
    ),
)


def jobs() -> list[Job]:
    """One scale of each."""
    return [Job(LIBRARY, name, name) for name in NETWORKS]


def build(name: str) -> Network:
    """The network with random weights, and what `fuse()` leaves of it."""
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.gettempdir())
    import_torchvision()
    from ultralytics import RTDETR, YOLO

    torch.manual_seed(0)
    network_class = RTDETR if "rtdetr" in name else YOLO
    inner: Any = network_class(f"{name}.yaml").model
    for parameter in inner.parameters():
        parameter.requires_grad_(False)
    sides = _CLASSIFIED if "-cls" in name else _SIDES
    shape = (2, 3, *sides)
    model = FirstOutput(inner).eval()
    network = filled(model, (torch.empty(shape),), "x".join(map(str, shape)))

    def fused() -> nn.Module:
        plain: Any = copy.deepcopy(model)
        plain.inner = plain.inner.fuse(verbose=False)
        return plain

    network.own_fold, network.in_float64 = fused, True
    return network


class FirstOutput(nn.Module):
    """What comes first of a network's outputs: the predictions as they are used."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        first: Tensor = pytree.tree_leaves(self.inner(x))[0]
        return first
