"""Doubtful places that a person should look at, of one object or of the automatic result.

All positions here are voxels of the scan's canonical view, depth first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial import cKDTree

from spad.data.patches import Patch
from spad.inference.click_canvas import decided
from spad.inference.features import Features

APART_MM = 15.0
"""Places are at least so far from each other ..."""
CLICKED_MM = 10.0
"""... and from what was clicked or painted."""
EDGE_MM = 3.0
"""How far from an object's edge a place may lie."""
AVERAGED_MM = 4.0
"""Half the width of the box over which doubt is averaged, so that no single voxel leads there."""
LEAST = 0.05
"""Mean doubt below which a place is none."""


def at_edge_of(
    patch: Patch, inside: torch.Tensor, doubt: torch.Tensor, shape: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Give the doubt along the edge of an object, where a patch decides about it.

    Args:
        patch: where one looked.
        inside: (D, H, W) of it, booleans: the object as it is.
        doubt: (D, H, W), from 0 for certain to 1.
        shape: voxels of the scan.

    Returns:
        (n, 3) voxels of the scan, and the (n) doubts there.
    """
    box = [2 * round(AVERAGED_MM / mm) + 1 for mm in patch.spacing]
    mean = ndimage.uniform_filter(doubt.numpy(), box, mode="nearest")
    mask = inside.numpy()
    if mask.all() or not mask.any():
        return np.zeros((0, 3), int), np.zeros(0)
    away = ndimage.distance_transform_edt(mask, patch.spacing)
    away += ndimage.distance_transform_edt(~mask, patch.spacing)
    # the voxels on both sides of the edge lie up to one voxel's width from it
    cells = np.argwhere(away <= EDGE_MM + patch.spacing[1])
    voxels = np.rint(patch.to_scan(cells)).astype(int)
    region = decided(patch, shape)
    low, high = [one.start for one in region], [one.stop for one in region]
    kept = ((voxels >= low) & (voxels < high)).all(1)
    return voxels[kept], mean[tuple(cells[kept].T)]


def worst(
    voxels: np.ndarray,
    doubts: np.ndarray,
    spacing: np.ndarray,
    clicked: np.ndarray,
    count: int,
) -> list[np.ndarray]:
    """Choose the most doubtful places that lie apart, the worst first.

    Args:
        voxels: (n, 3), among which to choose.
        doubts: (n) there.
        spacing: in mm.
        clicked: (m, 3) voxels that a person has judged, near which there is no doubt.
        count: how many at most.
    """
    mm, left = voxels * spacing, doubts.copy()
    if len(clicked) and len(mm):
        away, _ = cKDTree(clicked * spacing).query(mm, distance_upper_bound=CLICKED_MM)
        left[away < CLICKED_MM] = 0
    found: list[np.ndarray] = []
    while len(found) < count and left.max(initial=0) > LEAST:
        best = int(left.argmax())
        found.append(voxels[best])
        left[_square(mm, mm[best]) < APART_MM**2] = 0
    return found


def _square(mm: np.ndarray, place: np.ndarray) -> np.ndarray:
    return np.asarray(((mm - place) ** 2).sum(1))


def of_automatic(
    features: Features, shape: Sequence[int], spacing: Sequence[float], count: int
) -> list[np.ndarray]:
    """Give the places where the automatic result is least certain, the worst first.

    Doubt is the entropy of the classes, averaged over 3 voxels each way.

    Args:
        features: what a segmenter knows of the scan.
        shape: voxels of the scan.
        spacing: of the scan in mm.
        count: how many at most.
    """
    chances = features.organs.float() / 255
    entropy = -(chances * torch.log(chances.clamp(min=1e-6))).sum(0)
    doubt = torch.nn.functional.avg_pool3d(entropy[None, None], 3, 1, 1)[0, 0].numpy()
    ratio = np.array(shape) / doubt.shape
    apart = np.maximum(1, np.round(APART_MM / (np.array(spacing) * ratio)).astype(int))
    found: list[np.ndarray] = []
    while len(found) < count and doubt.max() > LEAST:
        at = np.array(np.unravel_index(int(doubt.argmax()), doubt.shape))
        found.append(np.minimum(((at + 0.5) * ratio).astype(int), np.array(shape) - 1))
        around = tuple(slice(max(0, a - r), a + r + 1) for a, r in zip(at, apart, strict=True))
        doubt[around] = 0
    return found
