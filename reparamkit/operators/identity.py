"""Operators that hand their input on unchanged: y = x.

Memory formats and aliases are no concern of the algebra; the captured graph is functional.
"""

from __future__ import annotations

from reparamkit.operators.base import Call, Meaning, NotAffine, identity, reader


@reader(
    "aten.clone.default",
    "aten.contiguous.default",
    "aten.alias.default",
    "aten.lift_fresh_copy.default",
    "aten.positive.default",
)
def unchanged(call: Call) -> Meaning:
    """A copy or an alias."""
    return identity(call.value("self"))


@reader("aten.detach.default")
def detach(call: Call) -> Meaning:
    """No layer can take its place: one that is trained would let the gradient through."""
    raise NotAffine(
        "gradients stop there (detach, no_grad), and a layer would let them through", notable=False
    )


@reader(
    "aten.dropout.default",
    "aten.feature_dropout.default",
    "aten.alpha_dropout.default",
    "aten.feature_alpha_dropout.default",
)
def dropout(call: Call) -> Meaning:
    """Dropout that is off."""
    if call.get("train", False) and call.get("p", 0.5) != 0:
        raise NotAffine("the dropout is on (training mode): call model.eval() before folding")
    return identity(call.value("input"))


@reader("aten.to.dtype", "aten.to.dtype_layout", "aten.to.device", "aten.to.other", "aten._to_copy.default")
def cast(call: Call) -> Meaning:
    """A cast to the number type that the value already has."""
    return identity(call.value("self"))


@reader("aten.leaky_relu.default")
def leaky_relu(call: Call) -> Meaning:
    """Slope 1, with which VanillaNet ends its training, leaves everything as it is."""
    if call.get("negative_slope", 0.01) != 1:
        raise NotAffine("its slope is not 1", notable=False)
    return identity(call.value("self"))
