"""One network and its inputs in every kind of file that can be opened, written once."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import torch

from reparamkit.lower.exported import export_program
from reparamkit.lower.onnx import save_onnx
from reparamkit.lower.pt2 import save_pt2
from tests.loading.door.nets import IMAGE, tiny
from tests.loading.files import write_scripted, write_traced
from tests.mil.programs import mb, save

NETWORK = "tests.loading.door.nets:tiny"
SHAPE = ("--input", "1x3x8x8")


def write_all(folder: Path) -> Path:
    """Write them into a new folder: an honest file of each kind, called by its kind."""
    folder.mkdir()
    image = torch.randn(IMAGE, generator=torch.Generator().manual_seed(1))
    np.save(folder / "array.npy", image.numpy())
    np.savez(folder / "arrays.npz", image=image.numpy())
    torch.save([image, {"image": image}], folder / "inputs.pt")
    torch.save(image, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": tiny().state_dict(), "epoch": 3}, folder / "weights.pt")
    program = export_program(tiny(), (image,), {})
    save_pt2(program, folder / "exported.pt2")
    _write_old(program, folder / "old.pt2")
    write_scripted(folder / "scripted.pt", tiny())
    write_traced(folder / "traced.pt")
    save_onnx(program, folder / "network.onnx", input_names=["image"], output_names=["scores"])
    model = onnx.load(folder / "network.onnx")
    onnx.save(
        model, folder / "apart.onnx", save_as_external_data=True, location="apart.onnx.data", size_threshold=0
    )
    _write_openvino(folder)
    write_coreml(folder / "program.mlpackage")
    kept = ("--save-inputs", str(folder / "probes.npz"), "--save-outputs", str(folder / "outputs.npz"))
    command = [sys.executable, "-m", "reparamkit.cli.app", "check", NETWORK, NETWORK, *SHAPE, *kept]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    return folder


def _write_old(program: torch.export.ExportedProgram, path: Path) -> None:
    from torch._export.serde.schema import SCHEMA_VERSION
    from torch._export.serde.serialize import serialize

    artifact = serialize(program)
    entries = {
        "version": ".".join(map(str, SCHEMA_VERSION)).encode(),
        "serialized_exported_program.json": artifact.exported_program,
        "serialized_state_dict.pt": artifact.state_dict,
        "serialized_constants.pt": artifact.constants,
        "serialized_example_inputs.pt": artifact.example_inputs,
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def _write_openvino(folder: Path) -> None:
    import openvino

    made = openvino.convert_model(str(folder / "network.onnx"))
    openvino.save_model(made, str(folder / "ir.xml"), compress_to_fp16=False)


def write_coreml(path: Path) -> Path:
    """The network as a Core ML package, one of whose weights lies in the file of weights."""
    net = tiny()
    weights = {name: value.detach().numpy() for name, value in net.state_dict().items()}

    def build(image: object) -> object:
        conv = mb.conv(x=image, weight=weights["conv.weight"], bias=weights["conv.bias"], pad_type="same")
        point = mb.conv(x=image, weight=weights["point.weight"], bias=weights["point.bias"])
        mean = mb.reduce_mean(x=mb.relu(x=mb.add(x=conv, y=point)), axes=[2, 3], keep_dims=False)
        # As large as a weight has to be to lie in the file of weights.
        spread = mb.matmul(x=mean, y=np.ones((4, 4), np.float32))
        return mb.linear(x=spread, weight=weights["head.weight"], bias=weights["head.bias"])

    return save(build, {"image": torch.zeros(IMAGE)}, path)
