"""Which networks the sweep takes, how each is built, filled and fed.

A family is a model module of timm; what stands for it is its smallest published model by parameters, counted
on the meta device (timm's `test_*` models are stubs and stand for nothing). The choice is kept in
`smallest.json` beside this file, with the version of the library that it was made from.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import reparamkit as rk
from tests.timm_import import import_timm

SIDES = (96, 112, 128, 160, 192, 224, 256)
BATCH = 2
VOCABULARY = 32
"""Integer inputs are drawn below it; every network that takes tokens knows more of them."""
_CHOICE = Path(__file__).with_name("smallest.json")


@dataclass
class Network:
    """One network with weights that matter, in eval mode, and the arguments of one call."""

    module: nn.Module
    args: tuple[Any, ...]
    size: str
    own_fold: Callable[[], nn.Module] | None = None
    """The library's own fold of a copy of the module, where it has one."""
    in_float64: bool = False
    """Judged by a fold in float64 in any case, not only where rounding is amplified."""


@dataclass(frozen=True)
class Job:
    """One network to measure, by name; it is built in the process that measures it."""

    library: str
    family: str
    name: str


def noise_like(args: Any, seed: int) -> Any:
    """Zero-mean normal inputs of the same shapes; integers below `VOCABULARY`, masks of ones."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(like: Any) -> Any:
        if not isinstance(like, Tensor):
            return like
        if like.dtype == torch.bool:
            return torch.ones(like.shape, dtype=torch.bool)
        if not like.is_floating_point():
            return torch.randint(VOCABULARY, like.shape, generator=generator, dtype=like.dtype)
        return torch.randn(like.shape, generator=generator).to(like.dtype)

    return pytree.tree_map(drawn, args)


def chosen(library: str) -> dict[str, str]:
    """Family -> the name of its smallest model, as it was chosen last."""
    kept = json.loads(_CHOICE.read_text()) if _CHOICE.exists() else {}
    smallest = kept.get(library, {}).get("smallest", {})
    return {family: entry["name"] for family, entry in smallest.items()}


def choose_once(
    library: str, version: str, choose: Callable[[], dict[str, tuple[int, str]]], recompute: bool
) -> dict[str, str]:
    """The same, chosen anew if the library is of another version than it was then."""
    kept = json.loads(_CHOICE.read_text()) if _CHOICE.exists() else {}
    if recompute or kept.get(library, {}).get("version") != version:
        found = choose()
        smallest = {family: {"name": name, "parameters": size} for family, (size, name) in found.items()}
        kept[library] = {"version": version, "smallest": smallest}
        _CHOICE.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    return chosen(library)


def _smallest_of_timm() -> dict[str, tuple[int, str]]:
    timm = import_timm()
    return {family: min(_sizes_of(timm, family)) for family in timm.list_modules()}


def _sizes_of(timm: Any, family: str) -> Iterator[tuple[int, str]]:
    for name in timm.list_models(module=family, exclude_filters="test_*"):
        with torch.device("meta"):
            model = timm.create_model(name)
        yield sum(p.numel() for p in model.parameters()), name


def timm_jobs(families: list[str], names: list[str], *, every: bool, recompute: bool) -> list[Job]:
    """The networks asked for; without any name, one of each family."""
    timm = import_timm()
    if names or every:
        names = names or timm.list_models(exclude_filters="test_*")
        return [Job("timm", _family_of(timm, name), name) for name in names]
    smallest = choose_once("timm", timm.__version__, _smallest_of_timm, recompute)
    return [Job("timm", family, smallest[family]) for family in families or smallest]


def _family_of(timm: Any, name: str) -> str:
    return str(timm.model_entrypoint(name).__module__.rsplit(".", 1)[-1])


def build_timm(name: str, side: str) -> Network:
    """A timm model with random weights, at a reduced size where it runs at one.

    `side` is "full" (timm's own size), a number, or "auto": the first of `SIDES` below the model's own size
    that it accepts, given as `img_size` to the models that fix their size when they are built.
    """
    timm = import_timm()
    config = timm.get_pretrained_cfg(name)
    channels, full, _ = config.input_size
    for candidate in sides_below(side, full):
        shape = (BATCH, channels, candidate, candidate)
        with suppress(Exception):
            with torch.device("meta"):
                _timm_at(timm, name, shape, fixed=True)(torch.empty(shape))
            return _with_timm_s_fold(_timm_at(timm, name, shape, fixed=True), shape)
    shape = (BATCH, *config.input_size)
    return _with_timm_s_fold(_timm_at(timm, name, shape, fixed=False), shape)


def _with_timm_s_fold(model: nn.Module, shape: tuple[int, ...]) -> Network:
    """The network, and timm's own fold of it where one of its modules has one."""
    network = filled(model, (torch.empty(shape),), "x".join(map(str, shape)))
    hooks = ("fuse", "reparameterize", "switch_to_deploy")
    if any(hasattr(module, hook) for module in model.modules() for hook in hooks):
        network.own_fold = lambda: _folded_by_timm(model)
    return network


def _folded_by_timm(model: nn.Module) -> nn.Module:
    import_timm()
    from timm.utils.model import reparameterize_model

    folded: nn.Module = reparameterize_model(copy.deepcopy(model), inplace=True)
    return folded


def sides_below(side: str, full: int) -> Iterator[int]:
    """The sides of an image to try before its full size."""
    if side == "auto":
        yield from (s for s in SIDES if s < full)
    elif side != "full":
        yield int(side)


def _timm_at(timm: Any, name: str, shape: tuple[int, ...], *, fixed: bool) -> nn.Module:
    if fixed:
        with suppress(TypeError):
            resized: nn.Module = timm.create_model(name, img_size=shape[-1]).eval()
            return resized
    model: nn.Module = timm.create_model(name).eval()
    return model


def filled(model: nn.Module, shapes_of: tuple[Any, ...], size: str) -> Network:
    """The model with weights and statistics that leave nothing to hide behind."""
    args = noise_like(shapes_of, 0)
    with torch.no_grad():
        rk.models.randomize(_OneArgument(model), 0, sample=args)
    return Network(model, args, size)


class _OneArgument(nn.Module):
    """`randomize` feeds its sample as one argument."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, args: tuple[Any, ...]) -> Any:
        return self.inner(*args)
