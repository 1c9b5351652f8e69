"""Names: who builds them, what is like them; `loading` knows neither the models nor training."""

from __future__ import annotations

from pathlib import Path

import pytest

from reparamkit import models
from reparamkit.errors import MissingExtra, UnusableInput
from reparamkit.loading import registry
from reparamkit.loading.source import load

ROOT = Path(__file__).parents[2] / "reparamkit"


def test_loading_names_neither_the_models_nor_training() -> None:
    for file in sorted((ROOT / "loading").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        assert "reparamkit.models" not in text, file
        assert "reparamkit.training" not in text, file


def test_the_names_known_without_torch_are_those_of_the_models() -> None:
    assert sorted(registry.plain_names()) == sorted(models.names())
    assert registry.is_plain("MobileOne-S0")
    assert registry.schemes() == ["timm", "hf-hub", "torchvision", "transformers", "ultralytics"]


def test_the_root_registers_what_loads_on_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    registry.register("mine", "tests.loading.provider_of_mine")
    source = load("mine:net", model_args="width=3")
    assert source.name == "mine-net"
    assert source.notes == ("built with {'width': 3}, trusted False",)
    assert source.inferred_note == "the input is 1x2, by its maker; --input gives another"
    with pytest.raises(UnusableInput, match=r"mine has no network 'nett'; did you mean mine:net\?"):
        load("mine:nett")


def test_an_unknown_name_has_its_nearest_three_and_not_all() -> None:
    with pytest.raises(UnusableInput) as caught:
        load("mobileone_s9")
    message = str(caught.value)
    assert message.count("mobileone_s") == 4
    assert "timm:NAME" in message
    assert len(message) < 400
    with pytest.raises(UnusableInput) as caught:
        load("zzzzz")
    assert "did you mean" not in str(caught.value)
    assert "mobileone" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["timm", "hf-hub", "torchvision", "transformers", "ultralytics"])
def test_a_library_that_is_missing_is_one_line_with_the_command(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    package = registry._ENTRIES[scheme].package
    monkeypatch.setattr(registry, "is_installed", lambda name: name != package)
    with pytest.raises(MissingExtra) as caught:
        load(f"{scheme}:timm/net")
    assert str(caught.value) == (
        f"{scheme}:timm/net needs the package {package!r}, which is not installed: pip install {package}"
    )


def test_arguments_reach_a_reference_model_and_those_that_it_lacks_are_named() -> None:
    model = load("mobileone_toy", model_args="num_classes=7").model
    assert model.linear.out_features == 7  # type: ignore[union-attr]
    with pytest.raises(UnusableInput, match=r"--model-args: mobileone_toy does not take them: .*'depht'"):
        load("mobileone_toy", model_args="depht=7")


def test_key_is_for_files() -> None:
    with pytest.raises(UnusableInput, match=r"--key ema says .* and 'mobileone_toy' is none"):
        load("mobileone_toy", key="ema")
