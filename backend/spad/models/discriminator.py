"""The patch discriminator: which patches of a scan look like a reconstruction.

Source: PUMIT, arXiv 2312.07630, equation 5; Isola et al. 2017 (patch discriminator).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from spad.models.sac import SpatialConv3d, SpatialSequential

NORM_GROUPS = 16


class PatchDiscriminator(SpatialSequential):
    """Scores of patches at 1/8 of the in-plane grid: (B, C, D, H, W) in [-1, 1] -> (B, 1, ...).

    Args:
        in_channels: channels of the scan.
        channels: width after each halving; the authors' by default.
    """

    def __init__(self, in_channels: int = 3, channels: Sequence[int] = (128, 256, 512)) -> None:
        modules: list[nn.Module] = []
        width = in_channels
        for level, channel in enumerate(channels):
            modules += _step(width, channel, 2, level)
            width = channel
        modules += _step(width, width, 1, len(channels))
        super().__init__(*modules, SpatialConv3d(width, 1, 3, level=len(channels)))


def _step(width: int, channel: int, stride: int, level: int) -> list[nn.Module]:
    return [
        SpatialConv3d(width, channel, 3, stride, level=level),
        nn.GroupNorm(NORM_GROUPS, channel),
        nn.LeakyReLU(0.01),
    ]
