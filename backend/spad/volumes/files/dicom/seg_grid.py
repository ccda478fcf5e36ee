"""Where the frames of a segmentation lie: on the slices of a series, or on a grid of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spad.errors import SpadError
from spad.volumes.files.assemble import lps_to_ras
from spad.volumes.files.dicom import geometry
from spad.volumes.files.dicom.catalog import Found
from spad.volumes.files.dicom.frames import Frame
from spad.volumes.files.dicom.headers import Header, whole
from spad.volumes.files.dicom.reader import source_of
from spad.volumes.files.dicom.source import DicomSource

_NEAR = 0.1
_PARTS = 64
_LIKE = 0.2
_MOST_SLICES = 4096


@dataclass(frozen=True, eq=False)
class Placed:
    """A grid and the place of each frame on it.

    Attributes:
        affine: (4, 4), index (i, j, k) to RAS+ mm.
        shape: voxels along i, j and k.
        index: (frames, 3), where the first voxel of each frame lies.
        source: the series whose grid it is, or None.
        notes: sentences a person should read.
    """

    affine: np.ndarray
    shape: tuple[int, int, int]
    index: np.ndarray
    source: DicomSource | None
    notes: tuple[str, ...] = ()


def place_on(header: Header, frames: list[Frame], found: Found) -> Placed | None:
    """Place frames on the slices of a series.

    Args:
        header: of the segmentation.
        frames: its frames.
        found: the series.

    Returns:
        The series' grid; None if it has none, or a frame is turned against its slices, has other
        voxels, lies more than a tenth of a voxel off them or reaches out of them.
    """
    if found.grid is None:
        return None
    _check_stated(header, frames)
    affine = found.grid.affine
    shape = found.grid.shape[0], found.grid.shape[1], found.grid.shape[2]
    size = np.array([whole(header.dataset, "Columns"), whole(header.dataset, "Rows"), 1])
    to_index = np.linalg.inv(lps_to_ras(affine))
    turned = np.array([frame.orientation for frame in frames], float)
    between = np.array([frame.spacing for frame in frames], float)
    across = (turned[:, :3] * between[:, 1:]) @ to_index[:3, :3].T * (size[0] - 1)
    down = (turned[:, 3:] * between[:, :1]) @ to_index[:3, :3].T * (size[1] - 1)
    places = np.array([frame.position for frame in frames], float)
    exact = places @ to_index[:3, :3].T + to_index[:3, 3]
    index = np.rint(exact)
    off = max(
        float(np.abs(exact - index).max()),
        float(np.abs(across - (size[0] - 1, 0, 0)).max()),
        float(np.abs(down - (0, size[1] - 1, 0)).max()),
    )
    if off > _NEAR or (index < 0).any() or (index + size > shape).any():
        return None
    return Placed(affine, shape, index.astype(int), source_of(found, found.grid))


def own_grid(header: Header, frames: list[Frame]) -> Placed:
    """Make a grid from the first to the last frame.

    Raises:
        SpadError: the frames state no place, are turned against each other, or do not lie on one
            even row of slices.
    """
    _check_stated(header, frames)
    where = str(header.path)
    first = frames[0]
    turned = np.array([frame.orientation for frame in frames], float)
    between = np.array([frame.spacing for frame in frames], float)
    if (
        np.abs(turned - turned[0]).max() > geometry.SAME_DIRECTION
        or np.abs(between / between[0] - 1).max() > geometry.SAME_DIRECTION
        or min(first.spacing or (0,)) <= 0
    ):
        raise SpadError(
            f"{where} has frames of different orientation or pixel spacing; expected parallel "
            "slices; put the images it was drawn on beside it, or export it again."
        )
    normal = geometry.normal_of(first.orientation or (), where)
    places = np.array([frame.position for frame in frames], float)
    groups = geometry.places(places @ normal)
    rows = np.array([places[group[0]] for group in groups])
    step, slices = _row(rows, normal, first, where)
    index = np.zeros((len(frames), 3), int)
    for group, k in zip(groups, slices, strict=True):
        index[group, 2] = k
    expected = rows[0] + index[:, 2:] * step
    allowed = max(geometry.OFF_MM, 0.02 * float(np.linalg.norm(step)))
    off = np.linalg.norm(places - expected, axis=1)
    if off.max() > allowed:
        raise SpadError(
            f"{where} has frames that lie up to {off.max():.3g} mm off one row of slices; expected "
            "frames in a straight row; put the images it was drawn on beside it."
        )
    affine = geometry.affine_of(
        rows[0], first.orientation or (), first.spacing or (1, 1), step, where
    )
    columns, lines = whole(header.dataset, "Columns") or 1, whole(header.dataset, "Rows") or 1
    notes: tuple[str, ...] = ()
    if len(rows) == 1 and not (first.apart or first.thickness):
        notes = ("The single slice states no thickness; 1 mm is assumed.",)
    elif slices[-1] >= len(rows) and not first.apart:
        apart = float(np.linalg.norm(step))
        said = f"The distance of its slices is not stated; {apart:.4g} mm fits their positions."
        notes = (said,)
    return Placed(affine, (columns, lines, int(slices[-1]) + 1), index, None, notes)


def _row(
    rows: np.ndarray, normal: np.ndarray, first: Frame, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Find the step of slices of which some may be absent.

    Args:
        rows: (n, 3) LPS mm, one per slice that is there, ascending along the normal.
        normal: (3,) unit vector.
        first: a frame, for the distances that it states.
        where: what it belongs to, for the error's sentence.

    Returns:
        The step (3,) in LPS mm and the number k of each slice.
    """
    stated = abs(first.apart or first.thickness or 0)
    if len(rows) == 1:
        return normal * (stated or 1.0), np.zeros(1, int)
    gaps = np.diff(rows @ normal)
    for apart in _distances(first, float(gaps.min())):
        times = gaps / apart
        allowed = max(geometry.OFF_MM / apart, 0.02)
        if (times > 0.5).all() and np.abs(times - np.rint(times)).max() <= allowed:
            break
    else:
        raise SpadError(
            f"{where} has frames at uneven distances ({geometry.listed(rows @ normal)} mm along "
            "the normal); expected slices of one row; put the images it was drawn on beside it, or "
            "export it again."
        )
    slices = np.concatenate([[0], np.cumsum(np.rint(times).astype(int))])
    if slices[-1] >= _MOST_SLICES:
        raise SpadError(
            f"{where} spans {slices[-1] + 1} slices between its first and last frame; expected at "
            f"most {_MOST_SLICES}; put the images it was drawn on beside it."
        )
    step = (rows[-1] - rows[0]) / slices[-1]
    across = step - (step @ normal) * normal
    if np.linalg.norm(across) * slices[-1] <= geometry.OFF_MM:
        step = (step @ normal) * normal
    return step, slices


def _distances(first: Frame, shortest: float) -> list[float]:
    """Give the distances that slices may have, the likeliest first.

    What the file states, else the part of the shortest gap that is like the thickness (which is
    larger than the distance where the gantry is tilted), else the shortest gap itself.
    """
    stated = [abs(first.apart)] if first.apart else []
    like = abs(first.apart or first.thickness or shortest)
    parts = [shortest / n for n in range(1, _PARTS + 1)]
    near = [part for part in parts if abs(np.log(part / like)) < _LIKE]
    return [*stated, *sorted(near, key=lambda part: abs(np.log(part / like))), shortest]


def _check_stated(header: Header, frames: list[Frame]) -> None:
    for frame in frames:
        if frame.position is None or frame.orientation is None or frame.spacing is None:
            raise SpadError(
                f"{header.path} does not state where its frame {frame.number + 1} lies in the "
                "patient; expected position, orientation and pixel spacing; only segmentations of "
                "scans (not of slides) can be read."
            )
    if not frames:
        raise SpadError(f"{header.path} has no frame; expected at least one; export it again.")
