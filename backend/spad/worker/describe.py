"""Statistics of a scan and of the labels on it, slice by slice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from spad.errors import SpadError
from spad.progress import Progress, silent
from spad.volumes.volume import Volume


@dataclass
class _Sums:
    """Count, sum and sum of squares of some voxels."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, count: float, total: float, squares: float) -> None:
        self.count += int(count)
        self.total += float(total)
        self.squares += float(squares)

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None

    @property
    def sd(self) -> float | None:
        if not self.count:
            return None
        mean = self.total / self.count
        return float(np.sqrt(max(self.squares / self.count - mean * mean, 0.0)))


def describe(
    volume: Volume, labels: Volume | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """Measure a scan, and each label on it.

    Args:
        volume: the scan; of several times or channels all voxels count.
        labels: labels on the scan's voxels (for every time, or for all times at once), or None.
        progress: called once per slice.

    Returns:
        `voxels, finite, min, max, mean, sd` in the scan's unit (None where no voxel is finite) and
        `labels {NAME: {id, voxels, volume_ml, mean, sd}}`: the voxels of the labels' array, their
        volume at one time (the mean over times), and the mean and standard deviation of the
        scan's finite voxels under the label, over all times.

    Raises:
        SpadError: the labels lie on another grid.
    """
    if labels is not None:
        _check_grid(volume, labels)
    count = int(np.prod(volume.array.shape[:-2]))
    whole, low, high = _Sums(), np.inf, -np.inf
    organs: dict[int, _Sums] = {}
    # slice by slice: the map of a large scan never becomes float all at once
    for number, index in enumerate(np.ndindex(volume.array.shape[:-2])):
        progress(number / count, "Measuring")
        values = volume.array[index].astype(np.float64) * volume.slope + volume.intercept
        finite = np.isfinite(values)
        good = values[finite]
        if good.size:
            low, high = min(low, float(good.min())), max(high, float(good.max()))
            whole.add(good.size, good.sum(), np.square(good).sum())
        if labels is not None:
            marks = labels.array[index[-(labels.array.ndim - 2) :]]
            _add_labels(marks, values, finite, organs)
    progress(1.0, "Measuring")
    return {
        "voxels": int(volume.array.size),
        "finite": whole.count,
        "min": low if whole.count else None,
        "max": high if whole.count else None,
        "mean": whole.mean,
        "sd": whole.sd,
        "labels": {} if labels is None else _label_table(labels, organs),
    }


def _check_grid(volume: Volume, labels: Volume) -> None:
    if labels.array.dtype.kind not in "iub":
        raise SpadError(
            f"The labels are stored as {labels.array.dtype}; expected whole numbers; convert the "
            "layer to labels first."
        )
    same = labels.array.shape in (volume.array.shape, volume.spatial_shape)
    if not same or not np.allclose(labels.affine, volume.affine, atol=1e-3):
        raise SpadError(
            f"The labels lie on another grid (shape {labels.array.shape}) than the scan (shape "
            f"{volume.array.shape}); give labels that were made for this scan."
        )


def _add_labels(
    marks: np.ndarray, values: np.ndarray, finite: np.ndarray, organs: dict[int, _Sums]
) -> None:
    inside = marks != 0
    found, where = np.unique(marks[inside], return_inverse=True)
    good = finite[inside]
    weights = np.where(good, values[inside], 0.0)
    size = len(found)
    counts = np.bincount(where[good], minlength=size)
    totals = np.bincount(where, weights=weights, minlength=size)
    squares = np.bincount(where, weights=weights * weights, minlength=size)
    for index, label in enumerate(found.tolist()):
        organs.setdefault(int(label), _Sums()).add(counts[index], totals[index], squares[index])


def _label_table(labels: Volume, organs: dict[int, _Sums]) -> dict[str, dict[str, Any]]:
    times = labels.array.size // int(np.prod(labels.spatial_shape))
    voxel_ml = float(np.prod(labels.spacing)) / 1000
    names = labels.label_names or {}
    table = {}
    for label in sorted(organs):
        voxels = sum(
            int(np.count_nonzero(labels.array[index] == label))
            for index in np.ndindex(labels.array.shape[:-2])
        )
        table[names.get(label, str(label))] = {
            "id": label,
            "voxels": voxels,
            "volume_ml": voxels * voxel_ml / times,
            "mean": organs[label].mean,
            "sd": organs[label].sd,
        }
    return table
