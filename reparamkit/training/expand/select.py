"""Which convolutions a network has, which of them are meant, and which of those can be replaced."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.weight_norm import WeightNorm

from reparamkit.errors import UnusableInput
from reparamkit.training.expand.block import ExpandedConv
from reparamkit.training.expand.kinds import precision_is_real

Where = str | re.Pattern[str] | Callable[[str, nn.Module], bool] | Iterable[Any] | None
_PLAIN = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_SHOWN = 6
_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_is_full_backward_hook",
)


@dataclass(frozen=True)
class Candidate:
    """A convolution of the network, under all its names."""

    conv: Any
    names: tuple[str, ...]

    @property
    def where(self) -> str:
        return self.names[0]


def candidates(model: nn.Module) -> list[Candidate]:
    """All convolutions of a network, transposed ones too; the branches of blocks are none."""
    names: dict[int, list[str]] = {}
    modules: dict[int, nn.Module] = {}
    inside = tuple(
        f"{name}." if name else ""
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, ExpandedConv)
    )
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, _ConvNd) and not (inside and name.startswith(inside)):
            names.setdefault(id(module), []).append(name)
            modules[id(module)] = module
    return [Candidate(modules[key], tuple(held)) for key, held in names.items()]


def chosen(available: list[Candidate], where: Where) -> list[Candidate]:
    """Those that `where` means.

    Raises:
        UnusableInput: `where` is nothing that selects, or one of its selectors means no convolution.
    """
    if where is None:
        return available
    selectors = list(where) if isinstance(where, Iterable) and not isinstance(where, str) else [where]
    meant: set[int] = set()
    for selector in selectors:
        matching = [one for one in available if any(_matches(selector, name, one.conv) for name in one.names)]
        if not matching:
            raise UnusableInput(
                f"where={_shown(selector)} means no convolution: {_known(available, selector)}"
            )
        meant |= {id(one.conv) for one in matching}
    if not selectors:
        raise UnusableInput("where is empty: leave it out to expand every convolution")
    return [one for one in available if id(one.conv) in meant]


def _matches(selector: Any, name: str, conv: nn.Module) -> bool:
    if isinstance(selector, str):
        within = name == selector or name.startswith(f"{selector}.")
        return within or fnmatch.fnmatchcase(name, selector)
    if isinstance(selector, re.Pattern):
        return selector.search(name) is not None
    if callable(selector) and not isinstance(selector, nn.Module):
        return bool(selector(name, conv))
    raise UnusableInput(
        f"where={selector!r}: it is a name, a pattern such as 'layer1.*', a compiled regular expression, a "
        "function of the name and the module, or a list of these"
    )


def _shown(selector: Any) -> str:
    if isinstance(selector, re.Pattern):
        return repr(selector.pattern)
    return repr(selector) if isinstance(selector, str) else getattr(selector, "__name__", repr(selector))


def _known(available: list[Candidate], selector: Any) -> str:
    names = [name for one in available for name in one.names]
    if not names:
        return "the network has none"
    parts = [name.split(".") for name in names]
    every = dict.fromkeys(".".join(part[:n]) for part in parts for n in range(1, len(part) + 1))
    near = difflib.get_close_matches(selector, every, 3) if isinstance(selector, str) else []
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"there are {', '.join(map(repr, names[:_SHOWN]))}{more}"


def owners_of_weights(model: nn.Module) -> dict[int, list[str]]:
    """The identity of each parameter -> all places in distinct modules that hold it."""
    held: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for last, parameter in module._parameters.items():
            if parameter is not None:
                held.setdefault(id(parameter), []).append(".".join(filter(None, (name, last))))
    return held


def without_weight_norm(conv: Any) -> Any:
    """A plain convolution with the weight that weight_norm computes now; None for any other convolution.

    A new one: torch takes a parametrization off the class, which a copy has in common with the original.
    """
    family = next((kind for kind in _PLAIN if isinstance(conv, kind)), None)
    if family is None:
        return None
    if parametrize.is_parametrized(conv):
        if parametrize.type_before_parametrizations(conv) is not family:
            return None
        if any(name != "weight" for name in conv.parametrizations):
            return None
        if not all(isinstance(each, _WeightNorm) for each in conv.parametrizations["weight"]):
            return None
        trained = conv.parametrizations["weight"].parameters()
        weight, ours = conv.weight, None
    else:
        normed = {key: hook for key, hook in conv._forward_pre_hooks.items() if isinstance(hook, WeightNorm)}
        if type(conv) is not family or [hook.name for hook in normed.values()] != ["weight"]:
            return None
        ours, hook = next(iter(normed.items()))
        trained = iter((conv.weight_g, conv.weight_v))
        weight = hook.compute_weight(conv)
    plain: Any = family(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
        False,
        conv.padding_mode,
        device=weight.device,
        dtype=weight.dtype,
    )
    with torch.no_grad():
        plain.weight.copy_(weight).requires_grad_(any(each.requires_grad for each in trained))
    plain.bias = conv.bias
    move_hooks(conv, plain)
    plain._forward_pre_hooks.pop(ours, None)
    return plain.train(conv.training)


def move_hooks(source: Any, target: Any) -> None:
    """Give one module the hooks that the other has on its calls."""
    for name in _HOOKS:
        held = getattr(source, name)
        setattr(target, name, held)
        setattr(source, name, None if name == "_is_full_backward_hook" else type(held)())


def obstacle(candidate: Candidate, owners: dict[int, list[str]]) -> str | None:
    """Why a convolution cannot be replaced, as far as that can be told without running it; None if it can."""
    conv = candidate.conv
    if isinstance(conv, _ConvTransposeNd):
        return "it is a transposed convolution, and the kinds have no blocks for these"
    family = next((kind for kind in _PLAIN if isinstance(conv, kind)), None)
    if family is None or _computes_its_own(conv, family):
        return f"its class, {type(conv).__name__}, has a forward of its own"
    if parametrize.is_parametrized(conv) or not isinstance(conv._parameters.get("weight"), nn.Parameter):
        return f"its weight is computed each time ({_computed_by(conv)}): remove that first"
    if not precision_is_real(conv.weight.dtype):
        return f"batch norms do not take {str(conv.weight.dtype).removeprefix('torch.')}"
    if not conv.weight.requires_grad:
        return "its weight is frozen: call requires_grad_(True) on it if it is to be trained"
    for name in ("weight", "bias"):
        parameter = conv._parameters.get(name)
        others = [
            place
            for place in owners.get(id(parameter), [])
            if place != f"{candidate.where}.{name}".lstrip(".")
        ]
        if parameter is not None and others:
            return f"its {name} is also {others[0]!r}, and branches would tear the two apart"
    if conv._state_dict_hooks or conv._load_state_dict_pre_hooks or conv._load_state_dict_post_hooks:
        return "it has hooks on its state dict, which name its weight"
    return None


def _computes_its_own(conv: Any, family: Any) -> bool:
    kind: Any = type(conv)
    own = any(name in vars(conv) for name in ("forward", "_conv_forward"))
    return own or kind.forward is not family.forward or kind._conv_forward is not family._conv_forward


def _computed_by(conv: Any) -> str:
    if parametrize.is_parametrized(conv):
        computing = [
            type(each).__name__.lstrip("_") for held in conv.parametrizations.values() for each in held
        ]
        return ", ".join(dict.fromkeys(computing))
    computing = [type(hook).__name__ for hook in conv._forward_pre_hooks.values()]
    return ", ".join(computing) or "it is no parameter"
