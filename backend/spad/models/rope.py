"""Additive three-dimensional rotary position embedding.

In-plane positions turn feature pairs as in EVA-02 (base 10000); the depth position adds its own
angle (base 2333) to every pair, so that a single slice has exactly the two-dimensional embedding.
Source: PUMIT, arXiv 2312.07630, section "vision transformer".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

PLANE_BASE = 10000.0
DEPTH_BASE = 2333.0


def rotary_angles(
    grid: Sequence[int], head_dim: int, device: torch.device | None = None
) -> torch.Tensor:
    """Rotation angle of every feature pair at every token.

    Args:
        grid: tokens as (z, y, x).
        head_dim: width of an attention head, a multiple of four.

    Returns:
        (z * y * x, head_dim / 2) in radians: the first half of the pairs turns with y, the second
        with x.
    """
    pairs = head_dim // 4
    i = torch.arange(pairs, device=device, dtype=torch.float64)
    plane = PLANE_BASE ** (-2 * i / (2 * pairs))
    depth = DEPTH_BASE ** (-(2 * i + 1) / (2 * pairs))
    z, y, x = (torch.arange(n, device=device, dtype=torch.float64) for n in grid)
    shape = (len(z), len(y), len(x), pairs)
    along_depth = (z[:, None] * depth)[:, None, None]
    vertical = along_depth + (y[:, None] * plane)[None, :, None]
    horizontal = along_depth + (x[:, None] * plane)[None, None]
    both = torch.cat([vertical.expand(shape), horizontal.expand(shape)], dim=-1)
    return both.reshape(-1, head_dim // 2).float()


def rotate(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Turn interleaved feature pairs (2j, 2j + 1).

    Args:
        x: (..., L, head_dim).
        angles: (L, head_dim / 2).
    """
    cosine = angles.cos().repeat_interleave(2, dim=-1).to(x.dtype)
    sine = angles.sin().repeat_interleave(2, dim=-1).to(x.dtype)
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-odd, even], dim=-1).flatten(-2)
    return x * cosine + turned * sine
