"""Reading DICOM segmentations: binary, fractional and label maps, on the grid of their series."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spad.errors import SpadError
from spad.volumes.colors import Rgba
from spad.volumes.files import disk
from spad.volumes.files.assemble import assemble
from spad.volumes.files.dicom import referenced
from spad.volumes.files.dicom.codestream import Source
from spad.volumes.files.dicom.frames import Frame, frames_of
from spad.volumes.files.dicom.headers import (
    Header,
    item,
    number,
    numbers,
    quiet,
    read_header,
    text,
    value,
    whole,
)
from spad.volumes.files.dicom.pixels import layout_of
from spad.volumes.files.dicom.seg_grid import Placed, own_grid, place_on
from spad.volumes.files.masks import count_overlaps, overlap_note
from spad.volumes.files.options import Options
from spad.volumes.volume import Volume

_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
_KINDS = ("BINARY", "FRACTIONAL", "LABELMAP")


@dataclass(frozen=True)
class Segment:
    """One segment as the file describes it.

    Attributes:
        name: SegmentLabel, made unique in its file.
        color: RecommendedDisplayCIELabValue as sRGB, or None.
    """

    name: str
    color: Rgba | None


def read(path: Path, options: Options) -> Volume:
    """Read a segmentation (PS3.3 A.51, A.89) as labels.

    Ids are the segment numbers. The labels lie on the grid of the series that the file refers to
    if that is found near it (its folder, those below, its parent's and those beside) and the frames
    are planes of it; else on a grid of the file's own, from its first to its last frame. Slices
    without a frame are background.

    Args:
        path: the file.
        options: `depth` and `labels` are heeded.

    Returns:
        uint8 or uint16 labels; notes tell of overlaps (the later segment wins), of a fractional
        segmentation (voxels of at least half the highest value count) and of a grid of its own.

    Raises:
        SpadError: the file is damaged, or its frames do not lie in a row in the patient.
    """
    header = read_header(path)
    if header is None:
        raise SpadError(f"{path} is not DICOM; expected a segmentation; check the path.")
    with quiet():
        kind = _checked_kind(header)
        frames = frames_of(header)
        segments = _segments(header)
        numbers_of = _segment_numbers(header, kind, len(frames))
        placed, notes = _placed(header, frames)
        size = (whole(header.dataset, "Columns") or 0, whole(header.dataset, "Rows") or 0)
        highest = max(segments, default=1)
        try:
            labels, overlaps = _fill(header, kind, size, placed, numbers_of, highest)
        except MemoryError as error:
            raise SpadError(
                f"{path} needs {np.prod(placed.shape, dtype=float) / 2**30:.1f} GiB of memory, "
                "more than is free; close other programs."
            ) from error
    names = {n: segment.name for n, segment in segments.items() if n}
    if kind == "FRACTIONAL":
        notes.append(
            "The segmentation is fractional; voxels of at least half the highest value are taken."
        )
    if overlaps:
        notes.append(overlap_note(overlaps, names, "the later segment"))
    shown = options.labels is not False
    return assemble(
        labels.T,
        placed.affine,
        path=path,
        format="dicom",
        options=options,
        header=placed.source,
        slice_axis=2 if placed.shape[2] > 1 else None,
        label_names=names if shown else None,
        label_colors=_colors(segments) if shown else None,
        name=text(header.dataset, "SeriesDescription"),
        notes=tuple(notes),
    )


def _checked_kind(header: Header) -> str:
    """Give the kind of segmentation; refuse pixels that the file cannot hold."""
    dataset, path = header.dataset, header.path
    kind = text(dataset, "SegmentationType") or ""
    rows, columns = whole(dataset, "Rows") or 0, whole(dataset, "Columns") or 0
    if kind not in _KINDS or header.pixels is None or rows < 1 or columns < 1:
        raise SpadError(
            f"{path} is a segmentation of type {kind or 'unknown'} with {columns} x {rows} voxels "
            f"per frame{'' if header.pixels else ' and no pixel data'}; expected "
            f"{', '.join(_KINDS)} with voxels; export it again."
        )
    bits = whole(dataset, "BitsAllocated") or 0
    if bits not in ((1, 8) if kind != "LABELMAP" else (8, 16)):
        raise SpadError(
            f"{path} is a {kind} segmentation with {bits} bits per voxel; expected 1 or 8 (a "
            "label map 8 or 16); export it again."
        )
    if bits > 1 or header.syntax not in _NATIVE:
        layout_of(header)
        return kind
    need = -(-rows * columns * (whole(dataset, "NumberOfFrames") or 1) // 8)
    held = min(header.pixels.length, header.size - header.pixels.offset)
    if held < need:
        raise SpadError(
            f"{path} holds {max(held, 0)} bytes of voxels, but its header claims {need}; "
            "expected a complete file; copy or export it again."
        )
    return kind


def _segments(header: Header) -> dict[int, Segment]:
    found: dict[int, Segment] = {}
    taken: set[str] = set()
    for n, described in enumerate(value(header.dataset, "SegmentSequence") or (), 1):
        label = whole(described, "SegmentNumber")
        label = n if label is None else label
        name = text(described, "SegmentLabel") or f"segment {label}"
        if name in taken:
            name = f"{name} ({label})"
        taken.add(name)
        found[label] = Segment(name, _srgb(numbers(described, "RecommendedDisplayCIELabValue", 3)))
    return found


def _srgb(lab: tuple[float, ...] | None) -> Rgba | None:
    """Turn a CIELab colour as DICOM stores it (PS3.3 C.10.7.1.1) into sRGB."""
    if lab is None or not all(0 <= part <= 0xFFFF for part in lab):
        return None
    from highdicom.color import CIELabColor

    red, green, blue = CIELabColor.from_dicom_value([int(part) for part in lab]).to_rgb(clip=True)
    return red / 255, green / 255, blue / 255, 1.0


def _colors(segments: dict[int, Segment]) -> dict[int, Rgba] | None:
    colors = {n: segment.color for n, segment in segments.items() if n and segment.color}
    return colors or None


def _segment_numbers(header: Header, kind: str, count: int) -> list[int]:
    """Give the segment of each frame; 0 for a label map, whose voxels name them."""
    if kind == "LABELMAP":
        return [0] * count
    shared = item(header.dataset, "SharedFunctionalGroupsSequence")
    result = []
    for n, groups in enumerate(value(header.dataset, "PerFrameFunctionalGroupsSequence") or (), 1):
        named = item(groups, "SegmentIdentificationSequence") or (
            None if shared is None else item(shared, "SegmentIdentificationSequence")
        )
        label = None if named is None else whole(named, "ReferencedSegmentNumber")
        if label is None or not 0 < label <= 0xFFFF:
            raise SpadError(
                f"{header.path} does not state the segment of frame {n} "
                f"(ReferencedSegmentNumber {label}); expected a number from 1; export it again."
            )
        result.append(label)
    if len(result) != count:
        raise SpadError(
            f"{header.path} describes {len(result)} of its {count} frames; expected one item of "
            "PerFrameFunctionalGroupsSequence per frame; export it again."
        )
    return result


def _placed(header: Header, frames: list[Frame]) -> tuple[Placed, list[str]]:
    """Find the grid: the series' if the frames are planes of it, else the file's own."""
    path = header.path
    series, instances = _references(header)
    frame_uid = text(header.dataset, "FrameOfReferenceUID")
    found = []
    for candidate in referenced.find(path, series, frame_uid, instances):
        placed = place_on(header, frames, candidate)
        if placed is not None:
            return placed, []
        found.append(candidate)
    own = own_grid(header, frames)
    if not found:
        said = f"The series {series} it refers to was not found near the file"
        note = f"{said if series else 'It refers to no series'}; it is shown on a grid of its own."
    else:
        why = next((one.series.problem for one in found if one.series.problem), None)
        note = (
            f"Its frames are not planes of the series {found[0].series.description!r} near it"
            f"{f' ({why})' if why else ''}; it is shown on a grid of its own."
        )
    return own, [note, *own.notes]


def _references(header: Header) -> tuple[str | None, set[str]]:
    """Give SeriesInstanceUID and SOPInstanceUIDs that the file refers to."""
    series = item(header.dataset, "ReferencedSeriesSequence")
    if series is None:
        return None, set()
    instances = value(series, "ReferencedInstanceSequence") or ()
    uids = {text(instance, "ReferencedSOPInstanceUID") or "" for instance in instances}
    return text(series, "SeriesInstanceUID"), uids - {""}


def _fill(
    header: Header,
    kind: str,
    size: tuple[int, int],
    placed: Placed,
    numbers_of: list[int],
    highest: int,
) -> tuple[np.ndarray, dict[tuple[int, int], int]]:
    """Put the frames onto the grid, segment after segment.

    Returns:
        Labels (k, j, i), and the voxels that two segments claim: (loser, winner) to count.
    """
    columns, rows = size
    wide = max(highest, *numbers_of) > 255 or whole(header.dataset, "BitsAllocated") == 16
    labels = np.zeros(placed.shape[::-1], np.uint16 if wide else np.uint8)
    overlaps: dict[tuple[int, int], int] = {}
    half = (number(header.dataset, "MaximumFractionalValue") or 255) / 2
    order = sorted(range(len(numbers_of)), key=lambda n: (numbers_of[n], n))
    for index, frame in zip(order, _pixels(header, (rows, columns), order), strict=True):
        i, j, k = placed.index[index]
        target = labels[k, j : j + rows, i : i + columns]
        inside = frame >= half if kind == "FRACTIONAL" else frame != 0
        count_overlaps(target, inside, numbers_of[index], overlaps)
        target[inside] = frame[inside] if kind == "LABELMAP" else numbers_of[index]
    return labels, overlaps


def _pixels(header: Header, shape: tuple[int, int], order: list[int]) -> Iterator[np.ndarray]:
    """Give frames one at a time, (rows, columns) unsigned, in the order asked for."""
    bits = whole(header.dataset, "BitsAllocated")
    if bits == 1 and header.syntax in _NATIVE and header.pixels is not None:
        voxels = shape[0] * shape[1]
        length = -(-voxels * len(order) // 8)
        packed = disk.load(header.path, np.dtype(np.uint8), length, header.pixels.offset)
        for index in order:
            # frames follow each other bit by bit (PS3.5 8.1.1), the lowest bit of a byte first
            first, last = index * voxels, (index + 1) * voxels
            loose = np.unpackbits(packed[first // 8 : -(-last // 8)], bitorder="little")
            yield loose[first % 8 : first % 8 + voxels].reshape(shape)
        return
    layout = dataclasses.replace(layout_of(header), photometric="MONOCHROME2")
    source = Source(header, layout)
    for index in order:
        yield source.plane(index)
