"""A folded network's numbers in the class that it is deployed as."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

import reparamkit as rk
from tests.into import pairs
from tests.nets import noise, randomised


def image() -> torch.Tensor:
    return noise(2, 3, 8, 8, dtype=torch.float32)


@cache
def _folded(name: str) -> rk.Folded:
    return rk.fold(randomised(pairs.trained(name), seed=1), image())


def assert_computes_the_same(original: nn.Module, other: nn.Module) -> None:
    """In float64, with what the float32 rounding of the weights leaves."""
    x = noise(3, 3, 8, 8, seed=5)
    with torch.no_grad():
        expected, result = original.double()(x), other.double()(x)
    assert float((expected - result).abs().max() / expected.abs().max()) < 2e-6


@pytest.mark.diagonal(3)
@pytest.mark.parametrize("name", pairs.PAIRS)
def test_every_pair(name: str) -> None:
    original = randomised(pairs.trained(name), seed=1)
    target = pairs.deployed(name)
    before = {key: tensor.clone() for key, tensor in target.state_dict().items()}
    loaded = rk.load_into(rk.fold(original, image(), dynamic=False), target)
    assert loaded.equivalence.passed
    assert all(torch.equal(tensor, before[key]) for key, tensor in target.state_dict().items())
    fresh = pairs.deployed(name)
    fresh.load_state_dict(loaded.state_dict(), strict=True)
    assert_computes_the_same(original, fresh)


def test_norms_of_the_target_become_the_identity_and_its_convolutions_the_folded_ones() -> None:
    folded = _folded("repvgg")
    loaded = rk.load_into(folded, pairs.deployed("repvgg_into_conv_bn"))
    pair = loaded.module.get_submodule("blocks.0.reparam")
    assert isinstance(pair, nn.Sequential)
    conv, norm = pair
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert torch.equal(norm.weight, torch.ones(pairs.WIDTH))
    assert torch.equal(norm.running_mean, torch.zeros(pairs.WIDTH))
    torch.testing.assert_close(norm.running_var + norm.eps, torch.ones(pairs.WIDTH))
    kernel = folded.module.get_submodule("blocks.0.reparam_conv").weight
    torch.testing.assert_close(conv.weight, kernel, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_file_holds_a_state_dict(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"deploy{suffix}"
    rk.load_into(_folded("mobileone"), pairs.deployed("mobileone")).save(path)
    if suffix == ".pth":
        state = torch.load(path, weights_only=True)
    else:
        from safetensors.torch import load_file

        state = load_file(path)
    fresh = pairs.deployed("mobileone")
    fresh.load_state_dict(state, strict=True)
    assert_computes_the_same(randomised(pairs.trained("mobileone"), seed=1), fresh)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def _assert_refused(train: str, target: nn.Module) -> str:
    folded = _folded(train)
    with pytest.raises(rk.UnusableInput) as error:
        rk.load_into(folded, target)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_target_of_another_structure() -> None:
    message = _assert_refused("repvgg", pairs.deployed("mobileone"))
    assert message.startswith("the target is not built as the folded network is: the folded network has ")
    assert "convolution [6, 6, 3, 3] in blocks.0" in message
    assert "convolution [6, 1, 3, 3] in blocks.0.dw, without a partner in the folded network" in message


def test_a_target_with_one_block_more() -> None:
    message = _assert_refused("repvgg", pairs.Net(lambda: pairs.Deployed(pairs.full()), 3))
    assert "blocks.2" in message
    assert "without a partner" in message


def test_a_target_with_another_activation() -> None:
    block = lambda: pairs.Deployed(pairs.full(), act=pairs.act_silu)  # noqa: E731
    assert "relu" in _assert_refused("repvgg", pairs.Net(block))


class _Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = pairs.deployed("repvgg")

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.net(x)
        return y, y.softmax(1)


def test_a_target_with_other_outputs() -> None:
    assert _assert_refused("repvgg", _Two()) == (
        "the folded network returns 1 values and the target 2: give a target that returns the same"
    )


def test_a_target_without_a_bias() -> None:
    message = _assert_refused("repvgg", pairs.Net(lambda: pairs.Deployed(pairs.full(bias=False))))
    assert "has no bias, and blocks.0.reparam_conv.bias" in message or "has no bias, and blocks.1" in message


def test_two_layers_in_a_row_with_too_few_channels_between_them() -> None:
    def block() -> nn.Module:
        layers = pairs.wide(3, first=True, width=5), pairs.wide(1, first=False, width=5)
        return pairs.Deployed(nn.Sequential(*layers))

    message = _assert_refused("repvgg", pairs.Net(block))
    assert message.endswith(
        "reparam.0.weight, blocks.1.reparam.1.weight in the target, and no numbers in one of these give what "
        "it has to hold"
    )


def test_a_target_whose_weights_are_shared() -> None:
    block = pairs.Deployed(pairs.full())
    message = _assert_refused("repvgg", pairs.Net(lambda: block))
    assert "are one tensor of the target, and two of the network" in message


def test_a_target_that_takes_other_inputs() -> None:
    class Gray(pairs.Net):
        def __init__(self) -> None:
            super().__init__(lambda: pairs.Deployed(pairs.full()))
            self.stem = nn.Conv2d(1, pairs.WIDTH, 3, padding=1)

    assert _assert_refused("repvgg", Gray()).startswith("the target: ")


def test_what_is_no_module() -> None:
    folded = _folded("repvgg")
    with pytest.raises(rk.UnusableInput, match="the target is a dict: give"):
        rk.load_into(folded, {})


def test_a_target_that_computes_something_else_behind_a_branch_is_not_returned() -> None:
    class Odd(pairs.Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) if x.abs().max() < 3.5 else super().forward(-x)

    folded = _folded("repvgg")
    with pytest.raises((rk.NotEquivalent, rk.UnusableInput)):
        rk.load_into(folded, Odd(lambda: pairs.Deployed(pairs.full())))


class Words(nn.Module):
    """Tables for words and places, with low-rank updates beside both as PEFT puts them, or without."""

    def __init__(self, adapted: bool, places: int = 32, buffer: bool = False) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(50, 8, padding_idx=0), nn.Embedding(places, 8)
        self.out = nn.Linear(8, 4)
        if adapted:
            self.down = nn.ParameterList(nn.Parameter(torch.randn(n, 2)) for n in (50, places))
            self.up = nn.ParameterList(nn.Parameter(torch.randn(2, 8)) for _ in range(2))
        self.adapted, self.buffer = adapted, buffer
        self.register_buffer("ids", torch.arange(places)[None], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        where = self.ids[:, : x.shape[1]] if self.buffer else torch.arange(x.shape[1])  # type: ignore[index]
        found = []
        for number, (table, ids) in enumerate(((self.words, x), (self.places, where))):
            rows = table(ids)
            if self.adapted:
                rows = rows + 0.5 * (nn.functional.embedding(ids, self.down[number]) @ self.up[number])
            found.append(rows)
        return self.out(torch.relu(found[0] + found[1]))


def _words(*, buffer: bool = False) -> tuple[Words, Words, torch.Tensor]:
    torch.manual_seed(0)
    ids = torch.randint(0, 50, (2, 6))
    return Words(True, buffer=buffer).eval(), Words(False, buffer=buffer).eval(), ids


@pytest.mark.parametrize("buffer", [False, True])
def test_rows_of_a_table_that_the_example_does_not_reach_are_the_network_s_too(buffer: bool) -> None:
    adapted, base, ids = _words(buffer=buffer)
    loaded = rk.load_into(rk.fold(adapted, ids), base)
    assert loaded.notes == ()
    merged = adapted.places.weight + 0.5 * adapted.down[1] @ adapted.up[1]
    fresh = Words(False, buffer=buffer)
    fresh.load_state_dict(loaded.state_dict(), strict=True)
    torch.testing.assert_close(fresh.places.weight, merged, rtol=1e-5, atol=1e-6)
    longer = torch.randint(0, 50, (3, 31))
    torch.testing.assert_close(fresh(longer), adapted(longer), rtol=1e-4, atol=1e-5)


def test_rows_that_no_example_shows_change_where_only_they_do() -> None:
    adapted, _, ids = _words()
    with torch.no_grad():
        adapted.down[1][:6] = 0
    base = Words(False).eval()
    base.places.load_state_dict(adapted.places.state_dict())
    loaded = rk.load_into(rk.fold(adapted, ids), base)
    merged = adapted.places.weight + 0.5 * adapted.down[1] @ adapted.up[1]
    torch.testing.assert_close(loaded.state_dict()["places.weight"], merged, rtol=1e-5, atol=1e-6)


def test_rows_that_a_fold_for_one_size_leaves_out_are_told() -> None:
    adapted, base, ids = _words()
    loaded = rk.load_into(rk.fold(adapted, ids, dynamic=False), base)
    (note,) = loaded.notes
    assert note == (
        "48 of 256 numbers of places.weight follow from the network at the sizes that it was folded for; the "
        "others stay the target's own"
    )


def test_a_table_of_another_length_takes_what_the_example_shows() -> None:
    adapted, _, ids = _words()
    longer = Words(False, places=40).eval()
    with pytest.raises(rk.NotEquivalent):
        rk.load_into(rk.fold(adapted, ids), longer)
    loaded = rk.load_into(rk.fold(adapted, ids, dynamic=False), longer)
    assert "48 of 320 numbers of places.weight" in loaded.notes[0]
