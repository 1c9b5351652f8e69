"""How a whole program is computed: in which precision, with which gradients, seen by whom."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reparamkit.errors import UnusableInput
from reparamkit.mil.evaluate import evaluate, missing
from reparamkit.mil.graph import MilProgram, Operation
from reparamkit.mil.operators import OPERATORS
from tests.mil.programs import array, mb, normal, read, types

WEIGHT = array(5, 3, 3, 3)


def _half() -> MilProgram:
    """A float16 convolution and a function, from and to float32."""

    def build(x: Any) -> Any:
        y = mb.conv(x=mb.cast(x=x, dtype="fp16"), weight=WEIGHT.astype(np.float16), name="layer")
        return mb.cast(x=mb.gelu(x=y), dtype="fp32", name="out")

    return read(build, {"x": normal(1, 3, 6, 6)})


def test_float16_is_computed_in_float32_and_rounded_after_each_operation() -> None:
    x = normal(1, 3, 6, 6)
    (found,) = evaluate(_half(), {"x": x}).values()
    weight = torch.from_numpy(WEIGHT).half()
    y = F.conv2d(x.half().float(), weight.float()).half()
    assert torch.equal(found, F.gelu(y.float()).half().float())


def test_float64_takes_the_weights_as_they_are_stored_and_rounds_nothing() -> None:
    x = normal(1, 3, 6, 6).double()
    (found,) = evaluate(_half(), {"x": x}, torch.float64).values()
    wanted = F.gelu(F.conv2d(x, torch.from_numpy(WEIGHT).half().double()))
    assert found.dtype is torch.float64
    assert float((found - wanted).abs().max()) < 1e-14 * float(wanted.abs().max())


def test_gradients() -> None:
    x = normal(1, 3, 6, 6).double().requires_grad_()
    (found,) = evaluate(_half(), {"x": x}, torch.float64).values()
    (gradient,) = torch.autograd.grad(found.square().sum(), x)
    own = x.detach().clone().requires_grad_()
    wanted = F.gelu(F.conv2d(own, torch.from_numpy(WEIGHT).half().double()))
    (expected,) = torch.autograd.grad(wanted.square().sum(), own)
    assert torch.allclose(gradient, expected, rtol=1e-12, atol=1e-12)


def test_an_observer_sees_every_operation_and_may_replace_its_outputs() -> None:
    x, seen = normal(1, 3, 6, 6), []

    def observe(operation: Operation, outputs: list[torch.Tensor]) -> list[torch.Tensor] | None:
        seen.append((operation.kind, operation.name, outputs[0].dtype))
        return [torch.zeros_like(outputs[0])] if operation.name == "layer" else None

    (found,) = evaluate(_half(), {"x": x}, observe=observe).values()
    assert [kind for kind, _, _ in seen] == ["cast", "conv", "gelu", "cast"]
    assert seen[1][1:] == ("layer", torch.float16)
    assert not found.any()


def test_values_are_dropped_after_their_last_use() -> None:
    def build(x: Any) -> Any:
        for _ in range(6):
            x = mb.mul(x=x, y=np.float32(1.5))
        return x

    program = read(build, {"x": normal(4, 4)})
    alive: list[weakref.ref[torch.Tensor]] = []
    most = []

    def observe(operation: Operation, outputs: list[torch.Tensor]) -> None:
        most.append(sum(each() is not None for each in alive))
        alive.append(weakref.ref(outputs[0]))

    evaluate(program, {"x": normal(4, 4)}, observe=observe)
    assert max(most) <= 1


def test_an_input_may_be_an_output_and_be_used_after() -> None:
    program = read(lambda x: [mb.relu(x=x, name="first"), mb.add(x=x, y=x, name="second")], {"x": normal(3)})
    x = torch.tensor([-1.0, 2.0, 3.0])
    found = evaluate(program, {"x": x})
    assert found["first"].tolist() == [0, 2, 3]
    assert found["second"].tolist() == [-2, 4, 6]
    assert list(found) == ["first", "second"]


def test_what_is_not_known_is_listed() -> None:
    def build(x: Any) -> Any:
        y = mb.random_normal(shape=mb.shape(x=x), mean=0.0, stddev=1.0, seed=1)
        return mb.cond(
            pred=mb.greater(x=mb.reduce_sum(x=x), y=np.float32(0)),
            _true_fn=lambda: mb.relu(x=y),
            _false_fn=lambda: mb.identity(x=y),
            name="branch",
        )

    program = read(build, {"x": normal(2, 3)})
    assert missing(program) == ["random_normal at 'random_normal_0'", "cond at 'branch'"]
    with pytest.raises(UnusableInput, match="cannot verify: random_normal at 'random_normal_0' is not known"):
        evaluate(program, {"x": normal(2, 3)})


def test_a_parameter_that_is_not_known_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that a newer operator set adds would otherwise be passed over in silence."""
    known = OPERATORS["conv"]
    fewer = type(known)(known.compute, known.parameters - {"dilations"})
    monkeypatch.setitem(OPERATORS, "conv", fewer)
    assert missing(_half()) == ["conv with dilations at 'layer'"]


def test_all_operators_for_vision_are_known() -> None:
    """Whatever coremltools defines is known, but for these."""
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    defined = set(SSAOpRegistry.core_ops)
    left_out = {
        *("const", "_const_symbolic", "cond", "while_loop", "custom_layer", "conv_quantized", "crop_resize"),
        *(
            "gru",
            "lstm",
            "rnn",
            "non_maximum_suppression",
            "read_state",
            "coreml_update_state",
            "write_state",
        ),
        *("make_list", "list_gather", "list_length", "list_read", "list_scatter", "list_write"),
        *("random_bernoulli", "random_categorical", "random_normal", "random_uniform"),
    }
    assert defined - set(OPERATORS) <= left_out
    assert set(OPERATORS) <= defined | {"constexpr_lut_to_sparse"}


def test_every_parameter_that_coremltools_defines_is_known() -> None:
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    for kind, versions in SSAOpRegistry.core_ops.items():
        if kind not in OPERATORS or kind == "classify":
            continue
        for version in versions.values():
            parameters = set(version.input_spec.input_types)
            assert parameters <= OPERATORS[kind].parameters, (kind, parameters)


def test_a_program_that_contradicts_itself_is_refused() -> None:
    x = normal(1, 3, 6, 6)
    program = read(lambda x: mb.add(x=mb.conv(x=x, weight=WEIGHT, name="layer"), y=np.float32(1)), {"x": x})
    assert isinstance(program.constants, dict)
    (strides,) = program.operations[0].inputs["strides"]
    program.constants[strides] = torch.tensor([2, 2], dtype=torch.int32)
    with pytest.raises(UnusableInput, match="conv at 'layer' makes 1x5x2x2, the program declares 1x5x4x4"):
        evaluate(program, {"x": x})
    program.constants[strides] = torch.tensor([0, 0], dtype=torch.int32)
    with pytest.raises(UnusableInput, match="conv at 'layer' cannot be computed: "):
        evaluate(program, {"x": x})
    with pytest.raises(UnusableInput, match="needs the input 'x'"):
        evaluate(program, {"y": x})


def test_types_of_the_program() -> None:
    assert types.fp32 is not None
    program = _half()
    assert program.opset == 7
    assert [port.dtype for operation in program.operations for port in operation.outputs] == [
        torch.float16,
        torch.float16,
        torch.float16,
        torch.float32,
    ]
    (name,) = program.operations[1].inputs["weight"]
    weight = program.constants[name]
    assert isinstance(weight, torch.Tensor)
    assert torch.equal(weight, torch.from_numpy(WEIGHT).half())
