"""Intensity statistics of a scan: exact up to a stated size, beyond it of a stated sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from spad.errors import SpadError

if TYPE_CHECKING:
    from spad.volumes.volume import Volume

EXACT_VOXELS = 1 << 28
"""Up to so many voxels (512 x 512 x 1024) the statistics are exact; beyond, those of a sample."""

QUICK_VOXELS = 1 << 24
"""The same limit for what a screen shows at once: contrast limits and the guess at a modality."""

SAMPLE_VOXELS = 1 << 22
"""A sample has about so many voxels."""

_PLANES = 16
_CHUNKS = 8


@dataclass(frozen=True)
class Statistics:
    """Figures over the finite voxels of a scan, in its unit.

    Attributes:
        minimum: of the finite voxels.
        maximum: of the finite voxels.
        percentiles: of the finite voxels above the minimum, as many as were asked for; all equal
            the minimum where a scan is constant.
        not_finite: how many voxels are NaN or infinite.
        voxels: how many voxels were looked at.
        sampled: whether these are fewer than the scan has.
    """

    minimum: float
    maximum: float
    percentiles: tuple[float, ...]
    not_finite: int
    voxels: int = 0
    sampled: bool = False


def percentiles(values: np.ndarray, percents: Sequence[float]) -> tuple[float, ...]:
    """Give the minimum and then percentiles of the finite values above it.

    Args:
        values: any shape, floats or integers.
        percents: 0 to 100.

    Returns:
        The minimum followed by one number per percent.

    Raises:
        SpadError: no value is finite.
    """
    found = _of_values(np.asarray(values), percents)
    return found.minimum, *found.percentiles


def stored_statistics(
    volume: Volume, percents: Sequence[float], exact_voxels: int | None = EXACT_VOXELS
) -> Statistics:
    """Give the statistics of a volume in its unit.

    Args:
        volume: any volume.
        percents: 0 to 100.
        exact_voxels: a volume of more voxels is judged by a sample of it; None for never.

    Returns:
        The statistics, exact (linear interpolation between neighbours as numpy does) unless
        they say that they are of a sample.

    Raises:
        SpadError: no voxel is finite.
    """
    size = math.prod(volume.array.shape)
    if exact_voxels is None or size <= exact_voxels:
        return _stored(volume.array, volume, percents)
    part = sample(volume.array)
    return replace(_stored(part, volume, percents), sampled=True)


def sample(array: Any) -> np.ndarray:
    """Take part of a large array so that few pages of a mapped file are read.

    Args:
        array: any shape; a memory map, a strided view of one or a dask array will do.

    Returns:
        About `SAMPLE_VOXELS` voxels in memory: whole rows, evenly spaced, of at least 16 evenly
        spaced planes (if there are so many) along the axes that lie farthest apart in the file;
        of a dask array, voxels of at least 8 evenly spaced chunks, shape (1, n).
    """
    if hasattr(array, "numblocks"):
        return _of_chunks(array)
    order = _slowest_first(array)
    slow, (row, column) = order[:-2], order[-2:]
    plane = array.shape[row] * array.shape[column]
    left = max(_PLANES, SAMPLE_VOXELS // plane)
    steps = [1] * array.ndim
    count = 1
    for axis in slow:
        steps[axis] = max(1, array.shape[axis] // left)
        taken = len(_spaced(array.shape[axis], steps[axis]))
        left, count = max(1, -(-left // taken)), count * taken
    steps[row] = min(array.shape[row], max(1, count * plane // SAMPLE_VOXELS))
    return np.asarray(array[tuple(slice(step // 2, None, step) for step in steps)])


def _of_chunks(array: Any) -> np.ndarray:
    """Sample whole chunks: a plane of each would read and decompress all of them."""
    total = math.prod(array.numblocks)
    chunk = math.prod(array.chunksize)
    wanted = min(total, max(_CHUNKS, SAMPLE_VOXELS // chunk))
    # the middles of equal parts, so that neither the first nor the last chunk is among few
    picks = ((np.arange(wanted) + 0.5) * total / wanted).astype(int)
    step = max(1, wanted * chunk // SAMPLE_VOXELS)
    blocks = (array.blocks[np.unravel_index(pick, array.numblocks)] for pick in picks)
    return np.concatenate([np.ravel(np.asarray(block))[::step] for block in blocks])[None]


def _spaced(length: int, step: int) -> range:
    return range(step // 2, length, step)


def _slowest_first(array: Any) -> list[int]:
    strides = getattr(array, "strides", None)
    if strides is None:
        return list(range(array.ndim))
    return sorted(range(array.ndim), key=lambda axis: -abs(strides[axis]))


def _stored(array: Any, volume: Volume, percents: Sequence[float]) -> Statistics:
    """Give the statistics of stored voxels in the unit of their volume."""
    dtype = array.dtype
    if dtype.kind in "iu" and not len(percents):
        ends = [float(end) * volume.slope + volume.intercept for end in (array.min(), array.max())]
        return Statistics(min(ends), max(ends), (), 0, math.prod(array.shape))
    if dtype.kind in "iu" and dtype.itemsize <= 2 and volume.slope > 0:
        levels, counts = _histogram(array)
        units = levels * volume.slope + volume.intercept
        return _of_histogram(units, counts, percents)
    return _of_values(replace(volume, array=array).values(), percents)


def _of_values(values: np.ndarray, percents: Sequence[float]) -> Statistics:
    flat = values.reshape(-1)
    finite = flat if flat.dtype.kind in "iub" else flat[np.isfinite(flat)]
    if not finite.size:
        raise SpadError(
            "The scan has no finite voxel (all are NaN or infinite); expected intensities; "
            "export it again from its source."
        )
    minimum, maximum = float(finite.min()), float(finite.max())
    above = finite[finite > minimum]
    if above.size and len(percents):
        found = tuple(float(p) for p in np.percentile(above, list(percents)))
    else:
        found = (minimum,) * len(percents)
    return Statistics(minimum, maximum, found, int(flat.size - finite.size), int(flat.size))


def _histogram(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count each stored value, slab by slab along the first axis (the copy stays small)."""
    info = np.iinfo(array.dtype)
    counts = np.zeros(int(info.max) - int(info.min) + 1, dtype=np.int64)
    for slab in array:
        shifted = np.ravel(np.asarray(slab), order="K").astype(np.intp)
        shifted -= int(info.min)
        counts += np.bincount(shifted, minlength=counts.size)
    used = np.flatnonzero(counts)
    return used + int(info.min), counts[used]


def _of_histogram(units: np.ndarray, counts: np.ndarray, percents: Sequence[float]) -> Statistics:
    minimum, maximum, voxels = float(units[0]), float(units[-1]), int(counts.sum())
    if len(units) == 1:
        return Statistics(minimum, maximum, (minimum,) * len(percents), 0, voxels)
    cumulative = np.cumsum(counts[1:])
    found = []
    for percent in percents:
        place = percent / 100 * (cumulative[-1] - 1)
        below = int(np.floor(place))
        first, second = (
            units[1 + np.searchsorted(cumulative, rank, side="right")]
            for rank in (below, min(below + 1, int(cumulative[-1]) - 1))
        )
        found.append(float(first + (second - first) * (place - below)))
    return Statistics(minimum, maximum, tuple(found), 0, voxels)
