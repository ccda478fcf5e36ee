"""Statistics of a scan and of the labels on it, slice by slice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from spad.errors import SpadError
from spad.progress import Progress, silent
from spad.volumes.measures import measure
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
        `labels`, which `spad.volumes.measures.measure` gives for those that occur.

    Raises:
        SpadError: the labels lie on another grid.
    """
    if labels is not None:
        _check_grid(volume, labels)
    count = int(np.prod(volume.array.shape[:-2]))
    whole, low, high = _Sums(), np.inf, -np.inf
    # slice by slice: the map of a large scan never becomes float all at once
    for number, index in enumerate(np.ndindex(volume.array.shape[:-2])):
        progress(number / count / (1 if labels is None else 2), "Measuring")
        values = volume.array[index].astype(np.float64) * volume.slope + volume.intercept
        finite = np.isfinite(values)
        good = values[finite]
        if good.size:
            low, high = min(low, float(good.min())), max(high, float(good.max()))
            whole.add(good.size, good.sum(), np.square(good).sum())
    table = {} if labels is None else _label_table(volume, labels, progress)
    progress(1.0, "Measuring")
    return {
        "voxels": int(volume.array.size),
        "finite": whole.count,
        "min": low if whole.count else None,
        "max": high if whole.count else None,
        "mean": whole.mean,
        "sd": whole.sd,
        "labels": table,
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


def _label_table(volume: Volume, labels: Volume, progress: Progress) -> dict[str, dict[str, Any]]:
    """Measure the labels that occur."""
    found: set[int] = set()
    for index in np.ndindex(labels.array.shape[:-2]):
        marks = labels.array[index]
        found.update(np.unique(marks[marks != 0]).tolist())
    names = {int(label): (labels.label_names or {}).get(label, str(label)) for label in found}

    def second_half(fraction: float, text: str) -> None:
        progress(0.5 + fraction / 2, text)

    return measure(volume, labels.array, names, second_half)
