"""What a run says to GitHub Actions where it runs in one of its jobs: annotations, and the summary page."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from reparamkit.report.check_github import annotation, annotations_of, summary

if TYPE_CHECKING:
    from reparamkit.report.check_document import Document

_LARGEST_SUMMARY = 1 << 20


def inside() -> bool:
    """Whether this is a step of a job."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def tell(document: Document) -> None:
    """Annotate the verdict, and put the findings on the summary page; nothing outside a job."""
    if not inside():
        return
    _say(*annotations_of(document))
    _append(summary(document))


def complain(text: str) -> None:
    """Annotate an error that ends the run; nothing outside a job."""
    if inside():
        _say(annotation("error", "reparamkit", text))


def _say(*lines: str) -> None:
    """The runner reads both streams; stdout may lead into a file."""
    for line in lines:
        print(line.encode("utf-8", "replace").decode(), file=sys.stderr, flush=True)  # noqa: T201


def _append(page: str) -> None:
    """Where it cannot be written, that is said and the verdict stands."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    text = page.encode("utf-8", "replace")
    try:
        held = os.path.getsize(path) if os.path.exists(path) else 0
        if held + len(text) > _LARGEST_SUMMARY:
            _say(annotation("warning", "reparamkit", "the summary page is full; the findings are in the log"))
            return
        with open(path, "ab") as file:
            file.write(text)
    except OSError as error:
        reason = error.strerror or str(error)
        _say(annotation("warning", "reparamkit", f"the summary page {path} cannot be written: {reason}"))
