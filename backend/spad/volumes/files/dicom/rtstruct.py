"""Reading RT structure sets: contours become voxels on the slices that they were drawn on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spad.errors import SpadError
from spad.volumes.colors import Rgba
from spad.volumes.files.assemble import assemble, lps_to_ras
from spad.volumes.files.dicom import referenced
from spad.volumes.files.dicom.catalog import Found
from spad.volumes.files.dicom.grid import Grid
from spad.volumes.files.dicom.headers import UNDEFINED, numbers, quiet, text, value, whole
from spad.volumes.files.dicom.reader import source_of
from spad.volumes.files.dicom.rtstruct_raster import Outcome, rasterise
from spad.volumes.files.masks import overlap_note
from spad.volumes.files.options import Options
from spad.volumes.volume import Volume

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_CONTOUR_DATA = 0x30060050
_KEYWORDS = (
    *("SpecificCharacterSet", "SOPClassUID", "SeriesDescription", "StructureSetLabel"),
    *("ReferencedFrameOfReferenceSequence", "FrameOfReferenceUID", "StructureSetROISequence"),
    *("ROIContourSequence", "SeriesInstanceUID"),
)


@dataclass(eq=False)
class Region:
    """One region of interest.

    Attributes:
        number: ROINumber.
        name: ROIName, made unique in its file.
        color: ROIDisplayColor, or None.
        contours: (points, 3) LPS mm each, closed and planar.
        skipped: how many contours of each other type there are.
    """

    number: int
    name: str
    color: Rgba | None = None
    contours: list[np.ndarray] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)


def read(path: Path, options: Options) -> Volume:
    """Read a structure set (PS3.3 A.19.3, C.8.8.6) as labels on the grid of its series.

    A voxel belongs to a region if its centre lies inside the region's contours on its slice by the
    even-odd rule, which gives holes whether they are drawn as contours of their own or through a
    keyhole. Ids are the ROI numbers, if these are numbers from 1 on. Of regions that overlap the
    later one wins.

    Args:
        path: the file; the series is looked for in its folder, those below, the one above and those
            beside it.
        options: `depth` and `labels` are heeded.

    Returns:
        uint8 or uint16 labels; notes tell what was left out or moved.

    Raises:
        SpadError: the series is not there (its UID is named), there is no closed contour, or
            contours are not drawn on the slices (sagittal, coronal).
    """
    with quiet():
        dataset = _load(path)
        regions = _regions(path, dataset)
        found, grid, notes = _series(path, dataset)
        ids = _ids(regions)
        columns, rows, slices = grid.shape[:3]
        labels = np.zeros((slices, rows, columns), np.uint8 if max(ids) <= 255 else np.uint16)
        outcome = Outcome()
        to_index = np.linalg.inv(lps_to_ras(grid.affine))
        for label, region in zip(ids, regions, strict=True):
            indexed = [to_index[:3, :3] @ c.T + to_index[:3, 3:] for c in region.contours]
            rasterise(
                labels, label, [points.T for points in indexed], f"{path} (ROI {region.name!r})",
                region.name, outcome,
            )  # fmt: skip
    names = {label: region.name for label, region in zip(ids, regions, strict=True)}
    step = float(np.linalg.norm(grid.affine[:3, 2]))
    notes += _skipped(regions) + outcome.notes(step)
    if outcome.overlaps:
        notes.append(overlap_note(outcome.overlaps, names, "the later region"))
    colors = {n: r.color for n, r in zip(ids, regions, strict=True) if r.color is not None}
    shown = options.labels is not False
    return assemble(
        labels.T,
        grid.affine,
        path=path,
        format="dicom",
        options=options,
        header=source_of(found, grid),
        slice_axis=2 if slices > 1 else None,
        label_names=names if shown else None,
        label_colors=(colors or None) if shown else None,
        name=text(dataset, "StructureSetLabel") or text(dataset, "SeriesDescription"),
        notes=tuple(notes),
    )


def _load(path: Path) -> Any:
    import pydicom

    try:
        dataset = pydicom.dcmread(path, specific_tags=list(_KEYWORDS), force=True)
        for tag in list(dataset.keys()):
            raw = dataset.get_item(tag)
            claimed = getattr(raw, "length", UNDEFINED)
            # pydicom takes what is left of a sequence where the file ends
            if claimed != UNDEFINED and len(raw.value or b"") < claimed:
                raise EOFError("it ends before its contours do")
        return dataset
    except Exception as error:  # a parser of hostile bytes may raise anything
        raise SpadError(
            f"{path} cannot be read as an RT structure set ({error}); expected a complete DICOM "
            "file; copy or export it again."
        ) from error


def _items(dataset: Any, *keywords: str) -> list[Any]:
    """Give the items at the end of nested sequences."""
    level = [dataset]
    for keyword in keywords:
        level = [inner for outer in level for inner in (value(outer, keyword) or ())]
    return level


def _series(path: Path, dataset: Any) -> tuple[Found, Grid, list[str]]:
    """Find the series that the contours were drawn on."""
    frames = _items(dataset, "ReferencedFrameOfReferenceSequence")
    referred = _items(
        dataset,
        *("ReferencedFrameOfReferenceSequence", "RTReferencedStudySequence"),
        "RTReferencedSeriesSequence",
    )
    uids = {uid: one for one in referred if (uid := text(one, "SeriesInstanceUID"))}
    candidates: list[Found] = []
    for uid, one in uids.items():
        images = _items(one, "ContourImageSequence")
        instances = {text(image, "ReferencedSOPInstanceUID") or "" for image in images} - {""}
        candidates += referenced.find(path, uid, None, instances)
    notes: list[str] = []
    frame_uid = next((uid for one in frames if (uid := text(one, "FrameOfReferenceUID"))), None)
    if not uids and frame_uid:
        candidates += referenced.find(path, None, frame_uid)
        if candidates:
            notes.append(
                "It names no series; the contours are put on the series "
                f"{candidates[0].series.description!r} in the same frame of reference."
            )
    for found in candidates:
        if found.grid is not None:
            return found, found.grid, notes
    problem = next((one.series.problem for one in candidates if one.series.problem), None)
    if problem:
        raise SpadError(f"{path} was drawn on a series that cannot be read: {problem}")
    said = f"the series {', '.join(uids)}" if uids else f"the frame of reference {frame_uid}"
    raise SpadError(
        f"{path} holds contours drawn on {said}, which was not found near it; expected its images, "
        "since contours become voxels on their slices; put the folder of the series beside the "
        "file."
    )


def _regions(path: Path, dataset: Any) -> list[Region]:
    """Give the regions with closed contours, in the order of ROIContourSequence."""
    names = {
        whole(one, "ROINumber"): text(one, "ROIName")
        for one in _items(dataset, "StructureSetROISequence")
    }
    regions = []
    taken: set[str] = set()
    for one in _items(dataset, "ROIContourSequence"):
        number = whole(one, "ReferencedROINumber")
        number = -1 if number is None else number
        name = names.get(number) or f"ROI {number}"
        if name in taken:
            name = f"{name} ({number})"
        taken.add(name)
        regions.append(_region(path, one, number, name))
    if not any(region.contours for region in regions):
        raise SpadError(
            f"{path} holds no closed contour ({len(regions)} regions); expected at least one "
            "drawn organ; choose another structure set."
        )
    return regions


def _region(path: Path, described: Any, number: int, name: str) -> Region:
    color = numbers(described, "ROIDisplayColor", 3)
    region = Region(number, name)
    if color is not None and all(0 <= part <= 255 for part in color):
        region.color = (color[0] / 255, color[1] / 255, color[2] / 255, 1.0)
    for contour in _items(described, "ContourSequence"):
        kind = text(contour, "ContourGeometricType") or "untyped"
        points = _points(contour) if kind in _CLOSED else None
        if points is not None and not np.isfinite(points).all():
            raise SpadError(
                f"{path} has a contour of the ROI {name!r} whose data are not triples of finite "
                "numbers; expected x, y, z in mm; export it again."
            )
        if points is None or len(points) < 3:
            kind = kind if points is None else f"{kind} of {len(points)} points"
            region.skipped[kind] = region.skipped.get(kind, 0) + 1
        else:
            region.contours.append(points)
    return region


def _points(contour: Any) -> np.ndarray:
    """Give ContourData as (points, 3) LPS mm; NaN where they are no triples of numbers."""
    # the text as it is stored: a decimal object per number is slow for a million of them
    raw = contour.get_item(_CONTOUR_DATA)
    found = None if raw is None else raw.value
    try:
        if isinstance(found, bytes):
            data = np.array(found.strip(b"\0 ").split(b"\\") if found else [], dtype="S")
            flat = data.astype(float)
        else:
            flat = np.array(found if found is not None else [], float)
        return flat.reshape(-1, 3)
    except ValueError:
        return np.full((1, 3), np.nan)


def _ids(regions: list[Region]) -> list[int]:
    """Give the labels: ROI numbers if all can be ids, else 1, 2, ..."""
    given = [region.number for region in regions]
    if len(set(given)) == len(given) and min(given) > 0 and max(given) <= 0xFFFF:
        return given
    return list(range(1, len(regions) + 1))


def _skipped(regions: list[Region]) -> list[str]:
    """Say which contours are no closed ones."""
    said = [
        f"{region.name} ({', '.join(f'{count} {kind}' for kind, count in region.skipped.items())})"
        for region in regions
        if region.skipped
    ]
    if not said:
        return []
    more = f" and {len(said) - 6} more" if len(said) > 6 else ""
    return [f"Contours that enclose no area are left out: {', '.join(said[:6])}{more}."]
