"""Resizing of maps: area means where an axis shrinks, linear interpolation where it grows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F


def resize(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Resize the last three axes of `x`.

    Axes that shrink are averaged over equal areas first (no aliasing), then axes that grow are
    interpolated linearly between voxel centres. The outer edges of both grids coincide.

    Args:
        x: (B, C, D, H, W), floating point.
        size: the wanted (D, H, W).

    Returns:
        (B, C, *size); `x` itself when the size is already right.
    """
    present = tuple(x.shape[-3:])
    size = tuple(int(n) for n in size)
    if size == present:
        return x
    depth, height, width = (min(old, new) for old, new in zip(present, size, strict=True))
    shrunk = (depth, height, width)
    if shrunk != present:
        x = F.adaptive_avg_pool3d(x, shrunk)
    if shrunk != size:
        x = F.interpolate(x, size=size, mode="trilinear", align_corners=False)
    return x


def pad_to_multiple(x: torch.Tensor, factors: Sequence[int]) -> torch.Tensor:
    """Repeat the last voxel of each axis until its length is a multiple of its factor.

    Args:
        x: (B, C, D, H, W), at least one voxel along each axis.
        factors: one positive integer for each of D, H, W.
    """
    missing = [-n % f for n, f in zip(x.shape[-3:], factors, strict=True)]
    if not any(missing):
        return x
    depth, height, width = missing
    return F.pad(x, (0, width, 0, height, 0, depth), mode="replicate")
