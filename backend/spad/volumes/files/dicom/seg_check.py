"""Checking a written DICOM segmentation with pydicom alone, voxel by voxel and in mm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spad.volumes.files.assemble import lps_to_ras

if TYPE_CHECKING:
    from spad.volumes.files.dicom.source import DicomSource

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
# the series reader takes slices for even that lie up to 1% of a step off their row
_OFF = 0.03


def problem_of(
    file: Path,
    source: DicomSource,
    array: np.ndarray,
    affine: np.ndarray,
    segments: Sequence[tuple[int, str]],
) -> str | None:
    """Compare a binary segmentation with the labels that it was written from.

    Args:
        file: the segmentation.
        source: the series that it has to refer to.
        array: integer labels in file order (i, j, k).
        affine: (4, 4), file index to RAS+ mm.
        segments: id in `array` and name of segment 1, 2, ...

    Returns:
        What differs in a few words, or None.
    """
    import pydicom

    dataset = pydicom.dcmread(file)
    wrong = _identity(dataset, source)
    if wrong:
        return wrong
    described = [
        (int(item.SegmentNumber), str(item.SegmentLabel)) for item in dataset.SegmentSequence
    ]
    if described != [(n, name) for n, (_, name) in enumerate(segments, 1)]:
        return "the names of its segments differ"
    if (dataset.Columns, dataset.Rows) != array.shape[:2]:
        return f"its frames have {dataset.Columns} x {dataset.Rows} voxels"
    places = _places(dataset, affine, array.shape[2])
    if isinstance(places, str):
        return places
    return _voxels(dataset, places, array, [label for label, _ in segments])


def _identity(dataset: Any, source: DicomSource) -> str | None:
    """Compare what the segmentation belongs and refers to."""
    for keyword, expected in (
        ("SOPClassUID", SEGMENTATION),
        ("StudyInstanceUID", source.study_uid),
        ("FrameOfReferenceUID", source.frame_of_reference_uid),
    ):
        if str(dataset.get(keyword)) != expected:
            return f"{keyword} is {dataset.get(keyword)}"
    for keyword in ("PatientID", "PatientName"):
        if str(dataset.get(keyword) or "") != str(source.header.get(keyword) or ""):
            return f"{keyword} differs"
    referred = {
        str(instance.ReferencedSOPInstanceUID)
        for series in dataset.ReferencedSeriesSequence
        if str(series.SeriesInstanceUID) == source.series_uid
        for instance in series.ReferencedInstanceSequence
    }
    absent = {plane.sop_instance_uid for time in source.slices for plane in time} - referred
    return f"it does not refer to {len(absent)} images of its series" if absent else None


def _places(dataset: Any, affine: np.ndarray, slices: int) -> list[tuple[int, int]] | str:
    """Give segment number and slice k of each frame by its own place in mm, or what is wrong."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    to_index = np.linalg.inv(lps_to_ras(affine))
    rows, columns = dataset.Rows, dataset.Columns
    places: list[tuple[int, int]] = []
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        plane = _group(frame, shared, "PlanePositionSequence")
        position = np.array(plane.ImagePositionPatient, float)
        turned = _group(frame, shared, "PlaneOrientationSequence").ImageOrientationPatient
        between = _group(frame, shared, "PixelMeasuresSequence").PixelSpacing
        row, column = np.array(turned[:3], float), np.array(turned[3:], float)
        across = row * float(between[1]) * (columns - 1)
        down = column * float(between[0]) * (rows - 1)
        corners = np.array([position, position + across, position + down])
        index = corners @ to_index[:3, :3].T + to_index[:3, 3]
        k = int(np.rint(index[0, 2]))
        expected = np.array([(0, 0, k), (columns - 1, 0, k), (0, rows - 1, k)])
        if not 0 <= k < slices or np.abs(index - expected).max() > _OFF:
            return f"a frame lies {np.abs(index - expected).max():.3g} voxels off its slice"
        segment = _group(frame, shared, "SegmentIdentificationSequence")
        places.append((int(segment.ReferencedSegmentNumber), k))
    if len(set(places)) != len(places) or len(places) != int(dataset.NumberOfFrames):
        return "a segment has two frames on one slice"
    return places


def _group(frame: Any, shared: Any, keyword: str) -> Any:
    return (frame if keyword in frame else shared)[keyword].value[0]


def _voxels(
    dataset: Any, places: list[tuple[int, int]], array: np.ndarray, labels: list[int]
) -> str | None:
    """Compare each frame with its label on its slice, and see that no voxel has no frame."""
    found = 0
    for (number, k), frame in zip(places, _frames(dataset), strict=True):
        wanted = labels[number - 1] == array[:, :, k].T
        differ = np.count_nonzero(wanted != frame)
        if differ:
            return f"{differ} voxels of segment {number} differ on slice {k}"
        found += int(np.count_nonzero(wanted))
    missing = int(np.count_nonzero(array)) - found
    return f"{missing} voxels are missing" if missing else None


def _frames(dataset: Any) -> Iterator[np.ndarray]:
    """Unpack the bits of eight frames at a time, which together always fill whole bytes."""
    from pydicom.pixels.utils import unpack_bits

    rows, columns, count = dataset.Rows, dataset.Columns, int(dataset.NumberOfFrames)
    for first in range(0, count, 8):
        packed = dataset.PixelData[first // 8 * rows * columns :][: rows * columns]
        bits = unpack_bits(packed)[: min(8, count - first) * rows * columns]
        yield from np.asarray(bits).reshape(-1, rows, columns).astype(bool)
