"""`docs/four_ways.md`: the scripts of `examples/` and what they print: `python -m tests.four_ways`."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from tests.shell import ROOT, bash, environment

PAGE = ROOT / "docs" / "four_ways.md"
WAYS = {
    "timm_user": "A timm user",
    "yolo_user": "A YOLO user with a checkpoint",
    "ci_engineer": "A CI engineer",
    "ios_engineer": "An iOS engineer",
}
_NOTE = "<!-- written by `python -m tests.four_ways` from examples/*.sh: change those -->"
_LONGEST = 28
"""Lines that are shown of what one command prints."""


def transcript(name: str, folder: Path) -> str:
    """What a person sees who runs a script: its commands, and what they print to stdout."""
    script = ROOT / "examples" / f"{name}.sh"
    variables = {**environment(folder / "bin"), "BASH_XTRACEFD": "3"}
    work = folder / "work"
    work.mkdir()
    ended = bash(["-c", 'exec 3>&1; exec bash -x "$0"', str(script)], work, variables)
    if ended.returncode:
        raise RuntimeError(f"{name} ended with {ended.returncode}:\n{ended.stdout}\n{ended.stderr}")
    steps: list[list[str]] = []
    for line in ended.stdout.splitlines():
        if line.startswith("+"):  # root's shells take no other sign for it
            steps.append([line.lstrip("+")])
        elif steps:
            steps[-1].append(line.rstrip())
    shown = [["$" + step[0], *step[1:]] for step in steps if step[0].startswith(" reparamkit")]
    return "\n".join(line for step in shown for line in _shortened(step)).replace(str(ROOT), "…")


def _shortened(step: list[str]) -> list[str]:
    lines = [line for line in step if not line.startswith("again: ")]
    if len(lines) <= _LONGEST:
        return [*lines, ""]
    return [*lines[: _LONGEST - 4], "…", *lines[-3:], ""]


def section(name: str, printed: str) -> str:
    """The part of the page on one script."""
    lines = (ROOT / "examples" / f"{name}.sh").read_text(encoding="utf-8").splitlines()
    says = " ".join(line.removeprefix("# ") for line in lines[1:] if line.startswith("# "))
    return f"## {WAYS[name]}\n\n{says}\n\n`examples/{name}.sh`:\n\n```text\n{printed.rstrip()}\n```\n"


def masked(text: str) -> str:
    """The same without what is another on every machine: numbers that are measured, and spaces for them."""
    text = re.sub(r"(?m)^  note: float16 loses most .*$", "", text)
    text = re.sub(r"[-+]?\d+(\.\d+)?e[-+]?\d+", "#", text)
    text = re.sub(r"[-+]?\d+\.\d+", "#", text)
    text = re.sub(r"(?m) 0 (?=.* ok$)", " # ", text)
    return re.sub(r"[ \t]+", " ", text)


def sections(text: str) -> dict[str, str]:
    """Title -> its part of the page."""
    parts = re.split(r"(?m)^## ", text)[1:]
    return {part.partition("\n")[0]: f"## {part.rstrip()}\n" for part in parts}


def page() -> str:
    """The whole page."""
    written = []
    for name in WAYS:
        with tempfile.TemporaryDirectory() as folder:
            written.append(section(name, transcript(name, Path(folder))))
    head = "Each is a script of three commands in `examples/`, run as a test; here is what they print."
    return f"# Four ways\n\n{_NOTE}\n\n{head}\n\n" + "\n".join(written)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
