"""Opens damaged files by the thousand, and prints what went wrong.

python -m tests.loading.door.fuzz FIRST COUNT
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.loading.door.cases import make
from tests.loading.door.honest import write_all
from tests.loading.door.working import Answer, Watched, Worker

PEAK_KIB = 2_500_000
_FORBIDDEN = ("/etc/passwd", "/dev/zero", "/dev/urandom")


def campaign(
    seeds: range, root: Path, tell: Callable[[str], object] = lambda text: None
) -> tuple[list[str], Counter[str]]:
    """What went wrong, as texts, and how the commands ended.

    Args:
        seeds: of the damaged files.
        root: an empty folder.
        tell: is told at once.
    """
    honest = write_all(root / "honest")
    watched = Watched(root / "outside")
    wrong: list[str] = []
    ends: Counter[str] = Counter()
    with Worker() as worker:
        for seed in seeds:
            folder = root / "case"
            folder.mkdir()
            kind, command = make(seed, honest, folder)
            answer = worker.run(command)
            complaint = _complaint(answer, watched.was_read())
            ends[f"{answer.status}"] += 1
            ends["crashes in a process of its own"] += " crashes on " in answer.said
            ends["no end in a process of its own"] += " did not open " in answer.said
            if complaint:
                said = f"{answer.said[:300]} … {answer.said[-1200:]}"
                wrong.append(f"seed {seed} ({kind}): {complaint}: {said}")
                tell(wrong[-1])
            shutil.rmtree(folder)
    watched.close()
    return wrong, ends


def _complaint(answer: Answer, outside: bool) -> str:
    if answer.status is None:
        return "it did not end"
    if answer.status < 0:
        return f"the process ended by signal {-answer.status}"
    if "cannot be opened (" in answer.said:
        return "nobody foresaw it"
    if answer.status not in (0, 1, 2):
        return f"exit status {answer.status}"
    if outside or any(name in _FORBIDDEN for name in answer.opened):
        return "a file outside was opened"
    if answer.peak > PEAK_KIB:
        return f"it took {answer.peak >> 10} MiB"
    if answer.status == 2 and "reparamkit: error" not in answer.said and "CANNOT TELL" not in answer.said:
        return "exit status 2 without a reason"
    return ""


def _main(first: int, count: int) -> None:
    def tell(text: str) -> None:
        sys.stdout.write(f"{text}\n\n")
        sys.stdout.flush()

    with tempfile.TemporaryDirectory() as temporary:
        started = time.monotonic()
        found, endings = campaign(range(first, first + count), Path(temporary), tell)
        tell(f"{dict(endings)}, {len(found)} wrong, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]))
