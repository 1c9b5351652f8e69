"""What ran: the versions of Python and of the packages that a verdict may depend on."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib import metadata

from reparamkit.support.version import __version__

_PACKAGES = {
    "ONNX Runtime": "onnxruntime",
    "OpenVINO": "openvino",
    "Core ML program, evaluated": "coremltools",
    "Core ML": "coremltools",
}


def versions(runners: Iterable[str] | None) -> dict[str, str]:
    """Package -> version, with those of the back ends that these runners stand for."""
    wanted = ["torch", "numpy", *(_PACKAGES[name] for name in runners or () if name in _PACKAGES)]
    installed = {"reparamkit": __version__, "python": platform.python_version()}
    for package in dict.fromkeys(wanted):
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed
