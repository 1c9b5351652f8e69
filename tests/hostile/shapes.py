"""Squeezes, broadcasts between free axes, views and reshapes."""

from __future__ import annotations

from tests.hostile.writer import Lines, Writer, idea


def reader(w: Writer) -> str:
    """What tells one axis from another."""
    return w.pick(
        [
            "y + 1",
            "y.softmax(0)",
            "y.softmax(-1)",
            "y.cumsum(0)",
            "y.cumsum(-1)",
            "y.sum(0)",
            "y.mean(-1)",
            "y.flip(0)",
            "y * torch.arange(y.shape[-1])",
            "y[0]",
            "y[..., 0]",
            "y.argmax(0)",
            "y.transpose(0, -1)",
            "y.unsqueeze(0)",
            "y + y.transpose(-1, -2)",
            "y",
        ]
    )


@idea("squeeze", 6)
def squeeze(w: Writer) -> Lines:
    axis, other = w.axis(), w.axis()
    squeezed = w.pick(
        [
            "y.squeeze()",
            "y.squeeze()",
            "y.squeeze(0)",
            "y.squeeze(-1)",
            "y.squeeze(-2)",
            f"y.squeeze({axis})",
            f"y.squeeze(({axis}, {other}))",
            "y.squeeze((0, -1))",
            "torch.squeeze(y)",
            f"torch.squeeze(y, {axis})",
            f"y.squeeze({axis}).squeeze(-1)",
            f"y.squeeze({axis}).unsqueeze({axis})",
            f"y.unsqueeze({axis}).squeeze()",
            f"y.mean({axis}, keepdim=True).squeeze()",
            f"y.sum({axis}, keepdim=True).squeeze(0)",
            "y.squeeze_()",
            f"y.clone().squeeze_({axis})",
            "y[:1].squeeze(0)",
            "y[:, :1].squeeze()",
            "y.reshape([s for s in y.shape if s != 1])",
            "y.view([s for s in y.shape if s > 1])",
            "y[0] if y.shape[0] == 1 else y",
        ]
    )
    lines = [f"y = {squeezed}"]
    return [*lines, f"y = {reader(w)}"] if w.chance(0.8) else lines


@idea("squeeze", 3)
def sloppy_head(w: Writer) -> Lines:
    """The usual head: pooled, squeezed, linear."""
    if not w.ncs or w.rank < 3:
        return None
    axes = ", ".join(str(a) for a in range(2, w.rank))
    head = w.name("h")
    adaptive = {
        3: "F.adaptive_avg_pool1d(y, 1)",
        4: "F.adaptive_avg_pool2d(y, 1)",
        5: "F.adaptive_avg_pool3d(y, 1)",
    }
    pooled = w.pick([f"y.mean(({axes},))", adaptive[w.rank], f"y.amax(({axes},), keepdim=True)"])
    after = w.pick(["", ".softmax(0)", ".softmax(-1)", ".argmax(-1)", ".sum(0)", ".squeeze()"])
    form = w.pick(
        [".squeeze()", ".squeeze(-1).squeeze(-1)", ".squeeze(0)", ".squeeze((2, 3))", ".flatten(1).squeeze()"]
    )
    return [f"y = self.{head}({pooled}{form}){after}"], [f"self.{head} = nn.Linear(4, 5)"]


@idea("squeeze")
def unsqueeze(w: Writer) -> Lines:
    return w.pick(
        [
            "y = y.unsqueeze(0)",
            "y = y[None, ..., None]",
            "y = y.unsqueeze(-1).expand(*y.shape, 2)",
            "y = y[:, None]",
        ]
    )


@idea("broadcast", 6)
def broadcast(w: Writer) -> Lines:
    axis, other = w.axis(), w.axis()
    shape = "x.shape[0]"
    choices = [
        f"y + y.transpose({axis}, {other})",
        f"y * y.transpose({axis}, {other})",
        "y + y.transpose(-1, -2)",
        "torch.maximum(y, y.transpose(-1, -2))",
        "y + y.permute(*range(y.dim())[::-1])",
        f"y + y.mean({axis}, keepdim=True)",
        f"y.mean({axis}, keepdim=True) + y.mean({other}, keepdim=True)",
        "y + y.mean(0, keepdim=True)",
        "y.mean(0, keepdim=True).expand_as(y) * 2",
        f"y.mean(0, keepdim=True).expand({shape}, *[-1] * (y.dim() - 1))",
        "y + y[:1]",
        "y - y[-1:]",
        f"y[..., :1] + y.roll(1, {axis})",
        f"y * torch.ones({shape}, *[1] * (y.dim() - 1))",
        "torch.broadcast_to(y[:1], y.shape) + 1",
        f"torch.stack([y, y.mean(0, keepdim=True).expand_as(y)], {axis})",
        "torch.cat([y, y.mean(0, keepdim=True)], 0)",
        "y.repeat(2, *[1] * (y.dim() - 1))",
        f"y.repeat_interleave(2, {axis})",
        "y + y.flatten(1).mean(1).reshape(-1, *[1] * (y.dim() - 1))",
        f"torch.where(y.mean({axis}, keepdim=True) > 0, y, -y)",
        "y.mean(-1) + y.mean(0, keepdim=True).mean(-1)",
        "y + x.mean()",
        "y + x.flatten(1)[:, :1].reshape(-1, *[1] * (y.dim() - 1))",
        "torch.addcmul(y, y[:1], y[..., :1])",
        "torch.lerp(y, y.mean(0, keepdim=True), 0.3)",
    ]
    return f"y = {w.pick(choices)}"


@idea("broadcast", 2)
def fixed_table(w: Writer) -> Lines:
    """A table of the example's size, added: at another size only a one broadcasts."""
    if w.rank < 2:
        return None
    table = w.name("t")
    shape = [1 if w.chance(0.2) else s for s in w.y.shape]
    shape[0] = w.pick([1, 1, w.y.shape[0]])
    form = w.pick(
        [
            f"y + self.{table}",
            f"self.{table} * y",
            f"y + self.{table}[..., : y.shape[-1]]",
            f"y + self.{table}.expand(y.shape[0], *self.{table}.shape[1:])",
            f"y + self.{table}.expand_as(y)",
            f"torch.cat([self.{table}, y], 0)",
        ]
    )
    return [f"y = {form}"], [f"self.{table} = nn.Parameter(torch.zeros({', '.join(map(str, shape))}))"]


@idea("broadcast", 2)
def second_input(w: Writer) -> Lines:
    """The other input against y."""
    if len(w.inputs) < 2:
        return None
    kind = w.inputs[1].kind
    if kind == "bool":
        return w.pick(
            ["y = torch.where(z, y, -y)", "y = y * z", "y = y.masked_fill(~z, -1.0)", "y = y + z.sum()"]
        )
    return w.pick(
        [
            "y = y + z",
            "y = z * y",
            "y = y + z.mean(0)",
            "y = y + z.reshape(z.shape[0], *[1] * (y.dim() - 1))",
            "y = torch.maximum(y, z.mean())",
            "y = y + z.flatten(1).sum(1).reshape(-1, *[1] * (y.dim() - 1))",
            "y = y + z.expand_as(y)",
            "y = y * z.shape[0]",
            "y += z",
            "y, z = torch.broadcast_tensors(y, z)",
            "y = y + z[: y.shape[0]].mean()",
        ]
    )


@idea("view", 6)
def view(w: Writer) -> Lines:
    axis, other = w.axis(), w.axis()
    choices = [
        "y.view(y.shape[0], -1)",
        "y.reshape(-1)",
        "y.flatten()",
        "y.flatten(1)",
        "y.flatten(0, 1)",
        "y.ravel()",
        "y.contiguous().view(-1, y.shape[-1])",
        "y.reshape(-1, y.shape[0])",
        "y.reshape(y.shape[::-1])",
        "y.reshape(2, -1)",
        "y.reshape(-1, 2)",
        "y.reshape(-1, 8)",
        "y.view(-1, 4)",
        "y.reshape(y.shape[0] // 2, 2, *y.shape[1:])",
        "y.unflatten(0, (-1, 2))",
        "y.unflatten(-1, (2, -1))",
        f"y.movedim({axis}, {other})",
        f"y.swapaxes({axis}, {other})",
        f"y.transpose({axis}, {other})",
        "y.permute(*range(y.dim())[::-1]).contiguous()",
        "y.permute(*range(y.dim())[::-1]).reshape(-1)",
        "y.transpose(0, -1).reshape(y.shape)",
        "y.transpose(-1, -2).flatten(1)",
        "y.unfold(-1, 2, 2)",
        "y.unfold(-1, 2, 1).mean(-1)",
        "torch.as_strided(y, y.shape, y.stride())",
        "y.reshape(*y.shape[:-1], y.shape[-1] // 2, 2).sum(-1)",
        "y.view(x.shape[0], 4, -1)",
        "y.reshape(x.shape[0], -1, x.shape[-1])",
        "y.new_zeros(1).expand(y.numel()).reshape(y.shape) + y",
        "torch.atleast_3d(y)",
        f"y.diagonal(dim1={axis}, dim2={other})",
        f"y.select({axis}, 0)",
        f"y.unbind({axis})[0]",
        f"y.narrow({axis}, 0, 1)",
    ]
    if w.ncs and w.rank == 4:
        choices += [
            "y.flatten(2).transpose(1, 2)",
            "F.pixel_shuffle(y, 2)",
            "F.pixel_unshuffle(y, 2)",
            "F.channel_shuffle(y, 2)",
            "y.view(len(y), 4, y.shape[2] // 2, 2, y.shape[3] // 2, 2).transpose(3, 4).flatten(1, 2)",
            "y.reshape(y.shape[0], 4, y.shape[3], y.shape[2])",
            "y.reshape(y.shape[0], 2, 2, *y.shape[2:]).transpose(1, 2).reshape(y.shape)",
            "y.flatten(2).transpose(1, 2).reshape(x.shape[0], x.shape[2], x.shape[3], 4).permute(0, 3, 1, 2)",
            "F.unfold(y, 2)",
        ]
    lines = [f"y = {w.pick(choices)}"]
    return [*lines, f"y = {reader(w)}"] if w.chance(0.3) else lines
