from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from reparamkit.errors import UnusableInput
from reparamkit.models import build, create, info, names


@pytest.mark.parametrize("spelling", ["MobileOne-S0", "mobileone_s0", " MOBILEONE-s0 "])
def test_spelling_does_not_matter(spelling: str) -> None:
    assert info(spelling).name == "mobileone_s0"


def test_info_names_the_paper() -> None:
    entry = info("RepVGG-B1g2")
    assert (entry.family, entry.paper.arxiv, entry.paper.year) == ("RepVGG", "2101.03697", 2021)
    assert entry.paper.title.startswith("RepVGG:")
    assert "Xiaohan Ding" in entry.paper.authors
    assert entry.input_shape == (1, 3, 224, 224)
    assert entry.parameters == 45_782_376


@pytest.mark.parametrize("function", [info, create, build])
def test_an_unknown_name_is_answered_with_the_closest_ones(function: object) -> None:
    assert callable(function)
    with pytest.raises(
        UnusableInput, match=r"no reference model named 'mobileone-s9'; did you mean mobileone_s"
    ):
        function("mobileone-s9")


def test_a_name_like_no_other_is_answered_with_the_list() -> None:
    with pytest.raises(UnusableInput, match=r"named 'zzz'; .reparamkit models. lists them"):
        create("zzz")


def test_create_gives_a_frozen_looking_but_trainable_network() -> None:
    model = create("mobileone_s0", num_classes=3)
    assert not any(module.training for module in model.modules())
    assert all(
        parameter.requires_grad and parameter.dtype == torch.float32 for parameter in model.parameters()
    )
    assert not any(tensor.is_meta for tensor in model.state_dict().values())


def test_create_is_deterministic() -> None:
    first, again, other = (create("mobileone_s1", num_classes=3, seed=s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["linear.weight"], other["linear.weight"])


def test_an_option_that_the_family_lacks_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="use_sync_bn"):
        create("repvgg_a0", use_sync_bn=True)


def test_every_name_is_canonical_and_known() -> None:
    assert [info(name).name for name in names()] == names()


def test_importing_the_models_imports_no_optional_package() -> None:
    heavy = ["onnx", "onnxruntime", "onnxsim", "onnxscript", "coremltools", "timm", "torchvision"]
    code = f"import sys, reparamkit.models; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
