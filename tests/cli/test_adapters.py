"""`reparamkit fold … --adapter`: PEFT's adapters in networks of transformers, back into their own classes."""

from __future__ import annotations

import copy
import importlib.util
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import reparamkit as rk
from tests.cli.running import Run, assert_refused
from tests.torchvision_import import import_torchvision

MISSING = [name for name in ("peft", "transformers") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

WIDTH = 32
WORDS = {"vocab_size": 64, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4}
IDS = "1x9:int64:0..63"


@pytest.fixture(scope="module", autouse=True)
def libraries() -> None:
    import_torchvision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("peft")


def bert(hf: Any) -> Any:
    return hf.BertForSequenceClassification(
        hf.BertConfig(intermediate_size=64, max_position_embeddings=32, **WORDS)
    )


def gpt2(hf: Any) -> Any:
    sizes = {"vocab_size": 64, "n_positions": 32, "n_embd": WIDTH, "n_layer": 2, "n_head": 4}
    return hf.GPT2LMHeadModel(hf.GPT2Config(bos_token_id=0, eos_token_id=0, **sizes))


def llama(hf: Any) -> Any:
    return hf.LlamaForCausalLM(hf.LlamaConfig(intermediate_size=64, **WORDS))


def vit(hf: Any) -> Any:
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4}
    return hf.ViTForImageClassification(
        hf.ViTConfig(image_size=32, patch_size=8, intermediate_size=64, num_labels=5, **sizes)
    )


NETWORKS: dict[str, tuple[Callable[[Any], Any], list[str], list[str], tuple[str, ...]]] = {
    "bert": (bert, ["query", "value", "intermediate.dense"], ["intermediate.dense"], ("--input", IDS)),
    "gpt2": (gpt2, ["c_attn", "c_proj", "c_fc"], ["c_proj", "c_fc"], ("--input", IDS)),
    "llama": (llama, ["q_proj", "v_proj", "down_proj"], ["down_proj"], ("--input", IDS)),
    "vit": (vit, ["q_proj", "v_proj", "fc1"], ["fc1"], ()),
}
"""Name -> how it is built, what is adapted, what of that is in the feed-forward part, what its input is."""


def config_of(peft: Any, kind: str, name: str) -> Any:
    _, modules, feedforward, _ = NETWORKS[name]
    if kind == "IA3":
        settings = peft.IA3Config(target_modules=modules, feedforward_modules=feedforward)
    else:
        settings = peft.LoraConfig(target_modules=modules, r=4, use_dora=kind == "DoRA")
    settings.fan_in_fan_out = name == "gpt2"
    return settings


def trained(network: nn.Module, settings: Any) -> Any:
    """A network with an adapter whose weights are as if they had been trained."""
    import peft

    adapted = peft.get_peft_model(network, settings).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad or "lora_" in name or "ia3_" in name:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return adapted


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[Path, Path]]:
    """Folders of a network and of an adapter for it."""
    root = tmp_path_factory.mktemp("adapters")

    def save(name: str, kind: str) -> tuple[Path, Path]:
        import peft
        import transformers as hf

        base, adapter = root / name, root / f"{name}-{kind}"
        if not base.exists():
            torch.manual_seed(0)
            network = NETWORKS[name][0](hf).eval()
            with torch.no_grad():  # as trained: no bias is zero, no norm the identity
                for parameter in network.parameters():
                    parameter.add_(0.05 * torch.randn_like(parameter))
            network.save_pretrained(base)
            (base / "tokenizer.json").write_text('{"version": "1.0"}')
            (base / "training_args.json").write_text("{}")
        if not adapter.exists():
            network = type(NETWORKS[name][0](hf)).from_pretrained(base)
            trained(network, config_of(peft, kind, name)).save_pretrained(adapter)
        return base, adapter

    return save


@pytest.mark.diagonal(5)
@pytest.mark.parametrize("kind", ["LoRA", "DoRA", "IA3"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_folder_that_from_pretrained_loads(
    run: Run, tmp_path: Path, saved: Callable[[str, str], tuple[Path, Path]], kind: str, name: str
) -> None:
    import peft
    import safetensors.torch as st
    import transformers as hf

    base, adapter = saved(name, kind)
    result = run("fold", f"transformers:{base}", "--adapter", adapter, "-o", "merged", *NETWORKS[name][3])
    assert result.status == 0, result.err
    assert f"note: {adapter}: {kind.upper().replace('DORA', 'LORA')} on " in result.out
    assert "merged: " in result.out.splitlines()[-1]
    assert "equivalent: error" in result.out.splitlines()[-1]
    merged = tmp_path / "merged"
    assert (
        st.load_file(merged / "model.safetensors").keys() == st.load_file(base / "model.safetensors").keys()
    )
    assert (merged / "tokenizer.json").read_text() == (base / "tokenizer.json").read_text()
    assert not (merged / "training_args.json").exists()
    told, before = (json.loads((folder / "config.json").read_text()) for folder in (merged, base))
    assert told == before
    assert str(tmp_path.parent) not in json.dumps(told)

    kind_of_network = type(NETWORKS[name][0](hf))
    loaded, report = kind_of_network.from_pretrained(merged, output_loading_info=True)
    assert not any(report.values())
    unmerged = peft.PeftModel.from_pretrained(kind_of_network.from_pretrained(base), adapter).double().eval()
    bare = kind_of_network.from_pretrained(base).double().eval()
    torch.manual_seed(5)
    x = torch.randn(3, 3, 32, 32).double() if name == "vit" else torch.randint(0, 64, (3, 17))
    with torch.no_grad():
        right, now, without = (net(x).logits for net in (unmerged, loaded.double().eval(), bare))
    scale = float(right.abs().max())
    assert float((now - right).abs().max()) < 2e-6 * scale
    assert float((without - right).abs().max()) > 1e-3 * scale


@pytest.mark.parametrize("free", [True, False])
def test_rows_of_a_table_that_the_example_does_not_reach(
    run: Run, tmp_path: Path, saved: Callable[[str, str], tuple[Path, Path]], free: bool
) -> None:
    """BERT's table of positions has 32 rows, of which the example reaches six."""
    import peft
    import transformers as hf

    base, _ = saved("bert", "LoRA")
    settings = peft.LoraConfig(target_modules=["word_embeddings", "position_embeddings", "query"], r=4)
    network = hf.BertForSequenceClassification.from_pretrained(base)
    trained(network, settings).save_pretrained(tmp_path / "tables")
    given = ("fold", f"transformers:{base}", "--adapter", "tables", "-o", "merged", *NETWORKS["bert"][3])
    result = run(*given, *(() if free else ("--dynamic", "none")))
    assert result.status == 0, result.err
    told = "numbers of bert.embeddings.position_embeddings.weight follow from the network at the sizes"
    assert (told in " ".join(result.err.split())) != free
    if free:
        kind = hf.BertForSequenceClassification
        unmerged = peft.PeftModel.from_pretrained(kind.from_pretrained(base), tmp_path / "tables")
        x = torch.randint(0, 64, (2, 31), generator=torch.Generator().manual_seed(5))
        with torch.no_grad():
            right, now = (
                each.double().eval()(x).logits
                for each in (unmerged, kind.from_pretrained(tmp_path / "merged"))
            )
        assert float((now - right).abs().max()) < 2e-6 * float(right.abs().max())


def test_what_is_not_adapted_keeps_its_bits(
    run: Run, tmp_path: Path, saved: Callable[[str, str], tuple[Path, Path]]
) -> None:
    import safetensors.torch as st

    base, adapter = saved("llama", "LoRA")
    run("fold", base, "--adapter", adapter, "-o", "merged.safetensors", "--input", IDS)
    before = st.load_file(base / "model.safetensors")
    after = st.load_file(tmp_path / "merged.safetensors")
    changed = {key for key, tensor in before.items() if not torch.equal(tensor, after[key])}
    assert {key.rpartition(".")[0].rpartition(".")[2] for key in changed} == {"q_proj", "v_proj", "down_proj"}
    assert len(changed) == 6


def test_graph_formats_and_inspect_take_adapters_too(
    run: Run, tmp_path: Path, saved: Callable[[str, str], tuple[Path, Path]]
) -> None:
    base, adapter = saved("vit", "LoRA")
    result = run("fold", base, "--adapter", adapter, "-o", "net.pt2")
    assert result.status == 0, result.err
    result = run("inspect", base, "--adapter", adapter)
    assert result.status == 0, result.err
    (linear,) = [line.split() for line in result.out.splitlines() if line.startswith("linear ")]
    assert linear == ["linear", "25", "13"]


def test_an_adapter_of_another_network(
    run: Run, saved: Callable[[str, str], tuple[Path, Path]], tmp_path: Path
) -> None:
    vit_base, vit_adapter = saved("vit", "LoRA")
    _, llama_adapter = saved("llama", "LoRA")
    result = run("fold", vit_base, "--adapter", llama_adapter, "-o", "merged")
    message = assert_refused(
        result, f"--adapter {llama_adapter} does not belong to this ViTForImageClassification: "
    )
    assert "it was trained on" in message
    narrow = copy.deepcopy(json.loads((vit_adapter / "adapter_config.json").read_text()))
    other = tmp_path / "other"
    other.mkdir()
    (other / "adapter_model.safetensors").write_bytes(
        (vit_adapter / "adapter_model.safetensors").read_bytes()
    )
    (other / "adapter_config.json").write_text(json.dumps(narrow | {"r": 2}))
    assert_refused(
        run("fold", vit_base, "--adapter", other, "-o", "merged"), "does not belong to this", "size mismatch"
    )
    fewer = narrow | {"target_modules": ["q_proj"]}
    (other / "adapter_config.json").write_text(json.dumps(fewer))
    assert_refused(
        run("fold", vit_base, "--adapter", other, "-o", "merged"), "the network has no place for its "
    )
    more = narrow | {"target_modules": ["q_proj", "v_proj", "fc1", "fc2"]}
    (other / "adapter_config.json").write_text(json.dumps(more))
    assert_refused(run("fold", vit_base, "--adapter", other, "-o", "merged"), "it lacks weights for ")
    assert not (tmp_path / "merged").exists()


def test_prompt_tuning_is_refused_before_anything_is_opened(
    run: Run, saved: Callable[[str, str], tuple[Path, Path]], tmp_path: Path
) -> None:
    import peft
    import transformers as hf

    base, _ = saved("llama", "LoRA")
    settings = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    peft.get_peft_model(hf.LlamaForCausalLM.from_pretrained(base), settings).save_pretrained(tmp_path / "p")
    result = run("fold", base, "--adapter", "p", "-o", "merged", "--input", IDS)
    message = assert_refused(
        result, "--adapter p is PROMPT_TUNING, which puts vectors of its own in front of"
    )
    assert "use it with PEFT as it is" in message


def test_what_cannot_be_written(
    run: Run, saved: Callable[[str, str], tuple[Path, Path]], tmp_path: Path
) -> None:
    base, adapter = saved("vit", "LoRA")
    (tmp_path / "merged").mkdir()
    assert_refused(run("fold", base, "--adapter", adapter, "-o", "merged"), "a folder of that name exists")
    words = (
        "net.onnx holds a folded network, and new weights for the network as it was; ask for them in two runs"
    )
    assert_refused(run("fold", base, "--adapter", adapter, "-o", "net.onnx", "-o", "new"), words)
    assert_refused(run("fold", base, "-o", "new"), "it has no suffix, which names no format")
    assert_refused(run("fold", base, "--adapter", adapter, "-o", "net.onxx"), "also into a folder")


class Plain(nn.Module):
    """A network of nobody's library."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(self.second(x).relu())


def plain() -> nn.Module:
    torch.manual_seed(3)
    return Plain().eval()


def test_a_network_of_ones_own(run: Run, tmp_path: Path) -> None:
    import peft

    settings = peft.LoraConfig(target_modules=["first", "second"], r=2)
    trained(plain(), settings).save_pretrained(tmp_path / "lora")
    here = "tests.cli.test_adapters:plain"
    given = (here, "--adapter", "lora", "--input", "2x3x5x8")
    result = run("fold", *given, "-o", "merged.pth")
    assert result.status == 0, result.err
    merged = plain()
    merged.load_state_dict(torch.load(tmp_path / "merged.pth"), strict=True)
    adapted = peft.PeftModel.from_pretrained(plain(), tmp_path / "lora").eval()
    x = torch.randn(4, 3, 6, 8)
    with torch.no_grad():
        assert torch.allclose(merged(x), adapted(x), atol=1e-6)
        assert not torch.allclose(merged(x), plain()(x), atol=1e-2)
    assert_refused(
        run("fold", *given, "-o", "merged"), "a Plain is no network of transformers", "merged.safetensors"
    )


def test_in_python(saved: Callable[[str, str], tuple[Path, Path]], tmp_path: Path) -> None:
    base, adapter = saved("vit", "IA3")
    source = rk.load(base, adapter=adapter)
    assert source.base is not None
    loaded = rk.load_into(rk.fold(source), source.base)
    loaded.save(tmp_path / "merged")
    assert (tmp_path / "merged" / "model.safetensors").exists()
    rk.fold(source).save(tmp_path / "net.pt2")
    with pytest.raises(rk.UnusableInput, match="was captured or scripted already"):
        rk.load(tmp_path / "net.pt2", adapter=adapter)
