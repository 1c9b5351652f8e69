"""A campaign in a page: how many of what, and the failures grouped by what was written into the networks."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import Any

FAILURES = ("silent", "leak", "hang", "changed", "mode", "broken")


def summary(rows: list[dict[str, Any]], verbose: bool = False) -> str:
    statuses = Counter(row["status"] for row in rows)
    seconds = sum(row.get("seconds", 0) for row in rows)
    lines = [
        f"{len(rows)} networks, {seconds:.0f} s: " + ", ".join(f"{n} {s}" for s, n in statuses.most_common())
    ]
    compared: Counter[str] = Counter()
    for row in rows:
        compared.update(row.get("compared", {}))
    lines.append("answers compared: " + ", ".join(f"{where} {n}" for where, n in compared.items()))
    written = Counter(kind for row in rows for kind in ("pt2", "onnx") if kind in row.get("compared", {}))
    lines.append("files compared: " + ", ".join(f"{kind} {n}" for kind, n in written.items()))
    for kind in (*FAILURES, "looser", "rough", "told"):
        found = [(row, f) for row in rows for f in row["findings"] if f["kind"] == kind]
        if found:
            seeds = {row["seed"] for row, _ in found}
            places = Counter(f["where"] for _, f in found)
            lines.append(f"{kind}: {len(found)} in {len(seeds)} networks ({dict(places)})")
            if kind != "looser":
                lines += _grouped(found, verbose)
    lines += _reasons("refused", [(r["seed"], r["reason"]) for r in rows if r["status"] == "refused"])
    for suffix in ("pt2", "onnx"):
        reasons = [(r["seed"], r["unwritten"][suffix]) for r in rows if suffix in r.get("unwritten", {})]
        lines += _reasons(f"{suffix} not written", reasons)
    return "\n".join(lines)


def _grouped(found: list[tuple[dict[str, Any], dict[str, Any]]], verbose: bool) -> list[str]:
    groups: dict[str, dict[int, str]] = defaultdict(dict)
    for row, finding in found:
        last = row.get("ideas", ["?"])[1:] or ["?"]
        key = "/".join(last) if finding["kind"] in ("silent", "mode") else _shape(finding["detail"])
        if 0 in (finding["sizes"] or {}).values():
            key = f"(a size of zero) {key}"
        groups[key].setdefault(row["seed"], f"{finding['where']} {finding['sizes']}: {finding['detail']}")
    lines = []
    for key, seeds in sorted(groups.items(), key=lambda item: -len(item[1])):
        lines.append(f"    {len(seeds):4d}  {key}: {', '.join(map(str, list(seeds)[:8]))}")
        if verbose:
            lines += [f"              {seed}: {text}" for seed, text in seeds.items()]
    return lines


def _reasons(what: str, reasons: list[tuple[int, str]]) -> list[str]:
    groups: dict[str, list[int]] = defaultdict(list)
    for seed, reason in reasons:
        groups[_shape(reason)].append(seed)
    lines = [f"{what}: {len(reasons)}"] if reasons else []
    for key, seeds in sorted(groups.items(), key=lambda item: -len(item[1])):
        lines.append(f"    {len(seeds):4d}  {key}: {', '.join(map(str, seeds[:6]))}")
    return lines


def _shape(text: str) -> str:
    """A message without its numbers and names."""
    text = re.sub(r"/\S+", "PATH", text)
    text = re.sub(r"'[^']*'", "'…'", text)
    return re.sub(r"-?\d+(\.\d+)?(e[+-]?\d+)?", "N", text)[:150]
