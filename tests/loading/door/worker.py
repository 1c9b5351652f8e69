"""A process that opens one damaged file after another, under a limit of memory, and tells what came of it.

Started by `tests.loading.door.working`: reads a line of JSON with the arguments of a command, runs it as the
command line would, and answers with a line: its exit status, what it said, and which files it opened.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

LIMIT = 8 << 30


def main() -> None:
    answers = os.fdopen(int(sys.argv[1]), "w")
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    opened: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], (str, bytes)):
            opened.append(os.fsdecode(arguments[0]))

    sys.addaudithook(watch)
    import reparamkit.cli.app

    for line in sys.stdin:
        opened.clear()
        job = json.loads(line)
        sys.argv[1:] = job
        said = io.StringIO()
        status: Any = 0
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                reparamkit.cli.app.main()
            except SystemExit as end:
                status = end.code
        peak = _peak()
        answer = {"status": status or 0, "said": said.getvalue()[:20_000], "opened": opened, "peak": peak}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _peak() -> int:
    """The most memory that this process had, in KiB; `ru_maxrss` counts that of whoever started it, too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
