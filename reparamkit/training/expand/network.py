"""`expand`: from a plain network to one with training-time branches, the inverse of folding.

    W * x + b  =  Σ BN_j(C_j * x) + b        for each convolution, with Σ c_j·C_j = W

where BN_j multiplies by c_j and shifts nothing in evaluation mode. All of these numbers are chosen so that
the sum is exact in the network's own precision (`exact`): the expanded network is the original function, and
not one that is off by rounding.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from reparamkit.errors import NothingExpanded, UnusableInput
from reparamkit.loading.finite import non_finite
from reparamkit.loading.source import Source
from reparamkit.loading.wrappers import unwrapped, usable_inputs
from reparamkit.support.inputs import Args, Kwargs, normalise_inputs, tensor_leaves
from reparamkit.support.isolation import attributes_kept, call_untouched, random_state_kept
from reparamkit.support.quiet import quiet
from reparamkit.support.surroundings import undisturbed
from reparamkit.support.text import first_line
from reparamkit.training.expand import functional
from reparamkit.training.expand.block import ExpandedConv, described
from reparamkit.training.expand.exact import NotRepresentable
from reparamkit.training.expand.kinds import KINDS, CannotExpand, branches_of
from reparamkit.training.expand.observe import Observed, watched
from reparamkit.training.expand.proof import prove_block, prove_network
from reparamkit.training.expand.replace import copied_model, evaluating, put, used_otherwise, with_history
from reparamkit.training.expand.report import Expansion, ExpansionReport, LeftAlone, attach
from reparamkit.training.expand.select import (
    Candidate,
    Where,
    candidates,
    chosen,
    move_hooks,
    obstacle,
    owners_of_weights,
    without_weight_norm,
)

_REASONS_SHOWN = 3


@undisturbed()
@random_state_kept()
def expand(
    model: nn.Module | ExportedProgram | Source,
    example_inputs: Any = None,
    kind: str = "repvgg",
    branches: int | None = None,
    where: Where = None,
    *,
    seed: int = 0,
) -> nn.Module:
    """A copy of a network in which convolutions are training-time branches that compute the same function.

    Each convolution is replaced, under its own name, by a block (`ExpandedConv`) of the kind asked for:

    - repvgg: KxK, 1x1 and identity, each with a batch norm
    - mobileone: several KxK, 1x1 and identity, each with a batch norm; the only kind for 1x1 convolutions
    - dbb: KxK, 1x1, 1x1-KxK and 1x1-average
    - acb: KxK, Kx1 and 1xK (on three axes, one line along each)
    - replk: a large and a small kernel

    An identity is there where the convolution keeps channels and has stride 1. Grouped, strided and dilated
    convolutions, any zero padding, "same" and the other padding modes are expanded; what is not, is left as
    it was, with a reason in `rk.expansion_report(expanded)`.

    **In evaluation mode** the result is the same function exactly: the parts of each kernel add up to it
    without rounding in the network's own precision. That is checked in float64, for each block and for the
    whole network on the example.

    **In training mode** a batch norm divides by the deviation of the batch. So that training starts from the
    same function too, the norms are given the statistics of what goes through them when the *original* runs
    in training mode on the example: there, the expanded network in training mode computes what the original
    does in that mode, to about 3 digits (in float32 a deviation is held to 12 bits). On other batches their
    statistics differ from those of the example, and the outputs with them, as they do behind any batch norm:
    give a batch of real data, as large as a training batch. To be equal in training mode on every batch is
    impossible for branches with batch norms. Where the original cannot run in training mode on the example
    (a batch of one, another signature), evaluation mode is taken and a note says so. A convolution that runs
    several times in one call gets the statistics of all its calls together.

    **What is trained.** Every branch starts with a random share of the kernel near an equal one, so that no
    two are alike, and gets a gradient; a convolution's own bias stays a parameter of its own. A batch norm
    that follows in the network stays; as behind any other convolution it takes constants away, so in
    training mode the biases of the norms in front of it have a gradient of zero. So have, nearly, the
    pointwise kernels of a depthwise block, one number for each channel, which the norm behind divides out (as
    in MobileOne and RepVGG themselves); that norm's own weight is trained in their place.

    The result is in the mode, precision and place of the original, hooks go along, and other weights are
    copies of the original's. `rk.fold(expanded, x)` puts single convolutions back. Not touched: the model.

    Args:
        model: an `nn.Module`; or, expanded as captured graphs (see below), an `ExportedProgram`, TorchScript,
            or what `rk.load` returned.
        example_inputs: a tensor (N, C, *spatial), a tuple of positional or a dict of keyword arguments; best
            of all a batch of the training data. May be left out where the model brings its own.
        kind: repvgg, mobileone, dbb, acb or replk.
        branches: how many branches with the whole kernel; by default 4 for mobileone, else 1.
        where: which convolutions: a module's name (it, or all inside it), a pattern ("layer1.*.conv?"), a
            compiled regular expression (searched in the name), a function of name and module, or a list of
            these. All that can be, by default.
        seed: what the shares are drawn from.

    A network without convolution modules, whose forward calls `F.conv2d` on its parameters, is captured as
    `rk.fold` does, and the captured graph, folded, is expanded and returned.

    Raises:
        NothingExpanded (an UnusableInput and a ValueError): no convolution could be expanded; it says why.
        UnusableInput: no inputs, or inputs that the model rejects; an unknown kind; a selector that means no
            convolution; a model that cannot be copied, or has weights that are not finite.
        NotEquivalent: the expanded network is not the same function in float64 (1e-10).
    """
    _check_options(kind, branches)
    notes: list[str] = []
    inputs = None if example_inputs is None else normalise_inputs(example_inputs)
    if isinstance(model, Source):
        notes += model.notes
        if inputs is None and model.example_inputs is not None:
            inputs = model.example_inputs, model.example_kwargs
        model = model.model
    if isinstance(model, nn.Module):
        model, wrapped = unwrapped(model)
        notes += wrapped
    elif not isinstance(model, ExportedProgram):
        raise UnusableInput(
            f"a {type(model).__name__} is not a model: give an nn.Module, an ExportedProgram, or what "
            "reparamkit.load returned"
        )
    elif inputs is None and model.example_inputs is not None:
        inputs = tuple(model.example_inputs[0]), dict(model.example_inputs[1])
    inputs = usable_inputs(*(inputs or normalise_inputs(None)))
    broken = non_finite(model)
    if broken:
        raise UnusableInput(f"the model has NaN or infinite weights: {', '.join(broken[:5])}")
    if isinstance(model, ExportedProgram | torch.jit.ScriptModule):
        model = functional.captured(model, *inputs)
        notes.append(functional.NOTE)
    with attributes_kept(model):
        expansion = _Expansion(model, inputs, kind, branches, seed, notes)
        return expansion.run(where)


def _check_options(kind: str, branches: int | None) -> None:
    if kind not in KINDS:
        near = difflib.get_close_matches(str(kind), KINDS, 1, 0.4)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise UnusableInput(f"there is no kind {kind!r} (there are {', '.join(KINDS)}){meant}")
    if branches is not None and (isinstance(branches, bool) or not isinstance(branches, int) or branches < 1):
        raise UnusableInput(f"branches={branches!r}: it is a number of branches, 1 or more")


@dataclass
class _Block:
    candidate: Candidate
    observed: Observed

    @property
    def where(self) -> str:
        return self.candidate.where


class _Expansion:
    """One call of `expand`."""

    def __init__(
        self,
        model: nn.Module,
        inputs: tuple[Args, Kwargs],
        kind: str,
        branches: int | None,
        seed: int,
        notes: list[str],
    ) -> None:
        self.model, self.inputs, self.kind, self.branches = model, inputs, kind, branches
        self.seed, self.notes = seed, notes
        self.left: dict[str, LeftAlone] = {}

    def run(self, where: Where) -> nn.Module:
        copied = copied_model(self.model)
        available = candidates(copied)
        meant = chosen(available, where) if available or where is None else []
        freed = {one.where: plain for one in meant if (plain := without_weight_norm(one.conv)) is not None}
        if freed:
            self.notes.append("weight_norm was taken off: the batch norms of the branches take its place")
            plain = [Candidate(freed.get(one.where, one.conv), one.names) for one in meant]
            for one in plain:
                copied = put(copied, one, one.conv)
            meant = plain
        if freed or with_history(self.model):
            self.model = copied_model(copied)
        order = {one.where: i for i, one in enumerate(available)}
        blocks = self._blocks(copied, meant)
        functional_at, modules_convolve = self._observe(copied, blocks)
        blocks = {where: block for where, block in blocks.items() if self._settled(block)}
        if functional_at and not modules_convolve:
            return self._captured(where)
        self._mention(functional_at, where)
        self._require(blocks)
        error = max(
            prove_block(block.candidate.conv, block.observed.block, block.observed.shapes[0], block.where)
            for block in blocks.values()
        )
        expanded = self._replaced(copied, blocks)
        self._require(blocks)
        with attributes_kept(expanded):
            whole, notes = prove_network(self.model, expanded, *self.inputs)
        report = ExpansionReport(
            self.kind,
            tuple(
                Expansion(
                    block.where,
                    block.candidate.names[1:],
                    described(block.observed.block),
                    tuple(name for name, _ in block.observed.block.branches()),
                )
                for block in blocks.values()
            ),
            tuple(sorted(self.left.values(), key=lambda one: order.get(one.where, len(order)))),
            max(error, whole),
            (*self.notes, *notes),
        )
        attach(expanded, report)
        return expanded

    def _leave(self, candidate: Candidate, reason: str) -> None:
        self.left[candidate.where] = LeftAlone(candidate.where, described(candidate.conv), reason)

    def _blocks(self, copied: nn.Module, meant: list[Candidate]) -> dict[str, _Block]:
        owners = owners_of_weights(copied)
        blocks: dict[str, _Block] = {}
        for number, candidate in enumerate(meant):
            reason = obstacle(candidate, owners)
            if reason is None:
                random = np.random.default_rng((self.seed, number))
                try:
                    held, border = branches_of(self.kind, candidate.conv, self.branches, random)
                except (CannotExpand, NotRepresentable) as error:
                    reason = str(error)
                else:
                    block = ExpandedConv(candidate.conv, self.kind, held, border)
                    _lay_out(block, candidate.conv.weight)
                    blocks[candidate.where] = _Block(candidate, Observed(block))
                    continue
            self._leave(candidate, reason)
        return blocks

    def _observe(self, copied: nn.Module, blocks: dict[str, _Block]) -> tuple[dict[str, list[str]], bool]:
        """Run the plain network in training mode, and in evaluation mode for what that does not reach.

        Returns:
            Which modules convolve by functions, and whether convolution modules do.
        """
        by_modules = False
        scratch = copied_model(copied)
        try:
            scratch.train()
            convolving, by_modules = _run_watched(
                scratch, self.inputs, {where: b.observed for where, b in blocks.items()}
            )
        except Exception as error:  # whatever the network raises in a mode that it was not called in
            self.notes.append(
                "the statistics of the branches are those of evaluation mode: in training mode the network "
                f"does not run on the example ({first_line(error)})"
            )
            for block in blocks.values():
                block.observed = Observed(block.observed.block)
            convolving = {}
        missed = {where: b.observed for where, b in blocks.items() if not b.observed.shapes}
        if missed or not convolving:
            scratch = evaluating(copied_model(copied))
            try:
                more, also = _run_watched(scratch, self.inputs, missed)
                convolving, by_modules = more | convolving, by_modules or also
            except Exception as error:
                shapes = ", ".join(str(list(x.shape)) for _, x in tensor_leaves(*self.inputs))
                raise UnusableInput(
                    f"the model rejects the example inputs ({shapes}): {first_line(error)}"
                ) from error
        return convolving, by_modules

    def _settled(self, block: _Block) -> bool:
        reason = block.observed.obstacle()
        if reason is None:
            try:
                block.observed.settle()
                return True
            except NotRepresentable as error:
                reason = str(error)
        self._leave(block.candidate, reason)
        return False

    def _captured(self, where: Where) -> nn.Module:
        module = functional.captured(self.model, *self.inputs)
        notes = [*self.notes, functional.NOTE]
        return _Expansion(module, self.inputs, self.kind, self.branches, self.seed, notes).run(where)

    def _mention(self, functional_at: dict[str, list[str]], where: Where) -> None:
        for path, functions in functional_at.items() if where is None else ():
            name = path or "(the network)"
            self.left.setdefault(
                path,
                LeftAlone(
                    name,
                    ", ".join(dict.fromkeys(functions)),
                    "it is a function of parameters and no module; to have it expanded as well, hand in "
                    "torch.export.export(model.eval(), args)",
                ),
            )

    def _require(self, blocks: dict[str, _Block]) -> None:
        if blocks:
            return
        reasons = [f"{one.where or '(the network)'}: {one.reason}" for one in self.left.values()]
        more = f"; and {len(reasons) - _REASONS_SHOWN} more" if len(reasons) > _REASONS_SHOWN else ""
        told = "; ".join(reasons[:_REASONS_SHOWN]) + more if reasons else "it has no convolutions"
        raise NothingExpanded(f"nothing in the network can be expanded into {self.kind} blocks: {told}")

    def _replaced(self, copied: nn.Module, blocks: dict[str, _Block]) -> nn.Module:
        """Put the blocks in, all but those whose convolution is used by other code than the module tree."""
        for block in blocks.values():
            move_hooks(block.candidate.conv, block.observed.block)
            copied = put(copied, block.candidate, block.observed.block)
        while blocks:
            named = used_otherwise(
                copied, {where: block.candidate for where, block in blocks.items()}, self.inputs
            )
            if named is None:
                break
            where, reason = named
            block = blocks.pop(where)
            move_hooks(block.observed.block, block.candidate.conv)
            copied = put(copied, block.candidate, block.candidate.conv)
            self._leave(block.candidate, reason)
        return copied


def _run_watched(
    model: nn.Module, inputs: tuple[Args, Kwargs], blocks: dict[str, Observed]
) -> tuple[dict[str, list[str]], bool]:
    with quiet(), watched(model, blocks) as calls:
        call_untouched(model, *inputs)
    return calls.at, calls.by_modules


def _lay_out(block: ExpandedConv, like: Tensor) -> None:
    """Channels last where the convolution's weight is."""
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(like.ndim)
    if layout is not None and not like.is_contiguous() and like.is_contiguous(memory_format=layout):
        block.to(memory_format=layout)  # type: ignore[call-overload]
