"""What `import reparamkit` costs, in a fresh interpreter each."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys

import pytest

TRAINING = ("accelerate", "datasets", "kornia", "matplotlib", "safetensors", "sklearn", "tensorboard", "yaml")
HEAVY = (
    *("torch", "onnx", "onnxruntime", "onnxsim", "onnxscript", "coremltools", "rich", "jinja2"),
    *TRAINING,
)


def modules_after(statements: str) -> set[str]:
    """The top-level packages that are imported after these statements."""
    code = f"{statements}\nimport json, sys\nprint(json.dumps(sorted(m.split('.')[0] for m in sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return set(json.loads(done.stdout))


def test_the_package_alone_imports_nothing() -> None:
    found = modules_after("import reparamkit")
    assert "reparamkit" in found
    assert found & {*HEAVY, "numpy", "typer"} == set()


def test_listing_the_names_imports_nothing() -> None:
    found = modules_after("import reparamkit as rk\nassert 'fold' in dir(rk)\nrk.__version__; rk.__all__")
    assert found & set(HEAVY) == set()


def test_the_api_imports_torch_and_what_torch_imports() -> None:
    plain = modules_after("import torch, torch.export, torch._export.converter")
    found = modules_after("import reparamkit.api, reparamkit.loading.source, reparamkit.compare.check")
    assert "torch" in found
    assert found & set(HEAVY) - plain == set()


def test_the_command_line_starts_without_torch() -> None:
    found = modules_after("import reparamkit.cli.app")
    assert found & (set(HEAVY) - {"rich"}) == set()


def test_the_names_of_training_and_its_settings_import_nothing() -> None:
    found = modules_after("import reparamkit as rk\nrk.training.Config(epochs=3)\ndir(rk.training)")
    assert found & set(HEAVY) == set()


def test_opening_a_network_imports_no_package_of_training() -> None:
    found = modules_after("import reparamkit as rk\nrk.load('repnets_toy')")
    assert found & (set(TRAINING) - modules_after("import torch._export.converter")) == set()


def test_every_public_name_is_there() -> None:
    import reparamkit as rk

    for name in rk.__all__:
        assert getattr(rk, name) is not None
    assert {"fold", "inspect", "check", "assert_equivalent", "load", "models", "NotEquivalent"} <= set(
        rk.__all__
    )
    with pytest.raises(AttributeError, match="module 'reparamkit' has no attribute 'nothing'"):
        _ = rk.nothing


def test_a_name_that_it_had_before_goes_on_working() -> None:
    import reparamkit as rk

    assert rk.Part is rk.Submodule


@pytest.mark.parametrize("package", ["reparamkit", "reparamkit.models", "reparamkit.training"])
def test_no_public_name_is_that_of_a_module_beside_it(package: str) -> None:
    """Importing the module would put it in the name's place."""
    facade = importlib.import_module(package)
    inside = {module.name for module in pkgutil.iter_modules(facade.__path__)}
    assert inside & {*facade.__all__} <= {"models", "training"}
