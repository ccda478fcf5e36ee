"""Turning the closed contours of one region into voxels."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from spad.errors import SpadError
from spad.volumes.files.dicom.rtstruct_polygon import fill
from spad.volumes.files.masks import count_overlaps

_FLAT = 0.5
_NOTED = 0.1
_ONE_PLANE = 0.01
# contours are often traced through voxel centres; noise of 16-digit texts must not decide there
_DECIMALS = 4


@dataclass
class Outcome:
    """What a person should know about the contours of all regions.

    Attributes:
        moved: contours on another plane than that of the slice they were put on.
        furthest: the largest such distance, in slices.
        dropped: contours between two slices, each of which has a nearer one.
        outside: contours above the first or below the last slice.
        empty: regions whose contours enclose no voxel centre.
        gaps: region to slices between its first and last that have no contour.
        overlaps: voxels per (id that lost, id that won).
    """

    moved: int = 0
    furthest: float = 0.0
    dropped: int = 0
    outside: int = 0
    empty: list[str] = field(default_factory=list)
    gaps: dict[str, int] = field(default_factory=dict)
    overlaps: dict[tuple[int, int], int] = field(default_factory=dict)

    def notes(self, step: float) -> list[str]:
        """Say it in sentences.

        Args:
            step: mm between slices.
        """
        notes = []
        if self.moved:
            notes.append(
                f"{self.moved} contours lie up to {self.furthest * step:.2g} mm off their nearest "
                "slice and are put on it."
            )
        if self.dropped:
            notes.append(
                f"{self.dropped} contours lie between slices that have nearer ones, and are left "
                "out."
            )
        if self.outside:
            notes.append(f"{self.outside} contours lie outside the slices and are left out.")
        if self.gaps:
            said = [f"{name} ({count})" for name, count in self.gaps.items()]
            more = f" and {len(said) - 6} more" if len(said) > 6 else ""
            notes.append(
                "Slices without a contour between a region's first and last stay empty: "
                f"{', '.join(said[:6])}{more}."
            )
        if self.empty:
            notes.append(f"No voxel centre lies inside {', '.join(self.empty)}.")
        return notes


def rasterise(
    labels: np.ndarray,
    label: int,
    contours: list[np.ndarray],
    where: str,
    name: str,
    outcome: Outcome,
) -> None:
    """Draw one region.

    Args:
        labels: (k, j, i), unsigned; drawn into.
        label: the region's id.
        contours: (points, 3) voxel indices i, j, k each.
        where: file and region, for sentences.
        name: the region's name, for notes.
        outcome: added to.

    Raises:
        SpadError: a contour does not lie in the plane of a slice.
    """
    drawn = []
    for plane, members in _on_slices(contours, len(labels), where, outcome).items():
        inside = _inside(members, (labels.shape[1], labels.shape[2]))
        target = labels[plane]
        count_overlaps(target, inside, label, outcome.overlaps)
        target[inside] = label
        if inside.any():
            drawn.append(plane)
    if contours and not drawn:
        outcome.empty.append(name)
    if drawn and max(drawn) - min(drawn) + 1 > len(drawn):
        outcome.gaps[name] = max(drawn) - min(drawn) + 1 - len(drawn)


def _on_slices(
    contours: list[np.ndarray], slices: int, where: str, outcome: Outcome
) -> dict[int, list[np.ndarray]]:
    """Give each slice the contours of the plane that is nearest to it."""
    planes: dict[float, list[np.ndarray]] = {}
    for points in contours:
        _check_flat(points, where)
        place = float(points[:, 2].mean())
        near = next((p for p in planes if abs(p - place) <= _ONE_PLANE), place)
        planes.setdefault(near, []).append(points)
    nearest: dict[int, float] = {}
    for place, members in planes.items():
        k = int(np.rint(place))
        if not 0 <= k < slices:
            outcome.outside += len(members)
            continue
        other = nearest.get(k)
        if other is not None and abs(other - k) <= abs(place - k):
            outcome.dropped += len(members)
            continue
        if other is not None:
            outcome.dropped += len(planes[other])
        nearest[k] = place
    for k, place in nearest.items():
        if abs(place - k) > _NOTED:
            outcome.moved += len(planes[place])
            outcome.furthest = max(outcome.furthest, abs(place - k))
    return {k: planes[nearest[k]] for k in sorted(nearest)}


def _check_flat(points: np.ndarray, where: str) -> None:
    spread = np.ptp(points, axis=0)
    if spread[2] <= _FLAT:
        return
    across = [axis for axis in (0, 1) if spread[axis] <= _FLAT]
    what = "across the slices (sagittal or coronal)" if across else "at an angle to the slices"
    raise SpadError(
        f"{where} has a contour that is drawn {what}: it spans {spread[2] + 1:.1f} of them; "
        "expected contours in the plane of a slice; export the structures drawn on the slices."
    )


def _inside(contours: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Give the pixels whose centres lie inside an odd number of contours, (j, i) boolean."""
    inside = np.zeros(shape, bool)
    drawn = set()
    for points in contours:
        flat = np.round(points[:, :2], _DECIMALS)
        # a contour that is stored twice would otherwise cancel itself
        if flat.tobytes() in drawn:
            continue
        drawn.add(flat.tobytes())
        box, mask = fill(flat, shape)
        inside[box] ^= mask
    return inside
