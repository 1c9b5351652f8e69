"""Exported programs in, exported programs out, and on through torch's own pipelines."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

import reparamkit as rk
from tests.into import pairs
from tests.nets import noise, randomised

NETS = {"repvgg": "repvgg", "mobileone": "mobileone", "resnet": "resnet"}


def image(batch: int = 2, size: int = 16, seed: int = 0) -> Tensor:
    return noise(batch, 3, size, size, seed=seed, dtype=torch.float32)


def trained(name: str) -> nn.Module:
    return randomised(pairs.trained(NETS[name]), seed=1)


def operators(graph: torch.fx.Graph) -> Counter[str]:
    return Counter(str(node.target) for node in graph.nodes if node.op == "call_function")


class Named(nn.Module):
    """Keywords in, a dictionary out, and an output that a fold renames: the sum at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained("mobileone")
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)

    def forward(self, image: Tensor, *, scale: Tensor) -> dict[str, Tensor]:
        y = self.net(image * scale)
        return {"logits": y, "map": self.one(image) + self.two(image), "probabilities": y.softmax(1)}


@pytest.fixture(scope="module")
def named() -> tuple[ExportedProgram, ExportedProgram]:
    sizes = {"image": {0: Dim("batch", min=1, max=64), 2: Dim("height", min=4, max=128)}, "scale": None}
    model = randomised(Named(), seed=2).eval()
    given = torch.export.export(model, (image(),), {"scale": torch.full((1,), 1.5)}, dynamic_shapes=sizes)
    return given, rk.fold_program(given)


def test_names_structure_and_sizes_are_kept(named: tuple[ExportedProgram, ExportedProgram]) -> None:
    given, folded = named
    assert folded.graph_signature.user_inputs == given.graph_signature.user_inputs
    assert folded.graph_signature.user_outputs == given.graph_signature.user_outputs
    assert folded.call_spec.in_spec == given.call_spec.in_spec
    assert folded.call_spec.out_spec == given.call_spec.out_spec
    assert sorted(map(str, folded.range_constraints.values())) == ["VR[1, 64]", "VR[4, 128]"]
    counts = operators(folded.graph)
    assert counts["aten.conv2d.default"] == 6
    assert "aten.batch_norm.default" not in counts


def test_it_runs_at_other_sizes_and_refuses_those_out_of_bounds(
    named: tuple[ExportedProgram, ExportedProgram],
) -> None:
    given, folded = (program.module() for program in named)
    scale = torch.full((1,), 0.7)
    for batch, height in ((1, 4), (5, 33)):
        x = noise(batch, 3, height, 16, seed=3, dtype=torch.float32)
        torch.testing.assert_close(folded(x, scale=scale), given(x, scale=scale), rtol=1e-4, atol=1e-5)
    with pytest.raises(AssertionError):
        folded(noise(2, 3, 3, 16, dtype=torch.float32), scale=scale)


def test_what_was_given_is_unchanged(named: tuple[ExportedProgram, ExportedProgram]) -> None:
    assert operators(named[0].graph)["aten.batch_norm.default"] == 16


def test_it_is_saved_and_decomposed_as_any_other(
    named: tuple[ExportedProgram, ExportedProgram], tmp_path: Path
) -> None:
    given, folded = named
    torch.export.save(folded, tmp_path / "folded.pt2")
    again = torch.export.load(tmp_path / "folded.pt2").run_decompositions({})
    x, scale = image(3, seed=4), torch.full((1,), 0.7)
    torch.testing.assert_close(
        again.module()(x, scale=scale), given.module()(x, scale=scale), rtol=1e-4, atol=1e-5
    )


def test_what_is_no_exported_program() -> None:
    with pytest.raises(rk.UnusableInput, match="a Net is no ExportedProgram"):
        rk.fold_program(trained("repvgg"))  # type: ignore[arg-type]


def _quantised(program: ExportedProgram) -> tuple[torch.fx.GraphModule, Counter[str]]:
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )

    quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(program.module(), quantizer)
    for seed in range(8):
        prepared(image(4, seed=100 + seed))
    converted = convert_pt2e(prepared)
    return converted, operators(converted.graph)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETS)
def test_pt2e_quantization(name: str) -> None:
    """Torch's own path merges a norm into the convolution before it; branches it quantizes one by one."""
    pytest.importorskip("torchao", reason="torchao is not installed")
    model, x = trained(name), image(4)
    given = torch.export.export(model, (x,))
    plain, count = _quantised(given)
    folded, smaller = _quantised(rk.fold_program(given))
    assert smaller.total() <= count.total()
    if name != "resnet":  # without branches there's nothing that torch's own path leaves
        assert smaller["aten.conv2d.default"] < count["aten.conv2d.default"]
        assert (
            smaller["quantized_decomposed.dequantize_per_tensor.default"]
            < (count["quantized_decomposed.dequantize_per_tensor.default"])
        )
    probe = image(4, seed=50)
    with torch.no_grad():
        expected = model(probe)
        ours, theirs = (_error(expected, net(probe)) for net in (folded, plain))
    assert ours < 0.15
    assert ours < 1.5 * theirs + 0.02


def _error(expected: Tensor, result: Any) -> float:
    return float((expected - result).norm() / expected.norm())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_aot_inductor_package(tmp_path: Path) -> None:
    model, x = trained("repvgg"), image()
    program = rk.fold_program(torch.export.export(model, (x,)))
    path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "net.pt2"))
    loaded = torch._inductor.aoti_load_package(path)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), model(x), rtol=1e-4, atol=1e-5)
