"""Pages from their templates: one file each that needs nothing else, light or dark, for desktop and phone."""

from __future__ import annotations

from importlib import resources
from typing import Any


def page(template: str, **values: Any) -> str:
    """A page; text in `values` is escaped unless its template says that it is HTML."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("reparamkit.report", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def style_sheet(name: str) -> str:
    """A style sheet of the pages."""
    folder: Any = resources.files("reparamkit.report") / "page"
    text: str = (folder / name).read_text(encoding="utf-8")
    return text
