"""SPAD-ViT: an EVA-02-shaped transformer on spatially adaptive patches, and its masked-image head.

Source: PUMIT, arXiv 2312.07630, sections "vision transformer" and "masked image modelling"; EVA-02
(arXiv 2303.11331) for the block.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from spad.models.resize import pad_to_multiple, resize
from spad.models.rope import rotary_angles, rotate
from spad.models.sac import SpatialConv3d, level_factors

LEVEL = 4
"""In-plane halvings of the patch embedding: a patch is 16 voxels wide."""


class Attention(nn.Module):
    """Multi-head self-attention with rotary positions on all but the first token."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.query_bias = nn.Parameter(torch.zeros(dim))
        self.value_bias = nn.Parameter(torch.zeros(dim))
        self.projection = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        """(B, 1 + L, dim), angles (L, head_dim / 2) -> (B, 1 + L, dim)."""
        offset = torch.cat([self.query_bias, torch.zeros_like(self.query_bias), self.value_bias])
        q, k, v = (
            (F.linear(x, self.qkv.weight, offset))
            .unflatten(-1, (3, self.heads, -1))
            .permute(2, 0, 3, 1, 4)
        )
        q, k = (torch.cat([t[:, :, :1], rotate(t[:, :, 1:], angles)], dim=2) for t in (q, k))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.projection(mixed.transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    """Gated feed-forward layer with a layer norm inside."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, hidden)
        self.value = nn.Linear(dim, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.projection = nn.Linear(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.projection(self.norm(F.silu(self.gate(x)) * self.value(x)))


class Block(nn.Module):
    """Pre-norm transformer block without layer scale."""

    def __init__(self, dim: int, heads: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = SwiGLU(dim, dim * 8 // 3)
        self.drop_path = drop_path

    def forward(self, x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        x = x + self._dropped(self.attention(self.norm1(x), angles))
        return x + self._dropped(self.mlp(self.norm2(x)))

    def _dropped(self, branch: torch.Tensor) -> torch.Tensor:
        """Leave the branch out of some samples of a training batch (stochastic depth)."""
        if not self.training or self.drop_path == 0:
            return branch
        kept = branch.new_empty(len(branch), 1, 1).bernoulli_(1 - self.drop_path)
        return branch * kept / (1 - self.drop_path)


class SpatialViT(nn.Module):
    """The transformer.

    Args:
        in_channels: channels of the scan.
        dim: width of a token; `dim / heads` must be a multiple of four.
        depth: number of blocks.
        heads: attention heads.
        position_grid: (z, y, x) of the learnt position table, resized to the token grid of each
            scan.
        kernel_da: the `da` already summed into the patch kernel.
        drop_path: share of the samples of a batch for which the last block is left out in training;
            earlier blocks are left out the more rarely, the first one never.
    """

    def __init__(
        self,
        in_channels: int = 3,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        position_grid: Sequence[int] = (5, 10, 10),
        kernel_da: int = 0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.architecture = {
            "in_channels": in_channels,
            "dim": dim,
            "depth": depth,
            "heads": heads,
            "position_grid": list(position_grid),
            "kernel_da": kernel_da,
            "drop_path": drop_path,
        }
        self.dim = dim
        self.head_dim = dim // heads
        self.in_channels = in_channels
        self.patch_embedding = SpatialConv3d(in_channels, dim, 16, 16, level=0, kernel_da=kernel_da)
        self.position = nn.Parameter(torch.zeros(1, dim, *position_grid))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.ModuleList(
            Block(dim, heads, drop_path * index / max(1, depth - 1)) for index in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.apply(_initialise)
        nn.init.trunc_normal_(self.position, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def token_factors(self, da: int) -> tuple[int, int, int]:
        """Voxels in one token as (depth, height, width)."""
        return level_factors(LEVEL, da)

    def embed(self, x: torch.Tensor, da: int) -> torch.Tensor:
        """Patches with their positions added: (B, C, D, H, W) -> (B, dim, z, y, x)."""
        patches = self.patch_embedding(pad_to_multiple(x, self.token_factors(da)), da)
        return patches + resize(self.position, patches.shape[-3:])

    def _start(
        self, x: torch.Tensor, da: int, masked: torch.Tensor | None, mask_token: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[int, ...]]:
        patches = self.embed(x, da)
        grid = tuple(patches.shape[-3:])
        tokens = patches.flatten(2).transpose(1, 2)
        if masked is not None and mask_token is not None:
            tokens = torch.where(masked[..., None], mask_token.to(tokens.dtype), tokens)
        tokens = torch.cat(
            [self.cls_token.expand(len(tokens), -1, -1).to(tokens.dtype), tokens], dim=1
        )
        return tokens, rotary_angles(grid, self.head_dim, tokens.device), grid

    def forward(
        self,
        x: torch.Tensor,
        da: int,
        masked: torch.Tensor | None = None,
        mask_token: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Final-norm tokens.

        Args:
            x: (B, C, D, H, W), any shape of at least one voxel, padded at the far end to whole
                tokens.
            da: degree of anisotropy.
            masked: (B, L) booleans; these tokens are replaced by `mask_token` after their position
                was added, so they keep rotary positions only.
            mask_token: (1, 1, dim).

        Returns:
            (B, 1 + L, dim), the class token first, then z, y, x in C order.
        """
        tokens, angles, _ = self._start(x, da, masked, mask_token)
        for block in self.blocks:
            tokens = block(tokens, angles)
        return self.norm(tokens)

    def feature_maps(self, x: torch.Tensor, da: int, blocks: Sequence[int]) -> list[torch.Tensor]:
        """Give the outputs of blocks as maps (B, dim, z, y, x), without class token and norm."""
        tokens, angles, grid = self._start(x, da, None, None)
        maps = []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens, angles)
            if index in blocks:
                maps.append(tokens[:, 1:].transpose(1, 2).unflatten(2, grid))
        return maps


class MaskedImageModel(nn.Module):
    """Predicts the tokenizer's code distribution at masked tokens.

    Args:
        vit: constructor arguments of `SpatialViT`.
        codes: size K of the tokenizer's codebook.
    """

    def __init__(self, vit: dict[str, object], codes: int = 1024) -> None:
        super().__init__()
        self.vit = SpatialViT(**vit)  # type: ignore[arg-type]
        self.architecture = {"vit": self.vit.architecture, "codes": codes}
        dim = self.vit.dim
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, codes))
        self.head.apply(_initialise)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def token_factors(self, da: int) -> tuple[int, int, int]:
        """Voxels in one token as (depth, height, width)."""
        return self.vit.token_factors(da)

    def hidden(self, x: torch.Tensor, da: int, masked: torch.Tensor) -> torch.Tensor:
        """Final-norm tokens (B, 1 + L, dim) of a masked scan."""
        return self.vit(x, da, masked, self.mask_token)

    def forward(self, x: torch.Tensor, da: int, masked: torch.Tensor) -> torch.Tensor:
        """Code logits of every token.

        Args:
            x: (B, C, D, H, W) in the range that the checkpoint's contract states.
            da: degree of anisotropy.
            masked: (B, L) booleans.

        Returns:
            (B, L, K).
        """
        return self.head(self.hidden(x, da, masked)[:, 1:])


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
