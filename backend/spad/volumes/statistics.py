"""Intensity statistics of a scan, exact, without a float copy where integers are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spad.errors import SpadError

if TYPE_CHECKING:
    from spad.volumes.volume import Volume


@dataclass(frozen=True)
class Statistics:
    """Figures over the finite voxels of a scan, in its unit.

    Attributes:
        minimum: of the finite voxels.
        maximum: of the finite voxels.
        percentiles: of the finite voxels above the minimum, as many as were asked for; all equal
            the minimum where a scan is constant.
        not_finite: how many voxels are NaN or infinite.
    """

    minimum: float
    maximum: float
    percentiles: tuple[float, ...]
    not_finite: int


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


def stored_statistics(volume: Volume, percents: Sequence[float]) -> Statistics:
    """Give the statistics of a volume in its unit.

    Args:
        volume: any volume.
        percents: 0 to 100.

    Returns:
        The statistics, exact (linear interpolation between neighbours as numpy does).

    Raises:
        SpadError: no voxel is finite.
    """
    dtype = volume.array.dtype
    if dtype.kind in "iu" and dtype.itemsize <= 2 and volume.slope > 0:
        levels, counts = _histogram(volume.array)
        units = levels * volume.slope + volume.intercept
        return _of_histogram(units, counts, percents)
    return _of_values(volume.values(), percents)


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
    return Statistics(minimum, maximum, found, int(flat.size - finite.size))


def _histogram(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count each stored value, slab by slab along the first axis (the copy stays small)."""
    info = np.iinfo(array.dtype)
    counts = np.zeros(int(info.max) - int(info.min) + 1, dtype=np.int64)
    for slab in array:
        shifted = np.ravel(slab, order="K").astype(np.int32) - int(info.min)
        counts += np.bincount(shifted, minlength=counts.size)
    used = np.flatnonzero(counts)
    return used + int(info.min), counts[used]


def _of_histogram(units: np.ndarray, counts: np.ndarray, percents: Sequence[float]) -> Statistics:
    minimum, maximum = float(units[0]), float(units[-1])
    if len(units) == 1:
        return Statistics(minimum, maximum, (minimum,) * len(percents), 0)
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
    return Statistics(minimum, maximum, tuple(found), 0)
