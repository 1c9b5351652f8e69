"""Slices, gathering and scattering against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from reparamkit.errors import UnusableInput
from reparamkit.mil.evaluate import evaluate
from tests.mil.programs import Case, assert_agree, mb, normal, read

Places = np.ndarray[Any, np.dtype[np.int32]]


def _places(*values: Any) -> Places:
    return np.array(values, np.int32)


def test_slices() -> None:
    assert_agree(
        [
            Case(
                "plain",
                lambda x: mb.slice_by_index(x=x, begin=[0, 1, 2], end=[1, 4, 5]),
                lambda x: x[0:1, 1:4, 2:5],
            ),
            Case(
                "from the end, in steps",
                lambda x: mb.slice_by_index(x=x, begin=[0, -4, 1], end=[2, -1, 6], stride=[1, 2, 3]),
                lambda x: x[0:2, -4:-1:2, 1:6:3],
            ),
            Case(
                "backwards",
                lambda x: mb.slice_by_index(
                    x=x,
                    begin=[0, 4, 0],
                    end=[0, 1, 0],
                    stride=[1, -2, -1],
                    begin_mask=[True, False, True],
                    end_mask=[True, False, True],
                ),
                lambda x: x.numpy()[:, 4:1:-2, ::-1].copy(),
            ),
            Case(
                "masks",
                lambda x: mb.slice_by_index(
                    x=x,
                    begin=[1, 2, 9],
                    end=[9, 0, 3],
                    begin_mask=[False, False, True],
                    end_mask=[True, True, False],
                ),
                lambda x: x[1:, 2:, :3],
            ),
            Case(
                "one element",
                lambda x: mb.slice_by_index(
                    x=x,
                    begin=[-1, 0, 3],
                    end=[0, 4, 4],
                    squeeze_mask=[True, False, True],
                ),
                lambda x: x[-1, 0:4, 3],
            ),
            Case(
                "by size",
                lambda x: mb.slice_by_size(x=x, begin=[0, 1, 2], size=[1, -1, 3]),
                lambda x: x[:1, 1:, 2:5],
            ),
            Case(
                "by size, from the end",
                lambda x: mb.slice_by_size(x=x, begin=[0, -2, 0], size=[2, 2, 6]),
                lambda x: x[:, -2:],
            ),
        ],
        {"x": normal(2, 5, 6)},
    )


def test_slices_put_back() -> None:
    def expect(x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y[:, 1:4:2, -3:] = u
        return y

    def one(x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y[1, 3:5, 0:3] = u[0]
        return y

    assert_agree(
        [
            Case(
                "slice_update",
                lambda x, u: mb.slice_update(
                    x=x,
                    update=u,
                    begin=[0, 1, -3],
                    end=[2, 4, 0],
                    stride=[1, 2, 1],
                    end_mask=[False, False, True],
                ),
                expect,
            ),
            Case(
                "one element",
                lambda x, u: mb.slice_update(
                    x=x,
                    update=mb.squeeze(x=mb.slice_by_size(x=u, begin=[0, 0, 0], size=[1, 2, 3]), axes=[0]),
                    begin=[1, 3, 0],
                    end=[2, 5, 3],
                    squeeze_mask=[True, False, False],
                ),
                one,
            ),
        ],
        {"x": normal(2, 5, 6), "u": normal(2, 2, 3, seed=2)},
        ios=18,
    )


@pytest.mark.parametrize("ios", [15, 17])
def test_gathering(ios: int) -> None:
    grid = _places([[0, 1, 4], [3, 2, 2]])[0]
    assert_agree(
        [
            Case(
                "rows", lambda x: mb.gather(x=x, indices=_places(2, 0, 0), axis=1), lambda x: x[:, [2, 0, 0]]
            ),
            Case("one", lambda x: mb.gather(x=x, indices=np.int32(3), axis=-1), lambda x: x[..., 3]),
            Case(
                "one of a list",
                lambda x: mb.mul(
                    x=x, y=mb.gather(x=np.array([2, 3, 4], np.float32), indices=np.int32(1), axis=0)
                ),
                lambda x: x * 3,
            ),
            Case(
                "grid", lambda x: mb.gather(x=x, indices=grid, axis=1), lambda x: np.take(x.numpy(), grid, 1)
            ),
            Case(
                "along",
                lambda x: mb.gather_along_axis(x=x, indices=np.tile(grid[:, :, None], (1, 1, 6)), axis=1),
                lambda x: np.take_along_axis(x.numpy(), np.tile(grid[:, :, None], (1, 1, 6)), 1),
            ),
            Case(
                "nd",
                lambda x: mb.gather_nd(x=x, indices=_places([1, 4], [0, 2], [1, 0])),
                lambda x: x[[1, 0, 1], [4, 2, 0]],
            ),
        ],
        {"x": normal(2, 5, 6)},
        ios=ios,
    )


def test_gathering_in_batches() -> None:
    places = _places([0, 4, 1], [3, 3, 2])
    assert_agree(
        [
            Case(
                "gather",
                lambda x: mb.gather(x=x, indices=places, axis=1, batch_dims=1),
                lambda x: torch.stack([x[0, [0, 4, 1]], x[1, [3, 3, 2]]]),
            ),
            Case(
                "gather, a later axis",
                lambda x: mb.gather(x=x, indices=places, axis=2, batch_dims=1),
                lambda x: torch.stack([x[0][:, [0, 4, 1]], x[1][:, [3, 3, 2]]]),
            ),
            Case(
                "nd",
                lambda x: mb.gather_nd(x=x, indices=places[:, :, None], batch_dims=1),
                lambda x: torch.stack([x[0, [0, 4, 1]], x[1, [3, 3, 2]]]),
            ),
        ],
        {"x": normal(2, 5, 6)},
    )


def test_negative_places_count_from_the_end_before_ios17_only() -> None:
    x = normal(2, 5)
    assert_agree(
        [Case("-1", lambda x: mb.gather(x=x, indices=_places(-1, 0), axis=1), lambda x: x[:, [-1, 0]])],
        {"x": x},
        ios=16,
    )
    program = read(lambda x: mb.gather(x=x, indices=_places(-1, 0), axis=1), {"x": x}, ios=17)
    with pytest.raises(
        UnusableInput, match=r"gather at .* has an index that is out of bounds for an axis of 5"
    ):
        evaluate(program, {"x": x})


_MODES: dict[str, Callable[[Any, Any], Any]] = {
    "update": lambda a, b: b,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
}


def test_scattering() -> None:
    along = _places([[0, 3, 1, 1]])[0].repeat(2, 0)

    def rows(x: torch.Tensor, u: torch.Tensor, mode: str) -> Any:
        y = x.numpy().copy()
        for place, row in ((3, 0), (1, 1)):
            y[:, place] = _MODES[mode](y[:, place], u.numpy()[:, row])
        return y

    def elements(x: torch.Tensor, u: torch.Tensor, mode: str) -> Any:
        y = x.numpy().copy()
        for n in range(2):
            for i, place in enumerate(along[n]):
                y[n, place] = _MODES[mode](y[n, place], u.numpy()[n, i])
        return y

    def pairs(x: torch.Tensor, u: torch.Tensor, mode: str) -> Any:
        y = x.numpy().copy()
        for i, place in enumerate(((1, 4), (0, 2))):
            y[place] = _MODES[mode](y[place], u.numpy()[0, i])
        return y

    cases = []
    for mode in _MODES:
        cases += [
            Case(
                f"scatter {mode}",
                lambda x, u, mode=mode: mb.scatter(
                    data=x, indices=_places(3, 1), updates=u, axis=1, mode=mode
                ),
                lambda x, u, mode=mode: rows(x, u, mode),
            ),
            Case(
                f"scatter_along_axis {mode}",
                lambda x, u, mode=mode: mb.scatter_along_axis(
                    data=x,
                    indices=along[:, :2] if mode == "update" else along,
                    updates=u if mode == "update" else mb.concat(values=(u, u), axis=1),
                    axis=-1,
                    mode=mode,
                ),
                lambda x, u, mode=mode: (
                    rows_of_two(x, u, along) if mode == "update" else elements(x, torch.cat([u, u], 1), mode)
                ),
            ),
            Case(
                f"scatter_nd {mode}",
                lambda x, u, mode=mode: mb.scatter_nd(
                    data=x,
                    indices=_places([1, 4], [0, 2]),
                    updates=mb.squeeze(x=mb.slice_by_size(x=u, begin=[0, 0], size=[1, 2]), axes=[0]),
                    mode=mode,
                ),
                lambda x, u, mode=mode: pairs(x, u, mode),
            ),
        ]
    assert_agree(cases, {"x": normal(2, 5), "u": normal(2, 2, seed=4) + 3})


def rows_of_two(x: torch.Tensor, u: torch.Tensor, along: Places) -> Any:
    y = x.numpy().copy()
    np.put_along_axis(y, along[:, :2].astype(np.int64), u.numpy(), 1)
    return y


def test_one_hot() -> None:
    assert_agree(
        [
            Case(
                "last",
                lambda x: mb.one_hot(indices=x, one_hot_vector_size=5),
                lambda x: np.eye(5, dtype=int)[x.numpy()],
            ),
            Case(
                "first, other values",
                lambda x: mb.one_hot(indices=x, one_hot_vector_size=4, axis=0, on_value=1.5, off_value=-0.5),
                lambda x: np.moveaxis(np.where(np.eye(4)[x.numpy()] == 1, 1.5, -0.5), -1, 0),
            ),
        ],
        {"x": torch.tensor([[0, 3, 1], [2, 2, 0]], dtype=torch.int32)},
    )
