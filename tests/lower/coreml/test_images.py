"""Image inputs: the normalisation goes into the stem where that is exact, and the rest to Core ML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reparamkit as rk
from reparamkit.lower.coreml.images import Normalised, pixels_of, shift_and_factor
from reparamkit.lower.coreml.options import CoreMlOptions, ImageInput
from reparamkit.runners.coreml import CoreMlRunner
from tests.lower.coreml.nets import IMAGE, branches, folded, operations, spec_of

IMAGENET = ImageInput(255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def _pixels(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, shape, generator=generator).float()


def test_the_two_forms_of_a_normalisation_agree() -> None:
    pixels = _pixels(1, 3, 32, 32).double()
    shift, factor = shift_and_factor(IMAGENET, torch.float64)
    whole = Normalised(nn.Identity(), IMAGENET, torch.float64)(pixels)
    torch.testing.assert_close(whole, (pixels + shift) * factor, rtol=1e-12, atol=1e-12)


def test_pixels_come_back_from_an_example() -> None:
    pixels = _pixels(2, 3, 8, 8)
    mean = torch.tensor(IMAGENET.mean).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET.std).view(1, 3, 1, 1)
    assert torch.equal(pixels_of((pixels / 255 - mean) / std, IMAGENET), pixels)
    assert pixels_of(torch.full((1, 3, 2, 2), 1e9), IMAGENET).unique().tolist() == [255]


@pytest.mark.diagonal(1)
@pytest.mark.parametrize("padding", [0, 1])
def test_a_std_per_channel_goes_into_the_stem_and_a_mean_too_if_it_is_unpadded(
    tmp_path: Path, padding: int
) -> None:
    path = tmp_path / "net.mlpackage"
    model = branches(padding)
    network = folded(model)
    (saved,) = network.save(path, coreml=CoreMlOptions(image=IMAGENET))
    assert saved.equivalence.passed
    kinds = [kind for kind, _ in operations(path)]
    assert kinds.count("conv") == network.after["conv2d"]
    assert kinds.count("add") == padding
    assert "mul" not in kinds
    described = spec_of(path).description
    (entry,) = described.input
    assert entry.name == "image"
    assert entry.type.WhichOneof("Type") == "imageType"
    assert entry.type.imageType.colorSpace == 20  # RGB
    said = json.loads(described.metadata.userDefined["reparamkit.image"])
    assert said == {
        "scale": 255,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "colour": "rgb",
    }
    pixels = _pixels(1, 3, 40, 24)
    ((_, found),) = CoreMlRunner(path).run((pixels,), {})
    wanted = Normalised(model.double(), IMAGENET, torch.float64)(pixels.double())
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)


def test_nothing_is_captured_a_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = folded(branches(1))
    exported, export = [], torch.export.export

    def counted(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        exported.append(module)
        return export(module, *args, **kwargs)

    monkeypatch.setattr(torch.export, "export", counted)
    before = str(network.module.graph)
    network.save(tmp_path / "net.mlpackage", tmp_path / "net.pt", coreml=CoreMlOptions(image=IMAGENET))
    assert len(exported) == 1  # for coremltools
    assert str(network.module.graph) == before
    assert ("conv", "stem") in operations(tmp_path / "net.mlpackage")


def test_what_is_given_by_keyword_stays_so(tmp_path: Path) -> None:
    class Keyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, *, image: Tensor, double: bool = False) -> Tensor:
            return self.stem(image) * (2 if double else 1)

    network = folded(Keyword().eval(), {"image": IMAGE, "double": True})
    (saved,) = network.save(tmp_path / "net.mlpackage", coreml=CoreMlOptions(image=IMAGENET))
    assert saved.equivalence.passed
    assert saved.operators == {"conv": 1, "add": 1}


def test_probes_are_pixels(tmp_path: Path) -> None:
    (saved,) = folded(branches()).save(
        tmp_path / "net.mlpackage", coreml=CoreMlOptions(image=IMAGENET, precision="float16")
    )
    assert {"checkerboard", "constant", "impulse 0,0"} & {entry.probe for entry in saved.equivalence.outputs}
    assert saved.equivalence.passed


@pytest.mark.slow
def test_a_mean_of_zero_leaves_nothing_to_core_ml(tmp_path: Path) -> None:
    path = tmp_path / "net.mlpackage"
    folded(branches()).save(path, coreml=CoreMlOptions(image=ImageInput()))
    assert next(kind for kind, _ in operations(path)) == "conv"


@pytest.mark.slow
def test_names_do_not_show_the_normalisation(tmp_path: Path) -> None:
    path = tmp_path / "net.mlpackage"
    options = CoreMlOptions(image=IMAGENET, precision="float16", keep_float32=("stem",))
    folded(branches()).save(path, coreml=options)
    assert ("conv", "stem") in operations(path)


@pytest.mark.slow
def test_a_batch_is_one_image(tmp_path: Path) -> None:
    path = tmp_path / "net.mlpackage"
    network = folded(branches(), IMAGE.expand(4, -1, -1, -1))
    (saved,) = network.save(path, coreml=CoreMlOptions(image=IMAGENET))
    assert saved.notes[0].endswith("image: 1x3x1..256x1..256")


@pytest.mark.slow
def test_listed_shapes_of_an_image(tmp_path: Path) -> None:
    path = tmp_path / "net.mlpackage"
    options = CoreMlOptions(image=IMAGENET, sizes=((1, 3, 32, 32), (1, 3, 48, 64)))
    folded(branches()).save(path, coreml=options)
    sizes = spec_of(path).description.input[0].type.imageType.enumeratedSizes.sizes
    assert sorted((size.width, size.height) for size in sizes) == [(32, 32), (64, 48)]


@pytest.mark.slow
def test_bgr_and_gray(tmp_path: Path) -> None:
    path = tmp_path / "net.mlpackage"
    folded(branches()).save(path, coreml=CoreMlOptions(image=ImageInput(mean=(0.4, 0.5, 0.6), colour="bgr")))
    assert spec_of(path).description.input[0].type.imageType.colorSpace == 30  # BGR
    gray = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU()).eval()
    folded(gray, torch.randn(1, 1, 16, 16)).save(
        path, coreml=CoreMlOptions(image=ImageInput(mean=(0.5,), std=(0.5,), colour="gray"))
    )
    assert spec_of(path).description.input[0].type.imageType.colorSpace == 10  # GRAYSCALE


def test_a_network_that_does_not_start_with_a_convolution(tmp_path: Path) -> None:
    class Rooted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.abs().sqrt().mean((2, 3))

    (saved,) = folded(Rooted()).save(tmp_path / "net.mlpackage", coreml=CoreMlOptions(image=IMAGENET))
    assert saved.operators["mul"] == 1
    assert saved.operators["add"] == 1


class Pair(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


@pytest.mark.parametrize(
    ("model", "inputs", "colour", "words"),
    [
        (Pair(), (IMAGE, IMAGE), "rgb", "for a network with one input, and this one has 2"),
        (nn.ReLU(), torch.randn(1, 3, 32), "rgb", r"\(batch, channels, height, width\); this one takes"),
        (nn.ReLU(), IMAGE, "gray", "a gray image has 1 channels, and the network takes 3"),
    ],
)
def test_networks_that_take_no_image(
    tmp_path: Path, model: nn.Module, inputs: object, colour: str, words: str
) -> None:
    with pytest.raises(rk.UnusableInput, match=words):
        folded(model.eval(), inputs).save(
            tmp_path / "net.mlpackage", coreml=CoreMlOptions(image=ImageInput(colour=colour))
        )


def test_a_fixed_batch_of_several(tmp_path: Path) -> None:
    network = folded(branches(), IMAGE.expand(4, -1, -1, -1), dynamic=False)
    with pytest.raises(rk.UnusableInput, match=r"one image at a time, .* fixed batch 4"):
        network.save(tmp_path / "net.mlpackage", coreml=CoreMlOptions(image=IMAGENET))
