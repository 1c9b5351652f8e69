"""The families of reference networks: their papers, their variants, and how to build one."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from reparamkit.errors import UnusableInput
from reparamkit.models import convnextv2, fastvit, fcmae, mobileone, replknet, repnets, repvgg, timm_names
from reparamkit.models.fcmae_weights import dense_from_sparse
from reparamkit.models.folded_sizes import FOLDED_PARAMETERS


@dataclass(frozen=True)
class Paper:
    """Where an architecture was published; `arxiv` is the arXiv identifier."""

    title: str
    authors: str
    year: int
    arxiv: str


@dataclass(frozen=True)
class Family:
    """Networks that share a paper and a builder.

    `build(name, num_classes=…, **options)` gives the network with its published initialisation;
    `head` is the path of its classifier, None where it has none (and takes no `num_classes`); `renamed` turns
    other projects' names for its parameters into ours; `mask_of` gives the second input (a mask) of a network
    that takes one, for an image shape.
    """

    name: str
    paper: Paper
    variants: tuple[str, ...]
    build: Callable[..., nn.Module]
    head: str | None
    renamed: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    input_shape: tuple[int, int, int, int] = (1, 3, 224, 224)
    mask_of: Callable[[tuple[int, int, int, int], torch.Generator], Tensor] | None = None


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a reference network without building it.

    `input_shape` is (N, C, H, W) as in the paper's tables.
    """

    name: str
    family: str
    paper: Paper
    input_shape: tuple[int, int, int, int]

    @property
    def parameters(self) -> int:
        """Number of parameters of the training-time network with 1000 classes, counted on the meta device."""
        return _count_parameters(self.name)

    @property
    def folded_parameters(self) -> int:
        """Number of parameters that are left after folding, with 1000 classes."""
        return FOLDED_PARAMETERS[self.name]

    def example_inputs(self, seed: int = 0) -> tuple[Tensor, ...]:
        """What its forward takes, drawn from `seed`: a zero-mean image of `input_shape`, and FCMAE's mask."""
        family = _BY_NAME[self.name]
        generator = torch.Generator().manual_seed(seed)
        image = torch.randn(self.input_shape, generator=generator, device="cpu")
        if family.mask_of is None:
            return (image,)
        return image, family.mask_of(self.input_shape, generator)


def _family(
    name: str,
    paper: Paper,
    variants: Iterable[str],
    build: Callable[..., nn.Module],
    head: str | None,
    renamed: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = timm_names.unchanged,
    input_shape: tuple[int, int, int, int] = (1, 3, 224, 224),
    mask_of: Callable[[tuple[int, int, int, int], torch.Generator], Tensor] | None = None,
) -> Family:
    return Family(name, paper, tuple(variants), build, head, renamed, input_shape, mask_of)


_MOBILEONE = Paper(
    "MobileOne: An Improved One millisecond Mobile Backbone",
    "Pavan Kumar Anasosalu Vasu, James Gabriel, Jeff Zhu, Oncel Tuzel, Anurag Ranjan",
    2023,
    "2206.04040",
)
_REPVGG = Paper(
    "RepVGG: Making VGG-style ConvNets Great Again",
    "Xiaohan Ding, Xiangyu Zhang, Ningning Ma, Jungong Han, Guiguang Ding, Jian Sun",
    2021,
    "2101.03697",
)
_FASTVIT = Paper(
    "FastViT: A Fast Hybrid Vision Transformer using Structural Reparameterization",
    "Pavan Kumar Anasosalu Vasu, James Gabriel, Jeff Zhu, Oncel Tuzel, Anurag Ranjan",
    2023,
    "2303.14189",
)
_SMALL_IMAGE = (1, 3, 32, 32)
_CONVNEXTV2 = Paper(
    "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders",
    "Sanghyun Woo, Shoubhik Debnath, Ronghang Hu, Xinlei Chen, Zhuang Liu, In So Kweon, Saining Xie",
    2023,
    "2301.00808",
)


FAMILIES = (
    _family(
        "MobileOne",
        _MOBILEONE,
        mobileone.VARIANTS,
        mobileone.build,
        "linear",
        timm_names.mobileone,
    ),
    _family(
        "RepVGG",
        _REPVGG,
        repvgg.VARIANTS,
        repvgg.build,
        "linear",
        timm_names.repvgg,
    ),
    _family(
        "RepLKNet",
        Paper(
            "Scaling Up Your Kernels to 31x31: Revisiting Large Kernel Design in CNNs",
            "Xiaohan Ding, Xiangyu Zhang, Yizhuang Zhou, Jungong Han, Guiguang Ding, Jian Sun",
            2022,
            "2203.06717",
        ),
        replknet.VARIANTS,
        replknet.build,
        "head",
    ),
    _family(
        "FastViT",
        _FASTVIT,
        fastvit.VARIANTS,
        fastvit.build,
        "head",
        timm_names.fastvit,
        (1, 3, 256, 256),
    ),
    _family(
        "ConvNeXtV2",
        _CONVNEXTV2,
        convnextv2.VARIANTS,
        convnextv2.build,
        "head",
        timm_names.convnextv2,
    ),
    _family(
        "FCMAE",
        _CONVNEXTV2,
        fcmae.NAMES,
        fcmae.build,
        None,
        dense_from_sparse,
        mask_of=fcmae.example_mask,
    ),
    # Small networks that are trained on a processor, in order to try the whole way from training to a file.
    _family("RepNets", _REPVGG, repnets.TOYS, repnets.build, "linear", input_shape=_SMALL_IMAGE),
    _family(
        "MobileOne",
        _MOBILEONE,
        mobileone.TOYS,
        mobileone.build,
        "linear",
        timm_names.mobileone,
        _SMALL_IMAGE,
    ),
    _family("RepVGG", _REPVGG, repvgg.TOYS, repvgg.build, "linear", timm_names.repvgg, _SMALL_IMAGE),
    _family("FastViT", _FASTVIT, fastvit.TOYS, fastvit.build, "head", timm_names.fastvit, _SMALL_IMAGE),
)

_BY_NAME = {variant: family for family in FAMILIES for variant in family.variants}


def all_names() -> list[str]:
    """Every variant, family by family, small to large."""
    return list(_BY_NAME)


def resolve(name: str) -> tuple[str, Family]:
    """The canonical spelling of `name` (case, `-` and `_` do not matter) and its family.

    Raises UnusableInput, with the closest names, for a name that is not registered.
    """
    canonical = name.strip().lower().replace("-", "_")
    family = _BY_NAME.get(canonical)
    if family is not None:
        return canonical, family
    close = difflib.get_close_matches(canonical, _BY_NAME, n=3, cutoff=0.6)
    hint = f"did you mean {', '.join(close)}?" if close else "`reparamkit models` lists them"
    raise UnusableInput(f"there is no reference model named {name!r}; {hint}")


def construct(name: str, *, num_classes: int | None = None, **options: Any) -> nn.Module:
    """The network `name` as its family builds it; `num_classes` None is what was published.

    Raises UnusableInput for an unknown name, TypeError for an option that the family does not have.
    """
    canonical, family = resolve(name)
    if num_classes is not None:
        options["num_classes"] = num_classes
    return family.build(canonical, **options)


def on_meta(name: str, *, num_classes: int | None = None, **options: Any) -> nn.Module:
    """The network `name` on the meta device: shapes without storage, and no random number is drawn.

    Raises UnusableInput for an unknown name.
    """
    with torch.device("meta"):
        return construct(name, num_classes=num_classes, **options)


@cache
def _count_parameters(name: str) -> int:
    return sum(parameter.numel() for parameter in on_meta(name).parameters())
