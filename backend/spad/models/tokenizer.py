"""SPAD-VT, the visual tokenizer: strided encoder, soft tokens, mirrored decoder.

Source: PUMIT, arXiv 2312.07630, section "visual tokenizer"; SPAD-Nets (v2 of the same number).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from spad.models.quantizer import SoftTokenQuantizer
from spad.models.resize import pad_to_multiple
from spad.models.sac import SpatialConv3d, SpatialConvTranspose3d, SpatialSequential, level_factors

NORM_GROUPS = 8


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of a (B, C, D, H, W) map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


def _mixing(in_channels: int, channels: int, level: int) -> list[nn.Module]:
    return [
        SpatialConv3d(in_channels, channels, 3, level=level),
        nn.GroupNorm(NORM_GROUPS, channels),
        nn.LeakyReLU(0.01),
    ]


def _encoder(in_channels: int, channels: Sequence[int]) -> SpatialSequential:
    modules: list[nn.Module] = []
    width, level = in_channels, 0
    for index, channel in enumerate(channels):
        stride = 2 if index else 4
        modules += [
            SpatialConv3d(width, channel, stride, stride, level=level),
            ChannelNorm(channel),
            nn.GELU(),
        ]
        width, level = channel, level + stride.bit_length() - 1
    return SpatialSequential(*modules, *_mixing(width, width, level), *_mixing(width, width, level))


def _decoder(
    in_channels: int, code_dim: int, channels: Sequence[int], mean_up: bool
) -> SpatialSequential:
    level = len(channels) + 1
    modules = _mixing(code_dim, channels[-1], level) + _mixing(channels[-1], channels[-1], level)
    for width, channel in zip(channels[:0:-1], channels[-2::-1], strict=True):
        modules += [
            SpatialConvTranspose3d(width, channel, 2, level=level, mean=mean_up),
            *_mixing(channel, channel, level - 1),
        ]
        level -= 1
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
    """

    def __init__(
        self,
        in_channels: int = 3,
        channels: Sequence[int] = (128, 256, 512),
        codes: int = 1024,
        code_dim: int | None = None,
        mean_up: bool = False,
    ) -> None:
        super().__init__()
        code_dim = code_dim or channels[-1]
        self.architecture = {
            "in_channels": in_channels,
            "channels": list(channels),
            "codes": codes,
            "code_dim": code_dim,
            "mean_up": mean_up,
        }
        self.in_channels = in_channels
        self.codes = codes
        self.level = len(channels) + 1
        self.encoder = _encoder(in_channels, channels)
        self.quantizer = SoftTokenQuantizer(channels[-1], codes, code_dim)
        self.decoder = _decoder(in_channels, code_dim, channels, mean_up)

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

    def forward(self, x: torch.Tensor, da: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, C, D, H, W) -> its reconstruction of equal shape, and the logits (B, z, y, x, K)."""
        logits = self.encode(x, da)
        probabilities = F.softmax(logits.float(), dim=-1)
        return self.decode(probabilities, da, x.shape[-3:]), logits
