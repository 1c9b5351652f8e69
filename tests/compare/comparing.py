"""One comparison for the tests: what it answers, and that its answer is sound."""

from __future__ import annotations

import json
from typing import Any

from reparamkit.compare.compare import Compared, compare
from reparamkit.compare.inputs.input_spec import parse

SHAPE = parse(["1x3x12x10"])


def run(reference: object, candidate: object, **options: Any) -> Compared:
    if not {"inputs", "data", "saved", "described"} & set(options):
        options["described"] = SHAPE
    found = compare(reference, candidate, **options)
    json.dumps(found.comparison.as_dict(), allow_nan=False)
    return found


def outcome(reference: object, candidate: object, **options: Any) -> tuple[str, str]:
    found = run(reference, candidate, **options).comparison
    assert found.exit_status == {"same": 0, "different": 1, "cannot tell": 2}[found.status]
    assert found.passed == (found.status == "same")
    assert (found.reason == "") == found.passed
    return found.status, found.reason
