"""torchvision's networks: the smallest of each model file, and the detectors taken apart.

A detector as a whole is no fixed graph (proposals, non-maximum suppression), so its backbone and its heads
are networks of their own here, the heads fed with feature maps of the shapes that the backbone makes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from tests.sweeps.networks import BATCH, SIDES, Job, Network, choose_once, filled, noise_like, sides_below
from tests.torchvision_import import import_torchvision

_GROUPS = ("", ".segmentation", ".video")
_FRAMES = 16
_LEVELS = ((16, 12), (8, 6), (4, 3), (2, 2), (1, 1))


def torchvision_jobs(families: list[str], names: list[str], *, every: bool, recompute: bool) -> list[Job]:
    """The networks asked for; without any name, one of each model file and the parts of the detectors."""
    import_torchvision()
    if every:
        names = [name for _, name in _registered()] + list(_PARTS)
    if names:
        return [Job("torchvision", _family_of(name), name) for name in names]
    smallest = choose_once("torchvision", _version(), _smallest, recompute)
    smallest |= {name: name for name in _PARTS}
    return [Job("torchvision", family, smallest[family]) for family in families or smallest]


def build_torchvision(name: str, side: str) -> Network:
    """The network with random weights, at a reduced size where it runs at one."""
    models = import_torchvision().models
    if name in _PARTS:
        return _PARTS[name](models)
    shape = (3, _FRAMES) if ".video." in models.get_model_builder(name).__module__ else (3,)
    for candidate in (*sides_below(side, 224), 224, 299):
        size = (BATCH, *shape, candidate, candidate)
        with suppress(Exception), torch.no_grad():
            model = _untrained(name).eval()
            model(torch.zeros(size))
            return filled(model, (torch.empty(size),), "x".join(map(str, size)))
    raise ValueError(f"{name} runs at none of the sizes that were tried")


def _untrained(name: str) -> nn.Module:
    """The network without any weights to download."""
    models = import_torchvision().models
    options: dict[str, Any] = {"weights": None}
    if ".segmentation." in models.get_model_builder(name).__module__:
        options["weights_backbone"] = None
    if name in {"googlenet", "inception_v3"}:
        options["init_weights"] = False
    model: nn.Module = models.get_model(name, **options)
    return model


def _registered() -> Iterator[tuple[str, str]]:
    """Family and name of every model that is one network from an image to numbers."""
    models = import_torchvision().models
    for name in models.list_models():
        module = models.get_model_builder(name).__module__
        if any(module.rpartition(".")[0] == f"torchvision.models{group}" for group in _GROUPS):
            yield _family_of(name), name


def _family_of(name: str) -> str:
    if name in _PARTS:
        return name
    return str(import_torchvision().models.get_model_builder(name).__module__).removeprefix(
        "torchvision.models."
    )


def _version() -> str:
    return str(import_torchvision().__version__)


def _smallest() -> dict[str, tuple[int, str]]:
    sizes: dict[str, list[tuple[int, str]]] = {}
    for family, name in _registered():
        try:
            with torch.device("meta"):
                model = _untrained(name)
        except NotImplementedError:  # RegNet computes its widths with tensors
            model = _untrained(name)
        sizes.setdefault(family, []).append((sum(p.numel() for p in model.parameters()), name))
    return {family: min(found) for family, found in sizes.items()}


def _detector(models: Any, name: str) -> Any:
    return models.get_model(name, weights=None, weights_backbone=None).eval()


def _image(model: nn.Module, side: int = SIDES[1]) -> Network:
    size = (BATCH, 3, side, side)
    return filled(model.eval(), (torch.empty(size),), "x".join(map(str, size)))


def _backbone(name: str, side: int = SIDES[1]) -> Callable[[Any], Network]:
    return lambda models: _image(_detector(models, name).backbone, side)


def _maps(channels: list[int]) -> list[Tensor]:
    return [torch.empty(BATCH, c, *level) for c, level in zip(channels, _LEVELS, strict=False)]


def _head(name: str, path: str, channels: list[int]) -> Callable[[Any], Network]:
    def build(models: Any) -> Network:
        head = _detector(models, name).get_submodule(path)
        return filled(head, (_maps(channels),), f"{len(channels)} maps, {_LEVELS[0][0]}x{_LEVELS[0][1]} …")

    return build


def _chain(name: str, paths: tuple[str, ...], shape: tuple[int, ...]) -> Callable[[Any], Network]:
    def build(models: Any) -> Network:
        detector = _detector(models, name)
        head = nn.Sequential(*(detector.roi_heads.get_submodule(path) for path in paths))
        return filled(head.eval(), (torch.empty(shape),), "x".join(map(str, shape)))

    return build


def _frozen(models: Any) -> Network:
    """A feature pyramid over a backbone whose batch norms are buffers and arithmetic (FrozenBatchNorm2d)."""
    make = models.detection.backbone_utils.resnet_fpn_backbone
    trained = _image(make(backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d))
    frozen = make(backbone_name="resnet18", weights=None).eval()
    state = {k: v for k, v in trained.module.state_dict().items() if not k.endswith("num_batches_tracked")}
    frozen.load_state_dict(copy.deepcopy(state))
    return Network(frozen, noise_like(trained.args, 0), trained.size)


_FASTER, _MOBILE = "fasterrcnn_resnet50_fpn_v2", "fasterrcnn_mobilenet_v3_large_fpn"
_PYRAMID = [256] * 5
_SSDLITE = [672, 480, 512, 256, 256]

_PARTS: dict[str, Callable[[Any], Network]] = {
    f"{_FASTER}/backbone": _backbone(_FASTER),
    f"{_FASTER}/rpn.head": _head(_FASTER, "rpn.head", _PYRAMID),
    f"{_FASTER}/box_head+box_predictor": _chain(_FASTER, ("box_head", "box_predictor"), (5, 256, 7, 7)),
    f"{_MOBILE}/backbone": _backbone(_MOBILE),
    f"{_MOBILE}/rpn.head": _head(_MOBILE, "rpn.head", [256] * 3),
    f"{_MOBILE}/box_head+box_predictor": _chain(_MOBILE, ("box_head", "box_predictor"), (5, 256, 7, 7)),
    "resnet18_fpn with FrozenBatchNorm2d/backbone": _frozen,
    "fcos_resnet50_fpn/head": _head("fcos_resnet50_fpn", "head", _PYRAMID),
    "retinanet_resnet50_fpn/backbone": _backbone("retinanet_resnet50_fpn"),
    "retinanet_resnet50_fpn/head": _head("retinanet_resnet50_fpn", "head", _PYRAMID),
    "retinanet_resnet50_fpn_v2/head": _head("retinanet_resnet50_fpn_v2", "head", _PYRAMID),
    "maskrcnn_resnet50_fpn_v2/mask_head+mask_predictor": _chain(
        "maskrcnn_resnet50_fpn_v2", ("mask_head", "mask_predictor"), (5, 256, 14, 14)
    ),
    "keypointrcnn_resnet50_fpn/keypoint_head+keypoint_predictor": _chain(
        "keypointrcnn_resnet50_fpn", ("keypoint_head", "keypoint_predictor"), (5, 256, 14, 14)
    ),
    "ssd300_vgg16/backbone": _backbone("ssd300_vgg16", 300),
    "ssd300_vgg16/head": _head("ssd300_vgg16", "head", [512, 1024, 512, 256, 256]),
    "ssdlite320_mobilenet_v3_large/backbone": _backbone("ssdlite320_mobilenet_v3_large", 320),
    "ssdlite320_mobilenet_v3_large/head": _head("ssdlite320_mobilenet_v3_large", "head", _SSDLITE),
}
