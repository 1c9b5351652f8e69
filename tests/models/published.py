"""Sizes of the published networks with 1000 classes, counted on the originals."""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """Parameters in millions and state-dict keys, of the training-time network and of its authors' fold."""

    millions: float
    keys: int
    folded_millions: float | None = None
    folded_keys: int | None = None


PUBLISHED = {
    "mobileone_s0": Published(5.293, 1323, 2.079, 88),
    "mobileone_s1": Published(4.825, 562, 4.765, 88),
    "mobileone_s2": Published(7.885, 562, 7.808, 88),
    "mobileone_s3": Published(10.171, 562, 10.078, 88),
    "mobileone_s4": Published(14.951, 610, 14.838, 136),
    "repvgg_a0": Published(9.109, 351, 8.309, 46),
    "repvgg_a1": Published(14.092, 351, 12.790, 46),
    "repvgg_a2": Published(28.211, 351, 25.500, 46),
    "repvgg_b0": Published(15.818, 453, 14.339, 58),
    "repvgg_b1": Published(57.415, 453, 51.829, 58),
    "repvgg_b1g2": Published(45.782, 453, 41.360, 58),
    "repvgg_b1g4": Published(39.966, 453, 36.125, 58),
    "repvgg_b2": Published(89.022, 453, 80.315, 58),
    "repvgg_b2g2": Published(70.846, 453, 63.957, 58),
    "repvgg_b2g4": Published(61.758, 453, 55.778, 58),
    "repvgg_b3": Published(123.085, 453, 110.961, 58),
    "repvgg_b3g2": Published(96.912, 453, 87.405, 58),
    "repvgg_b3g4": Published(83.825, 453, 75.627, 58),
    "repvgg_d2se": Published(133.335, 985, 120.388, 290),
    "replknet_31b": Published(79.864, 1171, 79.527, 931),
    "replknet_31l": Published(172.671, 1171, 172.166, 931),
    "replknet_xl": Published(335.436, 1027, 335.400, 931),
    "fastvit_t8": Published(4.026, 462, 3.996, 156),
    "fastvit_t12": Published(7.554, 530, 7.509, 182),
    "fastvit_s12": Published(9.474, 530, 9.429, 182),
    "fastvit_sa12": Published(11.581, 504, 11.545, 198),
    "fastvit_sa24": Published(21.554, 884, 21.501, 368),
    "fastvit_sa36": Published(31.527, 1264, 31.457, 538),
    "fastvit_ma36": Published(44.068, 1264, 43.985, 538),
    "convnextv2_atto": Published(3.708, 140),
    "convnextv2_femto": Published(5.233, 140),
    "convnextv2_pico": Published(9.066, 140),
    "convnextv2_nano": Published(15.624, 160),
    "convnextv2_tiny": Published(28.635, 200),
    "convnextv2_base": Published(88.718, 380),
    "convnextv2_large": Published(197.957, 380),
    "convnextv2_huge": Published(660.290, 380),
}
