"""Operators on feature maps (N, C, *spatial), with attributes drawn."""

from __future__ import annotations

from typing import Any

from torch import nn

from tests.engine.random_net import Lines

_CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORMS = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class Maps(Lines):
    """Lines that read and write feature maps."""

    def conv(self, v: str, **fixed: Any) -> str:
        dims, channels = self.layout[v], self.shape(v)[1]
        groups = fixed.get("groups") or self.pick([1, 1, *_divisors(channels)])
        outputs = fixed.get("outputs") or groups * self.int(1, max(1, 6 // groups))
        if outputs % groups:
            groups = 1
        window = fixed.get("window") or self.pick([1, 1, 3, 3, 2, (3, 1, 2)[:dims], (1, 3, 1)[:dims]])
        dilation = fixed.get("dilation") or self.pick([1, 1, 1, 2])
        stride = fixed.get("stride") or self.pick([1, 1, 1, 2, (2, 1, 1)[:dims]])
        padding = fixed.get("padding")
        if padding is None:
            padding = self.pick([0, 0, 1, 1, 2, (1, 0, 2)[:dims], "valid"])
            if stride == 1 and self.int(0, 5) == 0:
                padding = "same"
        layer = _CONVS[dims](
            channels, outputs, window, stride, padding, dilation, groups, self.pick([True, False])
        )
        return self.line(f"{self.module(layer)}({v})", v, dims=dims)

    def transposed(self, v: str, **fixed: Any) -> str:
        """A transposed convolution, now and then to a size that the caller gives."""
        dims, channels = self.layout[v], self.shape(v)[1]
        groups = self.pick([1, 1, *_divisors(channels)])
        outputs = fixed.get("outputs") or groups * self.int(1, max(1, 6 // groups))
        if outputs % groups:
            groups = 1
        window = fixed.get("window") or self.pick([1, 2, 3, 4, (3, 1, 2)[:dims], (2, 4, 3)[:dims]])
        dilation = fixed.get("dilation") or self.pick([1, 1, 1, 2])
        stride = fixed.get("stride") or self.pick([1, 2, 2, 3, (2, 1, 2)[:dims]])
        padding = fixed.get("padding", self.pick([0, 0, 1, 2, (1, 0, 2)[:dims]]))
        more = fixed.get("more", self.pick([0, 0, 1]))
        bias = fixed.get("bias", self.coin())
        layer = _TRANSPOSED[dims](channels, outputs, window, stride, padding, more, groups, bias, dilation)
        size = ""
        if not fixed and more == 0 and self.int(0, 3) == 0:
            size = self.pick(
                [
                    f", output_size=[2 * n for n in {v}.shape[2:]]",
                    f", output_size={[2 * n + self.int(0, 1) for n in self.shape(v)[2:]]}",
                ]
            )
        return self.line(f"{self.module(layer)}({v}{size})", v, dims=dims)

    def upsampled(self, v: str) -> str:
        """Parallel transposed convolutions of one stride; their sum, where the sizes agree."""
        dims = self.layout[v]
        stride, outputs = self.pick([2, 2, 3, 1]), self.int(1, 5)
        found: list[str] = []
        for _ in range(self.int(2, 3)):
            padding = self.int(0, 2)
            window = stride + 2 * padding
            if self.int(0, 3) == 0:
                window += 1
            more = 0
            if window > 1 and stride > 1 and self.int(0, 3) == 0:
                window, more = window - 1, 1
            sizes = {"window": window, "padding": padding, "more": more}
            inner = self.conv(v, window=1, stride=1, padding=0) if self.int(0, 3) == 0 else v
            branch = self.transposed(inner, outputs=outputs, stride=stride, dilation=1, **sizes)
            if self.coin():
                branch = self.norm(branch)
            if branch not in (v, inner) and (not found or self.shape(branch) == self.shape(found[0])):
                found.append(branch)
        if len(found) < 2:
            return found[0] if found else v
        if self.int(0, 3) == 0:
            return self.line(f"torch.cat([{', '.join(found)}], 1)", *found, dims=dims)
        total = found[0]
        for other in found[1:]:
            form = self.pick(["{a} + {b}", "{a} - {b}", "{b} + {a} * -0.5"])
            total = self.line(form.format(a=total, b=other), total, other, dims=dims)
        return total

    def again(self, v: str) -> str:
        """A module that is used already, on another value."""
        dims, channels = self.layout[v], self.shape(v)[1]
        known = [
            n
            for n, m in self.net.named_modules()
            if (isinstance(m, (_CONVS[dims], _TRANSPOSED[dims])) and m.in_channels == channels)
            or (isinstance(m, _NORMS[dims]) and m.num_features == channels)
        ]
        return self.line(f"self.{self.pick(known)}({v})", v, dims=dims) if known else v

    def norm(self, v: str) -> str:
        dims = self.layout[v]
        layer = _NORMS[dims](
            self.shape(v)[1], eps=self.pick([1e-5, 1e-3]), affine=self.pick([True, True, False])
        )
        return self.line(f"{self.module(layer)}({v})", v, dims=dims)

    def constant(self, v: str) -> str:
        """A constant that broadcasts onto the value: a number, or one per channel, in several spellings."""
        dims, channels = self.layout[v], self.shape(v)[1]
        kind = self.int(0, 5)
        if kind == 0:
            return str(self.factor())
        if kind == 1:
            return self.tensor(*self.pick([(), (1,), (1,) * (dims + 1)]))
        if kind == 2:
            return f"torch.exp({self.tensor(1, channels, *(1,) * dims)} * 0.3)"
        if kind == 3:
            return f"{self.tensor(channels, parameter=True)}.view(1, -1, {', '.join('1' * dims)})"
        if kind == 4 and self.int(0, 3) == 0:
            return self.tensor(*(1,) * (dims > 0), *self.shape(v)[2:])  # along the spatial axes
        return self.tensor(channels, *(1,) * dims)

    def arithmetic(self, v: str) -> str:
        form = self.pick(
            [
                "{v} * {c}",
                "{c} * {v}",
                "{v} + {c}",
                "{c} - {v}",
                "{v} - {c}",
                "{v} / {c}",
                "-{v}",
                "torch.add({v}, {c}, alpha=-2)",
                "torch.sub({v}, {c}, alpha=0.5)",
                "0 + {v}",
                "torch.rsub({v}, 0.5, alpha=2)",
            ]
        )
        return self.line(form.format(v=v, c=self.constant(v)), v, dims=self.layout[v])

    def written(self, v: str) -> str:
        """An in-place form, now and then on a value that others read too, or that is a view."""
        own = self.pick(
            ["{v}.clone()", "{v} * 1", "{v}.relu()", "{v} - 0.1", "{v}", "{v}[:, :]", "{v}.detach()"]
        )
        target = v if own == "{v}" else self.line(own.format(v=v), v, dims=self.layout[v])
        form = self.pick(
            ["{t}.mul_({c})", "{t}.add_({c})", "{t}.sub_({c})", "{t}.neg_()", "F.relu({t}, inplace=True)"]
        )
        written = form.format(t=target, c=self.constant(v))
        others = [o for o in self.values(self.layout[v]) if self.shape(o) == self.shape(v)]
        if self.int(0, 3) == 0:
            other = self.pick(others)
            return self.line(f"{target}.add_({other})", target, other, dims=self.layout[v])
        return self.line(written, target, dims=self.layout[v])

    def pair(self, v: str) -> str:
        """A sum or difference of two values of one shape."""
        others = [o for o in self.values(self.layout[v]) if self.shape(o) == self.shape(v)]
        other = self.pick(others)
        form = self.pick(
            [
                "{v} + {o}",
                "{v} - {o}",
                "torch.add({v}, {o}, alpha=-0.5)",
                "torch.sub({o}, {v}, alpha=2)",
                "{v} * 0.5 + {o}",
                "sum([{v}, {o}])",
                "torch.stack([{v}, {o}]).sum(0)",
            ]
        )
        return self.line(form.format(v=v, o=other), v, other, dims=self.layout[v])

    def branches(self, v: str) -> str:
        """Parallel branches of one output shape, as RepVGG, MobileOne, DBB and ACNet have them."""
        dims, channels = self.layout[v], self.shape(v)[1]
        stride = self.pick([1, 1, 1, 2])
        groups = self.pick([1, 1, channels])
        outputs = channels if stride == 1 and self.coin() else groups * self.int(1, 3)
        found: list[str] = []
        for _ in range(self.int(2, 4)):
            branch = self.branch(v, dims, channels, outputs, stride, groups)
            if branch != v or (stride == 1 and outputs == channels):
                found.append(branch)
        found = [f for f in found if self.shape(f) == self.shape(found[0])]
        if len(found) < 2:
            return found[0] if found else v
        if self.coin():
            total = found[0]
            for other in found[1:]:
                form = self.pick(["{a} + {b}", "{a} - {b}", "{a} + {b} * -0.5", "{b} + {a}"])
                total = self.line(form.format(a=total, b=other), total, other, dims=dims)
            return total
        return self.line(f"sum([{', '.join(found)}])", *found, dims=dims)

    def branch(self, v: str, dims: int, channels: int, outputs: int, stride: int, groups: int) -> str:
        if channels % groups or outputs % groups:
            groups = 1
        kind = self.int(0, 7)
        same = {"stride": stride, "outputs": outputs, "groups": groups}
        if kind <= 1:
            out = self.conv(v, window=3, padding=1, dilation=1, **same)
        elif kind == 2:
            out = self.conv(v, window=1, padding=0, dilation=1, **same)
        elif kind == 3:
            side = self.pick([(1, 3, 3), (3, 1, 3), (3, 3, 1)])[:dims]
            out = self.conv(v, window=side, padding=tuple(s // 2 for s in side), dilation=1, **same)
        elif kind == 4:
            out = self.conv(v, window=3, padding=2, dilation=2, **same)
        elif kind == 5 and outputs == channels and groups in (1, channels):
            pool = f"F.avg_pool{dims}d({v}, 3, {stride}, 1)"
            out = self.line(pool, v, dims=dims)
        elif kind == 6:
            middle = self.conv(v, window=1, padding=1, stride=1, dilation=1, outputs=self.int(1, 4), groups=1)
            out = self.conv(middle, window=3, padding=0, dilation=1, stride=stride, outputs=outputs, groups=1)
        elif stride == 1 and outputs == channels:
            out = v
        else:
            out = self.conv(v, window=1, padding=0, dilation=1, **same)
        if self.coin():
            out = self.norm(out)
        return self.arithmetic(out) if self.int(0, 3) == 0 else out

    def padded(self, v: str) -> str:
        dims = self.layout[v]
        amounts = [self.int(-1, 2) for _ in range(2 * self.int(1, dims))]
        if self.int(0, 3) == 0:
            mode = self.pick(["reflect", "replicate", "circular"])
            return self.line(
                f"F.pad({v}, {tuple(self.int(0, 2) for _ in range(2 * dims))}, '{mode}')", v, dims=dims
            )
        return self.line(f"F.pad({v}, {tuple(amounts)})", v, dims=dims)

    def surrounded(self, v: str) -> str:
        """Layers of a value and of its paddings by what is there, of one mode or another, added up."""
        dims, channels = self.layout[v], self.shape(v)[1]
        mode = self.pick(["reflect", "replicate", "circular"])
        found = []
        for _ in range(self.int(1, 3)):
            width = self.int(0, 2)
            other: Any = mode if self.int(0, 5) else "replicate"
            layer = _CONVS[dims](channels, channels, 2 * width + 1, padding=width, padding_mode=other)
            inner = self.norm(v) if self.int(0, 4) == 0 else v
            branch = self.line(f"{self.module(layer)}({inner})", inner, dims=dims)
            found.append(self.norm(branch) if self.coin() else branch)
        if self.coin():
            found.append(v)
        total = found[0]
        for branch in found[1:]:
            total = self.line(f"{total} + {branch}", total, branch, dims=dims)
        return total

    def multiplied(self, v: str) -> str:
        """A matrix over the channels, or a factor along them, by `einsum`."""
        axes, channels = "hwd"[: self.layout[v]], self.shape(v)[1]
        equation, shape = self.pick(
            [
                (f"bc{axes},kc->bk{axes}", (self.int(1, 4), channels)),
                (f"bc{axes},ck->bk{axes}", (channels, self.int(1, 4))),
                (f"bc{axes},c->bc{axes}", (channels,)),
                ("bc...,kc->bk...", (self.int(1, 4), channels)),
            ]
        )
        form = f"torch.einsum('{equation}', {v}, {self.tensor(*shape)})"
        return self.line(form, v, dims=self.layout[v])

    def with_zeros(self, v: str) -> str:
        other = self.pick([o for o in self.values(self.layout[v]) if self.shape(o) == self.shape(v)])
        form = self.pick(
            [
                "{v} + torch.zeros_like({o})",
                "torch.zeros_like({v}) - {o}",
                "{v} + {o}.new_zeros({v}.shape)",
                "{v} - torch.full_like({o}, 0.0)",
                "{o} + torch.zeros({v}.shape, dtype={v}.dtype) + {v}",
                "{v} + torch.zeros_like({o}) * 2.0",
            ]
        )
        return self.line(form.format(v=v, o=other), v, other, dims=self.layout[v])

    def cropped(self, v: str) -> str:
        cuts = [
            self.pick(["1:-1", ":-1", "1:", "::2", "1::2", ":", ":3", "-3:"]) for _ in range(self.layout[v])
        ]
        return self.line(f"{v}[:, :, {', '.join(cuts)}]", v, dims=self.layout[v])

    def pooled(self, v: str) -> str:
        dims = self.layout[v]
        window, stride, padding = self.int(2, 3), self.int(1, 2), self.int(0, 1)
        options = f"ceil_mode={self.coin()}, count_include_pad={self.coin()}"
        if dims > 1 and self.int(0, 3) == 0:
            options += ", divisor_override=5"
        return self.line(f"F.avg_pool{dims}d({v}, {window}, {stride}, {padding}, {options})", v, dims=dims)

    def nothing(self, v: str) -> str:
        form = self.pick(
            [
                "{m}({v})",
                "{v}.contiguous()",
                "{v}.clone()",
                "F.dropout({v}, 0.3, False)",
                "{v}.to({v}.dtype)",
                "{v}[:]",
            ]
        )
        module = ""
        if "{m}" in form:
            module = self.module(self.pick([nn.Identity(), nn.Dropout(0.2), nn.Dropout(0.2, inplace=True)]))
        return self.line(form.format(v=v, m=module), v, dims=self.layout[v])

    def gate(self, v: str) -> str:
        """What is not affine."""
        dims, channels = self.layout[v], self.shape(v)[1]
        kind = self.int(0, 6)
        if kind == 0 and dims > 0:
            axes = tuple(range(2, 2 + dims))
            mean = self.line(f"{v}.mean({axes}, keepdim=True)", v, dims=dims)
            if self.coin():
                mean = self.norm(mean)
            inner = self.conv(mean, window=1, padding=0, stride=1, dilation=1, outputs=channels, groups=1)
            if self.shape(inner)[1] != channels:
                return inner
            return self.line(f"{v} * torch.sigmoid({inner})", v, inner, dims=dims)
        forms = [
            "F.relu({v})",
            "torch.sigmoid({v})",
            "{v}.abs()",
            "F.hardswish({v})",
            "F.gelu({v})",
            "{v}.clamp(-1, 1)",
        ]
        if dims in (1, 2, 3):
            forms.append(f"F.max_pool{dims}d({{v}}, 2, 1)")
        return self.line(self.pick(forms).format(v=v), v, dims=dims)

    def concatenated(self, v: str) -> str:
        dims = self.layout[v]
        others = [o for o in self.values(dims) if self.shape(o)[2:] == self.shape(v)[2:]]
        parts = [v, *(self.pick(others) for _ in range(self.int(1, 2)))]
        if self.coin():
            parts[0] = self.conv(v, window=1, stride=1, padding=0, dilation=1)
        whole = self.line(f"torch.cat([{', '.join(parts)}], 1)", *parts, dims=dims)
        return self.norm(whole) if self.coin() else whole

    def standardised(self, v: str) -> str:
        """A norm by the statistics of its own input, whose scale and shift are another matter."""
        dims, channels = self.layout[v], self.shape(v)[1]
        groups = self.pick([1, *_divisors(channels)])
        instance = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)[dims - 1]
        layer = nn.GroupNorm(groups, channels) if self.coin() else instance(channels, affine=True)
        return self.line(f"{self.module(layer)}({v})", v, dims=dims)

    def split(self, v: str) -> str:
        """Some of the channels, or all in another order."""
        channels = self.shape(v)[1]
        half = max(1, channels // 2)
        form = self.pick(
            [
                f"{v}[:, :{half}]",
                f"{v}[:, {half - 1}:]",
                f"{v}.flip(1)",
                f"{v}.chunk(2, 1)[0]",
                f"{v}.narrow(1, 0, {half})",
            ]
        )
        return self.line(form, v, dims=self.layout[v])

    def pieces(self, v: str) -> str:
        """Cut into pieces, each of which goes its way, and perhaps together again."""
        dims = self.layout[v]
        if self.coin():
            v = self.norm(v) if self.coin() else self.conv(v)
        channels = self.shape(v)[1]
        first = self.int(1, channels)
        form = self.pick(
            [
                f"{v}.chunk({self.int(1, 3)}, 1)",
                f"{v}.split({self.int(1, channels)}, 1)",
                *([f"torch.split({v}, [{first}, {channels - first}], 1)"] if first < channels else []),
                f"tuple(p.unsqueeze(1) for p in {v}.unbind(1))",
            ]
        )
        whole = f"v{len(self.net.lines)}"
        self.env[whole] = self.net.run(form, self.env)
        self.net.lines.append((whole, form))
        self.read.update((v, whole))
        pieces = []
        for place in range(min(len(self.env[whole]), 4)):
            piece = self.line(f"{whole}[{place}]", v, dims=dims)
            for _ in range(self.int(0, 2)):
                piece = self.pick([self.norm, self.arithmetic, self.conv])(piece)
            pieces.append(piece)
        sizes = {self.shape(piece)[2:] for piece in pieces}
        if len(sizes) > 1 or self.coin():
            return pieces[0]
        return self.line(f"torch.cat([{', '.join(pieces)}], 1)", *pieces, dims=dims)

    def resized(self, v: str) -> str:
        dims = self.layout[v]
        form = self.pick(
            [
                f"F.interpolate({v}, scale_factor=2)",
                f"F.adaptive_avg_pool{dims}d({v}, {self.int(1, 3)})",
                f"F.adaptive_avg_pool{dims}d({v}, 1) + {v}",
            ]
        )
        return self.line(form, v, dims=dims)

    def computed(self, v: str) -> str:
        """A convolution whose weight the network computes."""
        dims, channels = self.layout[v], self.shape(v)[1]
        window = self.pick([1, 3])
        weight = self.tensor(self.int(1, 4), channels, *(window,) * dims, parameter=True)
        form = self.pick(
            [
                f"{weight} * 0.3",
                f"{weight} - {weight}.mean(1, keepdim=True)",
                f"F.normalize({weight}, dim=1)",
                f"{weight}.flip(1) + {weight}",
                f"torch.tanh({weight})",
            ]
        )
        if self.int(0, 3) == 0:
            form = f"({form}).transpose(0, 1)"
            return self.line(
                f"F.conv_transpose{dims}d({v}, {form}, stride=2, padding={window // 2})", v, dims=dims
            )
        return self.line(f"F.conv{dims}d({v}, {form}, padding={window // 2})", v, dims=dims)


def _divisors(n: int) -> list[int]:
    return [d for d in range(2, n + 1) if n % d == 0]
