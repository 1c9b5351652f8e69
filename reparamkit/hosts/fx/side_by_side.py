"""The layers of a plan that read the same value, made one where that is asked for, and proven once more.

Every form that gets a piece of a wider layer is held against the original operators, as any fold is. Where
one of them fails, its layers stay apart.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from torch import nn

from reparamkit.algebra import Inexact
from reparamkit.engine.findings import Fold
from reparamkit.engine.form import Form, Terms
from reparamkit.engine.laws.layers_side_by_side import Siblings, siblings
from reparamkit.engine.layers import Realisation
from reparamkit.engine.plan import Plan, interior
from reparamkit.engine.proof import CheckFailed, Unproven, prove
from reparamkit.hosts.fx.census import layer_name
from reparamkit.hosts.fx.planned import Proven, realised, rounded
from reparamkit.hosts.fx.read import FxHost
from reparamkit.hosts.fx.write import common_path, owner_path


@dataclass
class SideBySide:
    """`proven` has the forms with a piece of a wider layer, and `merged` these layers with their forms.

    `failed` are the values whose check failed, with the reason.
    """

    proven: dict[int, Proven] = field(default_factory=dict)
    merged: dict[nn.Module, Siblings] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)

    def paths(self, host: FxHost) -> dict[nn.Module, str]:
        """Where the wider layers would best lie: in the module that holds all that they stand for."""
        paths = {}
        for wide, group in self.merged.items():
            kind = "linear" if isinstance(wide, nn.Linear) else "conv"
            paths[wide] = ".".join(filter(None, [_owner(host, group), f"merged_{kind}"]))
        return paths

    def fold(self, host: FxHost, wide: nn.Module, path: str, described: str) -> Fold:
        """What became of the layers, for the report."""
        group = self.merged[wide]
        count = len(group.forms)
        proofs = [self.proven[form.node].proof for form in group.forms]
        replaced = [host.user_node(i).name for form in group.forms for i in interior(host.nodes, form)]
        return Fold(
            _owner(host, group),
            {f"aten.{layer_name(wide)}.default": count},
            {path: f"{count} siblings as one {described}"},
            max(proof.error for proof in proofs),
            any(proof.captured_only for proof in proofs),
            tuple(dict.fromkeys(replaced)),
        )


def side_by_side(host: FxHost, chosen: Plan) -> SideBySide:
    """Make one layer of those beside each other."""
    result = SideBySide()
    groups = siblings(host.nodes, chosen.chosen.values(), lambda form: _kind(host, form))
    terms: dict[int, Terms] = {}
    realisations: dict[int, Realisation] = {}
    with host.constants.remembered():
        for group in groups:
            try:
                for form in group.forms:
                    if form.node not in terms:
                        terms[form.node], realisations[form.node] = realised(host, form)
                merged = group.merged(realisations)
                proofs = {
                    form.node: Proven(
                        merged[form.node], prove(host, form, terms[form.node], merged[form.node])
                    )
                    for form in group.forms
                }
            except (Unproven, Inexact) as reason:
                if isinstance(reason, CheckFailed):
                    result.failed[group.forms[-1].node] = f"beside its siblings, {reason}"
                continue
            result.proven |= proofs
            realisations |= merged
            result.merged[group.layer_of(merged)] = group
    for form in {form.node: form for group in result.merged.values() for form in group.forms}.values():
        rounded(host, form, result.proven[form.node].realisation)
    for wide, group in result.merged.items():
        wide.requires_grad_(_is_trained(host, group.forms[0]))
    return result


def _owner(host: FxHost, group: Siblings) -> str:
    return common_path(owner_path(host.user_node(form.node)) for form in group.forms)


def _kind(host: FxHost, form: Form) -> Hashable:
    value = host.user_node(form.node).meta["val"]
    return value.dtype, value.device, _is_trained(host, form)


def _is_trained(host: FxHost, form: Form) -> bool:
    """Whether training changes the layer: what a fold makes, and what was not frozen."""
    return not form.original or host.is_trained(form.node)
