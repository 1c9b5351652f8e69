"""Folders of adapters, looked at before torch or PEFT is imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reparamkit.errors import UnusableInput
from reparamkit.loading.adapters import describe_adapter

HEADER = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'


def adapter(folder: Path, **config: Any) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **config}))
    (folder / "adapter_model.safetensors").write_bytes(len(HEADER).to_bytes(8, "little") + HEADER + bytes(4))
    return folder


def test_what_is_read(tmp_path: Path) -> None:
    found = describe_adapter(adapter(tmp_path / "a", base_model_name_or_path="org/base"))
    assert (found.kind, found.base) == ("LORA", "org/base")
    assert found.weights.name == "adapter_model.safetensors"
    assert describe_adapter(adapter(tmp_path / "b", base_model_name_or_path=None)).base == ""


@pytest.mark.parametrize(
    ("kind", "does"),
    [
        ("PROMPT_TUNING", "puts vectors of its own in front of what the network reads"),
        ("PREFIX_TUNING", "puts vectors of its own in front of what the network reads"),
        ("ADAPTION_PROMPT", "lets the attention read vectors of its own"),
        ("XLORA", "mixes its adapters by what the network reads"),
        ("POLY", "mixes its adapters by a task that each call names"),
    ],
)
def test_kinds_that_no_weights_can_hold(tmp_path: Path, kind: str, does: str) -> None:
    with pytest.raises(UnusableInput, match=f"is {kind}, which {does}: .* use it with PEFT as it is"):
        describe_adapter(adapter(tmp_path / "a", peft_type=kind))


def test_an_activated_lora(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match="is an activated LORA, which acts only behind certain tokens"):
        describe_adapter(adapter(tmp_path / "a", alora_invocation_tokens=[1, 2]))


def assert_refused(path: Path, words: str) -> None:
    with pytest.raises(UnusableInput) as error:
        describe_adapter(path)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_adapter(tmp_path: Path) -> None:
    good = adapter(tmp_path / "run-adapter")
    assert_refused(tmp_path / "run-adaptr", f"there is no such folder; did you mean {good}?")
    assert_refused(Path("org/adapter"), "hf download org/adapter --local-dir adapter")
    assert_refused(good / "adapter_model.safetensors", f"is a file; give {good}")
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "config.json").write_text("{}")
    assert_refused(tmp_path / "whole", "a whole network, not an adapter; give it as SOURCE")
    (tmp_path / "empty").mkdir()
    assert_refused(
        tmp_path / "empty", "it has no adapter_config.json; give the folder that PEFT's save_pretrained"
    )
    adapter(tmp_path / "empty" / "checkpoint-9")
    assert_refused(tmp_path / "empty", f"give {tmp_path / 'empty' / 'checkpoint-9'}")
    (good / "adapter_model.safetensors").unlink()
    assert_refused(
        good, "no weights (adapter_model.safetensors or adapter_model.bin); download or copy them too"
    )
    (good / "adapter_config.json").write_text("{}")
    assert_refused(good, "does not say which peft_type it is")
    (good / "adapter_config.json").write_text("{")
    assert_refused(good, "adapter_config.json")


@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"PK\x03\x04", b"page"])
def test_damaged_weights(tmp_path: Path, content: bytes) -> None:
    folder = adapter(tmp_path / "a")
    (folder / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(UnusableInput):
        describe_adapter(folder)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(UnusableInput):
        describe_adapter(folder)
