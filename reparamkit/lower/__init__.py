"""Lowering: from a module to a file that another runtime reads, verified before it appears."""

from reparamkit.lower.exported import axis_names, export_program, free_axes
from reparamkit.lower.files import check_writable, write_text, write_verified
from reparamkit.lower.onnx import convolutions_without_bias, operator_counts, save_onnx
from reparamkit.lower.pt2 import load_pt2, save_pt2
from reparamkit.lower.save import SUFFIXES, check_suffix, save
from reparamkit.lower.saved import Saved

__all__ = [
    "SUFFIXES",
    "Saved",
    "axis_names",
    "check_suffix",
    "check_writable",
    "convolutions_without_bias",
    "export_program",
    "free_axes",
    "load_pt2",
    "operator_counts",
    "save",
    "save_onnx",
    "save_pt2",
    "write_text",
    "write_verified",
]
