"""FCMAE: masked pre-training of ConvNeXt V2 (Woo et al., CVPR 2023, arXiv:2301.00808, section 3).

The original encodes only what the mask leaves, with submanifold sparse convolutions: an operator reads and
writes active positions alone. Here the same function is computed on dense tensors. Every operator is
followed by a product with `keep` (1 where a position is active, else 0), so a masked position holds exactly 0
wherever an operator reads it, and a sum over all positions is a sum over the active ones.

Images are (N, 3, H, W) with H and W multiples of 32; a mask is (N, L) with L = H/32 · W/32, row by row, 1
where a patch is removed. Parameters are named as in the dense network; `fcmae_weights` converts the
original's checkpoints.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from reparamkit.models.convnextv2 import EPSILON, GRN, VARIANTS, Block, ConvNeXtV2Config, downsampling

PATCH = 32
NAMES = tuple(name.replace("convnextv2", "fcmae") for name in VARIANTS)
_STEM_CELLS = 8
"""Stem positions along one side of a patch: 32 pixels at stride 4."""


class MaskedGRN(GRN):
    """Global response normalisation whose norms run over the active positions of the whole batch.

    As in the original, where the dense network (`GRN`) takes them for each image. (N, H, W, C) -> same.
    """

    axes = (0, 1, 2)


class MaskedBlock(nn.Module):
    """`convnextv2.Block` on active positions alone: (N, C, H, W) and keep (N, 1, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=EPSILON)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.act = nn.GELU()
        self.grn = MaskedGRN(4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        keep_last = keep.permute(0, 2, 3, 1)
        inner = self.dwconv(x) * keep
        inner = self.norm(inner.permute(0, 2, 3, 1)) * keep_last
        inner = self.act(self.pwconv1(inner) * keep_last)
        inner = self.grn(inner) * keep_last
        branch: Tensor = self.pwconv2(inner) * keep_last
        return x + branch.permute(0, 3, 1, 2)


class MaskedEncoder(nn.Module):
    """The stages of ConvNeXt V2 without norm and head: images and mask -> features (N, C, H/32, W/32).

    The features of removed patches are exactly 0.
    """

    def __init__(self, config: ConvNeXtV2Config) -> None:
        super().__init__()
        self.downsample_layers = downsampling(config)
        self.stages = nn.ModuleList(
            nn.ModuleList(MaskedBlock(channels) for _ in range(blocks))
            for blocks, channels in zip(config.blocks, config.channels, strict=True)
        )

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        keep_patch = 1 - _as_map(mask, images).to(images.dtype)
        keep = _enlarge(keep_patch, _STEM_CELLS)
        x = self.downsample_layers[0](images) * keep
        for index, (downsample, stage) in enumerate(zip(self.downsample_layers, self.stages, strict=True)):
            if index > 0:
                x = downsample.get_submodule("0")(x) * keep
                # A patch is active as a whole, so no window of stride 2 mixes active and masked positions.
                keep = _enlarge(keep_patch, _STEM_CELLS >> index)
                x = downsample.get_submodule("1")(x) * keep
            for block in stage.children():
                x = block(x, keep)
        features: Tensor = x
        return features


class FCMAE(nn.Module):
    """Encoder, light decoder and reconstruction loss (section 3 of the paper).

    `mask_ratio`, in (0, 1), is the part of the patches that is removed; with `norm_pix_loss` the decoder
    predicts each patch normalised by its own mean and deviation. The decoder is dense.
    """

    def __init__(
        self,
        config: ConvNeXtV2Config,
        *,
        decoder_depth: int = 1,
        decoder_embed_dim: int = 512,
        mask_ratio: float = 0.6,
        norm_pix_loss: bool = False,
    ) -> None:
        super().__init__()
        self.mask_ratio = mask_ratio
        self.norm_pix_loss = norm_pix_loss
        self.encoder = MaskedEncoder(config)
        self.proj = nn.Conv2d(config.channels[-1], decoder_embed_dim, 1)
        self.mask_token = nn.Parameter(torch.zeros(1, decoder_embed_dim, 1, 1))
        self.decoder = nn.Sequential(*(Block(decoder_embed_dim) for _ in range(decoder_depth)))
        self.pred = nn.Conv2d(decoder_embed_dim, PATCH * PATCH * 3, 1)
        self._initialise()

    def _initialise(self) -> None:
        # As in the original: deviation 1, cut at ±2, but for the downsampling and the mask token.
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.trunc_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.encoder.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight)
                nn.init.zeros_(module.bias)
        for layer in list(self.encoder.downsample_layers)[1:]:
            nn.init.trunc_normal_(layer.get_parameter("1.weight"), std=0.02)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(
        self, images: Tensor, mask: Tensor | None = None, *, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss (a scalar), the prediction (N, 3072, H/32, W/32) and the mask (N, L) that was used.

        Without `mask` one is drawn, from `generator` where it is given. Raises ValueError for sizes that are
        not multiples of 32, and for a mask of another shape.
        """
        rows, columns = _grid(images)
        if mask is None:
            mask = random_mask(images.shape[0], rows * columns, self.mask_ratio, generator).to(images.device)
        pred = self.decode(self.encoder(images, mask), mask)
        return patch_loss(images, pred, mask, normalise=self.norm_pix_loss), pred, mask

    def decode(self, features: Tensor, mask: Tensor) -> Tensor:
        """Features (N, C, H/32, W/32) and mask (N, L) -> the predicted patches (N, 3072, H/32, W/32)."""
        x = self.proj(features)
        removed = mask.reshape(x.shape[0], 1, *x.shape[2:]).to(x.dtype)
        x = x * (1 - removed) + self.mask_token * removed
        pred: Tensor = self.pred(self.decoder(x))
        return pred


def random_mask(count: int, patches: int, ratio: float, generator: Generator | None = None) -> Tensor:
    """A mask (count, patches) in float32 on the CPU, with int(patches · (1 − ratio)) zeros in each row.

    Raises ValueError unless 0 < ratio < 1.
    """
    if not 0 < ratio < 1:
        raise ValueError(f"the mask ratio has to lie between 0 and 1, and is {ratio}")
    kept = int(patches * (1 - ratio))
    order = torch.rand(count, patches, generator=generator, device="cpu").argsort(1)
    return torch.ones(count, patches, device="cpu").scatter_(1, order[:, :kept], 0.0)


def example_mask(image_shape: tuple[int, int, int, int], generator: Generator) -> Tensor:
    """A mask for images of this shape with the published ratio, as booleans (N, L): no mask lies between."""
    n, _, height, width = image_shape
    return random_mask(n, height // PATCH * (width // PATCH), 0.6, generator).bool()


def patchify(images: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, L, 3072): patches row by row, their pixels row by row, channels innermost."""
    rows, columns = _grid(images)
    n, channels = images.shape[:2]
    patches = images.reshape(n, channels, rows, PATCH, columns, PATCH).permute(0, 2, 4, 3, 5, 1)
    return patches.reshape(n, rows * columns, PATCH * PATCH * channels)


def unpatchify(patches: Tensor, rows: int, columns: int) -> Tensor:
    """The inverse of `patchify`: (N, rows · columns, 3072) -> (N, 3, 32 · rows, 32 · columns)."""
    n, _, length = patches.shape
    channels = length // PATCH**2
    image = patches.reshape(n, rows, columns, PATCH, PATCH, channels).permute(0, 5, 1, 3, 2, 4)
    return image.reshape(n, channels, rows * PATCH, columns * PATCH)


def patch_loss(images: Tensor, pred: Tensor, mask: Tensor, *, normalise: bool) -> Tensor:
    """Mean squared error over the pixels of the removed patches (section 3), a scalar.

    `pred` is (N, 3072, H/32, W/32). With `normalise` the target of each patch has its mean subtracted and is
    divided by the square root of its (unbiased) variance + 1e-6.
    """
    target = patchify(images)
    if normalise:
        mean = target.mean(-1, keepdim=True)
        variance = target.var(-1, keepdim=True)
        target = (target - mean) / (variance + 1e-6).sqrt()
    error = (pred.flatten(2).transpose(1, 2) - target).square().mean(-1)
    return (error * mask).sum() / mask.sum()


def _grid(images: Tensor) -> tuple[int, int]:
    height, width = images.shape[2:]
    if height % PATCH or width % PATCH:
        raise ValueError(
            f"FCMAE needs image sides that are multiples of {PATCH}, these are {height} and {width}"
        )
    return height // PATCH, width // PATCH


def _as_map(mask: Tensor, images: Tensor) -> Tensor:
    rows, columns = _grid(images)
    if mask.shape != (images.shape[0], rows * columns):
        expected = (images.shape[0], rows * columns)
        raise ValueError(f"a mask for these images is {expected}, this one is {tuple(mask.shape)}")
    return mask.reshape(-1, 1, rows, columns)


def _enlarge(x: Tensor, factor: int) -> Tensor:
    return x.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def build(
    name: str,
    *,
    decoder_depth: int = 1,
    decoder_embed_dim: int = 512,
    mask_ratio: float = 0.6,
    norm_pix_loss: bool = False,
) -> FCMAE:
    """The autoencoder `name` (one of `NAMES`), initialised as published.

    Raises KeyError for a name that is not there.
    """
    return FCMAE(
        VARIANTS[name.replace("fcmae", "convnextv2")],
        decoder_depth=decoder_depth,
        decoder_embed_dim=decoder_embed_dim,
        mask_ratio=mask_ratio,
        norm_pix_loss=norm_pix_loss,
    )
