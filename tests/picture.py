"""The picture of the rooms in `docs/architecture.md`, drawn from the imports: `python -m tests.picture`."""

from __future__ import annotations

from pathlib import Path

from tests.import_graph import Graph, reduced, rooms_of

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
START, END = "<!-- picture -->\n", "<!-- /picture -->\n"
_EVERYWHERE = ("errors", "support")


def picture(graph: Graph) -> str:
    """The rooms as a Mermaid flowchart; the graph of rooms has no circles."""
    rooms = {
        room: {other for other in others if other not in _EVERYWHERE}
        for room, others in rooms_of(graph).items()
        if room not in _EVERYWHERE
    }
    names = {room: "reparamkit" if room == "__init__" else room for room in rooms}
    arrows = [
        f"    {names[room]} --> {names[other]}"
        for room, others in sorted(reduced(rooms).items())
        for other in sorted(others)
    ]
    lone = [f"    {names[room]}" for room in sorted(rooms) if not rooms[room] and not _is_used(rooms, room)]
    return "\n".join(["```mermaid", "flowchart TD", *arrows, *lone, "```", ""])


def _is_used(rooms: dict[str, set[str]], room: str) -> bool:
    return any(room in others for others in rooms.values())


def with_picture(text: str, drawn: str) -> str:
    """The page with the picture in its place."""
    head, _, rest = text.partition(START)
    _, _, tail = rest.partition(END)
    return f"{head}{START}{drawn}{END}{tail}"


if __name__ == "__main__":
    from tests.import_graph import import_graph

    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(with_picture(text, picture(import_graph())), encoding="utf-8")
