"""`docs/cli.md`, the help of the command line as a page: `python -m tests.cli_page` (`make docs`)."""

from __future__ import annotations

from pathlib import Path

import typer
from typer.cli import get_docs_for_click

from reparamkit.cli.app import app

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
_NOTE = "<!-- written by `make docs` from the help texts in reparamkit/cli: change those -->"


def cli_page() -> str:
    """The page; typer writes it."""
    command = typer.main.get_command(app)
    text = get_docs_for_click(
        obj=command, ctx=typer.Context(command), name="reparamkit", title="The command line"
    )
    heading, _, rest = text.partition("\n")
    return f"{heading}\n\n{_NOTE}\n{rest.rstrip()}\n"


if __name__ == "__main__":
    PAGE.write_text(cli_page(), encoding="utf-8")
