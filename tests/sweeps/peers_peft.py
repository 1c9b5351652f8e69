"""PEFT's adapters on small networks, folded unmerged beside what `merge_and_unload` leaves.

A name is "adapter on network". Every adapter goes onto one network of linear layers, those that know
convolutions and embeddings onto such networks as well, and the usual ones onto small transformers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from tests.sweeps.networks import Job, Network, filled
from tests.torchvision_import import import_torchvision

LIBRARY = "peft"
_WIDTH = 32
_IMAGE = (2, 8, 10, 9)


class Convolutions(nn.Module):
    """Two convolutions, of which the first is strided."""

    def __init__(self, convolution: Any) -> None:
        super().__init__()
        self.first = convolution(8, 16, 3, stride=2, padding=1)
        self.second = convolution(16, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(self.first(x).relu())
        return result


class Words(nn.Module):
    """A table of words and a linear layer behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Embedding(64, _WIDTH)
        self.second = nn.Linear(_WIDTH, 16)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(self.first(x)).tanh()
        return result


class Perceptron(nn.Module):
    """Two linear layers with a layer norm between."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(_WIDTH, 2 * _WIDTH)
        self.norm = nn.LayerNorm(2 * _WIDTH)
        self.second = nn.Linear(2 * _WIDTH, _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(self.norm(self.first(x)).relu())
        return result


class FirstOutput(nn.Module):
    """The first output of a network of transformers, as a tensor."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.inner(x, return_dict=False)[0]
        return result


def _small(name: str, **more: Any) -> nn.Module:
    """One of transformers' networks, two layers of width 32."""
    import transformers as hf

    config = getattr(hf, f"{name}Config")(**more)
    config._attn_implementation = "sdpa"
    model: nn.Module = getattr(hf, f"{name}Model")(config)
    return FirstOutput(model)


def _opt() -> nn.Module:
    return _small(
        "OPT",
        vocab_size=64,
        hidden_size=_WIDTH,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=32,
        word_embed_proj_dim=_WIDTH,
        use_cache=False,
    )


def _gpt2() -> nn.Module:
    sizes = {"vocab_size": 64, "n_positions": 32, "n_embd": _WIDTH, "n_layer": 2, "n_head": 4}
    return _small("GPT2", use_cache=False, **sizes)


def _bert() -> nn.Module:
    sizes = {"vocab_size": 64, "hidden_size": _WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4}
    return _small("Bert", intermediate_size=64, max_position_embeddings=32, **sizes)


def _llama() -> nn.Module:
    sizes = {"vocab_size": 64, "hidden_size": _WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4}
    return _small("Llama", intermediate_size=64, max_position_embeddings=32, use_cache=False, **sizes)


def _vit() -> nn.Module:
    sizes = {"hidden_size": _WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4}
    return _small("ViT", image_size=32, patch_size=8, intermediate_size=64, **sizes)


_IDS = torch.zeros(2, 7, dtype=torch.int64)
_FIRST_AND_SECOND = ["first", "second"]
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor, list[str]]] = {
    "linear": (Perceptron, torch.empty(2, 5, _WIDTH), _FIRST_AND_SECOND),
    "conv1d": (lambda: Convolutions(nn.Conv1d), torch.empty(2, 8, 11), _FIRST_AND_SECOND),
    "conv2d": (lambda: Convolutions(nn.Conv2d), torch.empty(_IMAGE), _FIRST_AND_SECOND),
    "conv3d": (lambda: Convolutions(nn.Conv3d), torch.empty(*_IMAGE, 7), _FIRST_AND_SECOND),
    "embedding": (Words, _IDS, _FIRST_AND_SECOND),
    "OPT": (_opt, _IDS, ["q_proj", "v_proj", "fc1", "fc2"]),
    "GPT-2": (_gpt2, _IDS, ["c_attn", "c_proj", "c_fc"]),
    "BERT": (_bert, _IDS, ["query", "value", "intermediate.dense", "output.dense"]),
    "Llama": (_llama, _IDS, ["q_proj", "v_proj", "gate_proj", "down_proj"]),
    "ViT": (_vit, torch.empty(2, 3, 32, 32), ["q_proj", "v_proj", "fc1", "fc2"]),
}
"""Name -> how it is built, its input, the modules that are adapted."""

_ALL, _CONVS = tuple(NETWORKS), ("conv1d", "conv2d", "conv3d")
_LANGUAGE = ("OPT", "GPT-2", "BERT", "Llama", "ViT")
_WITH_LINEAR = ("OPT", "BERT", "Llama", "ViT")

ADAPTERS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "LoRA": ("LoraConfig", {"r": 4}, _ALL),
    "rsLoRA": ("LoraConfig", {"r": 4, "use_rslora": True}, ("linear", "OPT")),
    "LoRA with biases": (
        "LoraConfig",
        {"r": 4, "bias": "all", "lora_bias": True},
        ("linear", "conv2d", "BERT"),
    ),
    "DoRA": ("LoraConfig", {"r": 4, "use_dora": True}, _ALL),
    "BD-LoRA": (
        "LoraConfig",
        {
            "r": 4,
            "use_bdlora": {"target_modules_bd_a": ["first"], "target_modules_bd_b": ["second"], "nblocks": 2},
        },
        ("linear",),
    ),
    "AdaLoRA": ("AdaLoraConfig", {"init_r": 4, "target_r": 4, "total_step": 10}, ("linear", *_LANGUAGE)),
    "IA3": ("IA3Config", {}, ("linear", "conv2d", "conv3d", *_LANGUAGE)),
    "LoHa": ("LoHaConfig", {"r": 4}, ("linear", "conv1d", "conv2d", *_WITH_LINEAR)),
    "LoHa, effective": ("LoHaConfig", {"r": 4, "use_effective_conv2d": True}, ("conv2d",)),
    "LoKr": ("LoKrConfig", {"r": 4}, ("linear", "conv1d", "conv2d", *_WITH_LINEAR)),
    "LoKr, both": (
        "LoKrConfig",
        {"r": 2, "decompose_both": True, "use_effective_conv2d": True},
        ("linear", "conv2d"),
    ),
    "OFT": (
        "OFTConfig",
        {"oft_block_size": 4, "use_cayley_neumann": False},
        ("linear", "conv2d", *_WITH_LINEAR),
    ),
    "OFT, Neumann": ("OFTConfig", {"oft_block_size": 4}, ("linear", "conv2d", "OPT")),
    "OFT, constrained": ("OFTConfig", {"oft_block_size": 4, "coft": True, "block_share": True}, ("linear",)),
    "BOFT": ("BOFTConfig", {"boft_block_size": 4}, ("linear", "conv2d", *_WITH_LINEAR)),
    "BOFT, 2 factors": (
        "BOFTConfig",
        {"boft_block_size": 4, "boft_n_butterfly_factor": 2},
        ("linear", "conv2d"),
    ),
    "VeRA": ("VeraConfig", {"r": 4}, ("linear", *_LANGUAGE)),
    "PVeRA": ("PveraConfig", {"r": 4}, ("linear",)),
    "LN tuning": ("LNTuningConfig", {}, ("linear", "BERT")),
    "FourierFT": ("FourierFTConfig", {"n_frequency": 50}, ("linear", "OPT", "GPT-2", "ViT")),
    "HRA": ("HRAConfig", {"r": 4}, ("linear", "conv2d", "OPT", "ViT")),
    "HRA, Gram-Schmidt": ("HRAConfig", {"r": 4, "apply_GS": True}, ("linear",)),
    "VB-LoRA": ("VBLoRAConfig", {"r": 4, "num_vectors": 16, "vector_length": 8}, ("linear", "OPT")),
    "UniLoRA": ("UniLoraConfig", {"r": 4, "theta_d_length": 64}, ("linear", "OPT")),
    "MiSS": ("MissConfig", {"r": 4}, ("linear", "OPT", "ViT")),
    "MiSS, bat": ("MissConfig", {"r": 4, "init_weights": "bat"}, ("linear",)),
    "RandLoRA": ("RandLoraConfig", {"r": 4}, ("linear", "OPT")),
    "RoAd": ("RoadConfig", {"group_size": 4}, ("linear", "OPT")),
    "RoAd 4": ("RoadConfig", {"group_size": 4, "variant": "road_4"}, ("linear",)),
    "HiRA": ("HiraConfig", {"r": 4}, ("linear", "conv2d", "embedding", "OPT")),
    "SHiRA": ("ShiraConfig", {"r": 4}, ("linear", "OPT")),
    "C3A": ("C3AConfig", {"block_size": 8}, ("linear", "OPT")),
    "WaveFT": ("WaveFTConfig", {"n_frequency": 50}, ("linear", "OPT")),
    "OSF": ("OSFConfig", {"effective_rank": 4}, ("linear", "OPT")),
    "DeLoRA": ("DeloraConfig", {"r": 4}, ("linear", "OPT")),
    "GraLoRA": ("GraloraConfig", {"r": 4}, ("linear", "OPT")),
    "GraLoRA, hybrid": ("GraloraConfig", {"r": 4, "hybrid_r": 4}, ("linear",)),
    "TinyLoRA": ("TinyLoraConfig", {"r": 2, "u": 4}, ("linear", "embedding", "OPT")),
    "PSOFT": ("PsoftConfig", {"r": 4}, ("linear", "OPT")),
    "PEANuT": ("PeanutConfig", {"r": 4}, ("linear", "OPT")),
    "DEFT": ("DeftConfig", {"r": 4}, ("linear", "OPT")),
    "SuperTuning": ("SupertuningConfig", {"r": 4}, ("linear", "OPT")),
    "GLoRA": ("GloraConfig", {"r": 4}, ("linear", "OPT")),
    "Lily": ("LilyConfig", {"r": 4}, ("linear", "OPT")),
    "FRoD": ("FrodConfig", {}, ("linear",)),
    "BEFT": ("BeftConfig", {}, ("linear", "OPT")),
    "Trainable tokens": ("TrainableTokensConfig", {"token_indices": [3, 5, 9]}, ("embedding",)),
}
"""Name -> the class of its configuration, arguments of that, the networks that it goes onto."""


def jobs() -> list[Job]:
    """Every adapter on each of its networks."""
    return [
        Job(LIBRARY, name, f"{name} on {network}")
        for name, (_, _, networks) in ADAPTERS.items()
        for network in networks
    ]


def build(name: str) -> Network:
    """The network with the adapter beside its layers, and what PEFT merges it to."""
    with suppress(ImportError):
        import_torchvision()  # PEFT imports it where it is installed, and it may lack its operators
    import peft

    adapter, network = name.rsplit(" on ", 1)
    make, like, targets = NETWORKS[network]
    config_class, options, _ = ADAPTERS[adapter]
    torch.manual_seed(0)
    base = make()
    inner = base.inner if isinstance(base, FirstOutput) else base
    config = getattr(peft, config_class)(**_targets(config_class, network, targets), **options)
    adapted: Any = peft.get_peft_model(inner, config)
    model = FirstOutput(adapted) if isinstance(base, FirstOutput) else Forwarded(adapted)
    result = filled(model.eval(), (like,), "x".join(map(str, like.shape)))
    result.in_float64 = True

    def merged() -> nn.Module:
        plain = copy.deepcopy(model)
        plain.inner = copy.deepcopy(adapted).merge_and_unload()
        return plain

    result.own_fold = merged
    return result


class Forwarded(nn.Module):
    """A network of one input, whatever its own signature says."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.inner(x)
        return result


def _targets(config_class: str, network: str, targets: list[str]) -> dict[str, Any]:
    if config_class == "TrainableTokensConfig":
        return {"target_modules": ["first"]}
    if config_class == "LNTuningConfig":
        return {"target_modules": ["norm"] if network == "linear" else ["LayerNorm"]}
    if config_class == "IA3Config":
        return {"target_modules": targets, "feedforward_modules": targets[1:2]}
    return {"target_modules": targets}


def every() -> Iterator[str]:
    """The names of all adapters, for a test that looks for those of a newer version."""
    yield from ADAPTERS
