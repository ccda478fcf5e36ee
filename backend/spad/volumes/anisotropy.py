"""Degree of anisotropy: how many in-plane halvings a scan needs before its voxels are cubes."""

from __future__ import annotations

import math
from collections.abc import Sequence

FLAT = 5
"""The degree of a 2D image: no kernel ever spans its depth."""


def degree_of_anisotropy(spacing: Sequence[float]) -> int:
    """Give `clip(floor(log2(s_z / min(s_y, s_x)) + 1e-3), 0, 5)` (SPAD-Nets, section 3.1).

    The 1e-3 takes up the float noise of oblique affines, which makes exact ratios of two come
    out a hair below the integer.

    Args:
        spacing: voxel spacing in mm, depth axis first (z, y, x), all positive.

    Returns:
        The degree, 0 (isotropic) to 5 (2D).
    """
    z, y, x = (float(s) for s in spacing)
    return min(max(math.floor(math.log2(z / min(y, x)) + 1e-3), 0), FLAT)
