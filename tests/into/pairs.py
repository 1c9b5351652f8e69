"""Classes in training-time form beside the classes that they are deployed as, small ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 6


def conv_bn(inputs: int, outputs: int, kernel: int, groups: int = 1, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Net(nn.Module):
    """A stem, blocks one after the other, and a classifier."""

    def __init__(self, block: Callable[[], nn.Module], count: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.blocks = nn.ModuleList(block() for _ in range(count))
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class Branches(nn.Module):
    """A sum of branches, and an activation."""

    def __init__(self, *branches: nn.Module, act: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(sum(branch(x) for branch in self.branches))


class Sum(Branches):
    def forward(self, x: Tensor) -> Tensor:
        out = self.branches[0](x)
        for branch in [*self.branches][1:]:
            out = out + branch(x)
        return self.act(out)


class Deployed(nn.Module):
    """One layer and an activation, under another name than in training."""

    def __init__(self, layer: nn.Module, act: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.reparam = layer
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.reparam(x))


def full(kernel: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(WIDTH, WIDTH, kernel, padding=kernel // 2, **options)


def depthwise(kernel: int = 3) -> nn.Conv2d:
    return full(kernel, groups=WIDTH)


def act_silu(x: Tensor) -> Tensor:
    return F.silu(x)


class RepVGGTrain(Sum):
    def __init__(self) -> None:
        super().__init__(conv_bn(WIDTH, WIDTH, 3), conv_bn(WIDTH, WIDTH, 1), nn.BatchNorm2d(WIDTH))


class QARepVGGTrain(nn.Module):
    """A norm behind the sum; the identity and the 1x1 have none."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.pointwise = conv_bn(WIDTH, WIDTH, 3), full(1, bias=False)
        self.norm = nn.BatchNorm2d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.dense(x) + self.pointwise(x) + x))


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(WIDTH, 3, 1), nn.Conv2d(3, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


class MobileOneTrain(nn.Module):
    def __init__(self, excite: bool = False) -> None:
        super().__init__()
        self.depthwise = Sum(
            *(conv_bn(WIDTH, WIDTH, 3, groups=WIDTH) for _ in range(3)),
            conv_bn(WIDTH, WIDTH, 1, groups=WIDTH),
            nn.BatchNorm2d(WIDTH),
            act=nn.Sequential(SqueezeExcite() if excite else nn.Identity(), nn.ReLU()),
        )
        self.pointwise = Sum(*(conv_bn(WIDTH, WIDTH, 1) for _ in range(2)), nn.BatchNorm2d(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


class MobileOneDeployed(nn.Module):
    def __init__(self, excite: bool = False) -> None:
        super().__init__()
        self.dw, self.se = depthwise(), SqueezeExcite() if excite else nn.Identity()
        self.pw = full(1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.pw(F.relu(self.se(self.dw(x)))))


class RepLKTrain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(WIDTH)
        self.first, self.last = conv_bn(WIDTH, WIDTH, 1), conv_bn(WIDTH, WIDTH, 1)
        self.large, self.small = conv_bn(WIDTH, WIDTH, 7, WIDTH), conv_bn(WIDTH, WIDTH, 3, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first(self.norm(x)))
        return x + self.last(F.relu(self.large(y) + self.small(y)))


class RepLKDeployed(nn.Module):
    """It keeps the norm in front, as the official code does."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(WIDTH)
        self.first, self.lkb_reparam, self.last = conv_bn(WIDTH, WIDTH, 1), depthwise(7), full(1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.lkb_reparam(F.relu(self.first(self.norm(x)))))
        return x + self.last(y)


class RepMixerTrain(nn.Module):
    """FastViT's token mixer with layer scale."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(WIDTH)
        self.mixer = Sum(
            conv_bn(WIDTH, WIDTH, 3, WIDTH),
            conv_bn(WIDTH, WIDTH, 1, WIDTH),
            nn.BatchNorm2d(WIDTH),
            act=nn.Identity(),
        )
        self.gamma = nn.Parameter(torch.full((WIDTH, 1, 1), 0.3))
        self.expand, self.project = conv_bn(WIDTH, 2 * WIDTH, 1), nn.Conv2d(2 * WIDTH, WIDTH, 1)
        self.scale = nn.Parameter(torch.full((WIDTH, 1, 1), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.gamma * (self.mixer(x) - self.norm(x))
        return x + self.scale * self.project(F.gelu(self.expand(x)))


class RepMixerDeployed(nn.Module):
    """The official deployed form keeps the second layer scale."""

    def __init__(self) -> None:
        super().__init__()
        self.reparam_conv = depthwise()
        self.expand, self.project = conv_bn(WIDTH, 2 * WIDTH, 1), nn.Conv2d(2 * WIDTH, WIDTH, 1)
        self.scale = nn.Parameter(torch.full((WIDTH, 1, 1), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.reparam_conv(x)
        return x + self.scale * self.project(F.gelu(self.expand(x)))


class DBBTrain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.origin, self.pointwise = conv_bn(WIDTH, WIDTH, 3), conv_bn(WIDTH, WIDTH, 1)
        self.squeeze = nn.Sequential(
            full(1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.Conv2d(WIDTH, WIDTH, 3, bias=False),
            nn.BatchNorm2d(WIDTH),
        )
        self.average = nn.Sequential(full(1, bias=False), nn.AvgPool2d(3, 1, 1), nn.BatchNorm2d(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        y = self.origin(x) + self.pointwise(x) + self.average(x) + self.squeeze(F.pad(x, (1, 1, 1, 1)))
        return F.relu(y)


class DBBPointwiseTrain(Sum):
    """1x1 then 3x3 padded without bias in between, and the average."""

    def __init__(self) -> None:
        super().__init__(
            conv_bn(WIDTH, WIDTH, 3),
            nn.Sequential(full(1, bias=False), full(3, bias=False), nn.BatchNorm2d(WIDTH)),
            nn.Sequential(full(1, bias=False), nn.AvgPool2d(3, 1, 1), nn.BatchNorm2d(WIDTH)),
        )


class ACNetTrain(Sum):
    def __init__(self) -> None:
        def strip(kernel: tuple[int, int]) -> nn.Sequential:
            padding = kernel[0] // 2, kernel[1] // 2
            return nn.Sequential(
                nn.Conv2d(WIDTH, WIDTH, kernel, padding=padding, bias=False), nn.BatchNorm2d(WIDTH)
            )

        super().__init__(strip((3, 3)), strip((1, 3)), strip((3, 1)))


class OREPATrain(nn.Module):
    """The kernel is a sum that is put together when the network runs, then one norm."""

    def __init__(self) -> None:
        super().__init__()
        self.origin = nn.Parameter(torch.randn(WIDTH, WIDTH, 3, 3) * 0.2)
        self.pointwise = nn.Parameter(torch.randn(WIDTH, WIDTH, 1, 1) * 0.2)
        self.factor = nn.Parameter(torch.rand(WIDTH, 1, 1, 1) + 0.5)
        self.norm = nn.BatchNorm2d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.factor * self.origin + F.pad(self.pointwise, (1, 1, 1, 1))
        return F.relu(self.norm(F.conv2d(x, kernel, padding=1)))


class YoloTrain(nn.Module):
    """YOLOv6 and v7: RepConv blocks beside each other, concatenated, with SiLU."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = RepVGGTrain(), RepVGGTrain()
        self.left.act = self.right.act = act_silu
        self.fuse = conv_bn(2 * WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.fuse(torch.cat([self.left(x), self.right(x)], 1)))


class YoloDeployed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = full(), full()
        self.fuse = nn.Conv2d(2 * WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.fuse(torch.cat([F.silu(self.left(x)), F.silu(self.right(x))], 1)))


class CSPTrain(nn.Module):
    """YOLOv8's bottleneck: one half of the channels goes through conv and norm twice, with a skip."""

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        half = WIDTH // 2
        self.one: nn.Module = conv_bn(half, half, 3) if norm else nn.Conv2d(half, half, 3, padding=1)
        self.two: nn.Module = conv_bn(half, half, 3) if norm else nn.Conv2d(half, half, 3, padding=1)
        self.out: nn.Module = conv_bn(WIDTH, WIDTH, 1) if norm else nn.Conv2d(WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, 1)
        changed = changed + F.silu(self.two(F.silu(self.one(changed))))
        return F.silu(self.out(torch.cat([kept, changed], 1)))


class RepGhostTrain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.primary = conv_bn(WIDTH, WIDTH, 1)
        self.cheap, self.norm = conv_bn(WIDTH, WIDTH, 3, WIDTH), nn.BatchNorm2d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.primary(x))
        return F.relu(self.cheap(y) + self.norm(y))


class RepGhostDeployed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.primary_conv, self.cheap_operation = full(1), depthwise()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.cheap_operation(F.relu(self.primary_conv(x))))


class PartialTrain(nn.Module):
    """FasterNet and PartialNet: part of the channels is convolved, the rest stays, then an MLP with norm."""

    def __init__(self) -> None:
        super().__init__()
        self.partial = Sum(conv_bn(2, 2, 3), conv_bn(2, 2, 1), nn.BatchNorm2d(2), act=nn.Identity())
        self.expand, self.project = conv_bn(WIDTH, 2 * WIDTH, 1), nn.Conv2d(2 * WIDTH, WIDTH, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        head, rest = torch.split(x, [2, WIDTH - 2], 1)
        y = F.relu(torch.cat([self.partial(head), rest], 1))
        return x + self.project(F.relu(self.expand(y)))


class PartialDeployed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.partial = nn.Conv2d(2, 2, 3, padding=1)
        self.expand, self.project = nn.Conv2d(WIDTH, 2 * WIDTH, 1), nn.Conv2d(2 * WIDTH, WIDTH, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        head, rest = torch.split(x, [2, WIDTH - 2], 1)
        y = F.relu(torch.cat([self.partial(head), rest], 1))
        return x + self.project(F.relu(self.expand(y)))


class AttentionTrain(nn.Module):
    """LeViT: linear layers with norms, and a bias that is gathered from a table."""

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=not norm)
        self.norm = nn.BatchNorm1d(3 * WIDTH) if norm else None
        self.table = nn.Parameter(torch.randn(2, 64) * 0.1)
        position = torch.arange(64)
        self.register_buffer("index", (position[:, None] - position[None]).abs(), persistent=False)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        qkv = self.qkv(tokens)
        if self.norm is not None:
            qkv = self.norm(qkv.flatten(0, 1)).reshape_as(qkv)
        q, k, v = qkv.reshape(batch, -1, 3, 2, channels // 2).permute(2, 0, 3, 1, 4)
        attention = (q @ k.transpose(-2, -1) + self.table[:, self.index]).softmax(-1)  # type: ignore[index]
        y = self.out((attention @ v).transpose(1, 2).reshape(batch, -1, channels))
        return x + y.transpose(1, 2).reshape(batch, channels, height, width)


class BasicTrain(nn.Module):
    """ResNet's block."""

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.one = conv_bn(WIDTH, WIDTH, 3) if norm else full()
        self.two = conv_bn(WIDTH, WIDTH, 3) if norm else full()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.two(F.relu(self.one(x))) + x)


class TwinTrain(nn.Module):
    """Two paths of one structure that meet in a sum."""

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.one = conv_bn(WIDTH, WIDTH, 3) if norm else full()
        self.two = conv_bn(WIDTH, WIDTH, 3) if norm else full()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.one(x)) + F.relu(self.two(x))


class TwinSwapped(TwinTrain):
    """The same where the second is written first."""

    def __init__(self) -> None:
        super().__init__(norm=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.two(x)) + F.relu(self.one(x))


class WeightNormTrain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.utils.parametrizations.weight_norm(full(bias=False))
        self.norm = nn.BatchNorm2d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class LoraTrain(nn.Module):
    """A 1x1 convolution with a low-rank update beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.norm = full(1), nn.BatchNorm2d(WIDTH)
        self.down, self.up = nn.Conv2d(WIDTH, 2, 1, bias=False), nn.Conv2d(2, WIDTH, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.base(x) + 0.5 * self.up(self.down(x))))


class GatedTrain(nn.Module):
    """EfficientViM: rows of one table, through a sigmoid, mix each branch with what it was given."""

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((2, WIDTH), 1e-4))
        self.one = conv_bn(WIDTH, WIDTH, 3, WIDTH) if norm else depthwise()
        self.two = conv_bn(WIDTH, WIDTH, 1) if norm else full(1)

    def forward(self, x: Tensor) -> Tensor:
        alpha = torch.sigmoid(self.alpha).view(2, -1, 1, 1)
        x = x + alpha[0] * (F.relu(self.one(x)) - x)
        return x + alpha[1] * (F.relu(self.two(x)) - x)


class Downsample(nn.Module):
    """RepViT: a layer widens, and a perceptron beside the identity reads what it gives.

    The first of the perceptron's layers is cheaper where it reads what the widening one reads, so they fold,
    though the sum needs the widening layer as it is.
    """

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        half = WIDTH // 2
        self.narrow = nn.Conv2d(WIDTH, half, 3, padding=1)
        self.widen = conv_bn(half, WIDTH, 1) if norm else nn.Conv2d(half, WIDTH, 1)
        self.one = conv_bn(WIDTH, 2 * WIDTH, 1) if norm else nn.Conv2d(WIDTH, 2 * WIDTH, 1)
        self.two = conv_bn(2 * WIDTH, WIDTH, 1) if norm else nn.Conv2d(2 * WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.widen(F.relu(self.narrow(x)))
        return x + self.two(F.gelu(self.one(x)))


class Pooled(nn.Module):
    """Squeeze and excite whose mean is a pooling over the whole image, as in MobileOne's code."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = full()
        self.down, self.up = nn.Conv2d(WIDTH, 3, 1), nn.Conv2d(3, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.dense(x)
        mean = F.avg_pool2d(y, kernel_size=[y.shape[2], y.shape[3]])
        return F.relu(y * torch.sigmoid(self.up(F.relu(self.down(mean)))))


class Excited(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense, self.excite = RepVGGTrain(), SqueezeExcite()
        self.dense.act = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.excite(self.dense(x)))


class NormedAttention(nn.Module):
    """FastViT's: a norm in front of a linear layer without a bias, kept when deployed."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mix = nn.BatchNorm2d(WIDTH), AttentionTrain(norm=False)
        self.mix.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(self.norm(x))


def wide(kernel: int, *, first: bool, bias: bool = True, width: int = 2 * WIDTH) -> nn.Conv2d:
    ends = (WIDTH, width) if first else (width, WIDTH)
    return nn.Conv2d(*ends, kernel, padding=kernel // 2, bias=bias)


def net(block: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: Net(block)


PAIRS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "repvgg": (net(RepVGGTrain), net(lambda: Deployed(full()))),
    "repvgg_without_1x1": (
        net(lambda: Branches(conv_bn(WIDTH, WIDTH, 3), nn.BatchNorm2d(WIDTH))),
        net(lambda: Deployed(full())),
    ),
    "qarepvgg": (net(QARepVGGTrain), net(lambda: Deployed(full()))),
    "mobileone": (net(MobileOneTrain), net(MobileOneDeployed)),
    "mobileone_se": (net(lambda: MobileOneTrain(True)), net(lambda: MobileOneDeployed(True))),
    "replknet": (net(RepLKTrain), net(RepLKDeployed)),
    "fastvit": (net(RepMixerTrain), net(RepMixerDeployed)),
    "dbb": (net(DBBTrain), net(lambda: Deployed(full()))),
    "dbb_average": (net(DBBPointwiseTrain), net(lambda: Deployed(full()))),
    "acnet": (net(ACNetTrain), net(lambda: Deployed(full()))),
    "orepa": (net(OREPATrain), net(lambda: Deployed(full()))),
    "yolo_repconv": (net(YoloTrain), net(YoloDeployed)),
    "yolo_csp": (net(CSPTrain), net(lambda: CSPTrain(norm=False))),
    "repghost": (net(RepGhostTrain), net(RepGhostDeployed)),
    "partialnet": (net(PartialTrain), net(PartialDeployed)),
    "levit_attention": (net(AttentionTrain), net(lambda: AttentionTrain(norm=False))),
    "resnet": (net(BasicTrain), net(lambda: BasicTrain(norm=False))),
    "twins": (net(TwinTrain), net(TwinSwapped)),
    "weight_norm": (net(WeightNormTrain), net(lambda: Deployed(full()))),
    "lora": (net(LoraTrain), net(lambda: Deployed(full(1)))),
    "gates_of_one_table": (net(GatedTrain), net(lambda: GatedTrain(norm=False))),
    "repvgg_into_conv_bn": (net(RepVGGTrain), net(lambda: Deployed(conv_bn(WIDTH, WIDTH, 3)))),
    "repvgg_into_itself": (net(RepVGGTrain), net(RepVGGTrain)),
    "conv_into_repvgg": (net(lambda: Deployed(conv_bn(WIDTH, WIDTH, 3))), net(RepVGGTrain)),
    "repvit_downsampling": (net(Downsample), net(lambda: Downsample(norm=False))),
    "norm_in_front_of_a_layer_without_bias": (net(NormedAttention), net(NormedAttention)),
    "mean_into_pooling": (net(Excited), net(Pooled)),
    "into_pointwise_and_dense": (
        net(RepVGGTrain),
        net(lambda: Deployed(nn.Sequential(wide(1, first=True, bias=False), wide(3, first=False)))),
    ),
    "into_dense_and_pointwise": (
        net(RepVGGTrain),
        net(lambda: Deployed(nn.Sequential(wide(3, first=True), wide(1, first=False)))),
    ),
    "into_dense_and_pointwise_with_norms": (
        net(RepVGGTrain),
        net(lambda: Deployed(nn.Sequential(conv_bn(WIDTH, 2 * WIDTH, 3), conv_bn(2 * WIDTH, WIDTH, 1)))),
    ),
    "repvgg_into_another_activation_class": (
        net(RepVGGTrain),
        net(lambda: Deployed(full(), act=nn.ReLU(inplace=True))),
    ),
}


def trained(name: str) -> nn.Module:
    """The network in training-time form, in evaluation mode; its numbers are for the caller to draw."""
    return PAIRS[name][0]().eval()


def deployed(name: str) -> nn.Module:
    """A fresh one of the class that it is deployed as."""
    return PAIRS[name][1]().eval()
