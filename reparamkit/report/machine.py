"""The findings as JSON, for a CI system."""

from __future__ import annotations

from typing import Any

from reparamkit.report.findings import Report

SCHEMA = 1


def as_dict(report: Report) -> dict[str, Any]:
    """Everything in the report, ready for `json.dumps`; `schema` counts changes of its fields."""
    return {
        "schema": SCHEMA,
        "name": report.name,
        "sizes": report.sizes,
        "before": report.before,
        "after": report.after,
        "folds": [
            {
                "where": f.where,
                "operators": f.operators,
                "layers": f.layers,
                "float64_error": f.error,
                "proven_at_the_captured_size_only": f.captured_only,
            }
            for f in report.folds
        ],
        "refusals": [
            {"where": r.where, "node": r.node, "operator": r.operator, "reason": r.reason}
            for r in report.refusals
        ],
        "undone": [
            {"where": u.where, "node": u.node, "operator": u.operator, "reason": u.reason}
            for u in report.undone
        ],
        "parts": [
            {"where": p.where, "folded": p.folded, "reason": p.reason, "sizes": p.sizes} for p in report.parts
        ],
        "notes": list(report.notes),
        "equivalence": None if report.equivalence is None else report.equivalence.as_dict(),
        "files": [
            {
                "path": str(f.path),
                "operators": dict(f.operators),
                "equivalence": f.equivalence.as_dict(),
                "notes": list(f.notes),
            }
            for f in report.files
        ],
    }
