"""Core ML: from an exported program to an `.mlpackage` that was evaluated before it appears."""

from reparamkit.lower.coreml.keep import keep_float32
from reparamkit.lower.coreml.metadata import Facts, digest
from reparamkit.lower.coreml.options import TARGETS, CoreMlOptions, ImageInput
from reparamkit.lower.coreml.save import Subject, save_coreml
from reparamkit.lower.coreml.toolbox import CannotConvert, require_coremltools

__all__ = [
    "TARGETS",
    "CannotConvert",
    "CoreMlOptions",
    "Facts",
    "ImageInput",
    "Subject",
    "digest",
    "keep_float32",
    "require_coremltools",
    "save_coreml",
]
