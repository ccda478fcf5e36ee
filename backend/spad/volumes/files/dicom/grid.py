"""The grid of one part of a series: shape, affine, times, and what a person should know of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spad.errors import SpadError
from spad.volumes.files.assemble import radiological_affine
from spad.volumes.files.dicom import geometry
from spad.volumes.files.dicom.frames import Frame
from spad.volumes.files.dicom.headers import number, numbers, text, value, whole
from spad.volumes.files.dicom.stacks import PATIENT_MODALITIES, Part

_CENTIMETRES = 3
_TILT_NOTED = 0.01
_FILMS = ("US", "IVUS", "XA", "RF", "ES", "OP", "XC", "GM")
_FRAME_TIME, _FRAME_TIME_VECTOR = 0x00181063, 0x00181065


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the planes of a part lie.

    Attributes:
        frames: [t][k], as in the file axes.
        shape: (i, j, k), and t if there is more than one time.
        affine: (4, 4), file index (i = column, j = row, k = slice) to RAS+ mm.
        time_step: step and unit ("s" or "ms") of the times, if they are even.
        notes: sentences a person should read.
    """

    frames: list[list[Frame]]
    shape: tuple[int, ...]
    affine: np.ndarray
    time_step: tuple[float, str] | None
    notes: list[str]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Spacing in mm along i, j and k."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)


def grid_of(part: Part, where: str, stated: tuple[float, ...] | None = None) -> Grid:
    """Find the grid of a part.

    Args:
        part: from `stacks.parts_of`.
        where: what it belongs to, for sentences.
        stated: spacing in mm along i, j[, k] by a person's word, for files that state none.

    Raises:
        SpadError: the part has a problem, or its planes state no size, spacing or place.
    """
    if part.problem:
        raise SpadError(part.problem)
    dataset = part.first.header.dataset
    rows, columns = whole(dataset, "Rows"), whole(dataset, "Columns")
    if not rows or not columns or rows < 1 or columns < 1:
        raise SpadError(
            f"{where} states {rows or 'no'} rows and {columns or 'no'} columns "
            f"({part.first.name}); expected an image; export it again."
        )
    notes = list(part.notes)
    if not part.placed:
        return _loose(part, (columns, rows), where, stated, notes)
    first = part.first
    spacing = _pixel_spacing(part, where, stated, notes)
    step = _step(part, where, stated, notes)
    affine = geometry.affine_of(first.position or (), first.orientation or (), spacing, step, where)
    count = len(part.frames)
    shape = (columns, rows, len(part.frames[0]))
    return Grid(
        frames=part.frames,
        shape=(*shape, count) if count > 1 else shape,
        affine=affine,
        time_step=_time_step(part, notes),
        notes=notes,
    )


def _pixel_spacing(
    part: Part, where: str, stated: tuple[float, ...] | None, notes: list[str]
) -> tuple[float, float]:
    spacing = part.first.spacing
    if spacing is None and stated is not None:
        notes.append("The files state no pixel spacing; the stated one is used.")
        return stated[1], stated[0]
    if spacing is None:
        raise SpadError(
            f"{where} has no PixelSpacing ({part.first.name}); expected mm between rows and "
            "columns; state the spacing or export it again."
        )
    if min(spacing) <= 0:
        raise SpadError(
            f"{where} has a PixelSpacing of {spacing[0]:g} x {spacing[1]:g} mm "
            f"({part.first.name}); expected positive numbers; correct the header or export it "
            "again."
        )
    return spacing


def _step(part: Part, where: str, stated: tuple[float, ...] | None, notes: list[str]) -> np.ndarray:
    first = part.first
    normal = geometry.normal_of(first.orientation or (), f"{where} ({first.name})")
    if len(part.frames[0]) == 1:
        return normal * _thickness(first, stated, notes)
    places = np.array([frame.position for frame in part.frames[0]], float)
    line = geometry.line(places, normal, where)
    if line.tilt >= _TILT_NOTED:
        notes.append(
            f"The slices are sheared by {line.tilt:.2f} degrees (a tilted gantry): their row runs "
            "askew to their planes; the affine holds this exactly."
        )
    return line.step


def _thickness(frame: Frame, stated: tuple[float, ...] | None, notes: list[str]) -> float:
    for found in (frame.thickness, abs(frame.apart or 0)):
        if found is not None and found > 0:
            return found
    if stated is not None and len(stated) == 3:
        return stated[2]
    notes.append("The single slice states no thickness; 1 mm is assumed.")
    return 1.0


def _time_step(part: Part, notes: list[str]) -> tuple[float, str] | None:
    """Give the step between times where a mark of the headers measures them."""
    if len(part.frames) < 2 or part.axis not in (
        "temporal", "trigger", "reference", "acquired", "content",
    ):  # fmt: skip
        return None
    keys = ("trigger", "reference", "acquired") if part.axis == "temporal" else (part.axis,)
    for key in keys:
        marks = [time[0].marks.get(key) for time in part.frames]
        if None in marks:
            continue
        steps = np.diff(np.array(marks, float))
        if (steps <= 0).any():
            continue
        unit = "s" if key in ("acquired", "content") else "ms"
        return _even_step(steps, unit, notes)
    return None


def _even_step(steps: np.ndarray, unit: str, notes: list[str]) -> tuple[float, str] | None:
    mean = float(steps.mean())
    if np.abs(steps - mean).max() <= 0.05 * mean:
        return round(mean, 6), unit
    notes.append(
        f"The times are uneven (steps of {steps.min():.4g} to {steps.max():.4g} {unit}); they are "
        "shown as numbers."
    )
    return None


def _loose(
    part: Part,
    size: tuple[int, int],
    where: str,
    stated: tuple[float, ...] | None,
    notes: list[str],
) -> Grid:
    """Give the grid of a picture or a film, which has no place in the patient."""
    frames = part.frames[0]
    dataset = part.first.header.dataset
    modality = text(dataset, "Modality")
    film = modality == "NM" and len(frames) > 1
    if modality in PATIENT_MODALITIES and not film and part.first.spacing is None:
        secondary = part.first.header.sop_class.startswith("1.2.840.10008.5.1.4.1.1.7")
        if not secondary and stated is None:
            raise SpadError(
                f"{where} has neither ImagePositionPatient nor PixelSpacing ({part.first.name}), "
                f"although it is {modality}; expected both; state the spacing or export it again."
            )
    row, column = _loose_spacing(part, where, stated, notes)
    times = _film(dataset, modality, len(frames), notes)
    notes.append(
        "The file states no place in the patient; shown as an axial image whose first voxel is "
        "at 0, 0, 0 mm."
    )
    if times is None:
        apart = _loose_depth(part.first, len(frames), stated, notes)
        return Grid([frames], (*size, len(frames)), radiological_affine((column, row, apart)),
                    None, notes)  # fmt: skip
    depth = max(part.first.thickness or 0.0, 0.0) or 1.0
    return Grid(
        frames=[[frame] for frame in frames],
        shape=(*size, 1, len(frames)),
        affine=radiological_affine((column, row, depth)),
        time_step=times[0],
        notes=notes,
    )


def _loose_depth(
    frame: Frame, count: int, stated: tuple[float, ...] | None, notes: list[str]
) -> float:
    if stated is not None and len(stated) == 3:
        return stated[2]
    if count == 1:
        return frame.thickness if frame.thickness is not None and frame.thickness > 0 else 1.0
    for found in (abs(frame.apart or 0), frame.thickness):
        if found is not None and found > 0:
            return found
    notes.append(f"The {count} frames state no distance; they are taken as slices 1 mm apart.")
    return 1.0


def _loose_spacing(
    part: Part, where: str, stated: tuple[float, ...] | None, notes: list[str]
) -> tuple[float, float]:
    """Give mm between rows and between columns of a picture, by the best statement there is."""
    if stated is not None:
        return stated[1], stated[0]
    dataset = part.first.header.dataset
    regions = _ultrasound(dataset, notes)
    if regions is not None:
        return regions
    if part.first.spacing is not None:
        return _pixel_spacing(part, where, stated, _projection(part.first, notes))
    for key in ("NominalScannedPixelSpacing", "ImagerPixelSpacing"):
        found = numbers(dataset, key, 2)
        if found is not None and min(found) > 0:
            if key == "ImagerPixelSpacing":
                notes.append(
                    "The spacing is that on the detector (ImagerPixelSpacing); what is imaged lies "
                    "nearer to the source and is smaller."
                )
            return found[0], found[1]
    ratio = numbers(dataset, "PixelAspectRatio", 2)
    if ratio is not None and min(ratio) > 0 and ratio[0] != ratio[1]:
        notes.append(
            f"The file states no pixel spacing but an aspect of {ratio[0]:g} to {ratio[1]:g}; 1 mm "
            "is assumed between columns."
        )
        return ratio[0] / ratio[1], 1.0
    notes.append("The file states no pixel spacing; 1 mm is assumed.")
    return 1.0, 1.0


def _projection(frame: Frame, notes: list[str]) -> list[str]:
    """Note that a projection's PixelSpacing, unless calibrated, is that on the detector."""
    dataset = frame.header.dataset
    imager = numbers(dataset, "ImagerPixelSpacing", 2)
    calibrated = text(dataset, "PixelSpacingCalibrationType") is not None
    if imager is None or frame.spacing is None or calibrated:
        return notes
    if np.allclose(imager, frame.spacing, rtol=1e-3):
        notes.append(
            "The spacing is that on the detector (PixelSpacing equals ImagerPixelSpacing); "
            "what is imaged lies nearer to the source and is smaller."
        )
    return notes


def _ultrasound(dataset: Any, notes: list[str]) -> tuple[float, float] | None:
    """Give the spacing of the largest region that is measured in cm (PS3.3 C.8.5.5)."""
    regions = []
    for region in value(dataset, "SequenceOfUltrasoundRegions") or ():
        units = whole(region, "PhysicalUnitsXDirection"), whole(region, "PhysicalUnitsYDirection")
        x, y = number(region, "PhysicalDeltaX"), number(region, "PhysicalDeltaY")
        if units != (_CENTIMETRES, _CENTIMETRES) or not x or not y:
            continue
        corners = [
            number(region, f"RegionLocation{name}") or 0
            for name in ("MinX0", "MaxX1", "MinY0", "MaxY1")
        ]
        area = max(corners[1] - corners[0], 0) * max(corners[3] - corners[2], 0)
        regions.append((area, abs(y) * 10, abs(x) * 10))
    if not regions:
        return None
    _, row, column = max(regions)
    if any(not np.allclose((row, column), other[1:], rtol=1e-3) for other in regions):
        notes.append(
            "The image has regions of different scale; the spacing is that of the largest one."
        )
    return row, column


def _film(
    dataset: Any, modality: str | None, count: int, notes: list[str]
) -> tuple[tuple[float, str] | None] | None:
    """Tell whether frames are times, and their step; None if they are not times."""
    if count == 1:
        return None
    vector = numbers(dataset, "FrameTimeVector", count)
    step = number(dataset, "FrameTime")
    rate = number(dataset, "CineRate") or number(dataset, "RecommendedDisplayFrameRate")
    pointers = value(dataset, "FrameIncrementPointer")
    several = pointers if isinstance(pointers, Sequence) else (pointers,)
    pointed = any(pointer in (_FRAME_TIME, _FRAME_TIME_VECTOR) for pointer in several)
    if not pointed and modality not in _FILMS and step is None and vector is None:
        return None
    if vector is not None and (step is None or _FRAME_TIME_VECTOR in several):
        steps = np.array(vector[1:])
        return (_even_step(steps, "ms", notes) if (steps > 0).all() else None,)
    if step is not None and step > 0:
        return ((step, "ms"),)
    if rate is not None and rate > 0:
        return ((round(1000 / rate, 6), "ms"),)
    notes.append("The frames are taken as times; the file does not state their step.")
    return (None,)
