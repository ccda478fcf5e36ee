"""A simulated user: where a person would click next, given what they mean and what they see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

LASSO_VOXELS = 2
"""By how much, at most, a simulated lasso is wider than the object."""


def deepest_voxel(region: np.ndarray, spacing: Sequence[float]) -> tuple[int, int, int]:
    """Find the voxel of a region that is farthest from its edge, the first one on ties.

    Args:
        region: (D, H, W) booleans, some true; what lies beyond the array counts as outside.
        spacing: in mm.
    """
    boxes = ndimage.find_objects(region.astype(np.uint8))
    box = boxes[0]
    inner = np.pad(region[box], 1)
    depth = ndimage.distance_transform_edt(inner, sampling=spacing)[1:-1, 1:-1, 1:-1]
    z, y, x = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return (
        int(z) + box[0].start,
        int(y) + box[1].start,
        int(x) + box[2].start,
    )


def largest_piece(mask: np.ndarray) -> np.ndarray:
    """Keep the largest connected component (26 neighbours), the first one on ties."""
    pieces, count = ndimage.label(mask, np.ones((3, 3, 3)))
    if count < 2:
        return mask
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.asarray(pieces == int(np.argmax(sizes)))


def next_click(
    wanted: np.ndarray, found: np.ndarray, spacing: Sequence[float]
) -> tuple[tuple[int, int, int], bool] | None:
    """Click where a robot user would: the deepest voxel of the largest component of the error.

    What is missing and what is too much are taken apart; of two of one size the missing comes
    first.

    Args:
        wanted: (D, H, W) booleans, the object.
        found: the same of what the model found.
        spacing: in mm.

    Returns:
        The voxel, and whether it belongs to the object; None where nothing is wrong.
    """
    pieces = [largest_piece(part) for part in (wanted & ~found, found & ~wanted) if part.any()]
    if not pieces:
        return None
    voxel = deepest_voxel(max(pieces, key=np.count_nonzero), spacing)
    return voxel, bool(wanted[voxel])


def human_click(
    wanted: np.ndarray, found: np.ndarray, spacing: Sequence[float], rng: np.random.Generator
) -> tuple[tuple[int, int, int], bool] | None:
    """Click as a person might: in a large error, mostly well inside, seldom at its very middle.

    The error is drawn by size; the voxel is the deepest one half of the time, else any that is at
    least a third as deep.
    """
    missing, extra = wanted & ~found, found & ~wanted
    pieces_1, count_1 = ndimage.label(missing)
    pieces_2, count_2 = ndimage.label(extra)
    sizes = np.concatenate(
        [
            np.bincount(pieces_1.ravel(), minlength=count_1 + 1)[1:],
            np.bincount(pieces_2.ravel(), minlength=count_2 + 1)[1:],
        ]
    ).astype(float)
    if not len(sizes):
        return None
    chosen = int(rng.choice(len(sizes), p=sizes**1.5 / (sizes**1.5).sum()))
    positive = chosen < count_1
    piece = pieces_1 == chosen + 1 if positive else pieces_2 == chosen - count_1 + 1
    if rng.random() < 0.5:
        return deepest_voxel(piece, spacing), positive
    box = ndimage.find_objects(piece.astype(np.uint8))[0]
    depth = np.asarray(ndimage.distance_transform_edt(np.pad(piece[box], 1), sampling=spacing))
    inner = np.argwhere(depth[1:-1, 1:-1, 1:-1] >= depth.max() / 3)
    z, y, x = inner[int(rng.integers(len(inner)))]
    return (int(z) + box[0].start, int(y) + box[1].start, int(x) + box[2].start), positive


def drawn_region(wanted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a box in 3D, a box on one slice, or a lasso on one slice around an object.

    Args:
        wanted: (D, H, W) booleans, some true.
        rng: the source of randomness.

    Returns:
        (D, H, W) booleans, true inside what was drawn.
    """
    made = np.zeros_like(wanted)
    box = ndimage.find_objects(wanted.astype(np.uint8))[0]
    spans = [(one.start, one.stop) for one in box]
    jittered = [
        slice(
            max(0, low + round(rng.normal(0, 0.05 * (high - low)))),
            max(1, high + round(rng.normal(0, 0.05 * (high - low)))),
        )
        for low, high in spans
    ]
    kind = rng.integers(3)
    if kind == 0:
        made[tuple(jittered)] = True
        return made
    areas = wanted.sum((1, 2)) if rng.random() < 0.7 else wanted.any((1, 2))
    index = int(rng.choice(len(wanted), p=areas / areas.sum()))
    plane = wanted[index]
    if kind == 1:
        rows, columns = ndimage.find_objects(plane.astype(np.uint8))[0]
        made[index, rows, columns] = True
        return made
    made[index] = ndimage.binary_dilation(plane, iterations=int(rng.integers(1, LASSO_VOXELS + 1)))
    return made
