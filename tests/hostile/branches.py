"""Branches: on sizes, on equal sides, on what follows from them; and what a branch changes."""

from __future__ import annotations

from tests.hostile.writer import Lines, Writer, idea


def condition(w: Writer) -> str:
    """A question about sizes of the input, or of a value inside."""
    size, name = w.size()
    other, other_name = w.size()
    k = w.close_to(name)
    deep = w.rank
    questions = [
        f"{size} == 1",
        f"{size} == 1",
        f"{size} > 1",
        f"{size} != 1",
        f"{size} <= 1",
        f"{size} < 2",
        f"1 == {size}",
        f"not {size} > 1",
        f"{size} != 0",
        f"{size} in (1, 3)",
        f"bool({size} - 1)",
        f"{size} == {k}",
        f"{size} != {k}",
        f"{size} > {k}",
        f"{size} >= {k}",
        f"{size} < {k}",
        f"{size} % 2",
        f"{size} % 2 == 0",
        f"{size} % 4 == {w.rng.randrange(4)}",
        f"{size} // 2 == {max(1, k // 2)}",
        f"({size} - 1) // 2 == 0",
        f"int({size} * 0.5) == 1",
        f"{size} ** 2 > {k * k}",
        f"{other} == {size}",
        f"{other} == {size}",
        f"{other} != {size}",
        f"{other} > {size}",
        f"{other} >= 2 * {size}",
        f"{other} % {size} == 0",
        f"min({other}, {size}) == 1",
        f"min({other}, {size}) < {k}",
        f"max({other}, {size}) > {k}",
        f"max({other}, {size}) == 1",
        f"{other} * {size} == {k * w.sizes[other_name]}",
        f"{other} * {size} > {k * w.sizes[other_name]}",
        f"{other} + {size} == 2",
        f"{other} - {size} == 1",
        f"abs({other} - {size}) < 2",
        f"{other} == 1 and {size} == 1",
        f"{other} == 1 or {size} == {k}",
        f"x.numel() > {w.pick([10, 60, 200, 400])}",
        f"x[0].numel() == {w.pick([3, 12, 48])}",
        "x.nelement() == 0",
        "len(x) == 1",
        "len(y) > 1",
        "y.shape == x.shape",
        "x.shape[0] == x.shape[-1]",
        "x.shape[-1] == x.shape[-2]",
        "len(set(x.shape[2:])) == 1",
        "tuple(x.shape[2:]) == (1,) * (x.dim() - 2)",
        f"y.shape[{-1 if deep else 0}] == 1",
        f"y.shape[{w.axis() if deep else 0}] == 1",
        f"y.flatten(1).shape[1] > {w.pick([16, 50, 100])}",
        "all(s > 1 for s in x.shape)",
        "any(s == 1 for s in x.shape)",
        "x.shape.count(1) > 0",
    ]
    if w.ncs and w.rank > 2:
        pool = {3: "F.avg_pool1d", 4: "F.max_pool2d", 5: "F.avg_pool3d"}[w.rank]
        questions += [f"{pool}(y, 2, ceil_mode=True).shape[-1] == 1", f"{pool}(y, 2).shape[2] == 1"] * 3
    if len(w.inputs) > 1 and w.inputs[1].shape:
        questions += ["x.shape[0] == z.shape[0]", "x.shape[0] != z.shape[0]", "z.shape[0] == 1"] * 3
    return w.pick(questions)


def effect(w: Writer) -> tuple[str, list[str]]:
    """An expression in y that stays close to y in shape, and what it needs."""
    layer = w.name("e")
    effects = [
        "y * 2",
        "y * 2",
        "y * 1.005",
        "y + 0.01",
        "-y",
        "y.relu()",
        "y.abs()",
        "y - y.mean()",
        "y.flip(-1)",
        "y.roll(1, 0)",
        "y.transpose(-1, -2)",
        "y.softmax(0)",
        "y.cumsum(0)",
        "y.cumsum(-1)",
        "y.mean(0, keepdim=True)",
        "y.unsqueeze(0)",
        "y.squeeze(0)",
        "y[..., :1]",
        "y.detach()",
        "y.round()",
        "y.double()",
        "y + y.amax(-1, keepdim=True)",
    ]
    if w.ncs and w.rank == 4 and w.chance(0.3):
        return f"y + self.{layer}(y)", [f"self.{layer} = nn.Conv2d(4, 4, {w.pick(['1', '3, padding=1'])})"]
    if w.ncs and w.chance(0.1):
        kind = f"BatchNorm{max(1, w.rank - 2)}d"
        return f"self.{layer}(y)", [f"self.{layer} = nn.{kind}(4)"]
    return w.pick(effects), []


@idea("branch", 8)
def branch(w: Writer) -> Lines:
    asked, (changed, init) = condition(w), effect(w)
    forms = [
        [f"y = {changed} if {asked} else y"],
        [f"if {asked}:", f"    y = {changed}"],
        [f"if not ({asked}):", f"    y = {changed}"],
        [f"k = {w.pick(['2.0', '1.005', '0.5'])} if {asked} else 1.0", "y = y * k"],
        [f"odd = bool({asked})", "y = y + 3 * odd"],
    ]
    return w.pick(forms), init


@idea("branch", 4)
def branch_on_inner(w: Writer) -> Lines:
    """On the size of a value that was made smaller inside."""
    if not w.ncs or w.rank != 4:
        return None
    k = w.pick([2, 2, 3])
    stride = w.name("s")
    sides = ["t.shape[2] == t.shape[3]", "x.shape[2] == x.shape[3]", "y.shape[-1] != y.shape[-2]"]
    ones = ["t.shape[2] == 1", "t.shape[-1] > 1", "t.shape[3] % 2 == 0", "t[0, 0].numel() == 1"]
    for _, name in w.free[-2:]:
        w.near.setdefault(name, set()).add(k)
    smaller = w.pick([f"F.avg_pool2d(y, {k})", f"self.{stride}(y)", f"y[:, :, ::{k}, ::{k}]"])
    init = [f"self.{stride} = nn.Conv2d(4, 4, {k}, stride={k})"] if stride in smaller else []
    # what broadcasts makes torch.export assume that a size is not one
    between = w.pick(
        [
            [],
            ["t = t + t.flatten(2).mean(-1)[:, :, None, None]"],
            ["t = t + t.mean((2, 3), keepdim=True)"],
            ["t = t * t.amax(3, keepdim=True)"],
            ["t = t + t[:, :, :1]"],
        ]
    )
    if w.chance(0.5):
        changed, asked = w.pick(["t.transpose(2, 3)", "t.flip(2)", "t.cumsum(-1)"]), w.pick(sides)
    else:
        changed, asked = (
            w.pick(["t * 2", "t * 1.005", "t * 1.005", "t.relu()", "t + 0.01"]),
            w.pick(sides + ones),
        )
    branched = f"y = {changed} if {asked} else t"
    if w.chance(0.2):
        branched = f"y = t.argmax(1) + (7 if {asked} else 0)"
    return [f"t = {smaller}", *between, branched], init


@idea("branch", 2)
def branch_in_argument(w: Writer) -> Lines:
    """The branch decides an argument of an operator."""
    asked = condition(w)
    choices = [
        f"y = y.softmax(0 if {asked} else -1)",
        f"y = y.sum(-1 if {asked} else 0, keepdim=True) + y",
        f"y = y.mean((0, 1) if {asked} else (0,), keepdim=True) - y",
        f"y = F.leaky_relu(y, 0.5 if {asked} else 0.1)",
        f"y = torch.cat([y] * (2 if {asked} else 1), 0)",
        f"y = y.roll(1 if {asked} else 2, -1)",
        f"y = [torch.relu, torch.tanh][int({asked})](y)",
        f"y = y.clamp(max=0.3 if {asked} else 0.8)",
    ]
    if w.ncs and w.rank == 4:
        choices += [
            f"y = F.interpolate(y, scale_factor=2, mode='bilinear' if {asked} else 'nearest')",
            f"y = F.avg_pool2d(y, 3, 1, 1, count_include_pad=bool({asked}))",
            f"y = F.pad(y, (1, 1, 1, 1), mode='replicate' if {asked} else 'constant')",
        ]
    return w.pick(choices)


@idea("branch")
def early_return(w: Writer) -> Lines:
    returned = w.pick(["y", "y * 2", "y.sum()", "(y, y)", "x", "y.mean(0)", "y.argmax(0)"])
    return [f"if {condition(w)}:", f"    return {returned}"]


@idea("branch")
def refuses(w: Writer) -> Lines:
    """The network itself refuses some sizes."""
    asked = condition(w)
    return w.pick(
        [
            [f"assert {asked}"],
            [f"if {asked}:", "    raise ValueError('not this size')"],
            [f"torch._check({asked})"],
        ]
    )


@idea("branch")
def branch_by_other_means(w: Writer) -> Lines:
    """No `if`, and yet another way for some sizes."""
    size, name = w.size()
    k = w.close_to(name)
    return w.pick(
        [
            ["try:", "    y = y + x[1].sum()", "except IndexError:", "    y = y * 2"],
            ["for row in x[1:]:", "    y = y + row.mean()"],
            [f"for i in range({size}):", "    y = y + 0.1"],
            [f"i = {size}", "while i > 1:", "    y, i = y * 0.9, i // 2"],
            [f"y = y * {{1: 2.0, {k}: 3.0}}.get(int({size}), 1.0)"],
            [f"y = y * max(1, {size} // {k})"],
            [f"y = y + 0.1 * min({size}, {k})"],
            [f"y = y / max({size} - 1, 1)"],
            [f"y = y * ({size} == 1)"],
            [f"y = y * (1 + ({size} > {k}))"],
            [f"y = torch.where(torch.tensor({size} == 1), y * 2, y)"],
            [f"y = y[: max(1, {size} - {k})]"],
            [f"y = y + 0.01 * math.log({size})"],
            [f"y = y * math.ceil({size} / 2)"],
            [f"y = y * round({size} / 2)"],
            [f"y = y * (0.5 ** ({size} // 2))"],
            [f"y = y + int(str({size})[0])"],
            [f"y = y + hash({size}) % 3"],
            [f"y = y * {size}.bit_length()"],
            [f"y = y * [2.0, 3.0, 4.0][{size} % 3]"],
            ["y = y + sum(s for s in x.shape if s == 1)"],
            ["y = y + np.prod(x.shape[1:]) * 0.01"],
        ]
    )
