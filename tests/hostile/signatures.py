"""What goes in and how it is handed over; what comes out, and in what structure."""

from __future__ import annotations

import random
from dataclasses import replace

from tests.hostile.sample import Input, Size
from tests.hostile.text import Step
from tests.hostile.writer import Writer

_LAYOUTS: dict[str, tuple[Size, ...]] = {
    "maps": ("n", 3, "h", "w"),
    "rows": ("n", 3, "l"),
    "volume": ("n", 3, "d", "h", "w"),
    "tokens": ("n", "l", 3),
    "vectors": ("n", 3),
    "one map": (3, "h", "w"),
    "one row": (3, "l"),
    "ids": ("n", "l"),
}
_WEIGHTS = {
    "maps": 10,
    "rows": 3,
    "volume": 1,
    "tokens": 2,
    "vectors": 2,
    "one map": 1,
    "one row": 0.5,
    "ids": 0.7,
}


def draw_sizes(rng: random.Random, shapes: list[tuple[Size, ...]]) -> dict[str, int]:
    """The sizes of the example: mostly more than one, often equal, odd and even."""
    names = list(dict.fromkeys(s for shape in shapes for s in shape if isinstance(s, str)))
    sizes = {
        name: rng.choice([1, 2, 2, 3, 4] if name.startswith("n") else [1, 2, 4, 5, 6, 7, 8, 8, 9])
        for name in names
    }
    if "d" in sizes:
        sizes |= {name: min(sizes[name], 5) for name in "dhw"}
    sides = [name for name in names if not name.startswith("n")]
    if len(sides) > 1 and rng.random() < 0.3:
        sizes |= dict.fromkeys(sides, sizes[sides[0]])
    if rng.random() < 0.05:
        sizes |= dict.fromkeys(names, rng.choice([1, 2, 4]))
    return sizes


def second(rng: random.Random, layout: str) -> Input | None:
    """Another input, its sizes tied to those of the first, or its own."""
    first = _LAYOUTS[layout]
    sides = first[2:] if layout in ("maps", "rows", "volume") else ()
    one = [1 for _ in sides]
    draws: list[tuple[tuple[Size, ...], str]] = [
        (("n", 4, *sides), "float"),
        (("n", 4, *one), "float"),
        (("n2", 4, *sides), "float"),
        (("n2", 4, *one), "float"),
        ((1, 4, *sides), "float"),
        ((4, *sides), "float"),
        (("n", 1, *sides), "bool"),
        (("n2", 1, *one), "bool"),
        (("k",), "float"),
        ((), "float"),
        (("n", "k"), "float"),
    ]
    shape, kind = rng.choice(draws)
    return Input("z", shape, kind) if layout != "ids" else None


def start(seed: int, rng: random.Random) -> Writer:
    """A writer with inputs, a way to hand them over, and a stem in which something folds."""
    layout = rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
    inputs = [Input("x", _LAYOUTS[layout], "int" if layout == "ids" else "float")]
    other = second(rng, layout) if rng.random() < 0.3 else None
    inputs += [other] if other is not None else []
    w = Writer(seed, rng, tuple(inputs), draw_sizes(rng, [given.shape for given in inputs]))
    _hand_over(w)
    body, init = stem(w, layout)
    assert w.accepts(Step(tuple(body), tuple(init), "stem")), (w.text.source(), body)
    return w


def _hand_over(w: Writer) -> None:
    """The signature of `forward`, and the example as an expression."""
    two = len(w.inputs) > 1
    names = "x, z" if two else "x"
    opening: tuple[str, ...] = (f"{names} = args",) if two else ("x = args[0]",)
    plain = [(names, (), f"({names},)")]
    if not two:
        plain.append((names, (), "x"))
    odd = [
        ("*args", opening, f"({names},)"),
        (
            "**inputs",
            tuple(f"{n} = inputs['{n}']" for n in names.split(", ")),
            "{" + ", ".join(f"'{n}': {n}" for n in names.split(", ")) + "}",
        ),
        (names, (), "{" + ", ".join(f"'{n}': {n}" for n in names.split(", ")) + "}"),
        (
            "batch",
            tuple(f"{n} = batch['{n}']" for n in names.split(", ")),
            "({" + ", ".join(f"'{n}': {n}" for n in names.split(", ")) + "},)",
        ),
        ("batch", (f"{names}, = batch",), f"([{names}],)"),
        ("batch", (f"{names}, = batch",), f"(({names},),)"),
        (f"{names}, mask=None", (), f"({names},)"),
        (f"{names}, mask=None", (), f"({names}, None)"),
        (f"{names}, scale=1.0, flag=True", (), f"({names}, 2.0, False)"),
        ("x, *rest", ("z = rest[0]",) if two else (), f"({names},)"),
        (names.replace("x", "input"), ("x = input",), f"({names},)"),
        ("batch", ("x, z = batch.first, batch.second",), f"(Pair(x, {'z' if two else 'None'}),)"),
    ]
    signature, opening, call = w.pick(plain) if w.chance(0.7) else w.pick(odd)
    w.text = replace(w.text, signature=signature, opening=opening)
    w.call = call


def stem(w: Writer, layout: str) -> tuple[list[str], list[str]]:
    """Layers with norms and branches, from the input's three channels to four."""
    if layout == "ids":
        return ["y = self.l(self.e(x)).transpose(1, 2)"], [
            "self.e = nn.Embedding(10, 4)",
            "self.l = nn.Linear(4, 4)",
        ]
    if layout == "tokens":
        forms = [
            "y = self.l(x) * self.g",
            "y = self.l(x) + self.k(x)",
            "y = self.b(self.l(x).transpose(1, 2))",
        ]
        init = ["self.l = nn.Linear(3, 4)", "self.k = nn.Linear(3, 4)", "self.b = nn.BatchNorm1d(4)"]
        return [w.pick(forms)], [*init, "self.g = nn.Parameter(torch.ones(4))"]
    if layout == "vectors":
        init = ["self.l = nn.Linear(3, 4)", "self.k = nn.Linear(3, 4)", "self.b = nn.BatchNorm1d(4)"]
        return [w.pick(["y = self.b(self.l(x))", "y = self.b(self.l(x)) + self.k(x)"])], init
    d = {"maps": 2, "rows": 1, "volume": 3, "one map": 2, "one row": 1}[layout]
    kernel = w.pick(["3, padding=1", "3, padding=1", "1"])
    bias = w.pick(["", ", bias=False"])
    init = [f"self.c = nn.Conv{d}d(3, 4, {kernel}{bias})", f"self.d = nn.Conv{d}d(3, 4, 1)"]
    if layout in ("one map", "one row"):
        return [w.pick(["y = self.c(x) + self.d(x)", "y = self.c(x) * 2 + self.d(x)"])], init
    init += [f"self.b = nn.BatchNorm{d}d(4)", f"self.n = nn.BatchNorm{d}d(4)"]
    lines = [
        ["y = self.b(self.c(x))"],
        ["y = self.b(self.c(x))"],
        ["y = self.b(self.c(x)) + self.d(x)"],
        ["y = self.b(self.c(x)) + self.n(self.d(x))"],
        ["y = self.b(self.c(x)).relu()", "y = self.n(y) + y"],
    ]
    return w.pick(lines), init


RESULTS = [
    ("y, x", 2),
    ("y, y", 1),
    ("y, None", 1),
    ("[y, y * 2]", 1),
    ("{'out': y, 'mean': y.sum()}", 2),
    ("(y, (y * 2, [x]))", 1),
    ("y, x.shape[0]", 1),
    ("y, 3.5", 0.5),
    ("y, 'name'", 0.5),
    ("y, True", 0.3),
    ("Pair(y, y.sum())", 0.5),
    ("Point(y, y * 2)", 0.5),
    ("y.sum()", 1),
    ("y, y.flatten(), y.view(y.shape)", 1),
    ("y, y.argmax(0)", 2),
    ("y, (y > 0)", 1),
    ("y, y.detach()", 0.5),
    ("x, y", 1),
    ("y.unbind(0)", 0.3),
    ("y, y[:0]", 0.5),
    ("y.argmax(-1)", 1),
    ("y, x.shape", 0.5),
    ("(y,)", 0.7),
]


def finish(w: Writer) -> None:
    """Return y, or something in which y is one of several."""
    if w.chance(0.35):
        results, weights = zip(*RESULTS, strict=True)
        w.close(w.rng.choices(results, weights)[0])
