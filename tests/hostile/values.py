"""Sizes that become values, types that change, and operators along free axes."""

from __future__ import annotations

from tests.hostile.writer import Lines, Writer, idea


@idea("values", 5)
def sizes_as_values(w: Writer) -> Lines:
    size, _ = w.size()
    other, _ = w.size()
    last = "y.shape[-1]"
    choices = [
        f"y * {size}",
        f"y / {size} ** 0.5",
        f"y * {size} / {other}",
        f"y + {size} // 2",
        f"y + {size} % 3",
        f"y.sum(-1) / {last}",
        "y.sum() / y.numel()",
        "y.sum(0) / len(y)",
        f"y + torch.arange({last})",
        f"y * torch.linspace(0, 1, {last}, dtype=y.dtype)",
        f"y + torch.arange({last}, 0, -1)",
        f"y + torch.arange({size}).sum()",
        f"y + torch.zeros({last}, dtype=y.dtype)",
        f"y + torch.ones({size}, {other}).mean()",
        f"y + torch.full((), {size}, dtype=y.dtype)",
        f"y + torch.tensor({size})",
        f"y * torch.tensor([{size}, {other}], dtype=y.dtype).prod()",
        f"y + torch.eye({last}, dtype=y.dtype)[0]",
        f"y @ torch.eye({last}, dtype=y.dtype)",
        f"y @ torch.tril(torch.ones({last}, {last}, dtype=y.dtype))",
        f"F.pad(y, (0, -{last} % 4))",
        f"F.pad(y, ({last} % 2, 1))",
        f"F.pad(y, (0, max(0, 6 - {last})))",
        f"y[..., : {last} // 2]",
        f"y[..., {last} // 2 :]",
        f"y[..., : {size}]",
        "y[..., 1:]",
        "y[..., ::2]",
        "y[..., -2:]",
        f"y[..., : max({last} - 2, 1)]",
        f"y.narrow(-1, 0, ({last} + 1) // 2)",
        f"y[: ({size} + 1) // 2]",
        f"y.expand({size}, *y.shape)",
        "torch.cat([y, y.new_zeros(1, *y.shape[1:])], 0)",
        f"torch.cat([y, y.new_ones(*y.shape[:-1], {size})], -1)",
        f"y.topk(min(3, {last}), -1)[0]",
        f"y.flatten()[: {size} * {other}]",
        f"y.roll({size} // 2, -1)",
        f"y[torch.arange({size}) % y.shape[0]]",
        f"y * (torch.arange({last}) < {size}).to(y.dtype)",
    ]
    return f"y = {w.pick(choices)}"


@idea("values", 2)
def positions(w: Writer) -> Lines:
    """Positional embeddings: sliced, resized, indexed; grids."""
    if not w.ncs or w.rank != 4:
        return None
    p = w.name("p")
    rows, columns = (f"torch.arange(y.shape[{axis}], dtype=y.dtype)" for axis in (2, 3))
    grid = f"torch.meshgrid({rows}, {columns}, indexing='ij')"
    table = [f"self.{p} = nn.Parameter(torch.zeros(1, 4, 10, 12))"]
    return w.pick(
        [
            ([f"y = y + self.{p}[:, :, : y.shape[2], : y.shape[3]]"], table),
            ([f"y = y + F.interpolate(self.{p}, size=y.shape[2:], mode='bilinear')"], table),
            ([f"y = y + F.interpolate(self.{p}, size=(y.shape[2], y.shape[3]))"], table),
            ([f"y = y + F.adaptive_avg_pool2d(self.{p}, y.shape[2:])"], table),
            ([f"g, h = {grid}", "y = y + g * 0.1 - h"], []),
            (
                [
                    f"g, h = {grid}",
                    "y = torch.cat([y, torch.stack([g, h])[None].expand(len(y), -1, -1, -1)], 1)",
                ],
                [],
            ),
            (
                [
                    "t = torch.eye(2, 3, dtype=y.dtype)[None].expand(len(y), -1, -1)",
                    "g = F.affine_grid(t, list(y.shape), align_corners=False)",
                    "y = F.grid_sample(y, g * 0.9, align_corners=False)",
                ],
                [],
            ),
            (
                [f"t = self.{p}.flatten(2)[0].T[torch.arange(y.shape[3])]", "y = y + t.T[None, :, None]"],
                table,
            ),
            (
                [f"y = y + self.{p}(torch.arange(y.shape[3])).T[None, :, None]"],
                [f"self.{p} = nn.Embedding(16, 4)"],
            ),
        ]
    )


@idea("values", 3)
def resampled(w: Writer) -> Lines:
    if not w.ncs or w.rank < 3:
        return None
    d = w.rank - 2
    size, _ = w.size()
    padding = w.pick(["replicate", "circular", "reflect"] if d < 3 else ["replicate"])
    choices = [
        f"F.adaptive_avg_pool{d}d(y, 1)",
        f"F.adaptive_avg_pool{d}d(y, {w.pick([2, 3])})",
        f"F.adaptive_max_pool{d}d(y, 2)",
        f"F.avg_pool{d}d(y, 2, ceil_mode=True)",
        f"F.avg_pool{d}d(y, 3, 1, 1, count_include_pad=False)",
        f"F.max_pool{d}d(y, 2, 1)",
        f"F.max_pool{d}d(y, 3, 2, 1)",
        "F.interpolate(y, scale_factor=2)",
        "F.interpolate(y, scale_factor=0.5)",
        "F.interpolate(y, scale_factor=1.5)",
        "F.interpolate(y, size=x.shape[2:])",
        "F.interpolate(y, size=[2 * s for s in y.shape[2:]])",
        "F.interpolate(y, size=[s // 2 + 1 for s in y.shape[2:]])",
        "F.interpolate(y[..., ::2], size=y.shape[2:])",
        f"F.interpolate(y, size=({', '.join([size] * d)},))",
        f"F.pad(y, {(1,) * 2 * d}, mode='{padding}')",
        "F.instance_norm(y)",
        "F.group_norm(y, 2)",
        "F.layer_norm(y, y.shape[1:])",
        "F.layer_norm(y, y.shape[-1:])",
        "F.local_response_norm(y, 3)",
        "F.batch_norm(y, None, None, training=True)",
    ]
    if d == 2:
        choices += [
            "F.interpolate(y, size=(2 * y.shape[2], y.shape[3]), mode='bilinear')",
            "F.interpolate(y, scale_factor=2, mode='bilinear', align_corners=True)",
            "F.interpolate(y, size=x.shape[-1], mode='bicubic')",
            "F.adaptive_avg_pool2d(y, (None, 1))",
            "F.adaptive_avg_pool2d(y, (y.shape[2] // 2, 1))",
            "F.fold(F.unfold(y, 3, padding=1), y.shape[2:], 3, padding=1)",
            "F.avg_pool2d(y, (y.shape[2], 1))",
            "F.avg_pool2d(y, y.shape[2:])",
            "F.max_pool2d(y, kernel_size=y.shape[2:])",
        ]
    return f"y = {w.pick(choices)}"


@idea("operators", 6)
def along(w: Writer) -> Lines:
    axis, other = w.axis(), w.axis()
    choices = [
        f"y.cumsum({axis})",
        f"y.softmax({axis})",
        "y.softmax(0)",
        f"y.log_softmax({axis})",
        f"y.logsumexp({axis}, keepdim=True)",
        f"y.flip({axis})",
        f"y.roll(1, {axis})",
        "y.roll((1, 2), (0, -1))",
        f"torch.cat([y, y], {axis})",
        f"torch.cat([y, y.flip({axis})], {other})",
        f"torch.cat(y.chunk(2, {axis})[::-1], {axis})",
        f"torch.cat(y.split(3, {axis})[::-1], {axis})",
        f"torch.cat(y.tensor_split(2, {axis}), {other})",
        f"y.chunk(2, {axis})[-1]",
        f"y.chunk(3, {axis})[0]",
        f"sum(y.unbind({axis}))",
        f"torch.stack(y.unbind({axis}), {other})",
        f"y.split(2, {axis})[-1]",
        f"y.sum({axis})",
        f"y.prod({axis})",
        f"y.amax({axis})",
        f"y.max({axis})[0]",
        f"y.min({axis}, keepdim=True)[0]",
        f"y.sort({axis})[0]",
        f"y.std({axis}, keepdim=True) + y",
        f"y.var({axis}, unbiased=False)",
        f"y - y.mean({axis}, keepdim=True)",
        f"y.median({axis})[0]",
        f"F.normalize(y, dim={axis})",
        f"y.norm(dim={axis})",
        f"y.diff(dim={axis})",
        f"y.index_select({axis}, torch.tensor([0, 0]))",
        f"y.gather({axis}, torch.zeros_like(y, dtype=torch.long))",
        "y @ y.transpose(-1, -2)",
        "torch.matmul(y, y.mT).softmax(-1) @ y",
        "torch.einsum('n...i,n...j->n...ij', y, y)",
        "torch.einsum('n...i,m...i->nm', y, y)",
        "torch.einsum('...i->...', y)",
        "torch.cdist(y, y)",
        "torch.tril(y)",
        "torch.triu(y, 1)",
        "y.tril().sum(-1)",
        "F.cosine_similarity(y, y.roll(1, 0), dim=-1)",
        "torch.outer(y.flatten(), y.flatten()[:3])",
        "torch.tensordot(y, y, ([0], [0]))",
        "torch.kron(y, y.new_ones(1, 2))",
        f"y.logcumsumexp({axis})",
        f"y.cummax({axis})[0]",
        "torch.cartesian_prod(y.flatten()[:3], y.flatten()[:2])",
        "torch.block_diag(y.flatten(1), y.flatten(1))",
    ]
    return f"y = {w.pick(choices)}"


@idea("types", 5)
def typed(w: Writer) -> Lines:
    size, _ = w.size()
    choices = [
        "y.double()",
        "y.float() if y.dtype == torch.float64 else y.double()",
        "y.double().to(x.dtype)",
        "(y * 3).long()",
        "(y * 3).to(torch.int32)",
        "(y * 3).round().int().float()",
        "y.argmax(-1)",
        "y.argmax(1) + 7",
        "y.argmax()",
        "y.argsort(-1)",
        "y.topk(1, -1)[1]",
        "(y > 0)",
        "(y > 0).to(y.dtype) * 2 + y",
        "(y > 0).sum(-1)",
        "(y > y.mean()).any(-1)",
        "torch.where(y > 0, 1, 0)",
        "torch.where(y > 0, y, 0.0)",
        "F.one_hot(y.argmax(-1), 16)",
        "y * torch.tensor([2.0], dtype=torch.float64)",
        "y * torch.tensor(2.0, dtype=torch.float64)",
        "y + torch.zeros(1)",
        "y * np.float64(2)",
        "y * np.sqrt(2)",
        "y.sign()",
        "y.floor() // 2",
        "(y * 5).long() // 2",
        "(y * 5).long() % 3",
        f"(y * 5).long() * {size}",
        f"y.argmax(-1) * {size}",
        f"y.argmax(-1) + (7 if {size} == 1 else 0)",
        "y.new_tensor([1, 2, 3]).sum() * y",
        "torch.bucketize(y, torch.tensor([-1.0, 0.0, 1.0]))",
        "(y > 0) & (y < 1)",
        "torch.isnan(y) | (y > 0)",
        "y.masked_fill(y > 0, float('-inf')).exp()",
        "torch.view_as_real(torch.fft.rfft(y))",
        "torch.fft.rfft(y).abs()",
        "torch.complex(y, y).abs()",
        "y[y.argmax(0).flatten()[:1]]",
        "y.to(torch.promote_types(y.dtype, torch.float64))",
    ]
    halves = [
        "y.half().float()",
        "y.half().to(x.dtype)",
        "y.bfloat16().to(y.dtype)",
        "y.half()",
        "(y.half() * 2).float()",
    ]
    if w.chance(0.15):
        w.coarse = True
        return f"y = {w.pick(halves)}"
    return f"y = {w.pick(choices)}"


@idea("modes", 3)
def mode(w: Writer) -> Lines:
    asked = w.pick(
        [
            "torch.is_grad_enabled()",
            "x.requires_grad",
            "y.requires_grad",
            "x.is_contiguous()",
            "not x.is_contiguous()",
            "x.is_contiguous(memory_format=torch.channels_last)",
            "x.stride(-1) == 1",
            "x.stride(1) > 1",
            "self.training",
            "torch.is_autocast_enabled()",
            "torch.get_default_dtype() == torch.float64",
            "torch.is_inference_mode_enabled()",
            "x.is_leaf",
            "x.dtype == torch.float64",
            "x.device.type == 'cpu'",
            "torch.jit.is_tracing()",
            "torch.compiler.is_compiling()",
            "torch.compiler.is_exporting()",
            "torch.onnx.is_in_onnx_export()",
            "isinstance(x.shape[0], int)",
            "type(x) is Tensor",
            "x.storage_offset() == 0",
        ]
    )
    changed = w.pick(["y * 2", "y.relu()", "y * 1.005", "y.transpose(-1, -2)", "y.detach() + 1"])
    return f"y = {changed} if {asked} else y"


@idea("modes")
def switched(w: Writer) -> Lines:
    return w.pick(
        [
            ["with torch.no_grad():", "    y = y * 2"],
            ["with torch.enable_grad():", "    y = y * 2 + y.requires_grad"],
            ["with torch.autocast('cpu', enabled=False):", "    y = y * 2"],
            ["torch.set_grad_enabled(torch.is_grad_enabled())", "y = y + 1"],
        ]
    )
