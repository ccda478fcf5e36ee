"""Mending a mask by hand: smoothing, islands, filling between slices, growing from seeds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy import ndimage

from spad.errors import SpadError

Region = tuple[slice, ...]
Spacing = Sequence[float]

_REACH = 3.0
"""Standard deviations after which a Gaussian is taken for nothing."""
_AROUND_MM = 10.0
_EDGE_MM = 1.0


def bounding_box(mask: np.ndarray) -> Region | None:
    """Give the smallest box that holds all voxels of a mask; None if it has none."""
    box: Region = ()
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        lines = np.flatnonzero(mask[(*box,)].any(axis=others))
        if not lines.size:
            return None
        box = (*box, slice(int(lines[0]), int(lines[-1]) + 1))
    return box


def grown(box: Region, margin: Sequence[float] | np.ndarray, shape: Sequence[int]) -> Region:
    """Make a box larger on all sides by voxels (rounded up), as far as the array goes."""
    steps = [int(np.ceil(one)) for one in margin]
    return tuple(
        slice(max(0, one.start - step), min(n, one.stop + step))
        for one, step, n in zip(box, steps, shape, strict=True)
    )


def smooth(mask: np.ndarray, spacing: Spacing, radius_mm: float) -> np.ndarray:
    """Smooth the surface of a mask and keep its volume.

    The mask is blurred with a Gaussian (in mm, so that thick slices are blurred as little along
    depth as they should be) whose standard deviation is half of the radius, and cut at the level
    that leaves as many voxels as before: a fixed level would let everything round shrink. What is
    much narrower than the radius vanishes, gaps of that width close. An organ that is cut off by
    the end of the scan stays so.

    Args:
        mask: bool (z, y, x).
        spacing: mm along z, y and x.
        radius_mm: how far it reaches.

    Returns:
        A new mask with as many voxels, up to those that are exactly alike.

    Raises:
        SpadError: the radius is not above 0.
    """
    if not radius_mm > 0:
        raise SpadError(f"A radius of {radius_mm:g} mm smooths nothing; expected more than 0 mm.")
    made = np.array(mask, bool)
    box = bounding_box(made)
    if box is None:
        return made
    sigma = radius_mm / 2 / np.asarray(spacing, float)
    box = grown(box, _REACH * sigma + 1, made.shape)
    part = made[box]
    blurred = ndimage.gaussian_filter(
        part.astype(np.float32), sigma, mode="nearest", truncate=_REACH
    )
    count = int(np.count_nonzero(part))
    level = np.partition(blurred, blurred.size - count, axis=None)[blurred.size - count]
    made[box] = blurred >= level
    return made


def keep_island(mask: np.ndarray, voxel: Sequence[int]) -> np.ndarray:
    """Keep the one part of a mask that a voxel lies in; parts touch by faces.

    Args:
        mask: bool (z, y, x).
        voxel: an index in the part.

    Returns:
        A new mask.

    Raises:
        SpadError: the mask has nothing at the voxel.
    """
    kept = np.zeros(mask.shape, bool)
    box, island = _island(mask, voxel)
    kept[box] = island
    return kept


def remove_island(mask: np.ndarray, voxel: Sequence[int]) -> np.ndarray:
    """Remove the one part of a mask that a voxel lies in; parts touch by faces.

    Args:
        mask: bool (z, y, x).
        voxel: an index in the part.

    Returns:
        A new mask.

    Raises:
        SpadError: the mask has nothing at the voxel.
    """
    made = np.array(mask, bool)
    box, island = _island(mask, voxel)
    made[box] &= ~island
    return made


def _island(mask: np.ndarray, voxel: Sequence[int]) -> tuple[Region, np.ndarray]:
    """Give the box of a mask, and in it the part that a voxel lies in."""
    at = tuple(int(n) for n in voxel)
    inside = all(0 <= n < size for n, size in zip(at, mask.shape, strict=True))
    if not inside or not mask[at]:
        raise SpadError(
            f"The label has no voxel at {at}; expected a place on one of its islands; click on one."
        )
    box = bounding_box(mask)
    assert box is not None
    parts, _ = ndimage.label(mask[box])
    own = parts[tuple(n - one.start for n, one in zip(at, box, strict=True))]
    return box, parts == own


def fill_between(mask: np.ndarray, axis: int, spacing: Spacing = (1.0, 1.0, 1.0)) -> np.ndarray:
    """Fill the slices between those that are drawn, along one axis.

    Between two drawn slices the outline goes over from one into the other: the signed distances to
    both, in mm, are mixed by how near each is. Where the two do not overlap, they are laid on each
    other for that, and the outline wanders. Slices that hold anything stay as they are.

    Args:
        mask: bool (z, y, x) with some slices drawn.
        axis: along which the slices lie: 0, 1 or 2.
        spacing: mm along z, y and x.

    Returns:
        A new mask.

    Raises:
        SpadError: fewer than two slices are drawn.
    """
    made = np.array(mask, bool)
    others = tuple(other for other in range(made.ndim) if other != axis)
    drawn = np.flatnonzero(made.any(axis=others))
    if len(drawn) < 2:
        has = "one slice" if len(drawn) else "no slice"
        raise SpadError(
            f"The label is drawn on {has} of this view; expected two or more with empty ones "
            "between them; draw on another slice."
        )
    box = bounding_box(made)
    assert box is not None
    # distances are no longer than the box, and shapes that wander stay in it
    part = np.moveaxis(made[box], axis, 0)
    across = [float(spacing[other]) for other in others]
    places = drawn - drawn[0]
    for first, last in pairwise(places):
        if last - first > 1:
            part[first + 1 : last] = _between(part[first], part[last], last - first, across)
    return made


def _between(one: np.ndarray, other: np.ndarray, steps: int, spacing: list[float]) -> np.ndarray:
    """Give the slices between two, at `steps` - 1 equal steps."""
    distances = [_signed(flat, spacing) for flat in (one, other)]
    apart = np.zeros(2)
    if not (one & other).any():
        centres = [np.argwhere(flat).mean(axis=0) for flat in (one, other)]
        apart = centres[1] - centres[0]
    slices = []
    for step in range(1, steps):
        share = step / steps
        mixed = np.zeros(one.shape)
        for distance, weight, way in zip(
            distances, (1 - share, share), (share * apart, (share - 1) * apart), strict=True
        ):
            moved = (
                ndimage.shift(distance, way, order=1, mode="nearest") if apart.any() else distance
            )
            mixed += weight * moved
        slices.append(mixed > 0)
    return np.array(slices)


def _signed(flat: np.ndarray, spacing: list[float]) -> np.ndarray:
    """Give the distance in mm to the outline, above 0 inside; what lies beyond is empty."""
    wide = np.pad(flat, 1)
    inside = ndimage.distance_transform_edt(wide, spacing)[1:-1, 1:-1]
    outside = ndimage.distance_transform_edt(~wide, spacing)[1:-1, 1:-1]
    # the outline lies between two voxels, half a voxel from either
    half = min(spacing) / 2
    return np.where(flat, inside - half, half - outside)


def grow_from_seeds(
    values: np.ndarray,
    seeds: np.ndarray,
    spacing: Spacing,
    region: Region | None = None,
) -> np.ndarray:
    """Grow strokes of several labels until they meet, each up to the edges in the image.

    A watershed on the slope of the image (in mm, blurred by 1 mm) floods from all seeds at once.

    Args:
        values: the scan (z, y, x).
        seeds: whole numbers (z, y, x), 0 where nothing is drawn; drawn voxels stay as they are.
        spacing: mm along z, y and x.
        region: the box to fill; None for the seeds' own and 10 mm around.

    Returns:
        New labels; outside of the region as before.

    Raises:
        SpadError: there are fewer than two labels to grow against each other.
    """
    from skimage.segmentation import watershed

    box = region or seed_region(seeds, spacing)
    part = seeds[box]
    # numbered anew: the watershed takes int32
    names, numbers = np.unique(part, return_inverse=True)
    if np.count_nonzero(names) < 2:
        raise SpadError(
            f"There are strokes of {np.count_nonzero(names)} label here; expected two or more "
            "that grow against each other; paint some strokes of another label on what it is not."
        )
    zero = int(np.searchsorted(names, 0))
    has_zero = zero < len(names) and names[zero] == 0
    markers = numbers.reshape(part.shape) + 1
    if has_zero:
        markers[part == 0] = 0
    flooded = watershed(_slope(values[box], spacing), markers)
    made = np.array(seeds)
    made[box] = names[flooded - 1]
    return made


def seed_region(seeds: np.ndarray, spacing: Spacing) -> Region:
    """Give the box that seeds fill if nobody says another: their own and 10 mm around.

    Raises:
        SpadError: there are no seeds.
    """
    box = bounding_box(seeds != 0)
    if box is None:
        raise SpadError(
            "There are no strokes to grow; expected some of two or more labels; paint them first."
        )
    return grown(box, _AROUND_MM / np.asarray(spacing, float), seeds.shape)


def _slope(values: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Give how steep an image is, per mm; what is not finite counts as the lowest value."""
    steps = np.asarray(spacing, float)
    image = np.array(values, np.float32)
    finite = np.isfinite(image)
    if not finite.all():
        image[~finite] = image[finite].min() if finite.any() else 0
    image = ndimage.gaussian_filter(image, _EDGE_MM / steps, mode="nearest", truncate=_REACH)
    squares = np.zeros(image.shape, np.float32)
    for axis, step in enumerate(steps):
        if image.shape[axis] > 1:
            squares += np.gradient(image, step, axis=axis) ** 2
    return np.sqrt(squares)


def within(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Tell which voxels lie in a range, both ends included; what is not a number does not.

    Raises:
        SpadError: the range ends before it begins.
    """
    if low > high:
        raise SpadError(
            f"The range begins at {low:g} and ends at {high:g}; expected a lower value first; "
            "exchange the two."
        )
    return (values >= low) & (values <= high)
