"""The sizes that a captured network was captured for, checked where it is called.

torch.export settles branches and shapes by assumptions on the sizes of the inputs, which its own modules
check when they run. What is made from the graph has to check them too: otherwise a size that the capture
ruled out gets an answer, and a wrong one.
"""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.jit import TracerWarning, is_tracing  # type: ignore[attr-defined]
from torch.utils import _pytree as pytree

from reparamkit.capture.general_sizes import bounded_below
from reparamkit.capture.size_conditions import Place, Unread, compiled, numbers_in, rewritten, spelt
from reparamkit.capture.special_sizes import formula, inner_sizes

_LARGEST = 512
_UNDEFINED = (ArithmeticError, TypeError, ValueError)
"""An assumption that cannot be computed at some sizes, such as a division by a length of 0, does not hold."""


class SizeGuards(nn.Module):
    """Takes the network's input tensors and raises `ValueError` if their sizes break an assumption.

    `places` are the sizes that the assumptions speak of, called n0, n1, …; `assumptions` are expressions in
    these names. `synthetic` are those among them that the capture makes without writing them down: that no
    size, of an input or inside the network, is 0 or 1. `permanent` are those that the graph was rewritten
    by, and `asked` what the network itself asked for: no trial shows that one of these is idle.
    """

    _is_impure = True  # so that fx keeps the call, whose result nobody reads

    def __init__(
        self,
        places: Sequence[Place],
        names: Sequence[str],
        assumptions: Sequence[str],
        synthetic: frozenset[str] = frozenset(),
        permanent: frozenset[str] = frozenset(),
        asked: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__()
        self.places, self.names, self.assumptions = tuple(places), tuple(names), tuple(assumptions)
        self.synthetic, self.permanent, self.asked = synthetic, permanent, asked
        self._check = compiled(self.assumptions, len(self.places))

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_check"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._check = compiled(self.assumptions, len(self.places))

    def forward(self, *inputs: Tensor) -> None:
        """Any shapes; nothing is computed."""
        sizes = [inputs[index].shape[axis] for index, axis in self.places]
        if is_tracing():  # type: ignore[no-untyped-call]  # they are tensors there
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", TracerWarning)
                sizes = [int(size) for size in sizes]
        for i, holds in enumerate(self._answers(sizes)):
            if not holds:
                raise ValueError(self._complaint(i, sizes))

    def broken(self, sizes: Sequence[int]) -> list[str]:
        """The assumptions that do not hold for these sizes of `places`."""
        return [t for t, holds in zip(self.assumptions, self._answers(sizes), strict=True) if not holds]

    def accepts(self, sizes: Sequence[int]) -> bool:
        """Whether all assumptions hold for these sizes of `places`."""
        return all(self._answers(sizes))

    def _answers(self, sizes: Sequence[int]) -> tuple[Any, ...]:
        try:
            return self._check(*sizes)
        except _UNDEFINED:
            return tuple(self.holds([text], sizes) for text in self.assumptions)

    def holds(self, texts: Sequence[str], sizes: Sequence[int]) -> bool:
        """Whether these assumptions, some of its own, hold for the sizes of `places`."""
        try:
            return all(compiled(tuple(texts), len(sizes))(*sizes))
        except _UNDEFINED:
            return False

    def without(self, texts: Collection[str]) -> SizeGuards:
        """The same without some of its assumptions."""
        return self._with([t for t in self.assumptions if t not in texts])

    def holding(self, place: Place, size: int) -> SizeGuards:
        """The same with one size held."""
        text = f"n{self.places.index(place)} == {size}"
        return self._with([*self.assumptions, text])

    def all_permanent(self) -> SizeGuards:
        """The same with no assumption that could be shown to be idle."""
        guards = self._with(self.assumptions)
        guards.permanent = frozenset(self.assumptions)
        return guards

    def _with(self, assumptions: Sequence[str]) -> SizeGuards:
        synthetic, asked = self.synthetic.intersection(assumptions), self.asked.intersection(assumptions)
        return SizeGuards(self.places, self.names, assumptions, synthetic, self.permanent, asked)

    def spoken(self, text: str) -> str:
        """One of its assumptions in terms of the inputs."""
        plain = re.sub(r"\bsym_(max|min|float|int)\b", r"\1", text)
        return re.sub(r"\bn(\d+)\b", lambda name: self.names[int(name[1])], plain)

    def _complaint(self, broken: int, sizes: Sequence[int]) -> str:
        text = self.spoken(self.assumptions[broken])
        given = ", ".join(
            f"{self.names[number]} {sizes[number]}" for number in numbers_in(self.assumptions[broken])
        )
        return (
            f"the network was captured for other sizes: it assumes {text}, and was given {given}; "
            "fold it again with such an input as the example"
        )


def guards_of(module: object) -> SizeGuards | None:
    """Those of a folded network; None for any other module, and where it takes all sizes."""
    children = module.children() if isinstance(module, nn.Module) else ()
    return next((child for child in children if isinstance(child, SizeGuards)), None)


def size_guards(
    exported: ExportedProgram,
    inputs: Sequence[fx.Node],
    *,
    not_one: Sequence[Any] = (),
    nonnegative: Sequence[Any] = (),
    asked: Sequence[Any] = (),
    retraced: Sequence[Any] = (),
    watched: bool = False,
) -> SizeGuards:
    """The assumptions of an exported program on the sizes of its tensors, `inputs` in call order.

    What speaks of sizes in a way that is not understood holds them to those of the example.

    Args:
        not_one: formulas of sizes that must not be one, whatever is shown.
        nonnegative: formulas that must not be negative, whatever is shown.
        asked: what the network found to be true of sizes.
        retraced: what was found to be true when the program was traced once more, which nobody can watch
            beside the network; never dropped.
        watched: also assume that no size, of an input or inside the network, is 0 or 1 (`synthetic`).
    """
    tensors = [n for n in inputs if isinstance(n.meta.get("val"), Tensor)]
    assumptions = _Assumptions(tensors)
    limits: dict[str, Any] = {str(k): v for k, v in exported.range_constraints.items()}
    for place, size, _ in _sizes(tensors):
        if isinstance(size, int):
            assumptions.add(f"{assumptions.size(place)} == {size}")
            continue
        bound = limits.get(str(size))
        if bound is not None and bound.lower > 2:  # 2 only says that it was not a constant
            assumptions.add(f"{assumptions.size(place)} >= {int(bound.lower)}")
        if bound is not None and bound.upper.is_Integer:
            assumptions.add(f"{assumptions.size(place)} <= {int(bound.upper)}")
    tree = _argument_tree(exported, inputs)
    for guard in getattr(exported, "_guards_code", ()):
        try:
            text = rewritten(guard, tree, assumptions.size)
        except Unread as unread:
            assumptions.hold(unread.places)
        else:
            assumptions.add(text)
    symbols: dict[Any, str] = {}
    for place, size, _ in _sizes(tensors):
        if not isinstance(size, int) and size.is_symbol and size not in symbols:
            symbols[size] = assumptions.size(place)
    questions = frozenset(text for condition in asked if (text := assumptions.condition(condition, symbols)))
    permanent = assumptions.never(1, [formula(size, symbols) for size in not_one])
    for margin in nonnegative:
        size, least = bounded_below(margin)
        permanent |= assumptions.at_least(least, formula(size, symbols))
    permanent |= {text for condition in retraced if (text := assumptions.condition(condition, symbols))}
    recorded = len(assumptions.texts)
    inner = inner_sizes(exported.graph, symbols) if watched else []
    assumptions.never(0, [*symbols.values(), *inner])
    assumptions.never(1, [*symbols.values(), *inner] if watched else [])
    synthetic = frozenset(assumptions.texts[recorded:])
    return SizeGuards(
        assumptions.places, assumptions.names, assumptions.texts, synthetic, frozenset(permanent), questions
    )


def held_sizes(guards: SizeGuards, inputs: Sequence[fx.Node]) -> dict[str, str]:
    """Symbol -> the assumption that leaves it one value only, if all others stay as in the example.

    A size inside the network that is 0 or 1 in the example breaks what is assumed of such sizes; that is for
    the network to show (`reparamkit.capture.shown`) and settles nothing here.
    """
    sizes = list(_sizes([n for n in inputs if isinstance(n.meta.get("val"), Tensor)]))
    if not all(hint for _, size, hint in sizes if not isinstance(size, int)):
        return {}  # nobody knows what the example was
    by_place = {place: (size, hint) for place, size, hint in sizes}
    example = {size: hint for _, size, hint in sizes if not isinstance(size, int) and size.is_symbol}
    read = [by_place[place] for place in guards.places]

    def with_other(symbol: Any, value: int) -> list[int]:
        now = {**example, symbol: value}
        sizes = []
        for size, hint in read:
            if size in now:
                sizes.append(now[size])
            elif isinstance(size, int) or not size.free_symbols <= now.keys():
                sizes.append(hint)
            else:
                sizes.append(int(size.subs(now)))
        return sizes

    in_example = guards.broken([hint for _, hint in read])
    guards = guards.without((guards.synthetic - guards.permanent).intersection(in_example))
    held = {}
    for symbol, value in example.items():
        if not any(symbol in size.free_symbols for size, _ in read if not isinstance(size, int)):
            continue
        if any(guards.accepts(with_other(symbol, n)) for n in _others(value)):
            continue
        broken = (t for t in guards.assumptions if not guards.holds([t], with_other(symbol, value + 1)))
        held[str(symbol)] = guards.spoken(next(broken, " and ".join(guards.assumptions)))
    return held


def _others(value: int) -> list[int]:
    """Sizes that an axis might have as well, the nearest first."""
    within = range(1, max(_LARGEST, 2 * value + 1))
    return sorted((n for n in within if n != value), key=lambda n: abs(n - value))


def _sizes(tensors: Sequence[fx.Node]) -> Iterator[tuple[Place, Any, int]]:
    """Every size of the inputs, a number or an expression, and what it is in the example (0: unknown)."""
    for index, node in enumerate(tensors):
        for axis, size in enumerate(node.meta["val"].shape):
            expression = size.node.expr if isinstance(size, torch.SymInt) else size
            if isinstance(expression, int) or expression.is_number:
                yield (index, axis), int(expression), int(expression)
            else:
                yield (index, axis), expression, int(size.node.hint or 0)


class _Assumptions:
    def __init__(self, tensors: Sequence[fx.Node]) -> None:
        self.places: list[Place] = []
        self.names: list[str] = []
        self.texts: list[str] = []
        self._tensors = tensors

    def size(self, place: Place) -> str:
        """The name of a size in the expressions."""
        if place not in self.places:
            self.places.append(place)
            self.names.append(f"{self._tensors[place[0]].name}.shape[{place[1]}]")
        return f"n{self.places.index(place)}"

    def add(self, text: str | None) -> None:
        """Assume an expression, once."""
        if text is not None and text not in self.texts:
            self.texts.append(text)

    def spelt(self, text: str | None) -> str | None:
        """A formula as part of a condition; None for one that cannot be evaluated."""
        known = None if text is None else spelt(text)
        return known if known is None or known.isidentifier() else f"({known})"

    def never(self, value: int, formulas: Sequence[str | None]) -> set[str]:
        """Assume that no formula has this value; one that cannot be evaluated holds all sizes.

        Returns what is assumed, whether or not it was assumed before.
        """
        assumed = set()
        for text in dict.fromkeys(formulas):
            known = self.spelt(text)
            if known is None:
                self.hold(None)
            else:
                assumed.add(f"{known} != {value}")
                self.add(f"{known} != {value}")
        return assumed

    def at_least(self, value: int, text: str | None) -> set[str]:
        """Assume that a formula is not smaller, and return that; what cannot be evaluated holds all sizes."""
        known = self.spelt(text)
        if known is None:
            self.hold(None)
            return set()
        self.add(f"{known} >= {value}")
        return {f"{known} >= {value}"}

    def condition(self, condition: Any, symbols: dict[Any, str]) -> str | None:
        """Assume what a network found to be true; None for what says nothing of the inputs' sizes."""
        if not condition.free_symbols or not condition.free_symbols <= symbols.keys():
            return None
        text = formula(condition, symbols)
        known = None if text is None else spelt(text)
        if known is None:
            self.hold(None)
        else:
            self.add(known)
        return known

    def hold(self, places: Sequence[Place] | None) -> None:
        """Assume that these sizes (None: all) are those of the example."""
        for place, _, hint in _sizes(self._tensors):
            if places is None or place in places:
                self.add(f"{self.size(place)} == {hint}")


def _argument_tree(exported: ExportedProgram, inputs: Sequence[fx.Node]) -> dict[str, Any]:
    """Argument name -> its structure, with flat tensor indices for tensors."""
    spec = exported.call_spec.in_spec
    if spec is None or spec.num_leaves != len(inputs):
        return {}
    count = itertools.count()
    leaves = [next(count) if isinstance(n.meta.get("val"), Tensor) else None for n in inputs]
    args, kwargs = pytree.tree_unflatten(leaves, spec)
    signature = exported.module_call_graph[0].signature
    names = list(signature.forward_arg_names or []) if signature is not None else []
    tree: dict[str, Any] = dict(zip(names, [*args, *kwargs.values()], strict=False))
    for name in names:  # the third of `*args` is called args_2 there, and args[2] in conditions
        packed, _, place = name.rpartition("_")
        if packed and place.isdigit() and packed not in names:
            tree.setdefault(packed, {})[int(place)] = tree[name]
    return tree


def user_inputs(exported: ExportedProgram) -> list[fx.Node]:
    """What the program takes from its caller, in call order."""
    user = set(exported.graph_signature.user_inputs)
    return [n for n in exported.graph.nodes if n.op == "placeholder" and n.name in user]


def own_conditions(exported: ExportedProgram) -> dict[str, str | None]:
    """Each of the program's own conditions -> as it stands among the assumptions of `size_guards`."""
    inputs = user_inputs(exported)
    guards, tree = size_guards(exported, inputs), _argument_tree(exported, inputs)
    conditions: dict[str, str | None] = {}
    for guard in getattr(exported, "_guards_code", ()):
        try:
            conditions[guard] = rewritten(guard, tree, lambda place: f"n{guards.places.index(place)}")
        except (Unread, ValueError):
            conditions[guard] = None
    return conditions


def tensor_sources(exported: ExportedProgram) -> dict[int, str]:
    """Flat tensor index -> what the program's own conditions call a tensor of the inputs: L['x'][0]."""
    inputs = user_inputs(exported)
    sources: dict[int, str] = {}
    pending: list[tuple[str, Any]] = [
        (f"L[{name!r}]", value) for name, value in _argument_tree(exported, inputs).items()
    ]
    while pending:
        source, value = pending.pop()
        if isinstance(value, int):
            sources.setdefault(value, source)
        elif isinstance(value, dict):
            pending += [(f"{source}[{key!r}]", item) for key, item in value.items()]
        elif isinstance(value, (list, tuple)):
            pending += [(f"{source}[{place}]", item) for place, item in enumerate(value)]
    return sources
