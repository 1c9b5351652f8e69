"""`load_into`: the numbers of a folded network in a class of the user's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reparamkit.capture.export import capture, evaluating
from reparamkit.capture.program import InParts
from reparamkit.compare.profile import EXCHANGEABLE, judge_candidate
from reparamkit.compare.verdict import Equivalence
from reparamkit.errors import CannotCapture, UnusableInput
from reparamkit.into.align import Pair, align
from reparamkit.into.captured_flow import flow_of
from reparamkit.into.equations import Chosen, Goal, chosen_from
from reparamkit.into.flow import Flow, Value
from reparamkit.into.outputs import check_target_suffix, is_folder
from reparamkit.into.pretrained import read_pretrained, require_pretrained, write_pretrained
from reparamkit.into.solve import reading, settle
from reparamkit.into.target import Target
from reparamkit.loading.wrappers import unwrapped, usable_inputs
from reparamkit.lower.files import write_verified
from reparamkit.result import Folded
from reparamkit.runners.torch import TorchRunner
from reparamkit.support.copies import private_copy
from reparamkit.support.inputs import Args, Kwargs, normalise_inputs
from reparamkit.support.isolation import attributes_kept, random_state_kept
from reparamkit.support.progress import phase
from reparamkit.support.surroundings import undisturbed


@dataclass(frozen=True)
class Loaded:
    """A module of the user's class with the numbers of a folded network.

    Attributes:
        module: a copy of the target, in evaluation mode, with the numbers in its own parameters and buffers.
        equivalence: the verdict on it against the network that was folded.
        layers: tensor of the folded network -> what holds its numbers now: the name of a tensor of the
            target, or of the layer that several of them make.
        notes: what else the caller should know.
    """

    module: nn.Module
    equivalence: Equivalence
    layers: dict[str, str]
    notes: tuple[str, ...]
    _target: nn.Module
    _folded: Folded

    def __str__(self) -> str:
        return f"{len(self.layers)} tensors in {type(self.module).__name__}\n{self.equivalence.summary()}"

    def __repr__(self) -> str:
        return f"<Loaded: {'; '.join(str(self).splitlines())}>"

    def state_dict(self) -> dict[str, Tensor]:
        """The weights under the target's own names, for its `load_state_dict(…, strict=True)`."""
        return {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}

    @undisturbed()
    def save(self, *paths: str | Path, allow_untold: bool = False) -> None:
        """Write the state dict, each file under the format that its suffix names: .pth or .safetensors.

        A path without a suffix is a folder that `from_pretrained` loads, for a target of transformers. All
        appear only after each was read back, loaded into the target with `strict=True`, run and
        found equivalent to the network that was folded: all of them, or none.

        Raises:
            UnusableInput: another suffix, or it cannot be written; an old file there is untouched.
            MissingExtra: a .safetensors is asked for and that package is not installed.
            NotEquivalent: the file does not compute what the network does; nothing was written.
        """
        for path in paths:
            check_target_suffix(Path(path))
            if is_folder(Path(path)):
                require_pretrained(self._target, Path(path))

        def save_from(place: int) -> None:
            if place < len(paths):
                path = Path(paths[place])
                verify = partial(self._verify, path, partial(save_from, place + 1), allow_untold)
                write_verified(path, self._write, verify)

        with attributes_kept(self._folded.lowering.original, self.module, self._target):
            save_from(0)

    def _write(self, path: Path) -> None:
        if is_folder(path):
            write_pretrained(self.module, path)
            return
        if path.suffix == ".pth":
            torch.save(self.state_dict(), path)
            return
        from safetensors.torch import save_file

        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, path)

    def _verify(self, path: Path, following: Callable[[], None], allow_untold: bool, written: Path) -> None:
        with phase(str(path)):
            if is_folder(path):
                fresh = read_pretrained(self._target, written)
            else:
                fresh = private_copy(self._target)
                fresh.load_state_dict(_read(written), strict=True)
            verdict = _verdict_on(self._folded, fresh.eval())
        verdict.require(f"{path} was not written: the file is", allow_untold=allow_untold)
        following()


def _verdict_on(folded: Folded, module: nn.Module) -> Equivalence:
    """Whether a module computes what the network that was folded does."""
    recorded = folded.network.reference
    return judge_candidate(recorded, TorchRunner(module), EXCHANGEABLE)


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".pth":
        state: dict[str, Tensor] = torch.load(path, weights_only=True)
        return state
    from safetensors.torch import load_file

    return dict(load_file(path))


@undisturbed()
@random_state_kept()
def load_into(folded: Folded, target: Any, example_inputs: Any = None) -> Loaded:
    """Put the numbers of a folded network into a class of your own, such as RepVGG(deploy=True).

    The target is captured and folded as well; both are then aligned by what is computed from what, never by
    names or numbers, and each folded layer's numbers go back through the target's own layers. Where the
    target makes one layer of several tensors, its convolution takes them, its batch norm becomes the
    identity and its other branches zero.

    Args:
        folded: what `fold` returned.
        target: an `nn.Module` that computes the same function when it has the right numbers. Never changed.
        example_inputs: as for `fold`; by default those that the network was folded with. The sizes may be
            smaller, and both networks have to take them.

    Returns:
        A copy of the target that holds the numbers, compared with the original.

    Raises:
        UnusableInput: the target is of another structure (named is what has no partner, or two), it has
            nowhere to keep some of the numbers, or it rejects the inputs.
        CannotCapture: torch.export cannot turn one of the two into one graph.
        NotEquivalent: with the numbers in it, the target is another function.
    """
    if not isinstance(target, nn.Module):
        raise UnusableInput(f"the target is a {type(target).__name__}: give an nn.Module of your class")
    if isinstance(folded.captured, InParts):
        reason = folded.captured.why.reason
        raise CannotCapture(f"cannot load into a target what was folded in parts: {reason}", reason)
    inputs = folded.lowering.example if example_inputs is None else normalise_inputs(example_inputs)
    args, kwargs = usable_inputs(*inputs)
    target, notes = unwrapped(target)
    target, training = evaluating(target)
    notes += [note.replace("folded", "loaded") for note in training]
    kept = attributes_kept(folded.lowering.original, folded.module, target)
    with phase(f"loading into {type(target).__name__}"), kept:
        flow = flow_of(program := capture(folded.module, args, kwargs, dynamic=False))
        try:
            weights, layers, said = _weights(flow, program.state, target, args, kwargs, varied=True)
        except UnusableInput as reason:
            try:
                weights, layers, said = _weights(flow, program.state, target, args, kwargs, varied=False)
            except UnusableInput:
                raise reason from None
        # In a copy that has never run: what a network computes once and keeps is of its old numbers.
        loaded = private_copy(target).eval()
        loaded.load_state_dict(weights, strict=True)
        verdict = _verdict_on(folded, private_copy(loaded))
    verdict.require("with the numbers in it, the target is", allow_untold=True)
    return Loaded(loaded, verdict, layers, (*notes, *said), target, folded)


def _weights(
    flow: Flow, state: Any, target: nn.Module, args: Args, kwargs: Kwargs, *, varied: bool
) -> tuple[dict[str, Tensor], dict[str, str], list[str]]:
    """The state dict for the target, what went where, and what is to be said of it.

    A fold leaves out what is nothing or the identity in numbers (a scale that starts as one), and the target
    may hold such numbers only because it was never trained: `varied` moves all away from those.
    """
    copied = private_copy(target).eval()
    weights = {name: tensor.detach().clone() for name, tensor in copied.state_dict().items()}
    if varied:
        _vary(copied)
    try:
        own = Target(copied, args, kwargs)
        theirs = flow_of(capture(own.module, args, kwargs, dynamic=False))
    except CannotCapture as error:
        raise CannotCapture(f"the target: {error}", error.reason) from error
    except UnusableInput as error:
        raise UnusableInput(f"the target: {error}") from error
    goals, layers = _goals(own, align(flow, theirs), state)
    said = [
        f"{count:,} of {weights[name].numel():,} numbers of {name} follow from the network at the sizes that "
        f"it was folded for; the others stay the target's own"
        for name, count in settle(own, goals, weights).items()
    ]
    settled = reading(own, goals) & weights.keys()
    for name in settled:
        weights[name] = own.trial.get(name, own.tensors[name]).to(weights[name]).reshape(weights[name].shape)
    return _tied(copied, weights, settled), layers, said


def _vary(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in {id(t): t for t in module.state_dict(keep_vars=True).values()}.values():
            if tensor.is_floating_point():
                share = torch.rand(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)
                tensor.add_((tensor.abs() + 0.5) * (0.1 + 0.1 * share))


def _tied(module: nn.Module, weights: dict[str, Tensor], settled: set[str]) -> dict[str, Tensor]:
    """The same weights, where one tensor has several names under each: a capture knows one of them."""
    names: dict[int, list[str]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
    first = {
        name: next((n for n in group if n in settled), name) for group in names.values() for name in group
    }
    return {name: weights[first[name]] for name in weights}


def _goals(target: Target, pairs: Sequence[Pair], state: Any) -> tuple[list[Goal], dict[str, str]]:
    """What the target's folded layers have to hold, and from where to where the numbers go."""
    goals: list[Goal] = []
    layers: dict[str, str] = {}
    for pair in pairs:
        mine, its = pair.ours, pair.theirs
        numbers = None if mine is None else _value(mine, state)
        if its is None:
            if (
                mine is not None
                and numbers is not None
                and not torch.equal(numbers, torch.full_like(numbers, pair.default or 0.0))
            ):
                raise UnusableInput(
                    f"{pair.reader} of the target has no {mine.name.rpartition('.')[2]}, and {mine} of the "
                    "folded network needs one"
                )
            continue
        if numbers is None:
            numbers = torch.full(its.shape, pair.default or 0.0, dtype=torch.float64)
        if mine is not None and its.name:
            layers[mine.name] = (target.own_name(its.reads[0]) if its.plain else None) or its.name
        goals.append(_goal(target, its, numbers, None if mine is None else _chosen(mine, state)))
    return goals, layers


def _value(value: Value, state: Any) -> Tensor:
    assert value.constant is not None
    return value.constant(state).detach().cpu()


class _Now:
    """The tensors of the folded target, for the numbers that are on trial when one is asked for."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def __getitem__(self, name: str) -> Tensor:
        return self._target.value(name)


def _chosen(value: Value, state: Any) -> Chosen | None:
    """The larger table that a constant of the folded network is chosen out of, as rows of one are."""
    evaluate = value.constant
    assert evaluate is not None
    tables = [name for name in value.reads if state[name].is_floating_point()]
    if value.plain or len(tables) != 1:
        return None
    table = state[tables[0]].detach().cpu()
    if table.numel() <= math.prod(value.shape):
        return None
    others = {name: tensor for name, tensor in state.items() if name != tables[0]}
    places = chosen_from(table, lambda numbers: evaluate({**others, tables[0]: numbers}))
    return None if places is None else Chosen(table, places)


def _goal(target: Target, value: Value, numbers: Tensor, chosen: Chosen | None) -> Goal:
    evaluate = value.constant
    assert evaluate is not None
    own = target.own_name(value.reads[0]) if value.plain else None
    return Goal(f"{value.name or value} of the target", lambda: evaluate(_Now(target)), own, numbers, chosen)  # type: ignore[arg-type]
