"""From positions and directions of image planes to one affine, or the reason why there is none.

Tolerances: directions that differ by less than 1e-3 (0.06 degrees) are one orientation; a slice
may lie 0.01 mm or 1% of the slice step (whichever is larger) off the even row of slices; two
slices closer than 0.01 mm (or 2% of the largest step, whichever is smaller) are at one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spad.errors import SpadError
from spad.volumes.files.assemble import lps_to_ras

SAME_DIRECTION = 1e-3
OFF_MM = 0.01
OFF_STEP = 0.01
_UNIT = 0.02
_SQUARE = 1e-3
_NAMED = 6


@dataclass(frozen=True, eq=False)
class Line:
    """Slices in a row.

    Attributes:
        step: (3,) LPS mm, from one slice to the next.
        tilt: degrees between the step and the planes' normal; 0 where it is within tolerance.
    """

    step: np.ndarray
    tilt: float


def directions(orientation: Sequence[float], where: str) -> tuple[np.ndarray, np.ndarray]:
    """Give the unit vectors along a row and along a column of ImageOrientationPatient.

    Raises:
        SpadError: they are not unit vectors (within 2%) at right angles (within 0.06 degrees).
    """
    row, column = np.array(orientation[:3], float), np.array(orientation[3:], float)
    lengths = float(np.linalg.norm(row)), float(np.linalg.norm(column))
    if max(abs(length - 1) for length in lengths) > _UNIT:
        said = "\\".join(f"{part:g}" for part in orientation)
        raise SpadError(
            f"{where} has an ImageOrientationPatient of {said}, which is not two directions of "
            "length 1; expected direction cosines; correct the header or export it again."
        )
    row, column = row / lengths[0], column / lengths[1]
    if abs(float(row @ column)) > _SQUARE:
        angle = np.degrees(np.arccos(np.clip(row @ column, -1, 1)))
        raise SpadError(
            f"{where} has rows and columns at {angle:.2f} degrees (ImageOrientationPatient); "
            "expected a right angle; correct the header or export it again."
        )
    return row, column


def normal_of(orientation: Sequence[float], where: str) -> np.ndarray:
    """Give the unit vector along row x column."""
    row, column = directions(orientation, where)
    normal = np.cross(row, column)
    return np.asarray(normal / np.linalg.norm(normal))


def places(along: np.ndarray) -> list[np.ndarray]:
    """Group slices that lie at one place.

    Args:
        along: (n,) positions along the normal, mm.

    Returns:
        Index arrays, one per place, in ascending order of position.
    """
    order = np.argsort(along, kind="stable")
    gaps = np.diff(along[order])
    near = max(1e-4, min(0.01, 0.02 * float(gaps.max(initial=0))))
    return np.split(order, np.flatnonzero(gaps > near) + 1)


def line(positions: np.ndarray, normal: np.ndarray, where: str) -> Line:
    """Check that slices follow each other evenly.

    Args:
        positions: (n, 3) LPS mm, ascending along the normal, n >= 2.
        normal: (3,) unit vector.
        where: what they belong to, for the error's sentence.

    Returns:
        The step from slice to slice and its tilt. A sideways drift of at most 0.01 mm over the
        whole stack (rounded header numbers) is taken out: the step then runs along the normal.

    Raises:
        SpadError: slices are missing, unevenly spaced or displaced; their positions are named.
    """
    along = positions @ normal
    steps = np.diff(along)
    usual = float(np.median(steps))
    allowed = max(OFF_MM, OFF_STEP * usual)
    _check_even(along, steps, usual, allowed, where)
    count = len(positions) - 1
    step = (positions[-1] - positions[0]) / count
    even = positions[0] + np.arange(count + 1)[:, None] * step
    off = np.linalg.norm(positions - even, axis=1)
    if off.max() > allowed:
        worst = int(off.argmax())
        raise SpadError(
            f"{where} has a slice that is displaced by {off[worst]:.3g} mm (at "
            f"{along[worst]:.2f} mm along the normal); expected slices in a straight row, "
            f"within {allowed:.2g} mm; export the series again."
        )
    across = step - (step @ normal) * normal
    if np.linalg.norm(across) * count <= OFF_MM:
        return Line((step @ normal) * normal, 0.0)
    tilt = float(np.degrees(np.arctan2(np.linalg.norm(across), abs(step @ normal))))
    return Line(step, tilt)


def _check_even(
    along: np.ndarray, steps: np.ndarray, usual: float, allowed: float, where: str
) -> None:
    odd = np.flatnonzero(np.abs(steps - usual) > allowed)
    if not len(odd):
        return
    times = np.round(steps[odd] / usual)
    if (times >= 2).all() and (np.abs(steps[odd] - times * usual) <= times * allowed).all():
        missing = [
            along[n] + usual * k
            for n, count in zip(odd, times, strict=True)
            for k in range(1, min(int(count), _NAMED + 2))
        ]
        total = int(times.sum()) - len(odd)
        raise SpadError(
            f"{where} lacks {total} slice{'s' if total > 1 else ''} (at {listed(missing, total)} "
            f"mm along the normal, where one is expected every {usual:.4g} mm); expected a "
            "complete series; copy or export the missing ones."
        )
    worst = int(odd[np.abs(steps[odd] - usual).argmax()])
    raise SpadError(
        f"{where} has slices at uneven distances ({usual:.4g} mm as a rule, but "
        f"{steps[worst]:.4g} mm from {along[worst]:.2f} to {along[worst + 1]:.2f} mm along the "
        f"normal; {len(odd)} of {len(steps)} steps differ); expected one spacing; export one "
        "reconstruction or resample it first."
    )


def listed(values: Sequence[float], total: int | None = None) -> str:
    """Name some positions: "1.00, 2.00, ... and 7 more"."""
    total = len(values) if total is None else total
    said = ", ".join(f"{value:.2f}" for value in values[:_NAMED])
    return said + (f" and {total - _NAMED} more" if total > _NAMED else "")


def affine_of(
    position: Sequence[float],
    orientation: Sequence[float],
    spacing: tuple[float, float],
    step: np.ndarray,
    where: str,
) -> np.ndarray:
    """Give the affine from file index (i = column, j = row, k = slice) to RAS+ mm (C.7.6.2.1.1).

    Args:
        position: ImagePositionPatient of the first slice.
        orientation: ImageOrientationPatient.
        spacing: PixelSpacing: mm between rows, then between columns.
        step: (3,) LPS mm from slice to slice.
        where: what it belongs to, for the error's sentence.

    Returns:
        (4, 4) float64.
    """
    row, column = directions(orientation, where)
    affine = np.eye(4)
    affine[:3, 0] = row * spacing[1]
    affine[:3, 1] = column * spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = position
    return lps_to_ras(affine)
