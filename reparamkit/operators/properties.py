"""What operators are, by their names, where their meaning does not say it."""

from __future__ import annotations

_WEIGHTED = ("aten.conv", "aten.linear", "aten.addmm", "aten.mm", "aten.matmul", "aten.embedding")
_RAW_STRIDES = ("aten.as_strided", "aten.sym_stride", "aten.sym_storage_offset", "aten.set_")
_RESHAPES = frozenset(("aten.reshape.default", "aten.flatten.using_ints", "aten.unflatten.int"))
_ANEW = frozenset(
    (
        *("matmul", "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d"),
        "conv_transpose3d",
        *("softmax", "log_softmax", "scaled_dot_product_attention"),
        *("batch_norm", "layer_norm", "group_norm", "instance_norm"),
    )
)
_LIKE = frozenset(("zeros_like", "ones_like", "full_like", "empty_like"))
_HOMOGENEOUS = frozenset(("relu", "leaky_relu", "max_pool1d", "max_pool2d", "max_pool3d"))
_SIZED = frozenset(
    (
        *("reshape", "view", "_unsafe_view", "flatten", "unflatten", "expand"),
        *("squeeze", "slice", "narrow"),
    )
)


def has_weights(operator: str) -> bool:
    """Whether it is a layer with a kernel or a matrix, to which others fold."""
    return operator.startswith(_WEIGHTED)


def should_merge(operator: str) -> bool:
    """Whether its user expects it to become one with its like."""
    return has_weights(operator) or operator.startswith("aten.cat")


def names_padding(operator: str) -> bool:
    """Whether its padding has a name, "same" or "valid"."""
    return operator.endswith(".padding")


def looks_up(operator: str) -> bool:
    """Whether integers choose rows of a table."""
    return operator == "aten.embedding.default"


def is_reshape(operator: str) -> bool:
    """Whether it changes the shape alone."""
    return operator in _RESHAPES


def holds_sizes(operator: str) -> bool:
    """Whether sizes of its operand are among its arguments, which are those of the capture."""
    return operator.split(".")[1] in _SIZED


def reads_strides(operator: str) -> bool:
    """Whether it depends on how a tensor lies in memory."""
    return operator.startswith(_RAW_STRIDES)


def reads_only_the_shape(operator: str) -> bool:
    """Whether the numbers of its operand make no difference."""
    name = operator.split(".")[1]
    return name in _LIKE or name.startswith("new_")


def is_homogeneous(operator: str) -> bool:
    """Whether a factor that is not negative, of its operand or of a channel, is one of its result."""
    return operator.split(".")[1] in _HOMOGENEOUS


def is_uninitialised(operator: str) -> bool:
    """Whether its result holds whatever lay in memory."""
    return operator.startswith(("aten.empty", "aten.new_empty"))


def computes_anew(operator: str) -> bool:
    """Whether its result is a tensor of its own, though torch makes it up of operators that may be views."""
    return operator.split(".")[1] in _ANEW
