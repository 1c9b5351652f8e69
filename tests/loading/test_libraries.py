"""Networks of other libraries by name. What is not installed where the tests run is skipped.

timm and torchvision are imported with their gaps stepped over (`tests.timm_import`).
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reparamkit.errors import UntrustedPickle, UnusableInput
from reparamkit.loading.libraries import importing
from reparamkit.loading.source import Source, load
from tests.timm_import import import_timm
from tests.torchvision_import import import_torchvision


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


def shape(source: Source) -> tuple[int, ...]:
    assert source.example_inputs is not None
    return tuple(source.example_inputs[0].shape)


def state(source: Source) -> dict[str, torch.Tensor]:
    assert isinstance(source.model, nn.Module)
    return source.model.state_dict()


@pytest.fixture
def timm() -> Any:
    return import_timm()


def test_names_read_off_timms_sources_are_its_own(timm: Any) -> None:
    assert importing.registered("timm") == set(timm.list_models())


def test_names_read_off_torchvisions_sources_are_its_own() -> None:
    assert importing.registered("torchvision") == set(import_torchvision().models.list_models())


def test_a_network_of_timm_says_its_input_and_is_the_same_each_time(timm: Any) -> None:
    torch.manual_seed(1)
    source = load("timm:test_byobnet")
    assert (source.name, source.path, shape(source)) == ("test_byobnet", None, (1, 3, 160, 160))
    assert source.inferred_note == "the input is 1x3x160x160, by its pretrained_cfg; --input gives another"
    assert "its weights are random, the same each time" in source.notes[0]
    assert "timm:test_byobnet.r160_in1k" in source.notes[0]
    assert isinstance(source.model, nn.Module)
    assert not source.model.training
    drawn = torch.rand(1)
    torch.manual_seed(1)
    other = state(load("timm:test_byobnet"))
    assert torch.equal(torch.rand(1), drawn), "the random state is left alone"
    assert all(torch.equal(value, other[name]) for name, value in state(source).items())


def test_arguments_go_to_timm_and_the_input_follows_them(timm: Any) -> None:
    source = load("timm:test_byobnet", model_args="num_classes=7,in_chans=1")
    assert state(source)["head.fc.weight"].shape[0] == 7
    assert shape(source) == (1, 1, 160, 160)
    assert shape(load("timm:test_vit", model_args="img_size=96")) == (1, 3, 96, 96)
    with pytest.raises(UnusableInput, match=r"--model-args: timm's test_byobnet .*num_clases"):
        load("timm:test_byobnet", model_args="num_clases=7")


def test_weights_go_into_a_network_of_timm(timm: Any, tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = timm.create_model("test_byobnet", num_classes=3)
    torch.save({"state_dict": model.state_dict(), "arch": "test_byobnet"}, tmp_path / "w.pth")
    source = load(tmp_path / "w.pth", model="timm:test_byobnet", model_args="num_classes=3")
    assert (source.name, source.path, shape(source)) == ("w", tmp_path / "w.pth", (1, 3, 160, 160))
    assert all(torch.equal(value, state(source)[name]) for name, value in model.state_dict().items())
    with pytest.raises(UnusableInput, match=r"w\.pth: as timm:test_byobnet, .*2 of another shape: head\.fc"):
        load(tmp_path / "w.pth", model="timm:test_byobnet")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm:test_bybnet", "timm has no network 'test_bybnet'; did you mean timm:test_byobnet"),
        ("timm:test_byobnet.r9", "timm has no weights 'test_byobnet.r9'; it has timm:test_byobnet.r160_in1k"),
        ("test_byobnet", "'test_byobnet' is no reference model; timm has it: say timm:test_byobnet"),
        ("test_byobnet.r160_in1k", "timm has it: say timm:test_byobnet.r160_in1k"),
    ],
)
def test_a_name_that_timm_does_not_have(timm: Any, name: str, words: str) -> None:
    with pytest.raises(UnusableInput) as caught:
        load(name)
    assert words in str(caught.value)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No address is found, and the cache is an empty folder."""
    from huggingface_hub import constants

    def unknown(*arguments: Any, **options: Any) -> None:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr("reparamkit.loading.libraries.importing.socket.getaddrinfo", unknown)
    monkeypatch.setattr("reparamkit.loading.libraries.importing.urllib.request.getproxies", dict)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_pretrained_weights_without_a_connection_say_what_to_do(timm: Any, offline: Path) -> None:
    from huggingface_hub import constants

    for name in ("timm:test_byobnet.r160_in1k", "hf-hub:timm/test_byobnet.r160_in1k"):
        with pytest.raises(UnusableInput) as caught:
            load(name)
        message = str(caught.value)
        assert "cannot be had here" in message
        assert "hf download timm/test_byobnet.r160_in1k --local-dir DIR; then give DIR" in message
        assert ("or say timm:test_byobnet for random weights" in message) == name.startswith("timm:")
    assert constants.HF_HUB_OFFLINE is False, "it is as it was"


def timm_folder(timm: Any, folder: Path) -> nn.Module:
    from timm.models import save_for_hf

    torch.manual_seed(8)
    model: nn.Module = timm.create_model("test_byobnet", num_classes=7)
    save_for_hf(model, str(folder), model_config={"num_classes": 7}, safe_serialization=True)
    return model


def test_pretrained_weights_that_are_in_the_cache(timm: Any, offline: Path) -> None:
    """Where they can be had: the layout of the Hub's cache, with links into its blobs."""
    repository = offline / "models--timm--test_byobnet.r160_in1k"
    kept = repository / "blobs"
    model = timm_folder(timm, kept)
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    for file in kept.iterdir():
        (snapshot / file.name).symlink_to(Path("../../blobs") / file.name)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    source = load("hf-hub:timm/test_byobnet.r160_in1k")
    assert torch.equal(state(source)["head.fc.weight"], model.state_dict()["head.fc.weight"])
    assert source.notes == ()
    assert torch.equal(state(load(snapshot))["head.fc.weight"], model.state_dict()["head.fc.weight"])


def test_a_folder_of_timms(timm: Any, tmp_path: Path) -> None:
    model = timm_folder(timm, tmp_path / "net")
    source = load(tmp_path / "net")
    assert (source.name, source.path, shape(source)) == ("net", tmp_path / "net", (1, 3, 160, 160))
    assert torch.equal(state(source)["head.fc.weight"], model.state_dict()["head.fc.weight"])
    weights = tmp_path / "net" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(UnusableInput, match=r"model\.safetensors is damaged"):
        load(tmp_path / "net")


def test_a_network_of_torchvision() -> None:
    import_torchvision()
    source = load("torchvision:mobilenet_v3_small", model_args="num_classes=5")
    assert (source.name, shape(source)) == ("mobilenet_v3_small", (1, 3, 224, 224))
    assert source.inferred == "the transforms of torchvision's weights"
    assert state(source)["classifier.3.weight"].shape[0] == 5
    again = state(load("torchvision:mobilenet_v3_small", model_args="num_classes=5"))
    assert all(torch.equal(value, again[name]) for name, value in state(source).items())
    with pytest.raises(UnusableInput, match=r"has no network 'resnt18'; did you mean torchvision:resnet18"):
        load("torchvision:resnt18")
    with pytest.raises(UnusableInput, match=r"--model-args: torchvision's resnet18 does not take them"):
        load("torchvision:resnet18", model_args="nothing=5")


@pytest.mark.parametrize("name", ["timm:test_byobnet", "torchvision:resnet18"])
def test_a_library_that_cannot_be_imported_is_one_line(tmp_path: Path, name: str) -> None:
    """A torchvision of another torch, as in a fresh interpreter where its operators are missing."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')\n"
    )
    (tmp_path / "torchvision" / "models").mkdir()
    (tmp_path / "torchvision" / "models" / "resnet.py").write_text(
        "@register_model()\ndef resnet18(x):\n  pass\n"
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport reparamkit as rk\nrk.load({name!r})"
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("reparamkit.errors")]
    assert f"{name} needs {name.partition(':')[0]}, which is installed and cannot be imported" in line
    assert "RuntimeError: operator torchvision::nms does not exist" in line
    assert f"belongs to another torch than the {torch.__version__} that is there" in line
    assert "pip install --force-reinstall torch torchvision" in line


@needs("transformers")
class TestTransformers:
    @pytest.fixture
    def library(self) -> Any:
        import_torchvision()
        return importing.imported("transformers", "a test")

    @pytest.fixture
    def folder(self, library: Any, tmp_path: Path) -> Path:
        torch.manual_seed(0)
        config = library.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5
        )
        library.ResNetForImageClassification(config).eval().save_pretrained(tmp_path / "resnet")
        processor = {"size": {"height": 48, "width": 40}, "image_processor_type": "ConvNextImageProcessor"}
        (tmp_path / "resnet" / "preprocessor_config.json").write_text(json.dumps(processor))
        return tmp_path / "resnet"

    def test_a_folder_and_a_name(self, folder: Path) -> None:
        source = load(folder)
        assert (source.name, source.path, shape(source)) == ("resnet", folder, (1, 3, 48, 40))
        assert source.inferred == "its preprocessor_config.json"
        named = load(f"transformers:{folder}")
        assert all(torch.equal(value, state(named)[name]) for name, value in state(source).items())

    def test_shards_in_half_precision(self, library: Any, tmp_path: Path) -> None:
        config = library.ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32
        )
        model = library.ViTForImageClassification(config).half()
        model.save_pretrained(tmp_path / "vit", max_shard_size="5KB")
        assert len(list((tmp_path / "vit").glob("*.safetensors"))) > 1
        source = load(tmp_path / "vit")
        assert shape(source) == (1, 3, 32, 32)
        assert {value.dtype for value in state(source).values()} == {torch.float32}
        assert "stored in half precision, were widened to float32" in source.notes[0]
        shard = sorted((tmp_path / "vit").glob("*.safetensors"))[0]
        shard.write_bytes(shard.read_bytes()[:-1])
        with pytest.raises(UnusableInput, match="is damaged"):
            load(tmp_path / "vit")

    def test_a_language_model_proposes_and_a_cache_is_off(self, library: Any, tmp_path: Path) -> None:
        config = library.GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=32)
        library.GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
        source = load(tmp_path / "gpt2")
        assert source.example_inputs is None
        assert "use_cache is off" in source.notes[0]

    def test_weights_that_are_missing_are_not_drawn(self, folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "model.safetensors")
        del weights["classifier.1.weight"]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(UnusableInput, match=r"lacks weights of ResNetFor.*random: classifier\.1\.weight"):
            load(folder)

    def test_code_in_a_folder_needs_trust(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["auto_map"] = {"AutoModel": "theirs.Net"}
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(UntrustedPickle, match=r"needs code of its own \(AutoModel\).*--trust-pickle"):
            load(folder)

    def test_a_repository_without_a_connection(self, library: Any, offline: Path) -> None:
        with pytest.raises(UnusableInput, match=r"no folder 'no/such'.* hf download no/such --local-dir DIR"):
            load("transformers:no/such")


@needs("ultralytics")
class TestUltralytics:
    @pytest.fixture(autouse=True)
    def library(self, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Any:
        monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path_factory.mktemp("settings")))
        import_torchvision()
        return importing.imported("ultralytics", "a test")

    def test_a_yaml_of_the_library(self) -> None:
        source = load("ultralytics:yolov8n.yaml", model_args="nc=3")
        assert (source.name, shape(source)) == ("yolov8n", (1, 3, 640, 640))
        assert source.inferred == "ultralytics' imgsz"
        assert isinstance(source.model, nn.Module)
        assert source.model.yaml["nc"] == 3  # type: ignore[index]

    def test_a_checkpoint_says_its_input(self, tmp_path: Path) -> None:
        model = load("ultralytics:yolov8n.yaml", model_args="nc=3").model
        assert isinstance(model, nn.Module)
        model.args = {"imgsz": 320}  # type: ignore[assignment]
        torch.save({"epoch": -1, "model": model.half(), "ema": None, "train_args": {}}, tmp_path / "best.pt")
        source = load(tmp_path / "best.pt", trust_pickle=True)
        assert shape(source) == (1, 3, 320, 320)
        assert source.inferred == "the imgsz of its training"
        assert source.notes[-1] == "the module, stored in float16, was widened to float32"

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("ultralytics:yolo999.yaml", "ultralytics has no network 'yolo999.yaml'"),
            ("ultralytics:yolov8n.pt", "is a file, and is opened as one: give yolov8n.pt --trust-pickle"),
        ],
    )
    def test_a_name_that_it_does_not_have(self, name: str, words: str) -> None:
        with pytest.raises(UnusableInput) as caught:
            load(name)
        assert words in str(caught.value)

    def test_a_yaml_of_ones_own_needs_trust(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "own.yaml").write_text("nc: 1\n")
        with pytest.raises(UntrustedPickle, match="may run expressions in it; pass --trust-pickle"):
            load("ultralytics:own.yaml")
