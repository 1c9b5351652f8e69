"""Find the largest parts of a network that can be captured, and fold each.

From the top: a module that the network calls is captured with the inputs that it is called with; if that
fails, or the part cannot be replaced safely, the modules inside it are tried. A replacement is unsafe with

- hooks in it, which a captured graph would not run;
- a value of its own that changes while it runs, or that the code around it sets;
- calls that differ in their constants, or in sizes that the capture could not leave free;
- a container (something with children by number) whose children are read from outside.

Anything else that is read off a part from outside finds what was there before: such a part keeps its layers
beside the folded ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx, nn

from reparamkit.capture.export import capture
from reparamkit.capture.program import Program
from reparamkit.engine.findings import Fold, Refusal
from reparamkit.errors import CannotCapture, UnusableInput
from reparamkit.hosts.fx.census import census
from reparamkit.hosts.fx.fold import fold_program
from reparamkit.hosts.fx.outline import Outline
from reparamkit.submodules.bytecode_names import WALKS, Mentions, mentions, own_names
from reparamkit.submodules.call_recorder import Call, Use, has_hooks, plain_attributes, record, watch
from reparamkit.submodules.replacement import holder_name
from reparamkit.support.copies import private_copy
from reparamkit.support.inputs import Args, Kwargs, tensor_leaves

_NUMBERED = ("__len__", "__iter__", "__getitem__")


@dataclass(frozen=True)
class Submodule:
    """One submodule of a network that was taken part by part.

    Attributes:
        where: its path.
        folded: whether its forward is a folded graph now.
        reason: why it is not; or, of a folded part, what of it was kept and why.
        sizes: which sizes of its inputs may vary, in words; "" if it was not captured.
    """

    where: str
    folded: bool
    reason: str
    sizes: str = ""

    def __str__(self) -> str:
        if self.folded:
            kept = f"; {self.reason}" if self.reason else ""
            return f"{self.where}: folded ({self.sizes}{kept})"
        return f"{self.where}: left as it is: {self.reason}"


@dataclass(frozen=True)
class Replaced:
    """A part with its folded graph (`reparamkit.submodules.replacement.Replacement`)."""

    path: str
    holder: str
    graph: fx.GraphModule
    call: Call
    keeps: bool


@dataclass
class Parts:
    """All that was found out, with the paths of the network.

    `taken` are the folded parts; `before` and `after` count the operators of all captured parts.
    """

    parts: list[Submodule] = field(default_factory=list)
    taken: list[Replaced] = field(default_factory=list)
    folds: list[Fold] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    undone: list[Refusal] = field(default_factory=list)
    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    outlines: tuple[Outline, Outline] = (Outline(), Outline())

    @property
    def sizes(self) -> str:
        """Which sizes may vary, in words."""
        kinds = {part.sizes for part in self.parts if part.sizes}
        return f"in parts, {kinds.pop()}" if len(kinds) == 1 else "in parts, of which each has its own sizes"

    def keep(self, refused: dict[str, str]) -> bool:
        """Let parts that refused a call keep their own layers to answer it; False if there are none."""
        self.parts = [
            replace(part, reason=f"its own layers stay too, for other calls: {refused[part.where]}")
            if part.where in refused
            else part
            for part in self.parts
        ]
        self.taken = [replace(one, keeps=one.keeps or one.path in refused) for one in self.taken]
        return bool(refused)


def fold_parts(
    model: nn.Module,
    args: Args,
    kwargs: Kwargs,
    why: CannotCapture,
    *,
    dynamic: Any = "auto",
    merge_siblings: bool = False,
    **options: Any,
) -> Parts:
    """Capture and fold the parts of a model in evaluation mode, of which nothing is changed.

    Args:
        why: the error of capturing it whole.
        dynamic, options: as for `capture`; the shapes of torch.export, which speak of the whole, are
            taken for "auto".
        merge_siblings: as for `fold_program`.

    Raises:
        CannotCapture: `why`, if no part can be captured either.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise why
    try:
        root = private_copy(model)
    except Exception as error:
        raise CannotCapture(f"{why}; nor can it be copied, to fold parts of it: {error}", why.reason) from why
    if not isinstance(dynamic, str | bool):
        dynamic = "auto"
    try:
        uses = watch(root, args, kwargs)
    except Exception as error:
        # A forward that minds the exact classes of its modules, say.
        raise CannotCapture(f"{why}; nor could its parts be watched: {error}", why.reason) from why
    root = private_copy(model)  # the watched one may have kept something of its run
    uses = dict(zip(root.modules(), uses.values(), strict=True))
    search = _Search(root, (args, kwargs), uses, {"dynamic": dynamic, **options}, merge_siblings)
    search.descend("", root)
    if not search.captured:
        raise why
    search.parts.notes += [
        f"the network cannot be captured as a whole: {why.reason}; its parts were folded in a copy of it",
        "operators were counted in the captured parts only, each part once",
        *search.warnings(),
    ]
    return search.parts


class _Unsafe(Exception):
    """The part cannot be replaced; the text says why."""


class _Search:
    def __init__(
        self,
        root: nn.Module,
        example: tuple[Args, Kwargs],
        uses: dict[nn.Module, Use],
        options: dict[str, Any],
        merge_siblings: bool,
    ) -> None:
        self.parts = Parts()
        self._merge_siblings = merge_siblings
        self.captured = 0
        self._root = root
        self._example = example
        self._uses = uses
        self._options = options
        self._seen: set[nn.Module] = set()

    def descend(self, path: str, module: nn.Module) -> None:
        """Try everything that `module` calls, one level down."""
        candidates = list(self._called(path, module))
        calls = record(self._root, *self._example, [part for _, part in candidates])
        for where, part in candidates:
            self._visit(where, part, calls.pop(part))

    def warnings(self) -> Iterator[str]:
        """What the copy cannot promise."""
        walked = mentions([self._root]).loaded & (WALKS | {"parameters", "named_parameters", "buffers"})
        if walked:
            yield (
                f"the network's own code goes through its modules or weights ({', '.join(sorted(walked))}), "
                "which are others in the folded copy; that its output does not depend on them was checked on "
                "the example and the probes only"
            )

    def _called(self, path: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        """The outermost modules inside that are called; those that are never called are named on the way."""
        for name, child in module.named_children():
            where = f"{path}.{name}" if path else name
            if child in self._seen:
                continue
            self._seen.add(child)
            if _has_nothing_to_fold(child):
                continue
            if isinstance(child, torch.jit.ScriptModule):
                self._leave(where, "it is TorchScript")
            elif self._uses[child].called:
                yield where, child
            elif any(self._uses[inner].called for inner in child.modules()):
                if not isinstance(child, nn.ModuleList | nn.ModuleDict):
                    self._leave(where, "it is not called itself; what is called in it was taken on its own")
                yield from self._called(where, child)
            else:
                self._leave(where, "the example does not reach it")

    def _leave(self, where: str, reason: str, sizes: str = "") -> None:
        self.parts.parts.append(Submodule(where, False, reason, sizes))

    def _visit(self, where: str, part: nn.Module, calls: list[Call]) -> None:
        try:
            keep = self._reached_into(part)
            self._check(part, calls)
            call, program = self._captured(part, calls)
        except _Unsafe as reason:
            self._leave(where, str(reason))
            self.descend(where, part)
            return
        self._fold(where, part, call, program, keep)

    def _fold(self, where: str, part: nn.Module, call: Call, program: Program, keep: str) -> None:
        before, sizes = census(program.graph), program.sizes
        outcome = fold_program(program, merge_siblings=self._merge_siblings, example=(call.args, call.kwargs))
        parts = self.parts
        parts.before.update(before)
        parts.after.update(census(outcome.module.graph, dict(outcome.module.named_modules())))
        parts.refusals += [replace(r, where=_joined(where, r.where)) for r in outcome.refusals]
        parts.undone += [replace(r, where=_joined(where, r.where)) for r in outcome.undone]
        parts.notes += [f"{where}: {note}" for note in program.notes]
        before_of_all, after_of_all = parts.outlines
        captured = outcome.outlines[0].within(where)
        folded = outcome.outlines[1].within(where, holder_name(part))
        parts.outlines = before_of_all + captured, after_of_all + folded
        if not outcome.folds:
            self._leave(where, "nothing in it folds", sizes)
            return
        holder = holder_name(part)
        parts.taken.append(Replaced(where, holder, outcome.module, call, bool(keep) or call.given))
        if not keep and call.given:
            keep = "it takes arguments that are not tensors"
        parts.parts.append(Submodule(where, True, f"its own layers stay too: {keep}" if keep else "", sizes))
        for one in outcome.folds:
            layers = {f"{where}.{holder}.{path}": what for path, what in one.layers.items()}
            nodes = tuple(f"{where}:{name}" for name in one.nodes)
            place = _joined(where, one.where)
            parts.folds.append(replace(one, where=place, layers=layers, nodes=nodes))

    def _check(self, part: nn.Module, calls: list[Call]) -> None:
        """Whether the part may be replaced at all."""
        if not calls:
            raise _Unsafe("it is called by other means than as a module")
        set_outside = self._around(part).stored
        for path, inner in part.named_modules():
            inside = f"{path!r} in it" if path else "it"
            if has_hooks(inner):
                raise _Unsafe(f"{inside} has hooks")
            written = self._uses[inner].writes
            if written:
                raise _Unsafe(f"{inside} keeps a value that changes while it runs ({min(written)})")
            stored = set_outside & (set(vars(inner)) | set(inner._parameters) | set(inner._buffers))
            if stored:
                raise _Unsafe(f"the code around it may set {min(stored)!r}, which {inside} has")
        if not all(call.alike(calls[0]) for call in calls):
            raise _Unsafe(
                "it is called with different arguments that are not tensors, or with differently nested ones"
            )

    def _reached_into(self, part: nn.Module) -> str:
        """What is read off the part from outside and needs its layers; "" for nothing.

        Raises `_Unsafe` where its layers cannot be kept in their places.
        """
        reads = self._uses[part].reads - plain_attributes(part)
        around = self._around(part)
        numbered = any(hasattr(type(part), name) for name in _NUMBERED)
        slots = {n for m in self._holders(part) for n, child in m._modules.items() if child is part}
        if numbered:
            reads |= slots & around.uncalled
        elif around.indirect or slots & around.uncalled or any(map(str.isdigit, slots)):
            reads |= around.loaded & own_names(part)
        if not reads:
            return ""
        named = ", ".join(repr(name) for name in sorted(reads)[:3])
        if numbered or reads & WALKS:
            raise _Unsafe(f"its layers are used one by one from outside ({named})")
        return f"the code around it uses {named}"

    def _captured(self, part: nn.Module, calls: list[Call]) -> tuple[Call, Program]:
        """The part as a program that answers all of its calls."""
        refused = ""
        for call in sorted(calls, key=lambda c: -sum(shape.numel() for shape in c.shapes))[:2]:
            try:
                program = capture(part, call.args, call.kwargs, **self._options)
            except UnusableInput as error:
                raise _Unsafe(getattr(error, "reason", str(error))) from error
            self.captured += 1
            if program.mutated:
                raise _Unsafe(f"it writes into its buffers while it runs ({min(program.mutated)})")
            refused = next((text for other in calls if (text := _refuses(program, other))), "")
            if not refused:
                return call, program
        shapes = " and ".join(str([list(s) for s in call.shapes]) for call in calls[:2])
        raise _Unsafe(f"it is called with several sizes ({shapes}), which one graph does not take: {refused}")

    def _holders(self, part: nn.Module) -> list[nn.Module]:
        """Every module that holds the part, directly or not."""
        return [m for m in self._root.modules() if m is not part and part in set(m.modules())]

    def _around(self, part: nn.Module) -> Mentions:
        return mentions(self._holders(part))


def _refuses(program: Program, call: Call) -> str:
    if program.guards is None:
        return ""
    try:
        program.guards(*(tensor for _, tensor in tensor_leaves(call.args, call.kwargs)))
    except ValueError as error:
        return str(error)
    return ""


def _has_nothing_to_fold(module: nn.Module) -> bool:
    """A single operator, or something without weights: capturing it alone would be in vain."""
    if not any(True for _ in module.parameters()) and not any(True for _ in module.buffers()):
        return True
    return not module._modules and type(module).__module__.startswith("torch.nn.")


def _joined(where: str, inside: str) -> str:
    return f"{where}.{inside}" if inside else where
