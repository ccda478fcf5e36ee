"""Measures of labels: voxels, volume, intensities, slices and the largest diameter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from scipy.spatial import ConvexHull
from scipy.spatial.distance import cdist

from spad.progress import Progress, silent
from spad.volumes.volume import Volume

_PAIRS_AT_ONCE = 2_000_000


def measure(
    scan: Volume, labels: np.ndarray, names: Mapping[int, str], progress: Progress = silent
) -> dict[str, dict[str, Any]]:
    """Measure labels that lie on a scan.

    Args:
        scan: of several times or channels all voxels count.
        labels: whole numbers on the scan's voxels, for every time or for all times at once.
        names: id to name of the labels to measure.
        progress: called once per slice.

    Returns:
        `{NAME: {id, voxels, volume_ml, mean, sd, slices, diameter_mm}}`, also of labels that do not
        occur: the voxels of `labels`, their volume at one time (the mean over times), mean and
        standard deviation of the scan's finite voxels under the label in its unit (None where there
        is none), the slices along depth that hold it at any time, and the largest distance between
        the centres of two of its voxels at one time (None where there is no voxel).
    """
    ids = np.array(sorted(names), np.int64)
    times = labels.size // int(np.prod(labels.shape[-3:]))
    rows = _Rows(ids, labels.shape)
    sums = np.zeros((3, len(ids)))
    count = int(np.prod(scan.array.shape[:-2]))
    for number, index in enumerate(np.ndindex(scan.array.shape[:-2])):
        progress(number / count, "Measuring")
        own = index[-(labels.ndim - 2) :]
        first = not any(index[: -len(own)])
        inside, which = _found(labels[own], ids)
        if not len(inside):
            continue
        if first:
            rows.add(own, inside, which)
        values = scan.array[index].reshape(-1)[inside] * np.float64(scan.slope) + scan.intercept
        finite = np.isfinite(values)
        if not finite.all():
            values, which = values[finite], which[finite]
        sums[0] += np.bincount(which, minlength=len(ids))
        sums[1] += np.bincount(which, values, len(ids))
        sums[2] += np.bincount(which, values * values, len(ids))
    voxel_ml = abs(float(np.linalg.det(scan.affine[:3, :3]))) / 1000
    table = {}
    for row, label in enumerate(ids.tolist()):
        counted, total, squares = (float(value) for value in sums[:, row])
        mean = total / counted if counted else None
        voxels = int(rows.voxels[row])
        table[names[label]] = {
            "id": label,
            "voxels": voxels,
            "volume_ml": voxels * voxel_ml / times,
            "mean": mean,
            "sd": None if mean is None else max(squares / counted - mean**2, 0.0) ** 0.5,
            "slices": int(rows.slices[row].sum()),
            "diameter_mm": rows.diameter(row, scan.affine),
        }
    return table


def diameter(points: np.ndarray, affine: np.ndarray) -> float:
    """Find the largest distance between any two of some voxels.

    Args:
        points: (n, 3) indices, at least one.
        affine: (4, 4), index to mm.

    Returns:
        The distance of their centres in mm.
    """
    corners = _corners(np.asarray(points)) @ np.asarray(affine, float)[:3, :3].T
    step = max(1, _PAIRS_AT_ONCE // len(corners))
    parts = (corners[start : start + step] for start in range(0, len(corners), step))
    return max(float(cdist(part, corners).max()) for part in parts)


class _Rows:
    """What is gathered of each label slice by slice: voxels, slices, ends of its rows.

    Only the two ends of a label's run along a row of voxels can be corners of its hull.
    """

    def __init__(self, ids: np.ndarray, shape: tuple[int, ...]) -> None:
        self.voxels = np.zeros(len(ids), np.int64)
        self.slices = np.zeros((len(ids), shape[-3]), bool)
        self._height, self._width = shape[-2:]
        self._ends: dict[tuple[int, ...], list[list[np.ndarray]]] = {}

    def add(self, index: tuple[int, ...], inside: np.ndarray, which: np.ndarray) -> None:
        """Take in a slice.

        Args:
            index: time, if there are several, and slice.
            inside: flat index of the voxels that have a label, rising.
            which: the row of each one's label.
        """
        found = np.bincount(which, minlength=len(self.voxels))
        self.voxels += found
        self.slices[:, index[-1]] |= found > 0
        y, x = np.divmod(inside, self._width)
        key = which * self._height + y
        ends = np.full((2, len(found) * self._height), -1)
        ends[0, key[::-1]] = x[::-1]
        ends[1, key] = x
        lists = self._ends.setdefault(index[:-1], [[] for _ in found])
        for row in np.flatnonzero(found):
            own = ends[:, row * self._height : (row + 1) * self._height]
            lines = np.flatnonzero(own[0] >= 0)
            points = np.stack([np.full(2 * len(lines), index[-1]), *_twice(lines, own[:, lines])])
            lists[row].append(points.T)

    def diameter(self, row: int, affine: np.ndarray) -> float | None:
        """Give the largest diameter of a label, of all times the largest."""
        sets = [lists[row] for lists in self._ends.values() if lists[row]]
        return max((diameter(np.concatenate(points), affine) for points in sets), default=None)


def _twice(lines: np.ndarray, ends: np.ndarray) -> Iterator[np.ndarray]:
    yield np.concatenate([lines, lines])
    yield ends.reshape(-1)


def _found(marks: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flat index of the voxels of a slice that have one of the labels, and its place in `ids`."""
    marks = marks.reshape(-1)
    inside = np.flatnonzero(marks)
    own = marks[inside]
    which = np.minimum(np.searchsorted(ids, own), len(ids) - 1) if len(ids) else own
    known = ids[which] == own if len(ids) else np.zeros(len(own), bool)
    return (inside, which) if known.all() else (inside[known], which[known])


def _corners(points: np.ndarray) -> np.ndarray:
    """Give those of some points (n, 3) that span all others: the corners of their convex hull."""
    for axis in (1, 0):
        points = _line_ends(points, axis)
    moved = points - points[0]
    rank = int(np.linalg.matrix_rank(moved))
    if rank == 0:
        return points[:1]
    if rank == 1:
        place = moved @ moved[np.abs(moved).sum(1).argmax()]
        return points[[place.argmin(), place.argmax()]]
    if rank == 2:
        # in the plane of the points: hulls need points in general position
        moved = moved @ np.linalg.svd(moved, full_matrices=False)[2][:2].T
    return points[ConvexHull(moved).vertices]


def _line_ends(points: np.ndarray, axis: int) -> np.ndarray:
    """Keep the first and last of the points on each line along an axis."""
    others = [a for a in range(3) if a != axis]
    order = np.lexsort([points[:, a] for a in (axis, *others)])
    points = points[order]
    changes = (np.diff(points[:, others], axis=0) != 0).any(1)
    return points[np.append(True, changes) | np.append(changes, True)]
