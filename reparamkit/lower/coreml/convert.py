"""From an exported program to an ML program, by coremltools."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram

from reparamkit.errors import UnusableInput
from reparamkit.lower.coreml.labels import classifier
from reparamkit.lower.coreml.options import CoreMlOptions
from reparamkit.lower.coreml.shapes import Sizes, input_shape
from reparamkit.lower.coreml.toolbox import CannotConvert, coremltools, reason_of
from reparamkit.lower.exported import input_tensors
from reparamkit.support.garbage import only_new_garbage
from reparamkit.support.quiet import quiet

Keep = Callable[[str], bool]
"""Whether the operators of this origin ("stages.0.1.reparam_conv") are computed in float32 all the same."""


def convert(
    program: ExportedProgram,
    sizes: Sequence[Sizes],
    options: CoreMlOptions,
    *,
    input_names: Sequence[str],
    output_names: Sequence[str],
    image_bias: Sequence[float] | None = None,
    labels: Sequence[str] | None = None,
    keep: Keep | None = None,
) -> Any:
    """An `MLModel`, with its weights in a folder of its own until it is written.

    Args:
        program: as `reparamkit.lower.coreml.prepare.prepared` makes it.
        sizes: of each input tensor, in order.
        input_names, output_names: one per tensor, in order; valid identifiers, all different.
        image_bias: for an image input, what is added to its channels.
        labels: the names of the classes, for a classifier.
        keep: for float16, what stays in float32.

    Raises:
        CannotConvert: coremltools, or Core ML, cannot express the network.
    """
    ct = coremltools()
    try:
        with quiet(), torch.no_grad(), only_new_garbage():
            ranges: dict[str, Any] = {}
            shapes = [input_shape(each, ranges, ct) for each in sizes]
            if options.image is None:
                inputs = [
                    ct.TensorType(name=name, shape=shape, dtype=_dtype(tensor, ct))
                    for name, shape, tensor in zip(
                        input_names, shapes, input_tensors(program).values(), strict=True
                    )
                ]
            else:
                inputs = [_image(input_names[0], shapes[0], options.image, image_bias, ct)]
            return ct.convert(
                program,
                source="pytorch",
                convert_to="mlprogram",
                inputs=inputs,
                outputs=[
                    ct.TensorType(name=name, dtype=_dtype(value, ct))
                    for name, value in zip(output_names, _outputs(program), strict=True)
                ],
                classifier_config=classifier(labels, output_names[0], ct) if labels else None,
                minimum_deployment_target=getattr(ct.target, options.target),
                compute_precision=_precision(options, keep, ct),
                pass_pipeline=_passes(ct),
                skip_model_load=True,
            )
    except UnusableInput:
        raise
    except Exception as error:
        with quiet():  # coremltools leaves the removal of its temporary folders to the garbage collection
            traceback.clear_frames(error.__traceback__)
        raise CannotConvert(reason_of(error)) from error


def _passes(ct: Any) -> Any:
    """coremltools' own passes, but for those that compute something else.

    One turns a scale and a shift into a batch norm of mean 0, variance 1 and the usual epsilon of 1e-5, which
    makes every value smaller by 5e-6 of itself.
    """
    passes = ct.PassPipeline()
    passes.remove_passes({"common::fuse_elementwise_to_batchnorm"})
    return passes


def _image(name: str, shape: Any, image: Any, bias: Sequence[float] | None, ct: Any) -> Any:
    layouts = {"rgb": ct.colorlayout.RGB, "bgr": ct.colorlayout.BGR, "gray": ct.colorlayout.GRAYSCALE}
    shift: Any = list(bias or [0.0] * image.channels)
    if image.channels == 1:
        shift = shift[0]
    return ct.ImageType(name=name, shape=shape, scale=1.0, bias=shift, color_layout=layouts[image.colour])


def _precision(options: CoreMlOptions, keep: Keep | None, ct: Any) -> Any:
    if options.precision == "float32":
        return ct.precision.FLOAT32
    if keep is None:
        return ct.precision.FLOAT16
    chosen = keep

    def in_float16(operator: Any) -> bool:
        return not any(chosen(origin) for origin in origins(operator))

    return ct.transform.FP16ComputePrecision(op_selector=in_float16)


def origins(operator: Any) -> list[str]:
    """What the operators of the exported program are called that a MIL operator was made of."""
    from coremltools.converters.mil.mil.scope import ScopeSource

    scopes = operator.scopes.get(ScopeSource.EXIR_STACK_TRACE) or []
    return [origin for origin in scopes if origin]


def _outputs(program: ExportedProgram) -> list[torch.Tensor]:
    by_name = {node.name: node for node in program.graph.nodes}
    return [by_name[str(name)].meta["val"] for name in program.graph_signature.user_outputs]


def _dtype(tensor: torch.Tensor, ct: Any) -> Any:
    """float32 or int32: Core ML takes and gives nothing longer, and booleans as numbers."""
    types = ct.converters.mil.mil.types
    if tensor.is_complex():
        raise CannotConvert("Core ML has no complex numbers")
    return types.fp32 if tensor.is_floating_point() else types.int32
