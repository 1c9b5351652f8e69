"""Why one operator folds or stays: all that is known of it and of its neighbours, in one place."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from reparamkit.errors import UnusableInput
from reparamkit.report.findings import Calling, Outlined, Report
from reparamkit.report.page_document import folds_after, folds_before
from reparamkit.report.remedies import remedy
from reparamkit.report.words import channels_words, counted_words, operator_words

_MOST = 24


def explain(report: Report, name: str) -> str:
    """The chain of reasons for an operator, or for all operators of a module.

    Args:
        name: of an operator, in the network before or after, as the reports have it; or the path of a module
            or of a new layer.

    Raises:
        UnusableInput: nothing has that name; the message names what comes close.
    """
    assert report.outlines is not None
    reader = _Explaining(report, *report.outlines)
    calls = reader.named(name)
    if not calls:
        raise UnusableInput(f"--node {name}: no operator and no module has that name{reader.close_to(name)}")
    lines = [line for call in calls[:_MOST] for line in (*reader.lines(call), "")]
    if len(calls) > _MOST:
        lines.append(f"… and {len(calls) - _MOST} more operators in {name}: name one of its modules")
    return "\n".join(lines).rstrip()


class _Explaining:
    def __init__(self, report: Report, before: Outlined, after: Outlined) -> None:
        self._report, self._before, self._after = report, before, after
        self._folds, self._layers = folds_before(report), folds_after(report)
        self._calls = {call.name: call for call in before.calls}
        self._refusals: dict[str, list[str]] = {}
        for refusal in (*report.undone, *report.refusals):
            for name in report.names_of(refusal):
                self._refusals.setdefault(name, []).append(refusal.reason)
        self._readers: dict[str, list[Calling]] = {}
        for call in before.calls:
            for name in call.reads:
                self._readers.setdefault(name, []).append(call)
        self._apart = {(reader, source): reason for reader, source, reason in before.apart}

    def named(self, name: str) -> list[Calling]:
        """The operators of the network before that a name means."""
        if name in self._calls:
            return [self._calls[name]]
        layers = [call for call in self._after.calls if name in (call.name, call.layer)]
        folds = {self._layers[call.name] for call in layers if call.name in self._layers}
        if folds:
            return [call for call in self._before.calls if self._folds.get(call.name) in folds]
        return [call for call in self._before.calls if f"{call.module}.".startswith(f"{name}.")]

    def close_to(self, name: str) -> str:
        """Names that are nearly this one."""
        modules = {call.module for call in self._before.calls if call.module}
        near = difflib.get_close_matches(name, [*self._calls, *sorted(modules)], 4, 0.5)
        return f"; there is {', '.join(near)}" if near else ""

    def lines(self, call: Calling) -> Iterator[str]:
        yield self._title(call)
        yield from (f"  {line}" for line in self._own(call))
        for name in call.reads:
            if name in self._calls:
                yield f"  above it {self._short(self._calls[name])}: {self._between(call, self._calls[name])}"
        for reader in self._readers.get(call.name, ()):
            yield f"  below it {self._short(reader)}: {self._between(reader, call)}"

    def _title(self, call: Calling) -> str:
        what = ", ".join(filter(None, [operator_words(call), channels_words(call)]))
        sizes = f", gives {'×'.join(map(str, call.shape))}" if call.shape else ""
        return f"{what} {call.name!r} in {call.module or '(the network)'}{sizes}"

    def _short(self, call: Calling) -> str:
        return f"{call.operator} {call.name!r}"

    def _own(self, call: Calling) -> Iterator[str]:
        """What became of it, and why."""
        number, reasons = self._folds.get(call.name), self._reasons(call)
        if number is not None:
            fold = self._report.folds[number]
            layers = "; ".join(f"{path}: {text}" for path, text in fold.layers.items()) or "nothing"
            size = ", proven at the captured size only" if fold.captured_only else ""
            yield f"folds, with {counted_words(fold.operators)}, into {layers} (error {fold.error:.0e}{size})"
            for reason in reasons:
                yield f"that layer goes no further: {reason}"
        else:
            for reason in reasons:
                yield f"stays: {reason}"
        for change in dict.fromkeys(filter(None, map(remedy, reasons))):
            yield f"what would have to change: {change}"
        if number is None and not reasons:
            yield self._quiet_reason(call)

    def _reasons(self, call: Calling) -> list[str]:
        """Why it, or the layer that it has become part of, goes into no other."""
        number = self._folds.get(call.name)
        layers = [one.name for one in self._after.calls if self._layers.get(one.name) == number]
        names = [call.name, *(layers if number is not None else ())]
        return list(dict.fromkeys(reason for name in names for reason in self._refusals.get(name, ())))

    def _quiet_reason(self, call: Calling) -> str:
        if call.operator in ("input", "output"):
            return f"is an {call.operator} of the network"
        if call.name in self._before.unread:
            return f"stays: {self._before.unread[call.name]}"
        return "stays: it is an affine map, and none of its neighbours can take it in or pays to be taken in"

    def _between(self, reader: Calling, source: Calling) -> str:
        """How an operator and one that it reads stand to each other."""
        for call in (source, reader):
            if call.operator in ("input", "output"):
                return f"an {call.operator} of the network"
        own, other = self._folds.get(reader.name), self._folds.get(source.name)
        if own is not None and own == other:
            return "in the same fold"
        for call in (source, reader):
            if call.name in self._before.unread:
                return f"{call.operator} is where a fold ends: {self._before.unread[call.name]}"
        if (reader.name, source.name) in self._apart:
            return f"not exact as one layer: {self._apart[reader.name, source.name]}"
        several = self._readers.get(source.name, ())
        if len(several) > 1:
            return f"{len(several)} operators read {source.operator} {source.name!r}, which stays for them"
        for call, mate in ((reader, source), (source, reader)):
            for reason in self._reasons(call):
                if f"'{mate.name}'" in reason or f"'{mate.module}'" in reason:
                    return reason
        return "folds by itself" if other is not None else "stays beside it"
