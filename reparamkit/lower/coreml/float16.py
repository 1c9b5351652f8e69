"""What float16 costs a network, and which of its operators stay in float32 for that.

Operators are known by their origin, the path of the module that they come from
(`reparamkit.lower.coreml.names`). What each puts into the outputs' error is measured on the package itself
(`reparamkit.mil.losses`).

The automatic choice is: whatever reads or makes numbers beyond float16's range; and of the others those that
lose most, the largest first, until half of the squared error is gone or one in twenty has been taken. Where
it is the result that must not be rounded, what reads it stays in float32 as well, or it would be rounded on
the way there. If the package does not pass then, twice as many stay.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.export import ExportedProgram

from reparamkit.compare.float64.run import Run
from reparamkit.compare.inputs.probes import GIVEN, NORMAL
from reparamkit.errors import UnusableInput
from reparamkit.lower.coreml.convert import Keep
from reparamkit.lower.coreml.names import ORIGIN, operator_origins
from reparamkit.lower.coreml.options import CoreMlOptions
from reparamkit.mil.graph import MilProgram, Operation
from reparamkit.mil.losses import MOVES, losses
from reparamkit.runners.coreml import CoreMlRunner

_SUFFIX = "_cast_fp16"  # coremltools' own, for an operator that it turned to float16
_INVERSE = "_inversed_"  # and for a product that it made of a division
_INPUT = "the input "
_NAMED = 3
_MEASURED = 2
_ENOUGH = 0.5
_ONE_IN = 20
_ROUNDS = 8


@dataclass(frozen=True)
class Lost:
    """What one origin puts into the squared error of the outputs.

    Attributes:
        origin: of one or several operators.
        share: of the whole squared error, 0 to 1.
        beyond: it reads or makes numbers that float16 cannot hold.
        readers: the origins that read its result, if it is that result's rounding that costs most.
    """

    origin: str
    share: float
    beyond: bool
    readers: tuple[str, ...] = ()


def measured(runner: CoreMlRunner, records: Sequence[Run], program: ExportedProgram) -> list[Lost]:
    """What each origin loses in a float16 package, the most first.

    Args:
        runner: the package.
        records: probes of sizes that it takes. Rounding is measured on the first of the given or normal
            ones, whether the range does on that with the largest outputs as well.
        program: what was converted, with its operators named.

    Raises:
        UnusableInput: the package cannot be evaluated.
    """
    plain = [record for record in records if record.probe.group in GIVEN | {NORMAL}] or list(records)
    largest = max(records, key=lambda record: max((truth.scale for truth in record.truths), default=0.0))
    feeds, extreme = (
        [runner.feed(*each.probe.inputs()) for each in chosen] for chosen in (plain[:_MEASURED], [largest])
    )
    named = {node.name: str(node.meta[ORIGIN]) for node in program.graph.nodes if ORIGIN in node.meta}
    places = _Places(runner.program, named)
    shares: dict[str, float] = {}
    rounding: dict[str, float] = {}
    beyond: set[str] = set()
    for loss in losses(runner.program, feeds):
        origin = places.origin(loss.operation)
        shares[origin] = shares.get(origin, 0.0) + loss.share
        rounding[origin] = rounding.get(origin, 0.0) + loss.share * loss.rounding
        if math.isinf(loss.error):
            beyond.add(origin)
    for loss in losses(runner.program, extreme, passes=0):  # the range has to do for the other probes as well
        if math.isinf(loss.error):
            beyond.add(places.origin(loss.operation))
    shares = dict.fromkeys(beyond, 0.0) | shares
    losses_of = [
        Lost(
            origin,
            share,
            origin in beyond,
            places.readers(origin) if 2 * rounding.get(origin, 1) > share else (),
        )
        for origin, share in shares.items()
    ]
    return sorted(losses_of, key=lambda lost: (not lost.beyond, -lost.share))


class _Places:
    """Where the operations of a package come from, and whose results they read."""

    def __init__(self, program: MilProgram, named: dict[str, str]) -> None:
        self._named = named
        self._constants = program.constants
        self._made_by = {port.name: each for each in program.operations for port in each.outputs}
        self._read_by: dict[str, list[Operation]] = {}
        self._of: dict[str, list[Operation]] = {}
        for operation in program.operations:
            self._of.setdefault(self.origin(operation), []).append(operation)
            for name in (name for names in operation.inputs.values() for name in names):
                self._read_by.setdefault(name, []).append(operation)

    def origin(self, operation: Operation) -> str:
        """Where an operation comes from; what coremltools added, from what it was added to."""
        if operation.kind == "cast":
            (name,) = operation.inputs["x"]
            source = self._made_by.get(name)
            return _INPUT + name if source is None else self.origin(source)
        # An operator that makes an output is not called after its layer, but its weights are.
        read = [name for names in operation.inputs.values() for name in names]
        weights = [name.removeprefix("p_") for name in read if name in self._constants]
        for plain in (operation.name.removesuffix(_SUFFIX).removeprefix(_INVERSE), *weights):
            while plain not in self._named and "_" in plain:
                plain = plain.rpartition("_")[0]
            if plain in self._named:
                return self._named[plain]
        return operation.name

    def readers(self, origin: str) -> tuple[str, ...]:
        """The origins that read what comes from this one, at once or after it was moved about."""
        names: dict[str, None] = {}
        pending = list(self._of.get(origin, ()))
        while pending:
            for port in pending.pop().outputs:
                for reader in self._read_by.get(port.name, ()):
                    if reader.kind != "cast":
                        names[self.origin(reader)] = None
                    if reader.kind in MOVES:
                        pending.append(reader)
        return tuple(name for name in names if name != origin)


def exactly(origins: Iterable[str]) -> Keep:
    """Keep the operators of these origins, and no others, in float32."""
    return frozenset(origins).__contains__


def settled(
    lowered: Callable[[Keep], Any], measure: Callable[[Any], list[Lost]]
) -> tuple[list[str], list[Lost]]:
    """The automatic choice, and what every origin would lose in float16.

    What is beyond float16's range hides what lies behind it, so it is taken out first, and then the rest
    measured again.
    """
    kept: list[str] = []
    would_lose: dict[str, Lost] = {}
    for _ in range(_ROUNDS):
        lost = measure(lowered(exactly(kept)))
        would_lose |= {each.origin: each for each in lost if each.origin not in kept}
        hides = any(each.beyond and each.origin not in kept for each in lost)
        kept += first_choice(lost, kept)
        if not hides:
            break
    return kept, sorted(would_lose.values(), key=lambda lost: (not lost.beyond, -lost.share))


def first_choice(lost: Sequence[Lost], kept: Iterable[str] = ()) -> list[str]:
    """What stays in float32 besides `kept`: all that is beyond float16's range, or what loses most."""
    others = [each for each in lost if each.origin not in set(kept) and not each.origin.startswith(_INPUT)]
    beyond = [each.origin for each in others if each.beyond]
    if beyond:
        return beyond
    chosen: list[str] = []
    gone = 0.0
    for each in others[: max(1, len(others) // _ONE_IN)]:
        if gone >= _ENOUGH or not each.share:
            break
        chosen += [each.origin, *each.readers]
        gone += each.share
    return [origin for origin in dict.fromkeys(chosen) if origin not in set(kept)]


def next_choice(lost: Sequence[Lost], kept: Iterable[str]) -> list[str]:
    """As many again as stay already, those that lose most; empty where there are no more."""
    already = set(kept)
    others = [o for each in lost for o in (each.origin, *each.readers) if o not in already]
    others = [origin for origin in dict.fromkeys(others) if not origin.startswith(_INPUT)]
    return others[: max(1, len(already))]


def in_words(lost: Sequence[Lost]) -> str:
    """ "stem (41 % of the squared error), head (9 %) and 2 more"."""
    named = []
    for number, each in enumerate(lost[:_NAMED]):
        of = " of the squared error" if number == 0 else ""
        named.append(
            f"{each.origin} (beyond its range)"
            if each.beyond
            else f"{each.origin} ({each.share:.0%}{of})".replace("%", " %")
        )
    more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
    return ", ".join(named) + more


def keep_float32(patterns: Iterable[str]) -> Keep:
    """Keep what has an origin that matches one of the patterns, as in a shell; a path keeps all below it."""
    chosen = tuple(patterns)

    def keep(origin: str) -> bool:
        return any(
            fnmatch.fnmatchcase(origin, pattern) or fnmatch.fnmatchcase(origin, f"{pattern}.*")
            for pattern in chosen
        )

    return keep


def kept(options: CoreMlOptions, program: ExportedProgram) -> tuple[Keep | None, list[str]]:
    """The choice that the options make for a program, and notes on it.

    Raises:
        UnusableInput: a pattern that nothing matches, with some of the paths that there are.
    """
    if isinstance(options.keep_float32, str):
        return None, []
    origins = operator_origins(program)
    distinct = list(dict.fromkeys(origins))
    for pattern in options.keep_float32:
        if not any(map(keep_float32([pattern]), origins)):
            raise UnusableInput(
                f"nothing in the folded network matches {pattern!r}, which was to stay in float32; there are "
                + ", ".join(distinct[:8])
                + (" …" if len(distinct) > 8 else "")
            )
    chosen = keep_float32(options.keep_float32)
    count = sum(map(chosen, origins))
    return chosen, [f"{count} of {len(origins)} operators stay in float32: {', '.join(options.keep_float32)}"]
