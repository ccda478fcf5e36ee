"""The part of a scan that the click decoder sees: a grid of its own laid into the scan.

Its plane has a spacing of its own, its depth the scan's unless that is finer, so that one decoder
serves a gland at full resolution and a liver at a coarser one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from spad.data.augment import resample_crop
from spad.data.grid_lines import at_lines
from spad.models.sac import level_factors
from spad.volumes.anisotropy import degree_of_anisotropy

SIDE = 64
"""Voxels of a patch along height and width; depth has as many at `da` 0."""
COARSEST_LEVEL = 3
POINT_VOXELS = 2.0
"""Sigma of a point's mark in the patch, in voxels of its plane."""

BRIGHTNESS = 0.08
"""In [0, 1]: a difference that makes two voxels unlike."""
MOST_LIKE = 12
"""Points to which places are compared; more are thinned out evenly."""


@dataclass(frozen=True, eq=False)
class Patch:
    """A grid in a scan.

    Attributes:
        centre: (z, y, x) voxel of the scan at which its middle lies.
        size: (D, H, W) voxels.
        matrix: (3, 3), from offsets in the patch to offsets in the scan, both in voxels.
        spacing: in mm, (z, y, x).
        da: degree of anisotropy.
    """

    centre: np.ndarray
    size: tuple[int, int, int]
    matrix: np.ndarray
    spacing: tuple[float, float, float]
    da: int

    def take(
        self, array: torch.Tensor, shape: Sequence[int], *, nearest: bool = False, level: int = 0
    ) -> torch.Tensor:
        """Resample an array that covers the scan, whatever its own grid.

        Args:
            array: (..., d, h, w) whose outer edges are those of the scan.
            shape: voxels of the scan.
            nearest: take the nearest value instead of interpolating.
            level: halvings of the patch's own grid in the result.

        Returns:
            (..., D, H, W) float32; beyond the scan its outermost values go on.
        """
        ratio = np.array(array.shape[-3:]) / np.array(shape)
        centre = (self.centre + 0.5) * ratio - 0.5
        cell = np.array(level_factors(level, self.da))
        depth, height, width = (int(n // c) for n, c in zip(self.size, cell, strict=True))
        matrix = ratio[:, None] * self.matrix * cell
        size = (depth, height, width)
        if not np.any(matrix - np.diag(np.diag(matrix))):
            lines = [
                middle + step * (np.arange(n) - (n - 1) / 2)
                for middle, step, n in zip(centre, np.diag(matrix), size, strict=True)
            ]
            return at_lines(array, lines, nearest=nearest)
        return resample_crop(array, centre, size, matrix, "nearest" if nearest else "bilinear")

    def to_patch(self, voxels: np.ndarray) -> np.ndarray:
        """Bring (n, 3) voxels of the scan to voxels of the patch."""
        middle = (np.array(self.size) - 1) / 2
        return (np.asarray(voxels, float) - self.centre) @ np.linalg.inv(self.matrix).T + middle

    def to_scan(self, voxels: np.ndarray) -> np.ndarray:
        """Bring (n, 3) voxels of the patch to voxels of the scan."""
        middle = (np.array(self.size) - 1) / 2
        return (np.asarray(voxels, float) - middle) @ self.matrix.T + self.centre


def patch_at(
    centre: Sequence[float] | np.ndarray,
    spacing: Sequence[float],
    in_plane_mm: float,
    turn: np.ndarray | None = None,
) -> Patch:
    """Lay a patch into a scan.

    Args:
        centre: (z, y, x) voxel of the scan.
        spacing: of the scan in mm, (z, y, x).
        in_plane_mm: spacing of the patch in its plane.
        turn: (3, 3) map of offsets in mm that turns or zooms the patch; None leaves it straight.
    """
    own = np.array(spacing, float)
    da = degree_of_anisotropy((max(own[0], in_plane_mm), in_plane_mm, in_plane_mm))
    depth_mm = max(own[0], in_plane_mm)
    depth = max(SIDE >> da, level_factors(COARSEST_LEVEL, da)[0], 8)
    step = np.array([depth_mm, in_plane_mm, in_plane_mm])
    matrix = (np.eye(3) if turn is None else turn) * step / own[:, None]
    return Patch(
        np.array(centre, float),
        (depth, SIDE, SIDE),
        matrix,
        (float(depth_mm), float(in_plane_mm), float(in_plane_mm)),
        da,
    )


def marks(points: np.ndarray, patch: Patch) -> torch.Tensor:
    """Draw points as soft balls: (D, H, W) float32 in [0, 1].

    Args:
        points: (n, 3) voxels of the patch; those far outside leave no mark.
        patch: where they are drawn.
    """
    if not len(points):
        return torch.zeros(patch.size)
    sigmas = np.maximum(POINT_VOXELS * patch.spacing[1] / np.array(patch.spacing), 0.5)
    axes = [
        torch.from_numpy(
            np.exp(-0.5 * ((np.arange(n) - points[:, [axis]]) / sigma) ** 2).astype(np.float32)
        )
        for axis, (n, sigma) in enumerate(zip(patch.size, sigmas, strict=True))
    ]
    plane = (axes[1][:, :, None] * axes[2][:, None, :]).flatten(1)
    return (axes[0].T @ plane).view(patch.size).clamp_(max=1)


def alike(image: torch.Tensor, points: np.ndarray) -> torch.Tensor:
    """Tell how alike in brightness each voxel is to the places where one clicked.

    Args:
        image: (D, H, W) in [0, 1].
        points: (n, 3) voxels of the patch; those outside do not count.

    Returns:
        (D, H, W) in [0, 1], 1 for the brightness around a point; 0 without points.
    """
    made = torch.zeros_like(image)
    for z, y, x in _inside(points, image.shape):
        around = image[max(0, z - 1) : z + 2, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        made = torch.maximum(made, torch.exp(-(((image - around.mean()) / BRIGHTNESS) ** 2)))
    return made


def akin(features: torch.Tensor, points: np.ndarray, size: Sequence[int]) -> torch.Tensor:
    """Tell how near in features each place is to those where one clicked.

    Args:
        features: (C, d, h, w).
        points: (n, 3) voxels of a patch of `size`; those outside do not count.
        size: (D, H, W).

    Returns:
        (1, d, h, w), the largest cosine; 0 without points or features.
    """
    grid = np.array(features.shape[1:])
    cells = _inside((np.asarray(points) + 0.5) * grid / np.array(size) - 0.5, grid)
    if not len(cells):
        return torch.zeros(1, *features.shape[1:])
    unit = torch.nn.functional.normalize(features.flatten(1), dim=0)
    places = torch.from_numpy(np.ravel_multi_index(tuple(cells.T), tuple(grid)))
    return (unit[:, places].T @ unit).amax(0).view(1, *features.shape[1:])


def _inside(points: np.ndarray, size: Sequence[int] | np.ndarray) -> np.ndarray:
    """Round points to voxels, without those outside, and at most `MOST_LIKE` of them."""
    whole = np.rint(np.asarray(points, float).reshape(-1, 3)).astype(int)
    whole = whole[((whole >= 0) & (whole < np.array(size))).all(1)]
    return whole[:: max(1, -(-len(whole) // MOST_LIKE))]


def filled(points: np.ndarray, patch: Patch) -> torch.Tensor:
    """Set the voxels of a patch that are nearest to points: (D, H, W) float32, 0 or 1."""
    made = torch.zeros(patch.size)
    inside = np.rint(points).astype(int)
    inside = inside[((inside >= 0) & (inside < np.array(patch.size))).all(1)]
    made[tuple(torch.from_numpy(inside.T.copy()))] = 1
    return made
