"""What would have to change in a network so that an operator that stays could fold."""

from __future__ import annotations

_REMEDIES = (
    ("exact but dearer", "Nothing: the fold is exact, and the two layers are the cheaper ones."),
    (
        "a sum of values with different sources",
        "Nothing: a sum of two values of a network is no layer of one of them.",
    ),
    (
        "it multiplies two values that both depend on the network's input",
        "Nothing, if it is attention or a gate: a product of two values is no affine map.",
    ),
    (
        "it divides by a value that depends on the network's input",
        "Nothing, if it is a normalisation: dividing by a value is no affine map.",
    ),
    (
        "before zero padding: the padded border stays zero",
        "Pad with the value that the shift makes of zero, as DBB does between its 1x1 and k×k; or put the "
        "norm or bias behind the padded convolution; or train that convolution with padding=0.",
    ),
    (
        "zero padding between two windows",
        "Pad once, before the first of the two, by the padding of both, and train the second with padding=0.",
    ),
    ("has other readers, and would be computed twice", "Let one operator alone read that value."),
    ("call model.eval() before folding", "Call model.eval() before folding."),
    ("normalises by the statistics of each batch", "Train the norm with track_running_stats=True."),
    ("the batch norm keeps no running statistics", "Train the norm with track_running_stats=True."),
    ("the branches have different strides", "Give all branches the same stride."),
    ("the branches give different output sizes", "Pad the branches so that their outputs have one size."),
    ("the pooling uses ceil_mode", "Use ceil_mode=False, or a size that the stride divides."),
    ("leaves its padding out of the average", "Use count_include_pad=True."),
    ("not with zeros", "Pad with zeros; reflected or replicated borders are no part of a convolution."),
    ("that varies", "Fix that size: --dynamic batch, or none."),
    ("before a transposed convolution", "Put the norm or bias behind the transposed convolution."),
    (
        "is not an affine operator that reparamkit knows",
        "If it is one: docs/adding_an_operator.md says in a page how to teach it.",
    ),
    (
        "float64 check failed",
        "Nothing in the network: the check has caught a mistake of reparamkit. Please report it.",
    ),
    (
        "and no convolution or linear layer reads its output alone",
        "Put it directly behind or before a convolution or linear layer that nothing else reads.",
    ),
)


def remedy(reason: str) -> str:
    """What would have to change; "" where the reason itself says all that is known."""
    return next((advice for fragment, advice in _REMEDIES if fragment in reason), "")


def fragments() -> tuple[str, ...]:
    """The pieces of reasons that are recognised."""
    return tuple(fragment for fragment, _ in _REMEDIES)
