"""A damaged file for every seed, and the command that opens it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.loading.door import damage
from tests.loading.door.honest import NETWORK, SHAPE

Argv = list[str]
Case = Callable[[Path, Path, Random], Argv]


def make(seed: int, honest: Path, folder: Path) -> tuple[str, Argv]:
    """Write the damaged file of a seed into an empty folder; its kind, and the command that opens it.

    Beside the folder lies another, ``outside``, that nothing may open.
    """
    kind = list(_KINDS)[seed % len(_KINDS)]
    return kind, _KINDS[kind](honest, folder, Random(seed))


def _candidate(path: Path, rng: Random) -> Argv:
    if path.suffix in (".pt2", ".pt") and rng.random() < 0.2:
        return ["inspect", str(path), *SHAPE]
    return ["check", NETWORK, str(path), *SHAPE, "--no-locate"]


def _inputs(path: Path, _: Random) -> Argv:
    return ["check", NETWORK, NETWORK, "--inputs", str(path), "--no-locate"]


def _outputs(path: Path, _: Random) -> Argv:
    return ["check", "-", NETWORK, "--reference-outputs", str(path), *SHAPE, "--no-locate"]


def _weights(path: Path, _: Random) -> Argv:
    return ["check", NETWORK, str(path), "--model", NETWORK, *SHAPE, "--no-locate"]


def _one(
    name: str, within: Callable[[bytes, Random], bytes], command: Callable[[Path, Random], Argv]
) -> Case:
    def case(honest: Path, folder: Path, rng: Random) -> Argv:
        content = (honest / name).read_bytes()
        path = folder / name
        change = within if rng.random() < 0.7 else damage.bytes_of
        path.write_bytes(change(content, rng))
        if rng.random() < 0.05:
            _odd_place(path, rng)
        return command(path, rng)

    return case


def _odd_place(path: Path, rng: Random) -> None:
    """What lies under the name is no regular file, or lies elsewhere."""
    content = path.read_bytes()
    path.unlink()
    how = rng.randrange(6)
    if how == 0:
        os.mkfifo(path)
    elif how == 1:
        path.mkdir()
    elif how == 2:
        path.symlink_to(path)
    elif how == 3:
        path.symlink_to("/dev/zero")
    elif how == 4:
        path.symlink_to("gone")
    else:
        (path.parent / "there").write_bytes(content)
        path.symlink_to("there")


def _legacy(content: bytes, rng: Random) -> bytes:
    return damage.pickle_of(content, rng)


def _onnx(honest: Path, folder: Path, rng: Random) -> Argv:
    import onnx

    path = folder / "network.onnx"
    if rng.random() < 0.5:
        return _one("network.onnx", damage.bytes_of, _candidate)(honest, folder, rng)
    model = onnx.load(honest / "network.onnx")
    damage.message_of(model, rng)
    path.write_bytes(model.SerializeToString())
    return _candidate(path, rng)


def _apart(honest: Path, folder: Path, rng: Random) -> Argv:
    import onnx

    model = onnx.load(honest / "apart.onnx", load_external_data=False)
    shutil.copy(honest / "apart.onnx.data", folder)
    data = folder / "apart.onnx.data"
    how = rng.randrange(5)
    if how == 0:
        data.write_bytes(damage.bytes_of(data.read_bytes(), rng))
    elif how == 1:
        _instead(data, rng)
    elif how == 2:
        damage.message_of(model, rng)
    else:
        for _ in range(rng.randint(1, 3)):
            tensor = rng.choice(model.graph.initializer)
            entry = rng.choice(tensor.external_data)
            other = [*map(str, damage.EXTREMES), *damage.TEXTS[:-2], _outside(folder), "apart.onnx"]
            entry.value = rng.choice(other)
            tensor.dims[:] = rng.choice([tensor.dims[:], [2**40], [0], [1] * 100])
    path = folder / "apart.onnx"
    path.write_bytes(model.SerializeToString())
    return _candidate(path, rng)


def _outside(folder: Path) -> str:
    return str(folder.parent / "outside" / "secret.bin")


def _instead(path: Path, rng: Random) -> None:
    """A part of a model is no regular file, or lies outside."""
    path.unlink()
    how = rng.randrange(6)
    if how == 0:
        os.mkfifo(path)
    elif how == 1:
        path.symlink_to(_outside(path.parent) if rng.random() < 0.5 else "../outside/secret.bin")
    elif how == 2:
        path.symlink_to(rng.choice(["/dev/zero", "/etc/passwd", "/dev/urandom"]))
    elif how == 3:
        path.symlink_to(path.name)
    elif how == 4:
        path.mkdir()


def _openvino(honest: Path, folder: Path, rng: Random) -> Argv:
    for suffix in (".xml", ".bin"):
        shutil.copy(honest / f"ir{suffix}", folder)
    path, weights = folder / "ir.xml", folder / "ir.bin"
    how = rng.randrange(6)
    if how == 0:
        weights.write_bytes(damage.bytes_of(weights.read_bytes(), rng))
    elif how == 1:
        _instead(weights, rng)
    elif how == 2:
        path.write_bytes(damage.bytes_of(path.read_bytes(), rng))
    else:
        path.write_bytes(damage.xml_of(path.read_bytes(), rng))
    return _candidate(path, rng)


def _coreml(honest: Path, folder: Path, rng: Random) -> Argv:
    from coremltools.proto import Model_pb2

    path = Path(shutil.copytree(honest / "program.mlpackage", folder / "program.mlpackage"))
    manifest = path / "Manifest.json"
    specification = next(path.rglob("model.mlmodel"))
    weights = next(path.rglob("weight.bin"), specification)
    how = rng.randrange(10)
    if how == 0:
        manifest.write_bytes(damage.json_of(manifest.read_bytes(), rng))
    elif how == 1:
        listed = json.loads(manifest.read_text())
        entry = rng.choice(list(listed["itemInfoEntries"].values()))
        other = [*damage.TEXTS, _outside(folder), "../../../outside/secret.bin", "../.."]
        entry[rng.choice(["path", "name"])] = rng.choice(other)
        manifest.write_text(json.dumps(listed))
    elif how == 2:
        _instead(rng.choice([manifest, specification, weights]), rng)
    elif how == 3:
        some = rng.choice([manifest, specification, weights])
        some.write_bytes(damage.bytes_of(some.read_bytes(), rng))
    elif how == 4:
        os.mkfifo(path / "Data" / "pipe")
    else:
        spec = Model_pb2.Model()
        spec.ParseFromString(specification.read_bytes())
        damage.message_of(spec, rng)
        specification.write_bytes(spec.SerializeToString())
    if how > 7 and rng.random() < 0.5:
        shutil.copy(specification, folder / "lone.mlmodel")
        return _candidate(folder / "lone.mlmodel", rng)
    return _candidate(path, rng)


def _folder(honest: Path, folder: Path, rng: Random) -> Argv:
    path = folder / "inputs"
    path.mkdir()
    for number in range(3):
        shutil.copy(honest / "array.npy", path / f"{number}.npy")
    some = path / f"{rng.randrange(3)}.npy"
    if rng.random() < 0.5:
        _instead(some, rng)
        if some.is_symlink() and "secret" in os.readlink(some):
            some.unlink()  # a link of one's own in one's own folder of inputs may lead anywhere
    else:
        some.write_bytes(damage.npy_of(some.read_bytes(), rng))
    return _inputs(path, rng)


_KINDS: dict[str, Case] = {
    "array": _one("array.npy", damage.npy_of, _inputs),
    "arrays": _one("arrays.npz", damage.zip_of, _inputs),
    "onnx": _onnx,
    "program": _coreml,
    "inputs": _one("inputs.pt", damage.zip_of, _inputs),
    "scripted": _one("scripted.pt", damage.zip_of, _candidate),
    "ir": _openvino,
    "exported": _one("exported.pt2", damage.zip_of, _candidate),
    "apart": _apart,
    "outputs": _one("outputs.npz", damage.zip_of, _outputs),
    "legacy": _one("legacy.pt", _legacy, _inputs),
    "program again": _coreml,
    "weights": _one("weights.pt", damage.zip_of, _weights),
    "traced": _one("traced.pt", damage.zip_of, _candidate),
    "probes": _one("probes.npz", damage.zip_of, _inputs),
    "old": _one("old.pt2", damage.zip_of, _candidate),
    "onnx again": _onnx,
    "folder": _folder,
    "ir again": _openvino,
}
