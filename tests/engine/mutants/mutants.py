"""The mistakes that are put into the engine, one at a time: a piece of a file, and what is put there instead.

A mutant has to be caught before the whole network is compared, or to choose another plan that is just as exact.
Of one that changes nothing at all, `passes` says why.
"""

from __future__ import annotations

from dataclasses import dataclass

CAUGHT = ("in place", "proof", "crash", "plan")


@dataclass(frozen=True)
class Mutant:
    """One mistake. `passes`, if not empty, says why nothing may come of it."""

    name: str
    file: str
    old: str
    new: str
    passes: str = ""

    def applied(self, source: str) -> str:
        """The source with the mistake; it has to have one place for it."""
        if source.count(self.old) != 1:
            raise ValueError(f"{self.name}: {self.file} holds {self.old!r} {source.count(self.old)} times")
        return source.replace(self.old, self.new)

    def lines(self, source: str) -> range:
        """The numbers of the lines that are changed."""
        if source.count(self.old) != 1:
            raise ValueError(f"{self.name}: {self.file} holds {self.old!r} {source.count(self.old)} times")
        first = source[: source.index(self.old)].count("\n") + 1
        first += len(self.old) - len(self.old.lstrip("\n"))
        return range(first, first + self.old.strip("\n").count("\n") + 1)

    def expected(self, verdict: str) -> bool:
        """Whether this may become of it."""
        return verdict in CAUGHT or (bool(self.passes) and verdict == "nothing")


_AFFINE, _GEOMETRY, _LAYOUTS = "algebra/affine.py", "algebra/geometry.py", "algebra/layout.py"
_SCATTER, _WINDOWS = "algebra/transposed.py", "algebra/windows.py"
_LAYERS, _HOST = "engine/layers.py", "hosts/fx/read.py"
_SUMS, _BORDERS = "engine/compositions/sums.py", "engine/compositions/borders.py"
_RISE, _SINK, _LIFT, _SHIFT = (
    "engine/rising.py",
    "engine/laws/map_down_through_move.py",
    "engine/laws/map_up_through_move.py",
    "engine/laws/constant_out_of_sum.py",
)
_SURGERY, _FORMS, _REWRITE, _SIBLINGS = (
    "hosts/fx/write.py",
    "engine/forms.py",
    "hosts/fx/fold.py",
    "engine/laws/layers_side_by_side.py",
)
_ARITHMETIC, _CONVOLUTION, _PADDING = (
    "operators/arithmetic.py",
    "operators/convolution.py",
    "operators/padding.py",
)
_NORMS, _LAYOUT, _SPLIT, _POOL = (
    "operators/normalisation.py",
    "operators/layout.py",
    "operators/splitting.py",
    "operators/pooling.py",
)
_LINEAR, _TRANSPOSED, _IDENTITY = "operators/linear.py", "operators/transposed.py", "operators/identity.py"
_UNROLLED = "engine/unrolled.py"
_PICTURES, _TIDY, _CONSTANTS = "operators/pictures.py", "hosts/fx/tidy.py", "hosts/fx/constants.py"

_BETWEEN, _CROPS, _EQUAL = (
    "engine/laws/maps_between_moves.py",
    "engine/crops.py",
    "hosts/fx/equal_calls.py",
)
_TABLE, _ZEROS, _PRODUCTS, _PLAN = (
    "operators/embedding.py",
    "operators/zeros.py",
    "operators/products.py",
    "engine/plan.py",
)

_CONTRACTIONS, _SPLIT_CHANNELS = "operators/contractions.py", "engine/laws/contractions_of_channels.py"

MUTANTS = [
    # engine/laws/contractions_of_channels, operators/contractions
    Mutant(
        "contraction: factor forgotten",
        _SPLIT_CHANNELS,
        "numbers = numbers * factor.alpha",
        "pass",
    ),
    Mutant(
        "contraction: channels in the order of the last step",
        _SPLIT_CHANNELS,
        "numbers[:, _channels(layouts[-1]).flatten()].t()",
        "numbers.t()",
    ),
    Mutant(
        "contraction: first channel forgotten",
        _SPLIT_CHANNELS,
        "    return Layout(axes, layout.first).channels()\n",
        "    return Layout(axes).channels()\n",
    ),
    Mutant(
        "contraction: a shift is none",
        _SPLIT_CHANNELS,
        "isinstance(term.structure, Scalar) and not term.structure.has_bias else None",
        "isinstance(term.structure, Scalar) else None",
    ),
    Mutant(
        "contraction: sum of the first two",
        _CONTRACTIONS,
        "lambda x: x.sum(behind, keepdim=keep)",
        "lambda x: x.narrow(behind[-1], 0, 2).sum(behind, keepdim=keep)",
    ),
    Mutant(
        "contraction: constant's groups turned",
        _CONTRACTIONS,
        "x, constant.load())",
        "x, constant.load().flip(0))",
    ),
    # algebra/affine: numbers
    Mutant(
        "scalar before: factor forgotten",
        _AFFINE,
        "kernel = after.kernel * before.alpha",
        "kernel = after.kernel",
    ),
    Mutant(
        "scalar before: shift not summed",
        _AFFINE,
        "_summed(after) * before.beta",
        "before.beta * torch.ones(after.structure.outputs, dtype=torch.float64)",
    ),
    Mutant(
        "scalar before: unit kept",
        _AFFINE,
        "            return _with_bias(after.structure, kernel, after.bias)\n",
        "            return replace(after, kernel=kernel)\n",
    ),
    Mutant(
        "compose: shift before dropped",
        _AFFINE,
        "        bias = _plus(bias, _carried(after, before.bias))\n",
        "        pass\n",
    ),
    Mutant(
        "compose: shift before not carried",
        _AFFINE,
        "bias = _plus(bias, _carried(after, before.bias))",
        "bias = _plus(bias, before.bias[: after.structure.outputs])",
    ),
    Mutant(
        "compose: scale behind not applied",
        _AFFINE,
        "kernel = before.kernel * scale\n",
        "kernel = before.kernel\n",
    ),
    Mutant(
        "compose: scale before taken per output",
        _AFFINE,
        "kernel = after.kernel * _per_input(before.kernel.flatten(), after.structure)",
        "kernel = after.kernel * before.kernel.flatten()[torch.arange(after.structure.outputs) % before.structure.outputs].reshape(-1, 1, *(1,) * after.structure.dims)",
    ),
    Mutant(
        "add: second bias dropped",
        _AFFINE,
        "bias = a.bias if b.bias is None else _plus(a.bias, b.bias)",
        "bias = a.bias",
    ),
    Mutant(
        "add: kernels not added where they fill",
        _AFFINE,
        "kernel = a.kernel + b.kernel",
        "kernel = a.kernel - b.kernel",
    ),
    Mutant(
        "add: overwritten instead of added",
        _AFFINE,
        "kernel[_places(b, structure)] += _regrouped",
        "kernel[_places(b, structure)] = _regrouped",
    ),
    Mutant(
        "add: scalars multiplied",
        _AFFINE,
        "return ScalarMap(a.alpha + b.alpha, a.beta + b.beta)",
        "return ScalarMap(a.alpha * b.alpha, a.beta + b.beta)",
    ),
    Mutant(
        "stack: biases of zeros",
        _AFFINE,
        "bias = torch.cat([kernel.new_zeros(p.structure.outputs) if p.bias is None else p.bias for p in parts])",
        "bias = torch.cat([kernel.new_zeros(p.structure.outputs) for p in parts])",
    ),
    Mutant(
        "stack: parts turned around",
        _AFFINE,
        "outputs=p.structure.outputs)) for p in parts])",
        "outputs=p.structure.outputs)) for p in parts[::-1]])",
    ),
    Mutant(
        "scaled: bias not scaled",
        _AFFINE,
        "bias = None if before.bias is None else before.bias * by.alpha",
        "bias = before.bias",
    ),
    Mutant(
        "scaled: shift dropped",
        _AFFINE,
        "    if by.beta != 0.0:\n        bias = _plus(bias,",
        "    if by.beta > 1e30:\n        bias = _plus(bias,",
    ),
    Mutant(
        "scaled: scalar shift not scaled",
        _AFFINE,
        "by.alpha * before.beta + by.beta",
        "before.beta + by.beta",
    ),
    Mutant(
        "turned: one axis only",
        _AFFINE,
        "return kernel.flip(tuple(range(2, kernel.ndim)))",
        "return kernel.flip((2,))",
    ),
    Mutant("plus: first dropped", _AFFINE, "return b if a is None else a + b", "return b"),
    Mutant(
        "summed: mean instead",
        _AFFINE,
        "return m.kernel.flatten(1).sum(1)",
        "return m.kernel.flatten(1).mean(1)",
    ),
    Mutant(
        "carried: groups in the wrong order",
        _AFFINE,
        "return torch.bmm(per_group, spread.view(g.groups, -1, 1)).flatten()",
        "return torch.bmm(per_group, spread.view(-1, g.groups).t().reshape(g.groups, -1, 1)).flatten()",
    ),
    Mutant(
        "carried: taps not repeated",
        _AFFINE,
        "spread = bias.repeat_interleave(taps) if taps > 1 else bias",
        "spread = bias.repeat(taps) if taps > 1 else bias",
    ),
    Mutant(
        "per input: groups swapped",
        _AFFINE,
        "per_group = scale.view(g.groups, 1, g.inputs // g.groups)\n",
        "per_group = scale.view(g.inputs // g.groups, 1, g.groups).transpose(0, 2)\n",
    ),
    Mutant(
        "regrouped: off the diagonal",
        _AFFINE,
        "torch.diag_embed(blocks.movedim(1, -1), dim1=1, dim2=3)",
        "torch.diag_embed(blocks.movedim(1, -1), dim1=1, dim2=3).flip(3)",
    ),
    Mutant(
        "convolved: taps turned around",
        _AFFINE,
        "slice(t * so, t * so + si * (w - 1) + 1, si)\n            for t, so, si, w in zip(tap, step_outer",
        "slice(t * so, t * so + si * (w - 1) + 1, si)\n            for t, so, si, w in zip(tap[::-1], step_outer",
    ),
    Mutant(
        "convolved: overwritten",
        _AFFINE,
        'wide[(*whole_of, *where)] += torch.einsum("goc,gce...->goe...", kb[at], ka)',
        'wide[(*whole_of, *where)] = torch.einsum("goc,gce...->goe...", kb[at], ka)',
    ),
    Mutant(
        "convolved: overwritten the other way",
        _AFFINE,
        'wide[(*whole_of, *where)] += torch.einsum("goc...,gce->goe...", kb, ka[at])',
        'wide[(*whole_of, *where)] = torch.einsum("goc...,gce->goe...", kb, ka[at])',
    ),
    # algebra/geometry: structure and guards
    Mutant(
        "far: off by one",
        _GEOMETRY,
        "return tuple(e + lo + n - 1 for e, lo, n in zip(self.extent, self.lo, self.span, strict=True))",
        "return tuple(e + lo + n for e, lo, n in zip(self.extent, self.lo, self.span, strict=True))",
    ),
    Mutant(
        "convolution: dilation forgotten in extent",
        _GEOMETRY,
        "extent = tuple(p + q - d * (w - 1) for p, q, d, w in zip(near, far, dilation, window, strict=True))",
        "extent = tuple(p + q - (w - 1) for p, q, d, w in zip(near, far, dilation, window, strict=True))",
    ),
    Mutant(
        "convolution: first tap on the wrong side",
        _GEOMETRY,
        "    lo = tuple(-p for p in near)\n    return Geometry(",
        "    lo = tuple(-p for p in far)\n    return Geometry(",
    ),
    Mutant(
        "compose: stride of one only",
        _GEOMETRY,
        "stride=tuple(s * t for s, t in zip(after.stride, before.stride, strict=True)),",
        "stride=after.stride,",
    ),
    Mutant(
        "compose: lo not scaled by the stride",
        _GEOMETRY,
        "lo=tuple(s * b + a for s, b, a in zip(before.stride, after.lo, before.lo, strict=True)),",
        "lo=tuple(b + a for s, b, a in zip(before.stride, after.lo, before.lo, strict=True)),",
    ),
    Mutant(
        "compose: extent of one only",
        _GEOMETRY,
        "extent=tuple(a + s * b for s, b, a in zip(before.stride, after.extent, before.extent, strict=True)),",
        "extent=after.extent,",
    ),
    Mutant(
        "compose: bias of the first forgotten",
        _GEOMETRY,
        "        has_bias=after.has_bias or before.has_bias,\n        unit=after.unit and before.unit,\n    )",
        "        has_bias=after.has_bias,\n        unit=after.unit and before.unit,\n    )",
        passes="has_bias decides costs and the shift guard; numbers carry their own biases",
    ),
    Mutant(
        "compose: unit of one is enough",
        _GEOMETRY,
        "        unit=after.unit and before.unit,\n    )",
        "        unit=after.unit or before.unit,\n    )",
    ),
    Mutant(
        "compose: groups of the second",
        _GEOMETRY,
        "groups=math.gcd(after.groups, before.groups),\n        window=window,",
        "groups=after.groups,\n        window=window,",
    ),
    Mutant(
        "compose: shift guard skipped",
        _GEOMETRY,
        '        _require_inside(after, "a per-channel shift")\n',
        "        pass\n",
    ),
    Mutant(
        "compose: constant shift guard skipped",
        _GEOMETRY,
        '            _require_inside(after, "a constant shift")\n',
        "            pass\n",
    ),
    Mutant("compose: border guard skipped", _GEOMETRY, "    _require_zero_outside(after, before)\n\n", "\n"),
    Mutant(
        "border guard: near side only",
        _GEOMETRY,
        "        if near_nonzero or far_nonzero:\n",
        "        if near_nonzero:\n",
    ),
    Mutant(
        "border guard: far side only",
        _GEOMETRY,
        "        if near_nonzero or far_nonzero:\n",
        "        if far_nonzero:\n",
    ),
    Mutant(
        "hops: stride forgotten",
        _GEOMETRY,
        "spread = tuple(s * d for s, d in zip(before.stride, after.dilation, strict=True))\n    return spread, after.window",
        "spread = after.dilation\n    return spread, after.window",
    ),
    Mutant(
        "united: strides not compared",
        _GEOMETRY,
        "    if any(p.stride != first.stride for p in parts):\n",
        "    if False:\n",
    ),
    Mutant(
        "united: lengths not compared",
        _GEOMETRY,
        "    if any(p.extent != first.extent for p in parts):\n",
        "    if False:\n",
    ),
    Mutant(
        "add: channels not compared",
        _GEOMETRY,
        "    if (a.inputs, a.outputs) != (b.inputs, b.outputs):\n",
        "    if False:\n",
        passes="two maps of one value whose results are summed: the reader refuses a sum that broadcasts",
    ),
    Mutant(
        "scattered: taps not turned",
        _GEOMETRY,
        "g.inputs, g.outputs, g.groups, g.window, g.stride, g.dilation, _turned(g), g.extent, g.has_bias",
        "g.inputs, g.outputs, g.groups, g.window, g.stride, g.dilation, g.lo, g.extent, g.has_bias",
    ),
    Mutant(
        "turned: off by one",
        _GEOMETRY,
        "return tuple(1 - lo - n for lo, n in zip(m.lo, m.span, strict=True))",
        "return tuple(-lo - n for lo, n in zip(m.lo, m.span, strict=True))",
    ),
    # algebra/windows
    Mutant(
        "union: ends one too early",
        _WINDOWS,
        "window.append((high - low) // step + 1)",
        "window.append(max(1, (high - low) // step))",
    ),
    Mutant(
        "union: dilation of the first",
        _WINDOWS,
        "step = math.gcd(step, p.dilation[axis])",
        "step = p.dilation[axis]",
    ),
    Mutant(
        "union: lowest tap not taken",
        _WINDOWS,
        "low = min(p.lo[axis] for p in parts)",
        "low = parts[0].lo[axis]",
    ),
    Mutant(
        "offsets: index step one",
        _WINDOWS,
        "p // w if n > 1 else 1 for p, w, n",
        "1 if n > 1 else 1 for p, w, n",
    ),
    Mutant(
        "chained: too short",
        _WINDOWS,
        "return step, tuple(r // s + 1 for r, s in zip(reach, step, strict=True))",
        "return step, tuple(max(1, r // s) for r, s in zip(reach, step, strict=True))",
    ),
    # algebra/transposed
    Mutant(
        "scatter: extent without output padding",
        _SCATTER,
        "d * (w - 1) - 2 * p + q for d, w, p, q",
        "d * (w - 1) - 2 * p for d, w, p, q",
    ),
    Mutant(
        "scatter compose: lo",
        _SCATTER,
        "lo=tuple(s * b + a for (s, _), a, b in zip(strides, after.lo, before.lo, strict=True)),",
        "lo=tuple(b + a for (s, _), a, b in zip(strides, after.lo, before.lo, strict=True)),",
    ),
    Mutant(
        "scatter: groups not exchanged",
        _SCATTER,
        "blocks = kernel.reshape(groups, first // groups, second, *window).transpose(1, 2)",
        "blocks = kernel.reshape(groups, first // groups, second, *window).reshape(groups, second, first // groups, *window)",
    ),
    Mutant(
        "scatter: nothing lost is not asked",
        _SCATTER,
        "    _require_nothing_lost(after, before)\n    dilation",
        "    dilation",
    ),
    Mutant(
        "scatter: output padding off by one",
        _SCATTER,
        "return tuple(e - 2 * lo - n + 1 for",
        "return tuple(e - 2 * lo - n for",
    ),
    # engine/compositions
    Mutant(
        "sum: own bias spent twice",
        _SUMS,
        "            bias_spent = True\n",
        "            bias_spent = False\n",
    ),
    Mutant(
        "sum: last term wins",
        _SUMS,
        "summed[source] = affine.add(summed[source], composed) if source in summed else composed",
        "summed[source] = composed",
    ),
    Mutant(
        "border: constant not compared",
        _BORDERS,
        "    if not bool(((fill - shift).abs() <= _SAME * fill.abs().max()).all()):\n",
        "    if False:\n",
    ),
    Mutant(
        "border: the shift dropped",
        _BORDERS,
        "affine.with_bias(affine.reaching(meaning.structure, surrounded), fill)",
        "affine.with_bias(affine.reaching(meaning.structure, surrounded), torch.zeros_like(fill))",
    ),
    Mutant(
        "border: zeros around any shift",
        _AFFINE,
        "    return m.bias is not None and bool(m.bias.any())\n",
        "    return False\n",
    ),
    Mutant(
        "border: of zeros, only the first of a sum",
        _BORDERS,
        "m) for source, m in inner.items()}",
        "m if source == min(inner) else affine.compose(affine.ScalarMap(0.0), m)) for source, m in inner.items()}",
    ),
    Mutant(
        "border: any constant is zeros",
        _PICTURES,
        "not bool(fill.any())",
        "True",
    ),
    # engine/layers
    Mutant(
        "build: subtraction becomes addition",
        _LAYERS,
        "result = function(aten.sub.Tensor, result, other)",
        "result = function(aten.add.Tensor, result, other)",
    ),
    Mutant(
        "build: factor of a summand forgotten",
        _LAYERS,
        "result = function(aten.add.Tensor, result, function(aten.mul.Tensor, other, factor))",
        "result = function(aten.add.Tensor, result, other)",
    ),
    Mutant(
        "build: shift forgotten",
        _LAYERS,
        "        if self.shift != 0.0:\n",
        "        if self.shift > 1e30:\n",
    ),
    Mutant(
        "build: padding forgotten",
        _LAYERS,
        "            if item.pad is not None:\n",
        "            if False:\n",
    ),
    Mutant(
        "gathered: biases lost",
        _LAYERS,
        "return [total if i == carrier else torch.zeros_like(b) for i, b in enumerate(biases)]",
        "return [b if i == carrier else torch.zeros_like(b) for i, b in enumerate(biases)]",
    ),
    Mutant("module: stride dropped", _LAYERS, "        stride=g.stride,\n", "        stride=1,\n"),
    Mutant("module: dilation dropped", _LAYERS, "        dilation=g.dilation,\n", "        dilation=1,\n"),
    Mutant(
        "module: padded twice",
        _LAYERS,
        "(0,) * g.dims if _padding(g) else g.near,",
        "tuple(abs(p) for p in g.near),",
    ),
    Mutant(
        "padding: axes in the wrong order",
        _LAYERS,
        "for axis in reversed(range(g.dims)) for p in (g.near[axis], g.far[axis])",
        "for axis in range(g.dims) for p in (g.near[axis], g.far[axis])",
    ),
    Mutant(
        "padding: sides exchanged",
        _LAYERS,
        "for p in (g.near[axis], g.far[axis]))",
        "for p in (g.far[axis], g.near[axis]))",
    ),
    Mutant(
        "realise: symmetric pads lost",
        _LAYERS,
        "            if any(_sides(m.structure)):\n",
        "            if m.structure.near != m.structure.far:\n",
    ),
    Mutant(
        "scale: bias lost",
        _LAYERS,
        "return ChannelScale(kernel.reshape(shape), bias.reshape(shape) if bias.any() else None)",
        "return ChannelScale(kernel.reshape(shape), None)",
    ),
    Mutant("rounded: 0.3 % off", _LAYERS, "parameter.data = rounded\n", "parameter.data = rounded * 1.003\n"),
    Mutant(
        "rounded: by way of half",
        _LAYERS,
        "rounded = exact.to(dtype=like.dtype, device=like.device)",
        "rounded = exact.to(torch.float16).to(dtype=like.dtype, device=like.device)",
    ),
    Mutant(
        "rounded: towards zero",
        _LAYERS,
        "parameter.data = rounded\n",
        "parameter.data = torch.where(rounded.abs() > exact.abs(), torch.nextafter(rounded, torch.zeros_like(rounded)), rounded)\n",
    ),
    Mutant("rounded: left in float64", _LAYERS, "parameter.data = rounded\n", "pass\n"),
    Mutant(
        "filled: bias of another layer",
        _LAYERS,
        "nn.Parameter(kernel.contiguous()), nn.Parameter(bias.contiguous())",
        "nn.Parameter(kernel.contiguous()), nn.Parameter(bias.flip(0).contiguous())",
    ),
    # hosts/fx/read
    Mutant(
        "constants: any type is one",
        _HOST,
        "            if operand.dtype != call.result.dtype and not properties.looks_up(call.target):\n",
        "            if False:\n",
        passes="every subject keeps one number type: tests/engine/test_traps.py has those that do not",
    ),
    Mutant(
        "bare: the bias stays",
        _HOST,
        "args = tuple(None if n in node.without else a for n, a in zip(names, call.args, strict=False))",
        'args = tuple(None if n == "weight" else a for n, a in zip(names, call.args, strict=False))',
    ),
    Mutant(
        "copied: on the old operand",
        _SURGERY,
        "                return newer[operand]\n",
        "                pass\n",
    ),
    Mutant(
        "lifted: readers not asked",
        _LIFT,
        "if rise is None or any(graph.readers(i) > 1 for i in (*rise.path, *rise.skipped)):",
        "if rise is None:",
    ),
    Mutant(
        "unshifted: readers not asked",
        _SHIFT,
        "        if graph.readers(side.id) > 1:\n            return ()\n",
        "",
        passes="the value has to be there for its other reader, and the plan then bars computing it twice",
    ),
    Mutant(
        "written again: reads the old operands",
        _HOST,
        "return value(node.operand_for.get(known, known))",
        "return value(known)",
    ),
    Mutant(
        "users: a reader that is not affine forces nothing",
        _HOST,
        "node.forced = node.escapes or self._is_operand(node)",
        "node.forced = node.escapes and self._is_operand(node)",
    ),
    Mutant(
        "place of an item: the first",
        "hosts/fx/calls.py",
        'return place % len(bundle.meta["val"])',
        "return 0",
    ),
    # engine/rising
    Mutant(
        "rise: other readers not asked",
        _RISE,
        "if bool(kept[mine].any()) or bool((owner[mine] >= 0).any()):",
        "if False:",
    ),
    Mutant("rise: shift forgotten", _RISE, "has_bias=bool(shift.any())", "has_bias=False"),
    Mutant(
        "rise: all channels",
        _RISE,
        "    scale[places], shift[places] = factor, offset\n",
        "    scale[:], shift[:] = factor.flatten()[0], offset.flatten()[0]\n",
    ),
    Mutant(
        "rise: product with another reader",
        _RISE,
        "if len(node.users) != 1 or node.escapes or",
        "if not node.users or",
    ),
    Mutant("rise: a negative factor behind a ReLU", _RISE, "bool((scale < 0.0).any())", "False"),
    Mutant("rise: a shift behind a ReLU", _RISE, "if structure.has_bias or bool(", "if bool("),
    Mutant(
        "rise: a factor of what several terms are added up to",
        _RISE,
        "of_one_value = len(self._root.meaning.terms) == 1",
        "of_one_value = True",
    ),
    Mutant("rise: map is gone, layer as it was", _HOST, "            self._ids[node] = risen.id\n", ""),
    Mutant(
        "rise: the map stays as well",
        _SURGERY,
        "                claim.maps[-1].replace_all_uses_with(claim.value)\n",
        "                continue\n",
    ),
    # engine/laws
    Mutant(
        "sink: bias forgotten",
        _SINK,
        "bias = None if above.bias is None else above.bias[mine]\n",
        "bias = None\n",
    ),
    Mutant(
        "layout: channels of the first piece",
        _LAYOUTS,
        "return replace(self._with(axis, _axis(kept)), first=first)\n\n    def selected",
        "return self._with(axis, _axis(kept))\n\n    def selected",
    ),
    Mutant(
        "sink: closed axes pass",
        _SINK,
        "    if layout is None or axis is None or result.ndim - 1 - axis > 3:\n",
        "    layout, axis = layout or above, result.ndim - 1 if axis is None else axis\n"
        "    if layout is None or result.ndim - 1 - axis > 3:\n",
    ),
    Mutant(
        "lift: every operand the first part",
        _LIFT,
        "        first += channels\n",
        "        first += 0 if len(roots) > 1 else channels\n",
    ),
    Mutant(
        "lift: part of another operand",
        _LIFT,
        "mine = slice(first, first + channels)",
        "mine = slice(0, channels)",
    ),
    Mutant("lift: any axis", _LIFT, "if layout is not None and layout == wanted:", "if layout is not None:"),
    Mutant("shift: factor forgotten", _SHIFT, "numbers.bias * scale.alpha", "numbers.bias"),
    Mutant(
        "shift: any map is a shift",
        _SHIFT,
        "isinstance(numbers, AffineMap) and bool((numbers.kernel == 1.0).all())",
        "isinstance(numbers, AffineMap)",
        passes="an addition's own kernel is of ones unless alpha is given",
    ),
    # engine/forms, engine/plan, hosts/fx/fold, hosts/fx/write
    Mutant(
        "forms: a layer spread over a sum",
        _SUMS,
        "        if mixing and len(form.terms) > 1:\n",
        "        if False:\n",
    ),
    Mutant(
        "forms: sums broadcast", _ARITHMETIC, "        if left.sizes != right.sizes:\n", "        if False:\n"
    ),
    Mutant(
        "forms: a concatenation of different values",
        "engine/compositions/concatenations.py",
        "        if not all(source in s for s in singles):\n",
        "        if not any(source in s for s in singles[1:]):\n",
    ),
    Mutant(
        "surgery: reads the old source",
        _SURGERY,
        "                self._node,\n",
        "                self.host.fx_node,\n",
    ),
    Mutant(
        "surgery: a copy that shows goes",
        _SURGERY,
        "        if copies and (self.host.program.writes or self.host.nodes[form.node].shown):\n",
        "        if False:\n",
    ),
    Mutant("surgery: guards forgotten", _SURGERY, "        self._guard(root)\n", ""),
    Mutant(
        "surgery: guards read one input",
        _SURGERY,
        'first("size_guards", guards, tensors)',
        'first("size_guards", guards, tensors[:1])',
    ),
    Mutant(
        "surgery: layer at the path of another",
        _SURGERY,
        "            _ensure(root, path).add_module(last, layer)\n",
        "            _ensure(root, path).add_module(last, next(iter(self._wanted.values()))[1])\n",
    ),
    Mutant(
        "surgery: state halved",
        _SURGERY,
        "owned[key] = nn.Parameter(tensor.detach().clone(), requires_grad=tensor.requires_grad)",
        "owned[key] = nn.Parameter(tensor.detach().clone() / 2, requires_grad=tensor.requires_grad)",
    ),
    Mutant(
        "surgery: buffers not copied",
        _SURGERY,
        "                last, tensor.detach().clone(), persistent",
        "                last, torch.zeros_like(tensor), persistent",
    ),
    Mutant(
        "rewrite: another fold's layers",
        _REWRITE,
        "replacements.append((form, result, surgery.replace(form, result.realisation)))",
        "replacements.append((form, result, surgery.replace(form, next(iter(proven.values())).realisation)))",
    ),
    Mutant(
        "rewrite: no proof",
        "hosts/fx/planned.py",
        "        proof = prove(host, form, terms, realisation)\n",
        "        proof = Proof(0.0, False)\n        realisation.layers and realisation.layers[0].module and realisation.layers[0].module.weight.data.mul_(1.01)\n",
    ),
    Mutant(
        "tidy: sizes not compared",
        _TIDY,
        "if steps > 1 and _sizes(root) is not None and _sizes(root) == _sizes(node):",
        "if steps > 1 and _sizes(root) is not None:",
    ),
    Mutant(
        "constants: computed values by halves",
        _CONSTANTS,
        "        value: Tensor = _cpu64(self._value(node))\n",
        "        value: Tensor = _cpu64(self._value(node)) / (2 if node.op != 'get_attr' else 1)\n",
    ),
    # operators/pictures
    Mutant(
        "pictures: what is cut through is still whole",
        _PICTURES,
        "known = content if len(parts) == 1 or isinstance(content, Fill) else None",
        "known = content",
    ),
    Mutant(
        "pictures: any constant is the same",
        _PICTURES,
        "        if first is not None and not torch.equal(first, numbers):\n            return None\n",
        "",
    ),
    Mutant(
        "pictures: a constant may vary within a channel",
        "operators/painters.py",
        "        same = bool((per_channel == per_channel[:, :1]).all())\n",
        "        same = True\n",
    ),
    Mutant(
        "pictures: a step is none",
        "operators/painters.py",
        'if call.get("step", 1) != 1 or not isinstance(start, int)',
        "if not isinstance(start, int)",
    ),
    Mutant(
        "pictures: sides exchanged",
        _PICTURES,
        "structure = padded(value, near[2:], far[2:])",
        "structure = padded(value, far[2:], near[2:])",
    ),
    Mutant(
        "pictures: pieces in another order",
        _PICTURES,
        "for index in sorted(held)]",
        "for index in sorted(held, reverse=True)]",
    ),
    # engine/laws/layers_side_by_side
    Mutant(
        "siblings: biases in another order",
        _SIBLINGS,
        'bias = torch.cat([_numbers(module, "bias") for module in modules])',
        'bias = torch.cat([_numbers(module, "bias") for module in modules[::-1]])',
    ),
    Mutant(
        "siblings: pieces to the wrong reader",
        _SIBLINGS,
        "piece = Piece(number, sizes,",
        "piece = Piece(len(sizes) - 1 - number, sizes,",
    ),
    Mutant(
        "siblings: padding forgotten",
        _SIBLINGS,
        "return layer_of(replace(self.structures[0], outputs=outputs)",
        "return layer_of(replace(self.structures[0], outputs=outputs, lo=(0,) * self.structures[0].dims)",
    ),
    Mutant(
        "siblings: cut along another axis",
        _SIBLINGS,
        "-1 - self.structures[0].dims",
        "-1 - self.structures[0].dims // 2",
    ),
    Mutant(
        "surgery: pieces to the wrong reader",
        _SURGERY,
        "(operator.getitem, (pieces, piece.number))",
        "(operator.getitem, (pieces, len(piece.sizes) - 1 - piece.number))",
    ),
    # operators
    Mutant(
        "batch norm: eps outside the root",
        _NORMS,
        "scale = torch.rsqrt(var.load() + eps)",
        "scale = torch.rsqrt(var.load()) + eps",
    ),
    Mutant(
        "batch norm: sign of the mean",
        _NORMS,
        "torch.addcmul(bias.load(), mean.load(), scale, value=-1)",
        "torch.addcmul(bias.load(), mean.load(), scale, value=1)",
    ),
    Mutant(
        "batch norm: weight forgotten",
        _NORMS,
        "            scale = scale * weight.load()\n",
        "            pass\n",
    ),
    Mutant(
        "sub: sign",
        _ARITHMETIC,
        '_operand(call, "other"), -_number(call, "alpha"))',
        '_operand(call, "other"), _number(call, "alpha"))',
    ),
    Mutant(
        "rsub: sides",
        _ARITHMETIC,
        '_sum(call, _operand(call, "self"), -_number(call, "alpha"), _operand(call, "other"), 1.0)',
        '_sum(call, _operand(call, "self"), _number(call, "alpha"), _operand(call, "other"), -1.0)',
    ),
    Mutant(
        "div: multiplied", _ARITHMETIC, "number = 1.0 / factor if reciprocal else factor", "number = factor"
    ),
    Mutant(
        "div: constant multiplied",
        _ARITHMETIC,
        "return affine.channelwise(1.0 / a if reciprocal else a, None, dims)",
        "return affine.channelwise(a, None, dims)",
    ),
    Mutant(
        "shifted: alpha forgotten",
        _ARITHMETIC,
        "return affine.channelwise(torch.full_like(b, alpha), beta * b, dims)",
        "return affine.channelwise(torch.full_like(b, alpha), b, dims)",
    ),
    Mutant(
        "broadcast: from the wrong end",
        _ARITHMETIC,
        "dims = value.ndim - 1 - varying[0]\n",
        "dims = max(0, value.ndim - 2 - varying[0])\n",
    ),
    Mutant("neg: not negated", _ARITHMETIC, "lambda: ScalarMap(-1.0)", "lambda: ScalarMap(1.0)"),
    Mutant(
        "conv: same padding on the near side",
        _CONVOLUTION,
        "near = tuple(t // 2 for t in total)",
        "near = tuple(t - t // 2 for t in total)",
    ),
    Mutant(
        "conv: bias forgotten",
        _CONVOLUTION,
        "AffineMap(structure, weight.load(), bias.load() if bias else None)",
        "AffineMap(structure, weight.load(), None)",
    ),
    Mutant(
        "conv: groups forgotten",
        _CONVOLUTION,
        "        inputs=weight.shape[1] * groups,\n",
        "        inputs=weight.shape[1],\n",
    ),
    Mutant(
        "linear: not transposed",
        _LINEAR,
        "_map(left, weight, lambda: rows().t().contiguous(), None, transposed=True)",
        "_map(left, weight, lambda: rows().contiguous(), None, transposed=True)",
    ),
    Mutant(
        "addmm: bias forgotten",
        _LINEAR,
        "lambda: weight.load().t().contiguous(), bias, transposed=True)",
        "lambda: weight.load().t().contiguous(), None, transposed=True)",
    ),
    Mutant(
        "pad: axes in the wrong order",
        _PADDING,
        "near[dims - 1 - i], far[dims - 1 - i] = amounts[2 * i], amounts[2 * i + 1]",
        "near[i], far[i] = amounts[2 * i], amounts[2 * i + 1]",
    ),
    Mutant(
        "pad: other modes",
        _PADDING,
        "extent=tuple(p + q for p, q in zip(near, far, strict=True)),",
        "extent=tuple(2 * p for p, q in zip(near, far, strict=True)),",
    ),
    Mutant("crop: step forgotten", _PADDING, "        stride=at(flat.stride, step),\n", ""),
    Mutant(
        "crop: end forgotten",
        _PADDING,
        "extent=at(flat.extent, -start - cut),",
        "extent=at(flat.extent, -start),",
    ),
    Mutant(
        "pool: divisor",
        _POOL,
        "1.0 / divisor, dtype=torch.float64)",
        "1.0 / (divisor + 1), dtype=torch.float64)",
    ),
    Mutant(
        "pool: keeps constants although padded",
        _POOL,
        "keeps_constants = not any(padding) and divisor == math.prod(window)",
        "keeps_constants = True",
    ),
    Mutant(
        "permute: not at all",
        _LAYOUTS,
        "return replace(self, axes=tuple(self.axes[a] for a in order))",
        "return self",
    ),
    Mutant(
        "transpose: not swapped",
        _LAYOUT,
        "order = [swapped.get(axis, axis) for axis in range(value.ndim)]",
        "order = list(range(value.ndim))",
    ),
    Mutant(
        "reshape: the fastest channels in front",
        _LAYOUTS,
        "part = Digit(missing, digit.stride * (other if isinstance(other, int) else 0))",
        "part = Digit(missing, digit.stride)",
    ),
    Mutant(
        "mean: over channels too",
        _LAYOUTS,
        "if any(digit.stride for a in axes for digit in self.axes[a]):",
        "if not axes:",
    ),
    Mutant(
        "average: over channels too",
        _LAYOUT,
        "return layout.resized(sizes) if layout.is_closed(last) else None",
        "return layout",
    ),
    Mutant(
        "split: the first piece",
        _SPLIT,
        'return _piece(call, sum(lengths[: call.get("item")]))',
        "return _piece(call, 0)",
    ),
    Mutant(
        "chunk: floor",
        _SPLIT,
        'return _piece(call, call.get("item") * length)\n\n\n@reader("aten.unbind',
        'return _piece(call, 0 * length)\n\n\n@reader("aten.unbind',
    ),
    Mutant(
        "conv_transpose: groups not exchanged",
        _TRANSPOSED,
        "kernel = exchanged(weight.load(), groups)",
        "kernel = exchanged(weight.load(), 1)",
    ),
    Mutant(
        "conv_transpose: stride one not turned",
        _TRANSPOSED,
        "return affine.gathered(numbers) if ordinary else numbers",
        "return AffineMap(geometry.gathered(scattering), kernel, numbers.bias) if ordinary else numbers",
    ),
    # engine/laws/maps_between_moves
    Mutant("between: places not compared", _BETWEEN, "return layouts == wanted", "return True"),
    Mutant(
        "between: the shift behind a sum for every summand",
        _BETWEEN,
        "behind = steps if number == 0 else tuple(_without_shift(step) for step in steps)",
        "behind = steps",
    ),
    Mutant(
        "between: the last map first", _BETWEEN, "isinstance(step, Term)][::-1]", "isinstance(step, Term)]"
    ),
    Mutant(
        "between: the last summand alone",
        _BETWEEN,
        "total = _Sum(total.terms + above.terms, total.covers | above.covers)",
        "total = _Sum(above.terms, total.covers | above.covers)",
    ),
    Mutant(
        "between: windows are points",
        _BETWEEN,
        "isinstance(term.structure, Geometry) and term.structure.pointwise and not looks_up",
        "isinstance(term.structure, Geometry) and not looks_up",
        passes="a window acts on axes that no layout leaves closed",
    ),
    # engine/unrolled
    Mutant(
        "tap by tap: taps not apart",
        _UNROLLED,
        "slice(d * t, d * t + s * (n - 1) + 1, s)",
        "slice(t, t + s * (n - 1) + 1, s)",
    ),
    Mutant(
        "tap by tap: every number the first",
        _UNROLLED,
        "kernel[:, numbered].view(per_channel)",
        "kernel[:, 0].view(per_channel)",
    ),
    # engine/crops
    Mutant(
        "crops: from the near side", _CROPS, "replace(plain, lo=near,", "replace(plain, lo=(0,) * len(near),"
    ),
    Mutant("crops: any mode", _CROPS, "held.pads is None or held.pads[0] != mode:", "held.pads is None:"),
    Mutant(
        "crops: of any value",
        _CROPS,
        "        if held.value.id != around.value.id:\n            return None\n",
        "",
    ),
    Mutant(
        "crops: the wider one as well",
        _CROPS,
        "    if min(near + far) < 0 or not isinstance(channels, int):\n",
        "    if not isinstance(channels, int):\n",
    ),
    # hosts/fx/equal_calls
    Mutant(
        "equal calls: arguments not compared",
        _EQUAL,
        "key = (node.target, repr(node.args), repr(node.kwargs))",
        'key = (node.target, str(node.args[:1]), "")',
    ),
    Mutant(
        "equal calls: what is handed out as well",
        _EQUAL,
        "if first is not node and node not in shown:",
        "if first is not node:",
        passes="no subject hands out one value twice",
    ),
    # a norm's own weight and bias
    Mutant(
        "norm: its bias is not scaled",
        _NORMS,
        "(zeros if bias is None else bias.load()) * scale + shift",
        "(zeros if bias is None else bias.load()) + shift",
    ),
    Mutant(
        "norm: its weight is forgotten",
        _NORMS,
        "(ones if weight is None else weight.load()) * scale",
        "ones * scale",
    ),
    Mutant(
        "norm: along another axis",
        _NORMS,
        "sides = (-1, *(1,) * (numbers.structure.dims - dims))",
        "sides = (-1, *(1,) * (len(shape) - 1))",
    ),
    Mutant(
        "norm: other readers not asked",
        _FORMS,
        "or form.is_identity or not self.only_for(node.id, source):",
        "or form.is_identity:",
    ),
    # tables, products, zeros
    Mutant(
        "table: without the shift", _LAYERS, "(m.kernel.t() + bias).contiguous()", "m.kernel.t().contiguous()"
    ),
    Mutant(
        "table: not turned", _LAYERS, "(m.kernel.t() + bias).contiguous()", "(m.kernel + bias).contiguous()"
    ),
    Mutant("table: read by columns", _TABLE, "table.load().t().contiguous()", "table.load().contiguous()"),
    Mutant("einsum: not turned", _LINEAR, "return constant.load() if other[0] == new[0] else", "return"),
    Mutant(
        "matmul in front: turned",
        _LINEAR,
        "return _along(right, right.ndim - 2, weight.shape[1], weight.shape[0], rows)",
        "return _along(right, right.ndim - 2, *weight.shape, lambda: rows().t())",
    ),
    Mutant("zeros: ones as well", _ZEROS, "or fill != 0:", "or fill > 1:"),
    Mutant(
        "product: something is added",
        _PRODUCTS,
        'return operator == "aten.baddbmm.default" and options.get("beta", 1) != 0',
        "return False",
    ),
    Mutant(
        "sink: the last of several moves alone",
        _SINK,
        "    for move in moves:\n",
        "    for move in moves[-1:]:\n",
    ),
    Mutant(
        "plan: layers are copied",
        _PLAN,
        "        if layers and layers <= chosen.keys():\n",
        "        if False:\n",
    ),
]
