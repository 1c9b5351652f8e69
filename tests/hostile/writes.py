"""In-place writes: into values, through what may or may not be a view; state that is written."""

from __future__ import annotations

from tests.hostile.writer import Lines, Writer, idea


def write(w: Writer, into: str) -> str:
    """A statement that writes into a value."""
    axis = w.axis()
    return w.pick(
        [
            f"{into}.add_(1)",
            f"{into}.add_(1)",
            f"{into}.mul_(2)",
            f"{into}.mul_(0.5)",
            f"{into}.relu_()",
            f"{into}.clamp_(min=0.1)",
            f"{into}.neg_()",
            f"{into}.fill_(0.5)",
            f"{into}.zero_()",
            f"{into}.copy_(torch.full_like({into}, 2.0))",
            f"{into}.sub_({into}.mean())",
            f"{into}[...] = 1.5",
            f"{into}[0] = 2.0",
            f"{into}[..., 0] = 1.0",
            f"{into}[..., -1:] += 1",
            f"{into}[..., 1:-1] += 1",
            f"{into}[:, 0] *= 3",
            f"{into}[{into} > 0] = 0.5",
            f"{into}.masked_fill_({into} > 0, 0.25)",
            f"{into}.select({axis}, 0).fill_(3.0)",
            f"{into}.narrow({axis}, 0, 1).mul_(2)",
            f"{into}.index_fill_(0, torch.tensor([0]), 1.0)",
            f"{into}.index_add_(0, torch.tensor([0]), torch.ones_like({into}[:1]))",
            f"{into}.transpose(-1, -2).mul_(2)",
            f"{into}.unsqueeze(0).add_(1)",
            f"{into}.squeeze().add_(1)",
            f"{into}.cumsum_(-1)",
            f"F.relu({into}, inplace=True)",
            f"{into}.diagonal(dim1=-2, dim2=-1).add_(1)",
            f"torch.add({into}, 1, out={into})",
        ]
    )


@idea("inplace", 4)
def written(w: Writer) -> Lines:
    lines = [write(w, "y")]
    return w.pick([lines, ["t = y", *lines, "y = y + t"], ["t = y * 2", *lines, "y = y + t"]])


@idea("inplace", 6)
def maybe_a_view(w: Writer) -> Lines:
    """Something that is y itself, a view of it or a copy, depending on sizes, types and strides."""
    axis, other = w.axis(), w.axis()
    drop, flat = w.name("d"), w.name("i")
    made = w.pick(
        [
            "y.view(-1)",
            "y.reshape(-1)",
            "y.permute(*range(y.dim())[::-1]).reshape(-1)",
            f"y.movedim({axis}, {other}).reshape(-1)",
            "y.flatten()",
            "y.flatten(1)",
            "y.contiguous()",
            "y.transpose(-1, -2).contiguous()",
            "y.squeeze()",
            "y.squeeze(0)",
            f"y.squeeze({axis})",
            "y.float()",
            "y.double()",
            "y.to(x.dtype)",
            "y.type_as(x)",
            "y.cpu()",
            "y.detach()",
            "y.data",
            "y.expand_as(y)",
            "y.expand(*y.shape)",
            "y[:]",
            "y[...]",
            "y[None]",
            "y[0]",
            "y[:1]",
            "y[::1]",
            "y.narrow(0, 0, y.shape[0])",
            f"y.chunk(2, {axis})[0]",
            f"y.split(2, {axis})[0]",
            f"y.chunk(1, {axis})[0]",
            f"y.unbind({axis})[0]",
            f"y.select({axis}, -1)",
            "y.roll(0, 0)",
            "y.flip(())",
            "F.dropout(y, 0.0)",
            "F.dropout(y, 0.5, False)",
            f"self.{drop}(y)",
            f"self.{flat}(y)",
            "torch.einsum('...->...', y)",
            "torch.einsum('n...->n...', y)",
            "F.pad(y, (0, 0))",
            "torch.broadcast_tensors(y, y[:1])[0]",
            "torch.atleast_2d(y)",
            "torch.atleast_1d(y)",
            "torch.real(y)",
            "torch.ravel(y)",
            "y.swapdims(0, -1)",
            "y.reshape_as(y)",
            "y.view_as(y)",
            "y.unfold(-1, 1, 1)",
            "y.unflatten(-1, (1, -1))",
            "y.T" if w.rank == 2 else "y.mT",
            "y.clone()",
            "y.repeat(*[1] * y.dim())",
            "y.repeat_interleave(1, 0)",
            "y.sum((), keepdim=True)" if w.chance(0.1) else "y + 0",
            "y * 1",
            "torch.cat([y], 0)",
            "torch.stack([y])",
            "y.masked_fill(y > 1e9, 0)",
            "y.nan_to_num()",
            "y.relu()",
            "F.interpolate(y, size=y.shape[2:])" if w.ncs and w.rank > 2 else "y.abs()",
            "F.adaptive_avg_pool2d(y, y.shape[2:])" if w.ncs and w.rank == 4 else "torch.positive(y)",
            "F.pixel_shuffle(y, 1)" if w.rank == 4 else "y.tile(1)",
            "y.to(memory_format=torch.channels_last)" if w.rank == 4 else "y.movedim(0, 0)",
        ]
    )
    init = []
    if drop in made:
        init = [
            f"self.{drop} = nn.{w.pick(['Dropout(0.5)', 'Dropout(0.0)', 'Dropout2d(0.1)', 'Identity()'])}"
        ]
    if flat in made:
        init = [f"self.{flat} = nn.{w.pick(['Flatten()', 'Flatten(0)', 'Sequential()', 'Identity()'])}"]
    written = write(w, w.pick(["t", "t", "y"]))
    ends = ["y = y + t.reshape(-1)[: y.numel()].sum()", "y = y * t.mean()", "y = y + t", "y = y * 1", "y = t"]
    return [f"t = {made}", written, w.pick(ends)], init


@idea("inplace", 2)
def pieces_written(w: Writer) -> Lines:
    axis = w.axis()
    return w.pick(
        [
            ["a, b = y[:1], y[1:]", write(w, "a"), "y = torch.cat([b, a, y], 0)"],
            [f"a, *rest = y.chunk(2, {axis})", "a.add_(1)", "y = y + 0.5"],
            ["for row in y.unbind(0):", "    row.mul_(2)"],
            ["for i in range(y.shape[1]):", "    y[:, i] += i"],
            ["t = torch.zeros_like(y)", "t[:1] = y[:1]", "y = y + t"],
            ["t = y.new_zeros(y.shape)", "t.copy_(y)", "t += y", "y = t"],
            ["t = torch.empty_like(y)", "t[...] = y * 2", "y = t"],
            ["t = torch.zeros(y.shape[0], 9, dtype=y.dtype)", "t[:, 2:4] = y.flatten(1)[:, :2]", "y = t"],
            ["t = y.clone()", "t[..., 0] = y[..., -1]", "t[..., -1] = y[..., 0]", "y = t"],
            ["y[..., 0], t = y[..., -1], y * 2", "y = y + t"],
            ["t = torch.full((2 * y.shape[0], *y.shape[1:]), 0.5, dtype=y.dtype)", "t[::2] = y", "y = t"],
        ]
    )


@idea("inplace")
def bordered(w: Writer) -> Lines:
    """A canvas that is filled, or a border that is written."""
    if not w.ncs or w.rank != 4:
        return None
    return w.pick(
        [
            ["y = F.pad(y, (1, 1, 1, 1))", "y[:, :, 0, :] = 1.0", "y[:, :, -1, :] = 1.0"],
            [
                "t = y.new_ones(y.shape[0], 4, y.shape[2] + 2, y.shape[3] + 2)",
                "t[:, :, 1:-1, 1:-1] = y",
                "y = t",
            ],
            ["y[:, :, 1:-1, 1:-1] += 1"],
            ["y[:, :, ::2, ::2] = 0"],
            ["y[:, :2] += y[:, 2:]"],
            ["y[:, :, : y.shape[2] // 2] = y[:, :, y.shape[2] - y.shape[2] // 2 :]"],
        ]
    )


@idea("inplace", 2)
def input_written(w: Writer) -> Lines:
    """The caller's own tensor."""
    return [w.pick(["x.add_(1)", "x += 1", "x[0] = 0", "x.mul_(2)", "x[..., 0] = 1.0", "x.copy_(x * 2)"])], []


@idea("state", 4)
def buffer_written(w: Writer) -> Lines:
    kept = w.name("n")
    persistent = w.pick(["", ", persistent=False"])
    number, vector = (
        f"self.register_buffer('{kept}', torch.tensor(3.0){persistent})",
        (f"self.register_buffer('{kept}', torch.ones(4){persistent})"),
    )
    whole = f"self.register_buffer('{kept}', torch.tensor(1){persistent})"
    return w.pick(
        [
            ([f"self.{kept} += 1", f"y = y * self.{kept}"], [number]),
            ([f"self.{kept}.add_(1)"], [whole]),
            ([f"y = y + self.{kept}", f"self.{kept}.mul_(0.5)"], [number]),
            ([f"self.{kept} = self.{kept} + 1", f"y = y + self.{kept}"], [number]),
            ([f"self.{kept}.copy_(y.flatten(1)[:, :4].mean(0))", f"y = y + self.{kept}.sum()"], [vector]),
            ([f"self.{kept}[0] = y.mean()", f"y = y * self.{kept}.mean()"], [vector]),
            ([f"self.{kept}.zero_()", f"y = y + self.{kept}.sum()"], [vector]),
            ([f"t = self.{kept}", "t += 1", f"y = y + self.{kept}[0]"], [vector]),
        ]
    )


@idea("state", 2)
def attribute_written(w: Writer) -> Lines:
    kept = w.name("a")
    size, _ = w.size()
    return w.pick(
        [
            ([f"self.{kept} += 1"], [f"self.{kept} = 0"]),
            ([f"self.{kept} = y.detach()", "y = y + 1"], [f"self.{kept} = None"]),
            ([f"self.{kept}.calls += 1"], [f"self.{kept} = SimpleNamespace(calls=0)"]),
            ([f"self.{kept}[0] += 1"], [f"self.{kept} = np.zeros(2)"]),
            ([f"self.{kept}.append({size})"], [f"self.{kept} = []"]),
            ([f"self.{kept}['last'] = y"], [f"self.{kept} = {{}}"]),
            (
                [
                    f"if {size} not in self.{kept}:",
                    f"    self.{kept}[{size}] = torch.arange({size}, dtype=y.dtype).sum()",
                    f"y = y + self.{kept}[{size}] * 0.1",
                ],
                [f"self.{kept} = {{}}"],
            ),
            (
                [
                    f"if self.{kept} is None or self.{kept}.shape[0] != {size}:",
                    f"    self.{kept} = torch.linspace(0, 1, {size}, dtype=y.dtype)",
                    f"y = y + self.{kept}.sum()",
                ],
                [f"self.{kept} = None"],
            ),
            (
                [
                    f"if self.{kept}.shape[0] < {size}:",
                    f"    self.{kept} = torch.arange(2 * {size}, dtype=y.dtype)",
                    f"y = y + self.{kept}[: {size}].mean()",
                ],
                [f"self.{kept} = torch.arange(5.0)"],
            ),
        ]
    )
