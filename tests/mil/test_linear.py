"""Products of matrices against torch and NumPy."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from tests.mil.programs import Case, array, assert_agree, mb, normal

WEIGHT, BIAS = array(4, 6), array(4, seed=2)


def test_linear_and_matmul() -> None:
    weight, bias = torch.from_numpy(WEIGHT).double(), torch.from_numpy(BIAS).double()
    assert_agree(
        [
            Case(
                "linear",
                lambda x, y: mb.linear(x=x, weight=WEIGHT, bias=BIAS),
                lambda x, y: x @ weight.T + bias,
            ),
            Case("linear, no bias", lambda x, y: mb.linear(x=x, weight=WEIGHT), lambda x, y: x @ weight.T),
            Case("matmul", lambda x, y: mb.matmul(x=x, y=y), lambda x, y: np.matmul(x.numpy(), y.numpy())),
            Case(
                "x transposed",
                lambda x, y: mb.matmul(x=x, y=x, transpose_x=True),
                lambda x, y: x.transpose(1, 2) @ x,
            ),
            Case(
                "y transposed",
                lambda x, y: mb.matmul(x=x, y=x, transpose_y=True),
                lambda x, y: x @ x.transpose(1, 2),
            ),
            Case(
                "both",
                lambda x, y: mb.matmul(x=y, y=x, transpose_x=True, transpose_y=True),
                lambda x, y: y.transpose(1, 2) @ x.transpose(1, 2),
            ),
        ],
        {"x": normal(2, 3, 6), "y": normal(1, 6, 3, seed=4)},
    )


def test_einsum() -> None:
    case = Case(
        "nchw,nwhu->nchu",
        lambda x, y: mb.einsum(values=(x, y), equation="nchw,nwhu->nchu"),
        lambda x, y: np.einsum("nchw,nwhu->nchu", x.numpy(), np.broadcast_to(y.numpy(), (2, 5, 4, 6))),
    )
    assert_agree([case], {"x": normal(2, 3, 4, 5), "y": normal(2, 5, 1, 6, seed=2)})


def test_attention_against_torch() -> None:
    mask = np.array([[True, False, True, True, False]] * 3)
    added = array(3, 5)
    assert_agree(
        [
            Case(
                "plain",
                lambda q, k, v: mb.scaled_dot_product_attention(query=q, key=k, value=v),
                lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
            ),
            Case(
                "mask",
                lambda q, k, v: mb.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=mask),
                lambda q, k, v: F.scaled_dot_product_attention(q, k, v, torch.from_numpy(mask)),
            ),
            Case(
                "added mask",
                lambda q, k, v: mb.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=added),
                lambda q, k, v: F.scaled_dot_product_attention(q, k, v, torch.from_numpy(added).double()),
            ),
        ],
        {"q": normal(2, 4, 3, 8), "k": normal(2, 4, 5, 8, seed=2), "v": normal(2, 4, 5, 6, seed=3)},
        ios=18,
    )
