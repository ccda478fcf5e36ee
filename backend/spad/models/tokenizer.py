"""SPAD-VT, the visual tokenizer: strided encoder, soft tokens, mirrored decoder.

Source: PUMIT, arXiv 2312.07630, section "visual tokenizer"; SPAD-Nets (v2 of the same number).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from spad.models.quantizer import Quantizer
from spad.models.resize import pad_to_multiple
from spad.models.sac import (
    SpatialConv3d,
    SpatialConvTranspose3d,
    SpatialModule,
    SpatialSequential,
    level_factors,
)

NORM_GROUPS = 8
SMALL = 0.1
"""What a residual block adds at the start, beside what a plain one would."""


class Reconstruction(NamedTuple):
    """What training sees of a batch.

    Attributes:
        image: (B, C, D, H, W), about [-1, 1].
        logits: (B, z, y, x, K).
        commitment: a scalar to add to the loss, see `Quantizer`.
    """

    image: torch.Tensor
    logits: torch.Tensor
    commitment: torch.Tensor


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of a (B, C, D, H, W) map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


class ResidualBlock(SpatialModule):
    """x + expand(gelu(norm(mix(gelu(squeeze(norm(x))))))), 3x3x3 at half the width.

    Normalised over channels alone, so that what a token says does not depend on the window.
    """

    def __init__(self, channels: int, *, level: int) -> None:
        super().__init__()
        narrow = channels // 2
        self.before = ChannelNorm(channels)
        self.squeeze = SpatialConv3d(channels, narrow, 1, level=level)
        self.mix = SpatialConv3d(narrow, narrow, 3, level=level)
        self.between = ChannelNorm(narrow)
        self.expand = SpatialConv3d(narrow, channels, 1, level=level)
        self.expand.weight.data.mul_(SMALL)

    def forward(self, x: torch.Tensor, da: int) -> torch.Tensor:
        """(B, C, D, H, W) -> the same shape."""
        y = self.mix(F.gelu(self.squeeze(self.before(x), da)), da)
        return x + self.expand(F.gelu(self.between(y)), da)


def _mixing(in_channels: int, channels: int, level: int) -> list[nn.Module]:
    return [
        SpatialConv3d(in_channels, channels, 3, level=level),
        nn.GroupNorm(NORM_GROUPS, channels),
        nn.LeakyReLU(0.01),
    ]


def _residual(channels: int, level: int, blocks: int) -> list[nn.Module]:
    return [ResidualBlock(channels, level=level) for _ in range(blocks)]


def _encoder(in_channels: int, channels: Sequence[int], blocks: int) -> SpatialSequential:
    modules: list[nn.Module] = []
    width, level = in_channels, 0
    for index, channel in enumerate(channels):
        stride = 2 if index else 4
        modules.append(SpatialConv3d(width, channel, stride, stride, level=level))
        width, level = channel, level + stride.bit_length() - 1
        if blocks:
            modules += [*_residual(width, level, blocks), ChannelNorm(width)]
        else:
            modules += [ChannelNorm(width), nn.GELU()]
    if not blocks:
        modules += _mixing(width, width, level) + _mixing(width, width, level)
    return SpatialSequential(*modules)


def _decoder(
    in_channels: int, code_dim: int, channels: Sequence[int], mean_up: bool, blocks: int
) -> SpatialSequential:
    level = len(channels) + 1
    if blocks:
        modules = [ChannelNorm(code_dim), SpatialConv3d(code_dim, channels[-1], 1, level=level)]
        modules += [*_residual(channels[-1], level, blocks), ChannelNorm(channels[-1])]
    else:
        modules = _mixing(code_dim, channels[-1], level)
        modules += _mixing(channels[-1], channels[-1], level)
    for width, channel in zip(channels[:0:-1], channels[-2::-1], strict=True):
        modules.append(SpatialConvTranspose3d(width, channel, 2, level=level, mean=mean_up))
        level -= 1
        if blocks:
            modules += [*_residual(channel, level, blocks), ChannelNorm(channel)]
        else:
            modules += _mixing(channel, channel, level)
    modules.append(SpatialConvTranspose3d(channels[0], in_channels, 4, level=level, mean=mean_up))
    return SpatialSequential(*modules)


class Tokenizer(nn.Module):
    """The visual tokenizer.

    Args:
        in_channels: channels of the scan; the authors repeat a gray scan three times.
        channels: width after each stage; the first divides the in-plane grid by 4, each further one
            by 2.
        codes: size K of the codebook.
        code_dim: width of a code; the last channel width when None.
        mean_up: average the decoder's kernels along depth where the authors sum them; see
            `SpatialConvTranspose3d`. False is theirs.
        blocks: residual blocks after each step of encoder and decoder, with norms over channels
            alone, instead of the authors' plain convolutions with group norms (0). They let a small
            model learn from the first step on.
        quantizer: "soft" (the authors'), "gumbel" or "nearest"; see `Quantizer`.
    """

    def __init__(
        self,
        in_channels: int = 3,
        channels: Sequence[int] = (128, 256, 512),
        codes: int = 1024,
        code_dim: int | None = None,
        mean_up: bool = False,
        blocks: int = 0,
        quantizer: str = "soft",
    ) -> None:
        super().__init__()
        code_dim = code_dim or channels[-1]
        self.architecture = {
            "in_channels": in_channels,
            "channels": list(channels),
            "codes": codes,
            "code_dim": code_dim,
            "mean_up": mean_up,
            "blocks": blocks,
            "quantizer": quantizer,
        }
        self.in_channels = in_channels
        self.codes = codes
        self.level = len(channels) + 1
        self.encoder = _encoder(in_channels, channels, blocks)
        bound = 1.0 if blocks else None
        self.quantizer = Quantizer(channels[-1], codes, code_dim, quantizer, bound)
        self.decoder = _decoder(in_channels, code_dim, channels, mean_up, blocks)

    def token_factors(self, da: int) -> tuple[int, int, int]:
        """Voxels in one token as (depth, height, width)."""
        return level_factors(self.level, da)

    def features(self, x: torch.Tensor, da: int) -> torch.Tensor:
        """The encoder's output: (B, C, D, H, W) in [-1, 1] -> (B, channels[-1], z, y, x)."""
        return self.encoder(pad_to_multiple(x, self.token_factors(da)), da)

    def encode(self, x: torch.Tensor, da: int) -> torch.Tensor:
        """Code logits.

        Args:
            x: (B, C, D, H, W) in [-1, 1], any shape of at least one voxel; padded at the far end by
                repeating the last voxel until each axis holds whole tokens.
            da: degree of anisotropy.

        Returns:
            (B, z, y, x, K) with z = ceil(D / token_factors(da)[0]) and so on.
        """
        return self.quantizer.logits(self.features(x, da))

    def probabilities(self, x: torch.Tensor, da: int) -> torch.Tensor:
        """Code probabilities (B, z, y, x, K), float32, of what `encode` takes."""
        return self.quantizer.probabilities(self.encode(x, da))

    def decode(self, probabilities: torch.Tensor, da: int, size: Sequence[int]) -> torch.Tensor:
        """Reconstruct from code probabilities.

        Args:
            probabilities: (B, z, y, x, K), summing to one over K.
            da: degree of anisotropy.
            size: (D, H, W) of the scan; what was padded is cropped off.

        Returns:
            (B, C, D, H, W), about [-1, 1], not clipped.
        """
        depth, height, width = size
        decoded = self.decoder(self.quantizer.mix(probabilities), da)
        return decoded[..., :depth, :height, :width]

    def forward(
        self, x: torch.Tensor, da: int, temperature: float | torch.Tensor = 1.0
    ) -> Reconstruction:
        """Reconstruct a batch as training sees it: (B, C, D, H, W) in [-1, 1]; see `Quantizer`."""
        found = self.quantizer(self.features(x, da), temperature)
        depth, height, width = x.shape[-3:]
        image = self.decoder(found.embedding, da)[..., :depth, :height, :width]
        return Reconstruction(image, found.logits, found.commitment)
