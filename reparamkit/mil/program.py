"""Opens the .mlpackage of an ML program, on any system.

The package is a folder with a manifest, a protobuf message and a file of weights. They are read as they are:
nothing is converted, optimised or compiled on the way.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from reparamkit.errors import MissingExtra, UnusableInput
from reparamkit.loading.door.files import exists, inside, parse_json, read_bytes, regular, regular_folder
from reparamkit.loading.door.memory import check_room
from reparamkit.mil.graph import Constant, MilInput, MilProgram, Operation, Port
from reparamkit.mil.inputs import mil_input
from reparamkit.mil.values import constant, port
from reparamkit.support.quiet import quiet
from reparamkit.support.text import one_line

_NEWEST = 9
"""Of iOS 26, which adds no operator and no definition to those of iOS 18 in coremltools 9."""
_MANIFEST = 1 << 20
_PARSED = 3
"""What the message takes in memory, in times of what it takes in the file."""
_STRANGE = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
_OLD = ("neuralNetwork", "neuralNetworkClassifier", "neuralNetworkRegressor")


def open_program(path: Path) -> MilProgram:
    """Read an .mlpackage, or an .mlmodel that is an ML program and needs no file of weights.

    Args:
        path: the folder, or the file.

    Raises:
        MissingExtra: coremltools, whose definitions of the format are used, is not installed.
        UnusableInput: it is damaged, no ML program, or one of a kind that cannot be evaluated: with several
            functions, or with a state that is kept between calls.
    """
    messages = _messages()
    specification, weights = _places(path)
    try:
        spec = messages.Model()
        content = read_bytes(specification)
        check_room(_PARSED * len(content), f"{path}, once it is read, takes")
        spec.ParseFromString(content)
    except UnusableInput:
        raise
    except Exception as error:
        raise UnusableInput(f"{path} is damaged: {specification.name} is no Core ML model") from error
    _check_kind(spec, path)
    functions = spec.mlProgram.functions
    if len(functions) != 1:
        raise UnusableInput(
            f"cannot verify {path}: it has {len(functions)} functions ({', '.join(sorted(functions))}); save "
            f"the one to be verified on its own"
        )
    (function,) = functions.values()
    try:
        return _program(spec, function, weights, path)
    except OSError as error:
        raise UnusableInput(
            f"{path} is damaged: the weights cannot be read ({error.strerror or error})"
        ) from error
    except _STRANGE as error:
        reason = one_line(error)
        raise UnusableInput(f"{path} is damaged: {reason}") from error


def _messages() -> Any:
    try:
        with quiet():
            from coremltools.proto import Model_pb2
    except ModuleNotFoundError:
        raise MissingExtra("coremltools", "coreml", "running a Core ML model") from None
    return Model_pb2


def _places(path: Path) -> tuple[Path, Path]:
    """Where the specification and the folder of weights lie."""
    if not path.is_dir():
        regular(path)
        beside = path.parent / "weights"
        if exists(beside):
            regular_folder(beside)
        return path, beside
    regular_folder(path)
    listed = path / "Manifest.json"
    if not listed.is_file():
        raise UnusableInput(f"{path} is no .mlpackage: its Manifest.json cannot be read (there is none)")
    manifest = parse_json(read_bytes(listed, _MANIFEST), f"{path}: its Manifest.json")
    try:
        entries = manifest["itemInfoEntries"]
        root = path / "Data" / str(entries[manifest["rootModelIdentifier"]]["path"])
        weights = [str(entry["path"]) for entry in entries.values() if entry.get("name") == "weights"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnusableInput(f"{path} is damaged: its Manifest.json names no model") from error
    places = inside(path, root, path), path / "Data" / weights[0] if weights else root.parent / "weights"
    return places[0], inside(path, places[1], path) if exists(places[1]) else places[1]


def _check_kind(spec: Any, path: Path) -> None:
    kind = spec.WhichOneof("Type")
    if kind == "mlProgram":
        return
    if kind in _OLD:
        raise UnusableInput(
            f"cannot verify {path}: it is a neural network of the old format, no ML program; convert the "
            f'network with convert_to="mlprogram"'
        )
    if kind is not None and kind.startswith("pipeline"):
        raise UnusableInput(
            f"cannot verify {path}: it is a pipeline of several models; verify each on its own"
        )
    if kind is None:
        raise UnusableInput(f"{path} is damaged: it holds no model")
    raise UnusableInput(f"cannot verify {path}: it is a Core ML model of the kind {kind}, no ML program")


def _program(spec: Any, function: Any, weights: Path, path: Path) -> MilProgram:
    inputs = _inputs(spec, function, path)
    if function.opset not in function.block_specializations:
        raise ValueError(f"it has no operations for its operator set {function.opset!r}")
    block = function.block_specializations[function.opset]
    constants: dict[str, Constant] = {}
    operations: list[Operation] = []
    texts: set[str] = set()
    labels: tuple[str, ...] = ()
    for entry in block.operations:
        if entry.type == "const":
            value = entry.attributes["val"]
            for output in entry.outputs:
                constants[output.name] = constant(value, weights)
            continue
        operation = _operation(entry, constants, weights)
        if operation.kind == "classify":
            # Its first output is a text, the second holds the probabilities under their labels.
            texts.add(operation.outputs[0].name)
            labels = _labels(operation, constants)
            operation = replace(
                operation,
                inputs={"probabilities": operation.inputs["probabilities"]},
                outputs=(Port(operation.outputs[-1].name, None, None),),
            )
        operations.append(operation)
    known = {each.name for each in inputs} | set(constants)
    for operation in operations:
        for names in operation.inputs.values():
            unknown = [name for name in names if name not in known]
            if unknown:
                raise ValueError(
                    f"{operation.kind} at {operation.name!r} takes {unknown[0]!r}, which nothing makes"
                )
        results = {each.name for each in operation.outputs}
        if results & known:
            raise ValueError(f"two operations make {min(results & known)!r}")
        known |= results
    outputs = [feature.name for feature in spec.description.output if feature.name not in texts]
    lost = [name for name in outputs if name not in known]
    if lost or not outputs:
        raise ValueError(f"nothing makes its output {lost[0]!r}" if lost else "it has no outputs")
    version = re.fullmatch(r"CoreML(\d+)(_.*)?", function.opset)
    if version is None:
        raise ValueError(f"the operator set {function.opset!r} is unknown")
    if int(version[1]) > _NEWEST:
        raise UnusableInput(
            f"cannot verify {path}: its operator set {function.opset} is newer than CoreML{_NEWEST}, whose "
            f"definitions the evaluator knows"
        )
    return MilProgram(inputs, tuple(operations), constants, tuple(outputs), int(version[1]), labels)


def _inputs(spec: Any, function: Any, path: Path) -> tuple[MilInput, ...]:
    declared = {entry.name: entry for entry in function.inputs}
    described = [feature.name for feature in spec.description.input]
    if spec.description.state:
        raise UnusableInput(f"cannot verify {path}: it keeps a state between calls")
    if set(described) != set(declared):
        raise ValueError(
            f"its description names the inputs {', '.join(described)}, its program {', '.join(declared)}"
        )
    return tuple(mil_input(feature, declared[feature.name], str(path)) for feature in spec.description.input)


def _operation(entry: Any, constants: dict[str, Constant], weights: Path) -> Operation:
    outputs = tuple(port(output) for output in entry.outputs)
    result_name = outputs[0].name if outputs else entry.type
    name = result_name
    inputs: dict[str, tuple[str, ...]] = {}

    def keep(parameter: str, value: Any) -> str:
        # Written in place; such a name cannot be one of the program's.
        own = f"{result_name}/{parameter}"
        constants[own] = constant(value, weights)
        return own

    for parameter, value in entry.attributes.items():
        if parameter == "name":
            name = "".join(value.immediateValue.tensor.strings.values) or result_name
        else:
            inputs[parameter] = (keep(parameter, value),)
    for parameter, argument in entry.inputs.items():
        inputs[parameter] = tuple(
            binding.name
            if binding.WhichOneof("binding") == "name"
            else keep(f"{parameter}/{place}", binding.value)
            for place, binding in enumerate(argument.arguments)
        )
    return Operation(entry.type, name, inputs, outputs, len(entry.blocks))


def _labels(operation: Operation, constants: dict[str, Constant]) -> tuple[str, ...]:
    (name,) = operation.inputs["classes"]
    labels = constants.pop(name)
    return (labels,) if isinstance(labels, str) else labels if isinstance(labels, tuple) else ()
