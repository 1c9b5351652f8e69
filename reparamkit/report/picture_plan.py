"""What a picture of a network shows: boxes of operators, the arrows between them, and frames around boxes.

Operators in a row become one box, sums of branches one box, blocks that repeat are there once; frames are
the repeated blocks, the large modules, and before a fold the regions that become one layer. A network with
more boxes than can be read is drawn coarser: each region as one box, then each module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from reparamkit.report.findings import Calling
from reparamkit.report.repeats import Repeat, repeats
from reparamkit.report.words import channels_words, operator_words

MOST_BOXES = 400
_LINES = 6
_SUMS = ("add", "sub", "add_", "sub_")
_NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")
_LAYERS = ("conv", "linear", "matmul", "bmm", "mm", "addmm", "einsum", "scaled_dot_product_attention")


@dataclass
class Box:
    """Operators that are drawn as one.

    Attributes:
        name: its own in the picture.
        calls: the operators.
        lines: what is written in it.
        kind: `io`, `layer`, `norm`, `sum` or `other`; `folded` for a layer that a fold has put in.
        regions: the folds that it is part of, those of repeated blocks included.
        kept: whether one of its operators stays for a reason that the report gives.
        frame: the innermost frame that it stands in.
    """

    name: str
    calls: list[Calling]
    lines: list[str]
    kind: str
    regions: tuple[int, ...]
    kept: bool
    frame: tuple[str, ...] = ()


@dataclass(frozen=True)
class Frame:
    """What is drawn around boxes: a path of names, outermost first, its title and its folds, if it is one."""

    path: tuple[str, ...]
    title: str
    kind: str
    regions: tuple[int, ...] = ()


@dataclass
class Plan:
    """A whole picture."""

    boxes: list[Box] = field(default_factory=list)
    arrows: list[tuple[str, str]] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    modules: tuple[str, ...] = ()
    """The modules that have a frame."""


def plan(
    calls: Sequence[Calling],
    regions: Mapping[str, int],
    kept: Iterable[str],
    *,
    folded: bool,
    modules: Sequence[str] | None = None,
    most: int = MOST_BOXES,
) -> Plan:
    """The picture of a network.

    Args:
        regions: operator -> the fold that it is part of.
        kept: the operators that stay for a reason that is given.
        folded: whether this is the network after folding, in which a fold is a layer.
        modules: the modules to draw a frame around; those with many operators if it is left out.
        most: so many boxes at most, if the network can be drawn with fewer by drawing it coarser.
    """
    drawing = _Drawing(calls, regions, frozenset(kept), folded=folded)
    drawing.modules = drawing.large_modules() if modules is None else tuple(modules)
    depths = max((call.module.count(".") + 1 for call in calls if call.module), default=0)
    coarser: list[Callable[[Calling], object | None]] = [drawing.alone, drawing.by_region]
    coarser += [drawing.by_module(depth) for depth in range(depths - 1, 0, -1)]
    for key in coarser:
        plan = drawing.plan(key)
        if len(plan.boxes) <= most:
            break
    return plan


class _Drawing:
    def __init__(
        self, calls: Sequence[Calling], regions: Mapping[str, int], kept: frozenset[str], *, folded: bool
    ) -> None:
        self._regions, self._kept, self._folded = regions, kept, folded
        self.modules: tuple[str, ...] = ()
        repeated = repeats(calls, regions)
        self._blocks = repeated.blocks
        self._calls = [call for call in calls if repeated.stands_for[call.name] == call.name]
        self._place = {call.name: place for place, call in enumerate(self._calls)}
        self._all_regions: dict[str, set[int]] = {}
        for call in calls:
            if call.name in regions:
                self._all_regions.setdefault(repeated.stands_for[call.name], set()).add(regions[call.name])
        self._blocks_of: dict[str, list[Repeat]] = {}
        for block in self._blocks:
            for name in block.calls:
                self._blocks_of.setdefault(name, []).append(block)
        for blocks in self._blocks_of.values():
            blocks.sort(key=lambda block: -len(block.calls))
        self._readers: Counter[str] = Counter()
        self._read: dict[str, list[str]] = {}
        self._inside: dict[int, list[Calling]] = {}
        for call in self._calls:
            if call.name in regions:
                self._inside.setdefault(regions[call.name], []).append(call)
        for call in self._calls:
            read = dict.fromkeys(
                repeated.stands_for[name] for name in call.reads if name in repeated.stands_for
            )
            self._read[call.name] = [n for n in read if self._place[n] < self._place[call.name]]
            self._readers.update(self._read[call.name])

    @staticmethod
    def alone(call: Calling) -> None:
        """Every operator by itself, but for those in a row."""

    def by_region(self, call: Calling) -> object | None:
        """Each fold as one box."""
        region = self._regions.get(call.name)
        return None if region is None or self._folded else ("region", region)

    def by_module(self, depth: int) -> Callable[[Calling], object | None]:
        """Each module so deep as one box."""

        def key(call: Calling) -> object | None:
            path = call.module.split(".")
            return ("module", *path[:depth]) if len(path) >= depth and call.module else self.by_region(call)

        return key

    def plan(self, key: Callable[[Calling], object | None]) -> Plan:
        framed = {call.name: self._frame(call, key) for call in self._calls}
        groups: dict[object, list[Calling]] = {}
        group_of: dict[str, object] = {}
        for call in self._calls:
            own = key(call)
            group = own if own is not None else self._row(call, group_of, groups, framed, key)
            groups.setdefault(group, []).append(call)
            group_of[call.name] = group
        names = {group: f"n{number}" for number, group in enumerate(groups)}
        boxes = [self._box(names[group], inside, own=key) for group, inside in groups.items()]
        for box, inside in zip(boxes, groups.values(), strict=True):
            box.frame = framed[inside[0].name]
        arrows = dict.fromkeys(
            (names[group_of[name]], names[group_of[call.name]])
            for call in self._calls
            for name in self._read[call.name]
            if group_of[name] != group_of[call.name]
        )
        return Plan(boxes, list(arrows), self._frames(boxes), self.modules)

    def _row(
        self,
        call: Calling,
        group_of: Mapping[str, object],
        groups: Mapping[object, list[Calling]],
        framed: Mapping[str, tuple[str, ...]],
        key: Callable[[Calling], object | None],
    ) -> object:
        """The box of the operator before it, if nothing else reads that; a box of its own otherwise."""
        same_sum = [
            name
            for name in self._read[call.name]
            if self._readers[name] == 1
            and self._is_sum(call)
            and all(self._is_sum(c) for c in groups[group_of[name]])
            and self._together(name, call, framed, key)
        ]
        if same_sum:
            return group_of[same_sum[0]]
        if len(self._read[call.name]) == 1:
            (name,) = self._read[call.name]
            inside = groups[group_of[name]]
            if (
                self._readers[name] == 1
                and len(inside) < _LINES
                and "io" not in (_kind(call), _kind(inside[-1]))
                and inside[-1].name == name
                and not self._is_layer_of_fold(inside[-1])
                and not self._is_layer_of_fold(call)
                and self._together(name, call, framed, key)
            ):
                return group_of[name]
        return (call.name,)

    def _together(
        self,
        name: str,
        call: Calling,
        framed: Mapping[str, tuple[str, ...]],
        key: Callable[[Calling], object | None],
    ) -> bool:
        other = self._calls[self._place[name]]
        return (
            self._regions.get(name) == self._regions.get(call.name)
            and framed[name] == framed[call.name]
            and key(other) is None
        )

    def _is_layer_of_fold(self, call: Calling) -> bool:
        return self._folded and call.name in self._regions

    def _is_sum(self, call: Calling) -> bool:
        return call.operator in _SUMS and len(self._read[call.name]) > 1

    def _box(self, name: str, calls: list[Calling], own: Callable[[Calling], object | None]) -> Box:
        regions = sorted({r for call in calls for r in self._all_regions.get(call.name, ())})
        kinds = [_kind(call) for call in calls]
        kind = next((k for k in ("layer", "norm", "sum", "io") if k in kinds), "other")
        group = own(calls[0])
        if group is not None and len(calls) > 1:
            title = ".".join(str(part) for part in group[1:]) if _is_module(group) else ""  # type: ignore[index]
            lines = [*([title] if title else []), *_counted(calls)]
        elif kind == "sum" and len(calls) > 1:
            inside = {call.name for call in calls}
            terms = [name for call in calls for name in self._read[call.name] if name not in inside]
            lines = [f"sum of {len(terms)}"]
        else:
            lines = [line for call in calls for line in _lines(call)]
        if any(self._is_layer_of_fold(call) for call in calls):
            kind = "folded"
        kept = any(call.name in self._kept for call in calls)
        return Box(name, calls, lines, kind, tuple(regions), kept)

    def _frame(self, call: Calling, key: Callable[[Calling], object | None]) -> tuple[str, ...]:
        """The frames around an operator, outermost first: blocks, then the fold that it is part of."""
        if _is_module(key(call)):
            return ()
        region = self._regions.get(call.name)
        if region is None or self._folded or key(call) is not None or len(self._inside[region]) == 1:
            return tuple(self._outer_frames(call))
        return (*self._common_frame(region), f"region {region}")

    def _outer_frames(self, call: Calling) -> list[str]:
        blocks = [_block_name(block) for block in self._blocks_of.get(call.name, ())]
        module = self._large_module(call)
        return [
            *([f"module {module}"] if module and module not in self._paths_within(blocks) else []),
            *blocks,
        ]

    def _paths_within(self, blocks: Sequence[str]) -> set[str]:
        return {path for block in blocks for path in block.removeprefix("block ").split(" ")[0].split(",")}

    def large_modules(self) -> tuple[str, ...]:
        """The outermost modules of several operators in a row that are less than most of the network."""
        places: dict[str, list[int]] = {}
        for place, call in enumerate(self._calls):
            names = call.module.split(".") if call.module else []
            for depth in range(1, len(names) + 1):
                places.setdefault(".".join(names[:depth]), []).append(place)
        large = {
            path: None
            for path, inside in places.items()
            if 2 <= len(inside) <= 0.7 * len(self._calls) and inside[-1] - inside[0] < len(inside)
        }
        return tuple(path for path in large if not any(outer in large for outer in _above(path)))

    def _large_module(self, call: Calling) -> str | None:
        return next((m for m in self.modules if f"{call.module}.".startswith(f"{m}.")), None)

    def _common_frame(self, region: int) -> tuple[str, ...]:
        """The frames around all of a fold."""
        common = []
        for names in zip(*map(self._outer_frames, self._inside[region]), strict=False):
            if len(set(names)) > 1:
                break
            common.append(names[0])
        return tuple(common)

    def _frames(self, boxes: Sequence[Box]) -> list[Frame]:
        frames: dict[tuple[str, ...], Frame] = {}
        blocks = {_block_name(block): block for block in self._blocks}
        for box in boxes:
            for depth in range(1, len(box.frame) + 1):
                path = box.frame[:depth]
                kind, _, name = path[-1].partition(" ")
                title = name
                regions: tuple[int, ...] = ()
                if kind == "block":
                    title = _block_title(blocks[path[-1]])
                elif kind == "region":
                    title = ""
                    regions = box.regions
                frames.setdefault(path, Frame(path, title, kind, regions))
        return list(frames.values())


def _above(path: str) -> list[str]:
    """The paths of the modules that hold the one at a path."""
    names = path.split(".")
    return [".".join(names[:depth]) for depth in range(1, len(names))]


def _is_module(group: object) -> bool:
    return isinstance(group, tuple) and group[0] == "module"


def _block_name(block: Repeat) -> str:
    return f"block {','.join(block.modules)} {block.count}"


def _block_title(block: Repeat) -> str:
    first, last = ", ".join(block.modules), ", ".join(block.last)
    if len(block.modules) > 1:
        first, last = f"[{first}]", f"[{last}]"
    return f"{block.count} ×  {first} … {last}"


def _kind(call: Calling) -> str:
    if call.operator in ("input", "output"):
        return "io"
    if call.operator.startswith(_LAYERS):
        return "layer"
    if any(name in call.operator for name in _NORMS):
        return "norm"
    return "sum" if call.operator in _SUMS and len(call.reads) > 1 else "other"


def _lines(call: Calling) -> list[str]:
    if call.operator in ("input", "output"):
        sizes = "×".join(map(str, call.shape))
        return [f"{call.name if call.operator == 'input' else 'output'} {sizes}".strip()]
    channels = channels_words(call)
    return [f"{operator_words(call)}{f', {channels}' if channels else ''}"]


def _counted(calls: Sequence[Calling]) -> list[str]:
    return [f"{count} {name}" for name, count in Counter(call.operator for call in calls).most_common(_LINES)]
