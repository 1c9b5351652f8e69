"""How much memory `reparamkit check` takes beyond the two runtimes that it compares.

    python tests/benchmarks/check_memory.py [MEGABYTES]

writes a convolutional network of that size as `.pt2` and as `.onnx`, and a copy of the `.onnx` with one
weight tensor off by 1 %, and compares each with the `.pt2` in a process of its own:

    opened    resident memory once both files are open and have run once
    opening   the largest resident memory until then: what the runtimes themselves need for a moment
    peak      the largest resident memory of the whole comparison
    ratio     (peak - opened) / size of the .onnx file        wanted: at most 3, or a peak of opening's own
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

WANTED = 3.0
_CHANNELS = 512
_SIZE = 16


def build(megabytes: float) -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    count = max(1, round(megabytes * 1e6 / (_CHANNELS * _CHANNELS * 9 * 4)))
    layers: list[nn.Module] = [nn.Conv2d(3, _CHANNELS, 3, padding=1), nn.ReLU()]
    for _ in range(count):
        layers += [nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(_CHANNELS, 10)]
    return nn.Sequential(*layers).eval()


def write(folder: Path, megabytes: float) -> None:
    import numpy as np
    import onnx
    import torch

    from reparamkit.lower.exported import export_program
    from reparamkit.lower.onnx import save_onnx
    from reparamkit.lower.pt2 import save_pt2

    program = export_program(build(megabytes), (torch.randn(1, 3, _SIZE, _SIZE),), {})
    save_pt2(program, folder / "net.pt2")
    save_onnx(program, folder / "same.onnx")
    model = onnx.load(folder / "same.onnx")
    middle = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 4][4]
    middle.CopyFrom(
        onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(middle) * np.float32(1.01), middle.name)
    )
    onnx.save(model, folder / "different.onnx")


def opened(reference: str, candidate: str) -> None:
    import torch

    from reparamkit.compare.network import open_network

    torch.set_num_threads(1)
    sides = [open_network(Path(path)) for path in (reference, candidate)]
    for side in sides:
        side.runner.run((torch.randn(1, 3, _SIZE, _SIZE),), {})
    _say(resident=_resident(), peak=_peak())


def checked(reference: str, candidate: str) -> None:
    import torch

    from reparamkit.compare.compare import compare

    torch.set_num_threads(1)
    found = compare(Path(reference), Path(candidate)).comparison
    where = found.location.text() if found.location is not None else ""
    _say(status=found.status, where=where, peak=_peak())


def _say(**facts: object) -> None:
    print(json.dumps(facts))


def _peak() -> float:
    """The largest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _resident() -> float:
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * resource.getpagesize() if pages.exists() else _peak()


def _in_a_process(*words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, *words], stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(megabytes: float) -> int:
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-W", "ignore", __file__, "write", name, str(megabytes)], check=True)
        size = (folder / "same.onnx").stat().st_size
        print(f"{'pair':26} {'size':>9} {'opened':>9} {'opening':>9} {'peak':>9} {'ratio':>6}  verdict")
        pairs = [("net.pt2", "same.onnx"), ("net.pt2", "different.onnx"), ("same.onnx", "different.onnx")]
        for reference, candidate in pairs:
            paths = str(folder / reference), str(folder / candidate)
            bare = _in_a_process("opened", *paths)
            found = _in_a_process("checked", *paths)
            ratio = (found["peak"] - bare["resident"]) / size
            if found["peak"] > bare["peak"] + 0.25 * size:
                worst = max(worst, ratio)
            shown = size, bare["resident"], bare["peak"], found["peak"]
            figures = " ".join(f"{value / 1e6:6.0f} MB" for value in shown)
            print(
                f"{f'{reference} {candidate}':26} {figures} {ratio:6.2f}  {found['status']} {found['where']}"
            )
    return 0 if worst <= WANTED else 1


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["write", folder, megabytes]:
            write(Path(folder), float(megabytes))
        case ["opened", first, second]:
            opened(first, second)
        case ["checked", first, second]:
            checked(first, second)
        case [megabytes]:
            sys.exit(main(float(megabytes)))
        case _:
            sys.exit(main(100))
