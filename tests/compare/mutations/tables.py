"""What a campaign found, as text."""

from __future__ import annotations

from collections.abc import Sequence

from tests.compare.mutations.trials import BORDER, FALSE_ALARM, ONNX, OTHER_PROBE, PASSED, TORCH, Pair, Result


def tables(seed: int, results: Sequence[Result], pairs: Sequence[Pair]) -> str:
    """All tables, then every mutation that was missed, every false alarm and every pair that failed."""
    lines = ["", f"{len(results)} mutations of {len({r.network for r in results})} networks, seed {seed}", ""]
    lines += _totals(results)
    lines += ["", *_by_kind(results), ""]
    failed = [pair for pair in pairs if not pair.same]
    lines.append(f"networks that were not mutated: {len(pairs)} pairs, {len(failed)} failed")
    lines += [f"  {pair.network} {pair.candidate} {pair.sizes}: {pair.reason}" for pair in failed]
    for title, chosen in (
        ("missed", [r for r in results if r.missed]),
        ("false alarms", [r for r in results if r.below == FALSE_ALARM]),
        ("caught at the border", [r for r in results if r.below == BORDER]),
    ):
        lines += ["", f"{title}: {len(chosen)}", *(_described(seed, result) for result in chosen)]
    return "\n".join(lines) + "\n"


def _totals(results: Sequence[Result]) -> list[str]:
    columns = [
        [r for r in results if r.candidate == TORCH],
        [r for r in results if r.candidate == ONNX],
        list(results),
    ]
    rows: list[tuple[str, list[int]]] = [
        ("mutations", [len(part) for part in columns]),
        ("true effect beyond the budget", [sum(r.exceeds for r in part) for part in columns]),
        ("    caught", [sum(r.exceeds and r.caught for r in part) for part in columns]),
        ("    missed", [sum(r.missed for r in part) for part in columns]),
        (
            "    missed with inputs from [0, 1) only",
            [sum(r.exceeds and not r.caught_by_unit_inputs for r in part) for part in columns],
        ),
        ("true effect within the budget", [sum(not r.exceeds for r in part) for part in columns]),
        ("    no effect at all", [sum(not r.exceeds and not r.changed for r in part) for part in columns]),
        ("    passed", [sum(r.below == PASSED for r in part) for part in columns]),
        (
            "    caught: another probe shows it",
            [sum(r.below == OTHER_PROBE for r in part) for part in columns],
        ),
        ("    caught: at the border", [sum(r.below == BORDER for r in part) for part in columns]),
        ("    false alarms", [sum(r.below == FALSE_ALARM for r in part) for part in columns]),
    ]
    lines = [f"{'':42}{TORCH:>8}{ONNX:>8}{'all':>8}"]
    lines += [f"{title:42}" + "".join(f"{number:8}" for number in numbers) for title, numbers in rows]
    return lines


def _by_kind(results: Sequence[Result]) -> list[str]:
    lines = [f"{'kind':30}{'made':>7}{'beyond':>8}{'caught':>8}{'missed':>8}{'[0, 1) misses':>15}"]
    for kind in sorted({r.kind for r in results}):
        part = [r for r in results if r.kind == kind]
        beyond = [r for r in part if r.exceeds]
        numbers = (len(beyond), sum(r.caught for r in beyond), sum(r.missed for r in beyond))
        unit = sum(not r.caught_by_unit_inputs for r in beyond)
        lines.append(f"{kind:30}{len(part):7}" + "".join(f"{n:8}" for n in numbers) + f"{unit:15}")
    return lines


def _described(seed: int, result: Result) -> str:
    where = f"{result.kind}, {result.where}"
    size = (
        f"effect {result.effect:.2e}, budget {result.budget:.2e} ({result.effect / result.budget:.2f} of it)"
    )
    command = f"--seed {seed} --networks {result.network} --only {result.candidate}:{result.number}"
    return f"  {result.network}: {where}: {size}; {command} {result.reason}"
