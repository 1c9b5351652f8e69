"""PEFT's adapters, put onto a network and left unmerged: what folding makes one layer of."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from torch import nn

from reparamkit.errors import UnusableInput
from reparamkit.loading.adapters import AdapterFolder
from reparamkit.loading.door.files import steady
from reparamkit.loading.libraries.importing import drawn_from_seed, imported

_SHOWN = 3


def adapted(network: nn.Module, adapter: AdapterFolder) -> tuple[nn.Module, tuple[str, ...]]:
    """A copy of a network with an adapter's layers in it, of the network's own class, and notes.

    Raises:
        UnusableInput: the adapter is another network's, or acts elsewhere than in the layers.
        MissingExtra: PEFT is not installed.
    """
    wanted = f"--adapter {adapter.path}"
    library = imported("peft", wanted)
    from reparamkit.support.quiet import quiet

    inner = copy.deepcopy(network)
    before = set(map(id, inner.modules()))
    try:
        with quiet(), drawn_from_seed(), steady([adapter.weights]):
            whole = library.PeftModel.from_pretrained(inner, str(adapter.path), torch_device="cpu").eval()
            kept = set(library.utils.load_peft_weights(str(adapter.path), device="cpu"))
            placed = set(library.utils.get_peft_model_state_dict(whole, save_embedding_layers=False))
            there = set(whole.state_dict())
    except Exception as error:
        text = " ".join(str(error).split())
        if isinstance(error, (ValueError, RuntimeError, KeyError, AttributeError)):
            raise _foreign(network, adapter, _said(text)) from error
        raise UnusableInput(f"{wanted}: PEFT cannot read it: {type(error).__name__}: {text[:200]}") from error
    if placed - kept:
        raise _foreign(network, adapter, f"it lacks weights for {_listed(placed - kept)}")
    if kept - placed - there:
        raise _foreign(network, adapter, f"the network has no place for its {_listed(kept - placed - there)}")
    config = whole.peft_config["default"]
    if config.is_prompt_learning or not isinstance(whole.base_model, library.tuners.tuners_utils.BaseTuner):
        raise UnusableInput(
            f"{wanted} is {adapter.kind}, which acts outside the network's layers, so it cannot be folded"
        )
    model: nn.Module = whole.get_base_model()
    layers = [path for path, module in model.named_modules() if id(module) not in before and "." in path]
    outermost = [path for path in layers if path.rpartition(".")[0] not in layers]
    note = f"{adapter.path}: {adapter.kind} on {len(outermost)} layers of {type(network).__name__}"
    return model, (f"{note}{f', trained on {adapter.base}' if adapter.base else ''}",)


def _foreign(network: nn.Module, adapter: AdapterFolder, why: str) -> UnusableInput:
    of = f"; it was trained on {adapter.base}" if adapter.base else ""
    return UnusableInput(
        f"--adapter {adapter.path} does not belong to this {type(network).__name__}: {why}{of}"
    )


def _said(text: str) -> str:
    """What PEFT says, without the lists that it adds."""
    if "size mismatch" in text:
        return text[text.index("size mismatch") :].partition(". ")[0][:200]
    return text[:200]


def _listed(names: Iterable[Any]) -> str:
    shown = sorted(map(str, names))
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return f"{', '.join(shown[:_SHOWN])}{more}"
