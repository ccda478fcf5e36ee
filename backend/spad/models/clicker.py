"""The click decoder: prompts and a crop of the scan to the object that is meant.

A light U-Net of spatially adaptive convolutions. What is expensive - the segmenter's features of
the whole scan - is computed once and comes in at half resolution, so that a click runs only this.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from spad.models.resize import pad_to_multiple
from spad.models.sac import level_factors
from spad.models.segmenter import ConvBlock, UpBlock

INPUTS = (
    "scan",
    "positive",
    "negative",
    "region",
    "alike",
    "previous",
    "organ",
    "other organs",
)
"""Channels of a crop, in this order; see `Clicker.forward`."""
FEATURE_LEVEL = 1
"""In-plane halvings of the map to which the features are added."""


class Clicker(nn.Module):
    """See the module.

    Args:
        features: channels of the segmenter's features.
        channels: widths at 1, 1/2, 1/4, ... in plane.
    """

    def __init__(self, features: int, channels: Sequence[int] = (16, 32, 64, 96)) -> None:
        super().__init__()
        self.architecture = {"features": features, "channels": list(channels)}
        self.features = features
        inputs = [len(INPUTS), *channels]
        self.encoder = nn.ModuleList(
            ConvBlock(inputs[level], width, level=level, kernel_da=0, stride=2 if level else 1)
            for level, width in enumerate(channels)
        )
        self.join = nn.Conv3d(features + 1, channels[FEATURE_LEVEL], 1, bias=False)
        self.ups = nn.ModuleList(
            UpBlock(channels[level + 1], channels[level], level=level, kernel_da=0)
            for level in range(len(channels) - 1)
        )
        self.head = nn.Conv3d(channels[0], 1, 1)

    def factors(self, da: int) -> tuple[int, int, int]:
        """Voxels in one cell of the coarsest map as (depth, height, width)."""
        return level_factors(len(self.encoder) - 1, da)

    def feature_grid(self, size: Sequence[int], da: int) -> tuple[int, int, int]:
        """Size of the features for a crop of `size` = (D, H, W) voxels."""
        depth, height, width = (
            -(-n // whole) * whole // cell
            for n, whole, cell in zip(
                size, self.factors(da), level_factors(FEATURE_LEVEL, da), strict=True
            )
        )
        return depth, height, width

    def forward(self, x: torch.Tensor, features: torch.Tensor | None, da: int) -> torch.Tensor:
        """Logits of the object.

        Args:
            x: (B, 8, D, H, W): the scan in [-1, 1]; positive and negative prompts and the region
                (box or lasso), each in [0, 1]; how alike in brightness a voxel is to the positive
                points; the object so far, 0 or 1; the automatic probability of the organ in
                question and of all other organs, 0 where there is no automatic result.
            features: (B, C + 1, d, h, w) of the grid that `feature_grid` gives; the last tells how
                near in features a place is to the positive points. None without them.
            da: degree of anisotropy of the crop.

        Returns:
            (B, 1, D, H, W).
        """
        depth, height, width = x.shape[-3:]
        x = pad_to_multiple(x, self.factors(da))
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(x, da)
            if level == FEATURE_LEVEL and features is not None:
                x = x + self.join(features)
            skips.append(x)
        x = skips.pop()
        for up in reversed(self.ups):
            x = up(x, skips.pop(), da)
        return self.head(x)[..., :depth, :height, :width]
