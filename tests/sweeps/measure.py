"""One network: folded, counted beside the original and the library's own fold, and judged against float64.

    e0 = max |y32 − y64| / max |y64|     the original in float32
    e1 = max |z32 − y64| / max |y64|     the folded network in float32

both over `PROBES` zero-mean normal inputs (and one of another batch size, where that is free), the worst of
all outputs, y64 being the float64 run of a copy, made before anything is folded. ok means e1 ≤ 4·e0 +
floor. A network that has no float64 run is compared with its own float32 run, and e1 ≤ `WITHOUT_ORACLE` is
asked for. Where e0 is large, or there is no float64 run to speak of, the network folded in float64 must not
differ from its original by more than `DOUBLE` either (e64).

Where sizes are free, original and folded network are compared in the same way at sizes with ones in them,
and with sides that are equal or not (`_special`), wherever the original runs. A `ValueError` of the folded
network is a refusal and is counted; any other answer but the original's is a failure.
"""

from __future__ import annotations

import copy
import math
import re
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch.utils import _pytree as pytree

from reparamkit.capture.export import SECONDS_PER_ATTEMPT, capture
from reparamkit.compare.float64.oracle import Twin
from reparamkit.engine.findings import Refusal, short
from reparamkit.hosts.fx.fold import Outcome, fold_program
from reparamkit.hosts.fx.write import owner_path
from tests.fixtures.folded import FLOOR
from tests.sweeps.counting import conv_norm_pairs, cost, counts, exported_graph, kinds, norms
from tests.sweeps.networks import Network, noise_like

PROBES = 3
FACTOR = 4.0
WITHOUT_ORACLE = 1e-4
BLUNT = 1e-5
"""Above this e0 the network amplifies rounding: e1 says less, and a fold in float64 is asked for too."""
ROUNDING = 32
"""A network whose fold is asked for in float64 in any case, and right there, may have an e1 of so many e0."""
DOUBLE = 1e-6
"""The most that a fold in float64 may differ; what is right comes out some nine orders below a mistake."""

_UNPROVEN = re.compile(
    "float64 check failed|do not run in float64|does not run where the original|output shape|"
    "no size was found|overflows or vanishes"
)
_ARITHMETIC = frozenset(("batch_norm", "mul", "div", "add", "sub", "rsub", "neg", "addcmul"))
_TOLD_OF = ("conv", "linear", "batch_norm", "mul", "add")


@dataclass
class Row:
    """What is known of one network; `stage` is what was being done when it ended."""

    library: str
    family: str
    name: str
    made: str = ""
    commit: str = ""
    size: str = ""
    status: str = "exception"
    stage: str = "build"
    error: str = ""
    parameters: int = 0
    before: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)
    theirs: dict[str, int] = field(default_factory=dict)
    costs: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    oracle: str = ""
    e0: float = math.nan
    e1: float = math.nan
    e_theirs: float = math.nan
    e64: float = math.nan
    folds: list[str] = field(default_factory=list)
    worst_proof: float = 0.0
    captured_only: int = 0
    unproven: int = 0
    refusals: dict[str, int] = field(default_factory=dict)
    unexplained: list[str] = field(default_factory=list)
    kinds_before: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    """Kinds of operators that compute or copy, in the folded network."""
    kinds_theirs: dict[str, int] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    """Refusals that name what the folded network does not have."""
    pairs_left: list[str] = field(default_factory=list)
    norms_left: list[str] = field(default_factory=list)
    captured: str = ""
    special: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    peak_mb: int = 0


def measure(
    row: Row, build: Callable[[], Network], dynamic: Any = False, attempt: float = SECONDS_PER_ATTEMPT
) -> None:
    """Fill the row. What goes wrong is written into it, with the traceback's end.

    `attempt` bounds each attempt to capture with free sizes, in seconds.
    """
    try:
        _measure(row, build, dynamic, attempt)
    except Exception as error:
        row.status = "exception"
        text = "".join(traceback.format_exception(error))
        row.error = text[-4000:]


def _measure(row: Row, build: Callable[[], Network], dynamic: Any, attempt: float) -> None:
    network = build()
    model, args, row.size = network.module, network.args, network.size
    row.parameters = sum(p.numel() for p in model.parameters())
    row.stage = "run of the original"
    inputs = [noise_like(args, seed) for seed in range(1, PROBES + 1)]
    if dynamic:
        inputs.append(noise_like(pytree.tree_map(_one_more, args), PROBES + 1))
    before, exact, twin = _truth(row, model, inputs)
    state = _fingerprint(model)
    row.stage = "export"
    try:
        exported = exported_graph(model, args)
    except Exception as error:
        exported = None
        row.notes.append(f"torch.export alone does not take it: {last_line(str(error))[:120]}")
    row.stage = "capture"
    started = time.perf_counter()
    program = capture(model, args, dynamic=dynamic, seconds=attempt)
    names = {node.name for node in program.graph.nodes}
    names |= {owner_path(node) for node in program.graph.nodes}
    row.seconds["capture"] = time.perf_counter() - started
    exported = exported or program.exported
    row.before, row.costs["before"] = counts(exported), cost(exported)
    row.kinds_before = kinds(exported)
    del exported
    row.captured = program.sizes
    if dynamic and 0 not in program.axes.get(0, {}):
        row.notes.append("the batch size is not free")
        inputs, before, exact = inputs[:-1], before[:-1], exact[:-1]
    row.notes += program.notes
    row.stage = "fold"
    started = time.perf_counter()
    outcome = fold_program(program)
    row.seconds["fold"] = time.perf_counter() - started
    free = sorted(program.axes.get(0, {}))
    spatial = [axis for axis in free if axis > 1]
    del program
    _take_findings(row, outcome, names)
    row.gone = _gone(outcome, names)
    if _fingerprint(model) != state:
        row.alarms.append("the original was changed")
    row.stage = "export of the folded module"
    exported = exported_graph(outcome.module, args)
    row.after, row.costs["after"] = counts(exported), cost(exported)
    row.kinds = kinds(exported)
    row.pairs_left, row.norms_left = conv_norm_pairs(exported), norms(exported)
    del exported
    row.stage = "run of the folded module"
    row.e0, row.e1 = _worst(before, exact), _worst([_run(outcome.module, x) for x in inputs], exact)
    bar = FACTOR * row.e0 + FLOOR if row.oracle == "float64" else WITHOUT_ORACLE
    row.status = "ok" if row.e1 <= bar else "inequivalent"
    if spatial:
        row.stage = "run at another size"
        _compare_at_another_size(row, model, outcome.module, args, spatial, 2 * bar)
    row.stage = "run at sizes with ones"
    for name, other in _special(args, free):
        row.special[name] = _compare_special(row, model, twin, outcome.module, other)
    del outcome, twin
    row.stage = "the library's own fold"
    theirs = _their_fold(row, network)
    if theirs is not None:
        row.e_theirs = _worst([_run(theirs, x) for x in inputs], exact)
    if row.e0 > BLUNT or row.oracle != "float64" or network.in_float64:
        row.stage = "fold in float64"
        narrower = (dynamic if spatial else "batch") if free else False
        others = [other for _, other in _special(args, free)]
        _judge_in_float64(row, copy.deepcopy(model).double(), inputs[:PROBES], others, narrower)
    if (
        network.in_float64
        and row.status == "inequivalent"
        and row.e64 <= DOUBLE
        and row.e1 <= ROUNDING * row.e0
    ):
        row.status = "rounding"
        row.notes.append(f"e1 is {row.e1 / row.e0:.0f} times e0, and the fold in float64 is right")
    row.stage = "done"


def last_line(text: str) -> str:
    """Of a traceback: the exception."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _one_more(tensor: Tensor) -> Tensor:
    """A batch that is larger by one."""
    return torch.cat([tensor, tensor[:1]])


def _truth(
    row: Row, model: nn.Module, inputs: list[tuple[Any, ...]]
) -> tuple[list[list[Tensor]], list[list[Tensor]], Twin | None]:
    """What the original returns in its own precision and in float64, before anything else is done with it."""
    before = [_run(model, x) for x in inputs]
    twin: Twin | None = None
    try:
        twin = Twin(model, torch.float64)
        exact = [_flat(twin.run(x, {})) for x in inputs]
        row.oracle = "float64"
    except Exception as error:
        row.notes.append(f"no float64 run: {type(error).__name__}: {str(error)[:200]}")
        exact, row.oracle, twin = before, "float32", None
    if any(torch.equal(a, b) for a, b in zip(exact[0], exact[1], strict=True) if a.is_floating_point()):
        row.alarms.append("an output does not depend on the input")
    if not all(torch.isfinite(value).all() for output in exact for value in output):
        row.alarms.append("the original is not finite")
    return before, exact, twin


def _compare_at_another_size(
    row: Row, model: nn.Module, folded: nn.Module, args: tuple[Any, ...], axes: list[int], bar: float
) -> None:
    """The first size that the original takes: the folded network answers alike, or refuses it by name."""
    for steps in ((32, 64), (64, 32), (96, 96), (1, 2)):

        def larger(tensor: Tensor, steps: tuple[int, int] = steps) -> Tensor:
            shape = list(tensor.shape)
            for axis, step in zip(axes, steps, strict=False):
                shape[axis] += step
            return tensor.new_empty(shape)

        resized = pytree.tree_map_only(Tensor, larger, args[0])
        shape = list(pytree.tree_leaves(resized)[0].shape)
        other = (noise_like((resized,), 0)[0], *args[1:])
        try:
            expected = _run(model, other)
        except Exception:  # whatever a model raises for a size that it does not take
            continue
        try:
            off = _worst([_run(folded, other)], [expected])
        except ValueError as refusal:
            row.notes.append(f"{shape} is refused: {str(refusal)[:300]}")
            continue
        row.notes.append(f"at {shape}: {off:.1e}")
        if off > bar:
            row.status = "inequivalent"
        return


def _special(args: tuple[Any, ...], free: list[int]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Inputs with ones among their sizes, and with sides alike or not; of a list of maps only the batch."""
    tensors = pytree.tree_leaves(args)
    first = tensors[0]
    spatial = [axis for axis in free if axis > 1]
    wanted: dict[str, dict[int, int]] = {}
    if 0 in free:
        wanted["batch 1"] = {0: 1}
        wanted["batch as channels"] = {0: min(first.shape[1], 4)}
    if len(tensors) == 1:
        wanted |= {f"axis {axis} at 1": {axis: 1} for axis in free if axis > 0}
        if len(free) > 1:
            wanted["all at 1"] = dict.fromkeys(free, 1)
        if len(spatial) == 2:
            wanted["sides at 1"] = dict.fromkeys(spatial, 1)
            longer = max(first.shape[axis] for axis in spatial) + 32
            wanted["equal sides"] = dict.fromkeys(spatial, longer)
            wanted["wide, batch 1"] = dict.fromkeys(spatial, first.shape[-2]) | {spatial[1]: longer}
            wanted["tall, batch 1"] = dict.fromkeys(spatial, first.shape[-1]) | {spatial[0]: longer}
            if 0 in free:
                wanted["wide, batch 1"][0] = wanted["tall, batch 1"][0] = 1
    for name, sizes in wanted.items():

        def resized(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            return tensor.new_empty([sizes.get(axis, size) for axis, size in enumerate(tensor.shape)])

        yield name, noise_like(pytree.tree_map(resized, args), PROBES + 2)


def _compare_special(
    row: Row, model: nn.Module, twin: Twin | None, folded: nn.Module, args: tuple[Any, ...]
) -> str:
    """What became of it: "not taken" by the original, "refused: why", or the error as a number."""
    try:
        before = _run(model, args)
    except Exception:  # whatever a model raises for a size that it does not take
        return "not taken"
    exact, bar = before, WITHOUT_ORACLE
    if twin is not None:
        exact = _flat(twin.run(args, {}))
        bar = FACTOR * max(_worst([before], [exact]), row.e0) + FLOOR
    shape = list(pytree.tree_leaves(args)[0].shape)
    try:
        off = _worst([_run(folded, args)], [exact])
    except ValueError as refusal:
        return f"refused: {str(refusal)[:200]}"
    except Exception as error:
        row.alarms.append(f"at {shape} it raises {type(error).__name__}: {str(error)[:200]}")
        return "raised"
    if off > bar:
        row.status = "inequivalent"
        row.alarms.append(f"at {shape} it is off by {off:.1e}, where {bar:.1e} is allowed")
    return f"{off:.1e}"


def _take_findings(row: Row, outcome: Outcome, names: set[str]) -> None:
    """What the fold says of itself; `names` are those of the captured operators and of their modules."""
    row.folds = [str(fold) for fold in outcome.folds]
    row.worst_proof = max((f.error for f in outcome.folds), default=0.0)
    row.captured_only = sum(fold.captured_only for fold in outcome.folds)
    row.unproven = sum(bool(_UNPROVEN.search(r.reason)) for r in outcome.refusals)
    row.refusals = _grouped(outcome.refusals)
    untold = names - {refusal.node for refusal in outcome.refusals if refusal.reason}
    values: set[fx.Node] = set()
    for node in outcome.module.graph.nodes:
        if node.op == "placeholder" or values.intersection(node.all_input_nodes):
            values.add(node)
            if node.name in untold and _may_fold(node):
                row.unexplained.append(f"{node.name} ({node.target})")


def _may_fold(node: fx.Node) -> bool:
    """Whether a user might expect an operator on values to go: arithmetic, and norms by constants."""
    return isinstance(node.target, OpOverload) and short(str(node.target)) in _ARITHMETIC


def _judge_in_float64(
    row: Row,
    model: nn.Module,
    inputs: list[tuple[Any, ...]],
    others: list[tuple[Any, ...]],
    dynamic: Any,
) -> None:
    """The fold of a float64 copy: right and wrong are far apart there, even in a network that is chaotic."""
    inputs, others = ([pytree.tree_map(_doubled, x) for x in some] for some in (inputs, others))
    try:
        exact = [_run(model, x) for x in inputs]
        folded = fold_program(capture(model, inputs[0], dynamic=dynamic)).module
        row.e64 = _worst([_run(folded, x) for x in inputs], exact)
    except Exception as error:
        row.notes.append(f"no fold in float64: {type(error).__name__}: {str(error)[:200]}")
        return
    for other in others:
        try:
            expected, answer = _run(model, other), _run(folded, other)
        except Exception:  # what it does not take, or refuses, was counted in its own precision
            continue
        row.e64 = max(row.e64, _worst([answer], [expected]))
    if row.e64 > DOUBLE:
        row.status = "inequivalent"


def _doubled(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _their_fold(row: Row, network: Network) -> nn.Module | None:
    """The library's own fold, where the network has one, and where ours leaves more than that."""
    if network.own_fold is None:
        return None
    try:
        with torch.no_grad():
            started = time.perf_counter()
            theirs = network.own_fold()
            row.seconds["theirs"] = time.perf_counter() - started
        exported = exported_graph(theirs, network.args)
    except Exception as error:
        row.notes.append(f"{row.library}'s own fold: {type(error).__name__}: {str(error)[:200]}")
        return None
    row.theirs, row.costs["theirs"] = counts(exported), cost(exported)
    row.kinds_theirs = kinds(exported)
    return theirs


def _run(model: nn.Module, args: tuple[Any, ...]) -> list[Tensor]:
    with torch.no_grad():
        return _flat(model(*copy.deepcopy(args)))


def _flat(outputs: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


def _worst(found: list[list[Tensor]], exact: list[list[Tensor]]) -> float:
    """The largest difference of any output relative to its largest value over all probes.

    NaN and infinity are alike where both have them, and infinitely far off where one has.
    """
    worst = 0.0
    for place in range(max(len(exact[0]), len(found[0]))):
        largest = [_finite(e[place]).abs().max().item() for e in exact if e[place].numel()]
        scale = max(largest, default=0.0) or 1.0
        for f, e in zip(found, exact, strict=True):
            if len(f) != len(e) or f[place].shape != e[place].shape:
                return math.inf
            a, b = f[place].double(), e[place].double()
            apart = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs())
            off = apart.max().item() / scale if apart.numel() else 0.0
            worst = max(worst, math.inf if math.isnan(off) else off)
    return worst


def _finite(tensor: Tensor) -> Tensor:
    return torch.nan_to_num(tensor.double(), nan=0.0, posinf=0.0, neginf=0.0)


def _grouped(refusals: tuple[Refusal, ...]) -> dict[str, int]:
    """'operator: reason' -> how often, names and numbers struck out so that like reasons meet."""
    found: Counter[str] = Counter()
    for refusal in refusals:
        operator = short(refusal.operator)
        if operator.startswith(_TOLD_OF) or _UNPROVEN.search(refusal.reason):
            reason = re.sub(r"'[^']*'(, '[^']*')*", "…", refusal.reason)
            reason = re.sub(r"\d+(\.\d+)?(e[-+]?\d+)? times the cost", "N times the cost", reason)
            reason = re.sub(r"\[\d[\d, ]*\]", "[…]", reason)
            found[f"{operator}: {reason}"] += 1
    return dict(found.most_common())


def _gone(outcome: Outcome, known: set[str]) -> list[str]:
    """The refusals that name an operator, or a module, of which the folded network has nothing.

    `known` are the names of the captured operators and of their modules.
    """
    nodes = list(outcome.module.graph.nodes)
    paths = {owner_path(n) for n in nodes} | {str(n.target) for n in nodes if n.op == "call_module"}
    there = {node.name for node in nodes} | {
        path[:end] for path in paths for end in (len(path), *(m.start() for m in re.finditer(r"\.", path)))
    }
    layers = {str(n.target) for n in nodes if n.op == "call_module"}
    return [
        str(refusal)
        for refusal in outcome.refusals
        if not (refusal.node in there or refusal.where in layers)
        or not there.issuperset(known.intersection(re.findall(r"'([^' ]+)'", refusal.reason)))
    ]


def _fingerprint(model: nn.Module) -> dict[str, int]:
    """The bits of every parameter and buffer, in short."""
    return {name: hash(t.detach().cpu().contiguous().numpy().tobytes()) for name, t in _tensors(model)}


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()
