"""Segmentation on SPAD-ViT: a feature pyramid and a spatially adaptive decoder.

The decoder joins four maps of the transformer (1/4 to 1/32 in plane) with convolutions on the scan
itself. Source: PUMIT, arXiv 2312.07630, section "segmentation"; the full-resolution part stands at
levels 0 and 1 here, so every kernel follows the scan's own degree of anisotropy.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from spad.models.resize import pad_to_multiple
from spad.models.sac import (
    SpatialConv3d,
    SpatialConvTranspose3d,
    SpatialMaxPool3d,
    SpatialModule,
    SpatialSequential,
    level_factors,
)
from spad.models.vit import LEVEL as TOKEN_LEVEL
from spad.models.vit import SpatialViT

PYRAMID_LEVELS = (2, 3, 4, 5)
"""In-plane halvings of the four maps that the adapter gives."""


class InstanceNorm(nn.InstanceNorm3d):
    """Affine instance normalisation that also takes maps of one voxel."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) == 1 and x.device.type == "cpu" and not torch.is_grad_enabled():
            # the same numbers, but maps in channels-last order are not copied
            return torch.batch_norm(
                x, self.weight, self.bias, None, None, True, 0.0, self.eps, False
            )
        enabled = torch.backends.cudnn.enabled
        return torch.instance_norm(
            x, self.weight, self.bias, None, None, True, 0.0, self.eps, enabled
        )


class ConvBlock(SpatialModule):
    """Two 3x3x3 convolutions, each with instance norm and leaky ReLU."""

    def __init__(
        self, in_channels: int, channels: int, *, level: int, kernel_da: int, stride: int = 1
    ) -> None:
        super().__init__()
        first_level = level - stride.bit_length() + 1
        self.conv1 = SpatialConv3d(
            in_channels, channels, 3, stride, level=first_level, kernel_da=kernel_da, bias=False
        )
        self.norm1 = InstanceNorm(channels)
        self.conv2 = SpatialConv3d(
            channels, channels, 3, level=level, kernel_da=kernel_da, bias=False
        )
        self.norm2 = InstanceNorm(channels)
        self.activation = nn.LeakyReLU(0.01, inplace=True)

    def forward(self, x: torch.Tensor, da: int) -> torch.Tensor:
        """(B, C_in, D, H, W) -> (B, C, D', H', W')."""
        x = self.activation(self.norm1(self.conv1(x, da)))
        return self.activation(self.norm2(self.conv2(x, da)))


class UpBlock(SpatialModule):
    """Doubles a map and mixes it with a skip connection; `level` is that of its output."""

    def __init__(self, in_channels: int, channels: int, *, level: int, kernel_da: int) -> None:
        super().__init__()
        self.upsample = SpatialConvTranspose3d(
            in_channels, channels, 2, level=level + 1, kernel_da=kernel_da
        )
        self.mix = ConvBlock(2 * channels, channels, level=level, kernel_da=kernel_da)

    def forward(self, x: torch.Tensor, skip: torch.Tensor, da: int) -> torch.Tensor:  # type: ignore[override]
        """X (B, C_in, ...) at half the grid of skip (B, C, ...) -> (B, C, ...)."""
        return self.mix(torch.cat([self.upsample(x, da), skip], dim=1), da)


class Adapter(nn.Module):
    """Turns four maps of the transformer into a pyramid at 1/4, 1/8, 1/16 and 1/32."""

    def __init__(self, dim: int, kernel_da: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(InstanceNorm(dim) for _ in PYRAMID_LEVELS)
        up = [
            SpatialConvTranspose3d(dim, dim, 2, level=level, kernel_da=kernel_da)
            for level in (4, 3, 4)
        ]
        self.steps = nn.ModuleList(
            [
                SpatialSequential(up[0], InstanceNorm(dim), nn.GELU(), up[1]),
                SpatialSequential(up[2]),
                SpatialSequential(),
                SpatialSequential(SpatialMaxPool3d(level=TOKEN_LEVEL)),
            ]
        )

    def forward(self, maps: Sequence[torch.Tensor], da: int) -> list[torch.Tensor]:
        return [
            step(norm(x), da) for x, norm, step in zip(maps, self.norms, self.steps, strict=True)
        ]


class Lateral(nn.Sequential):
    """Brings a map of the pyramid to the decoder's width."""

    def __init__(self, dim: int, channels: int) -> None:
        super().__init__(
            nn.Conv3d(dim, channels, 1, bias=False),
            InstanceNorm(channels),
            nn.LeakyReLU(0.01, inplace=True),
        )


class Decoder(nn.Module):
    """Joins pyramid and scan.

    Args:
        in_channels: channels of the scan.
        dim: width of the pyramid's maps.
        channels: decoder widths at 1/4, 1/8, 1/16 and 1/32.
        encoder_channels: widths of the convolutions on the scan at 1, 1/2 and, where more are
            given, 1/4 and 1/8; those are added to the pyramid's maps, so they must equal the
            decoder's width there. Small models learn faster with them than from tokens alone.
        kernel_da: the `da` already summed into the stored kernels.
    """

    def __init__(
        self,
        in_channels: int,
        dim: int,
        channels: Sequence[int],
        encoder_channels: Sequence[int],
        kernel_da: int,
    ) -> None:
        super().__init__()
        first_pyramid = PYRAMID_LEVELS[0]
        if list(encoder_channels[first_pyramid:]) != list(
            channels[: len(encoder_channels) - first_pyramid]
        ):
            raise ValueError(
                f"encoder widths {encoder_channels} must continue as the decoder's {channels} "
                f"from 1/4 on"
            )
        inputs = [in_channels, *encoder_channels]
        self.encoder = nn.ModuleList(
            ConvBlock(inputs[i], width, level=i, kernel_da=kernel_da, stride=2 if i else 1)
            for i, width in enumerate(encoder_channels)
        )
        self.laterals = nn.ModuleList(Lateral(dim, width) for width in channels)
        widths = [*encoder_channels[:first_pyramid], *channels]
        self.ups = nn.ModuleList(
            UpBlock(widths[level + 1], widths[level], level=level, kernel_da=kernel_da)
            for level in range(len(widths) - 1)
        )
        self.widths = widths

    def forward(
        self, scan: torch.Tensor, pyramid: Sequence[torch.Tensor], da: int
    ) -> list[torch.Tensor]:
        """Maps of the decoder, finest first: 1, 1/2, 1/4, 1/8, 1/16 in plane."""
        skips: list[torch.Tensor] = []
        x = scan
        for block in self.encoder:
            x = block(x, da)
            skips.append(x)
        laterals = [lateral(x) for lateral, x in zip(self.laterals, pyramid, strict=True)]
        for offset, lateral in enumerate(laterals):
            level = PYRAMID_LEVELS[offset]
            if level < len(skips):
                skips[level] = skips[level] + lateral
            else:
                skips.append(lateral)
        maps = [skips[-1]]
        for level in reversed(range(len(self.ups))):
            maps.insert(0, self.ups[level](maps[0], skips[level], da))
        return maps[:-1]


class Segmenter(nn.Module):
    """Backbone, adapter, decoder and heads.

    Args:
        in_channels: channels of the scan.
        classes: classes with the background, which is class 0.
        vit: constructor arguments of `SpatialViT` without `in_channels` and `kernel_da`.
        blocks: the four blocks whose outputs feed the adapter.
        decoder_channels: see `Decoder`.
        encoder_channels: see `Decoder`.
        deep_supervision: number of maps that get a head, the finest first.
        kernel_da: the `da` already summed into all stored kernels; 0 for new models, 2 for the
            authors'.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        vit: dict[str, object],
        blocks: Sequence[int] = (3, 5, 7, 11),
        decoder_channels: Sequence[int] = (128, 256, 512, 512),
        encoder_channels: Sequence[int] = (32, 64),
        deep_supervision: int = 4,
        kernel_da: int = 0,
    ) -> None:
        super().__init__()
        self.architecture = {
            "in_channels": in_channels,
            "classes": classes,
            "vit": dict(vit),
            "blocks": list(blocks),
            "decoder_channels": list(decoder_channels),
            "encoder_channels": list(encoder_channels),
            "deep_supervision": deep_supervision,
            "kernel_da": kernel_da,
        }
        self.in_channels, self.classes, self.blocks = in_channels, classes, tuple(blocks)
        self.vit = SpatialViT(in_channels=in_channels, kernel_da=kernel_da, **vit)  # type: ignore[arg-type]
        self.adapter = Adapter(self.vit.dim, kernel_da)
        self.decoder = Decoder(
            in_channels, self.vit.dim, decoder_channels, encoder_channels, kernel_da
        )
        self.heads = nn.ModuleList(
            nn.Conv3d(width, classes, 1) for width in self.decoder.widths[:deep_supervision]
        )

    def factors(self, da: int) -> tuple[int, int, int]:
        """Voxels in one cell of the coarsest map as (depth, height, width)."""
        return level_factors(PYRAMID_LEVELS[-1], da)

    def pyramid(self, x: torch.Tensor, da: int) -> list[torch.Tensor]:
        """The adapter's four maps of a padded scan."""
        return self.adapter(self.vit.feature_maps(x, da, self.blocks), da)

    def decoder_maps(self, x: torch.Tensor, da: int) -> list[torch.Tensor]:
        """The decoder's maps of a padded scan, finest first."""
        return self.decoder(x, self.pyramid(x, da), da)

    def forward(self, x: torch.Tensor, da: int) -> list[torch.Tensor]:
        """Class logits.

        Args:
            x: (B, C, D, H, W) in the range that the checkpoint's contract states; any shape of at
                least one voxel, padded at the far end by repeating the last voxel.
            da: degree of anisotropy.

        Returns:
            (B, classes, D, H, W) first; in training mode also the coarser heads, each on its own
            padded grid.
        """
        depth, height, width = x.shape[-3:]
        maps = self.decoder_maps(pad_to_multiple(x, self.factors(da)), da)
        heads = self.heads if self.training else self.heads[:1]
        logits = [head(m) for head, m in zip(heads, maps, strict=False)]
        return [logits[0][..., :depth, :height, :width], *logits[1:]]
