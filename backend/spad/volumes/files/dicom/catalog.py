"""What a folder, a file or a DICOMDIR holds: its series, from headers alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spad.errors import SpadError
from spad.volumes.files.dicom import directory, discovery, stacks
from spad.volumes.files.dicom.discovery import Held
from spad.volumes.files.dicom.frames import frames_of
from spad.volumes.files.dicom.grid import Grid, grid_of
from spad.volumes.files.dicom.headers import (
    DIRECTORY,
    Header,
    item,
    numbers,
    quiet,
    read_header,
    text,
    texts,
    whole,
)
from spad.volumes.files.dicom.stacks import Part
from spad.volumes.files.series import Series

SEGMENTATIONS = (
    "1.2.840.10008.5.1.4.1.1.66.4",
    "1.2.840.10008.5.1.4.1.1.66.7",
    "1.2.840.10008.5.1.4.1.1.481.3",
)
"""SOP classes that hold labels: Segmentation, Label Map Segmentation, RT Structure Set."""

_WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
_THREADS = 8
_AHEAD = 64


@dataclass(frozen=True, eq=False)
class Found:
    """A series, or a part of one that is a volume of its own.

    Attributes:
        series: what a list shows.
        headers: of its files; pixels are not read.
        part: its planes in order, or None for labels.
        grid: where they lie, or None (labels, or there is a problem).
        where: path and name, for sentences.
    """

    series: Series
    headers: tuple[Header, ...]
    part: Part | None
    grid: Grid | None
    where: str

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID as the files have it, without the suffix of a part."""
        if not self.headers:
            return self.series.uid
        return text(self.headers[0].dataset, "SeriesInstanceUID") or ""

    @property
    def instance(self) -> str | None:
        """SOPInstanceUID of labels, each of which is one file; None for images."""
        return None if self.series.kind == "image" else self.headers[0].sop_instance

    @property
    def scout(self) -> bool:
        """Whether it is a localizer that shares its series with a scan."""
        return self.part is not None and self.part.scout


def scan(path: Path, spacing: tuple[float, ...] | None = None) -> list[Found]:
    """Find the DICOM series of a place; no pixel is read.

    Args:
        path: a folder (with all below it), a DICOMDIR, or one file (then the series that it
            belongs to, from its folder).
        spacing: mm along i, j[, k] that a person states for files that state none.

    Returns:
        At least one series, images first, each with a sentence where it is no volume.

    Raises:
        SpadError: there is no image or segmentation, or the file cannot be read.
    """
    with quiet():
        if path.is_dir():
            return _found(path, discovery.read_all(discovery.files_below(path)), spacing)
        header = read_header(path)
        if header is None:
            raise SpadError(
                f"{path} is not DICOM (it lacks the DICM mark and a DICOM header); expected a "
                "DICOM file; check that it is the right file."
            )
        if header.sop_class == DIRECTORY:
            listing = directory.read(path)
            held = discovery.read_all(listing.files)
            return _found(path, held, spacing, listing.absent)
        return _around(path, header, spacing)


def catalog(path: Path) -> list[Series]:
    """List the series of a place for a person to choose from.

    Args:
        path: a folder, a DICOMDIR or one file, as for `scan`.

    Returns:
        What can be read first, images before labels; empty for a folder without DICOM files.

    Raises:
        SpadError: the path cannot be read, or it holds DICOM objects but no image.
    """
    if path.is_dir() and not has_dicom(path):
        return []
    found = [one.series for one in scan(path)]
    return sorted(found, key=lambda series: series.problem is not None)


def has_dicom(folder: Path) -> bool:
    """Tell whether a folder, or one below it, holds a DICOM file."""
    return any(discovery.starts_as_dicom(file) for file in discovery.files_below(folder))


def _around(path: Path, header: Header, spacing: tuple[float, ...] | None) -> list[Found]:
    """Find the parts of a file's series, in its folder, that hold this file."""
    if not _has_company(header):
        return _found(path, Held([header], []), spacing)
    key = _key(header)
    held = discovery.read_all(
        file for file in discovery.files_in(path.parent) if not discovery.same(file, path)
    )
    others = [other for other in held.headers if _key(other) == key and not _is_copy(other, header)]
    found = _found(path, Held([header, *others], held.damaged), spacing)
    return [one for one in found if any(discovery.same(h.path, path) for h in one.headers)]


def _is_copy(a: Header, b: Header) -> bool:
    """Tell whether two files hold one slice; the UID alone may be lost or given to all slices."""
    places = [numbers(header.dataset, "ImagePositionPatient", 3) for header in (a, b)]
    return a.sop_instance == b.sop_instance != "" and places[0] == places[1]


def _has_company(header: Header) -> bool:
    """Tell whether other files can belong to the same volume."""
    if header.sop_class in SEGMENTATIONS or not _is_image(header):
        return False
    if text(header.dataset, "ConcatenationUID") is not None:
        return True
    if (whole(header.dataset, "NumberOfFrames") or 1) > 1:
        return False
    if "PerFrameFunctionalGroupsSequence" in header.dataset:
        return True
    placed = numbers(header.dataset, "ImagePositionPatient", 3) is not None
    return placed or text(header.dataset, "Modality") in stacks.PATIENT_MODALITIES


def _key(header: Header) -> tuple[Any, ...]:
    """Tell which series a file belongs to; anonymised files may have lost their UIDs."""
    dataset = header.dataset
    uid = text(dataset, "SeriesInstanceUID")
    if header.sop_class in SEGMENTATIONS:
        return (uid, str(header.path))
    if uid:
        return (uid,)
    words = ("StudyInstanceUID", "Modality", "SeriesNumber", "SeriesDescription")
    return ("", str(header.path.parent), *(text(dataset, word) or "" for word in words))


def _found(
    path: Path,
    held: Held,
    spacing: tuple[float, ...] | None,
    absent: dict[str, list[str]] | None = None,
) -> list[Found]:
    groups: dict[tuple[Any, ...], list[Header]] = {}
    others: Counter[str] = Counter()
    for header in sorted(held.headers, key=lambda header: str(header.path)):
        if header.sop_class in SEGMENTATIONS or _is_image(header):
            groups.setdefault(_key(header), []).append(header)
        else:
            others[text(header.dataset, "Modality") or "unknown objects"] += 1
    result: list[Found] = []
    for key, group in groups.items():
        where = str(path) if len(groups) == 1 else f"{path} (series {_name(group[0])!r})"
        if group[0].sop_class in SEGMENTATIONS:
            result.append(_labels(group[0]))
            continue
        folders = {header.path.parent for header in group}
        damaged = [file for file in held.damaged if file.parent in folders]
        missing = (absent or {}).pop(str(key[0]), [])
        problem = _damaged(where, damaged) if damaged else None
        problem = _missing(path, missing) if missing else problem
        result += _images(path, group, where, spacing, problem)
    result += [_absent(path, uid, names) for uid, names in (absent or {}).items()]
    if not result:
        raise SpadError(_nothing(path, others, held.damaged))
    return sorted(_told_apart(result), key=lambda found: found.series.kind != "image")


def _told_apart(found: list[Found]) -> list[Found]:
    """Name labels that share their series' UID with others by the UID of their own file."""
    often = Counter(one.series.uid for one in found)
    return [
        replace(one, series=replace(one.series, uid=one.instance or one.headers[0].path.name))
        if one.series.kind == "labels" and often[one.series.uid] > 1
        else one
        for one in found
    ]


def _is_image(header: Header) -> bool:
    if header.pixels is not None or whole(header.dataset, "Rows") is not None:
        return True
    return discovery.is_image_class(header.sop_class)


def _damaged(where: str, files: list[Path]) -> str:
    names = ", ".join(file.name for file in files[:3])
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return (
        f"{where} has DICOM files beside its slices that are cut off in their headers ({names}"
        f"{more}); expected complete files; copy them again, or move them elsewhere if they are "
        "of another series."
    )


def _nothing(path: Path, others: Counter[str], damaged: list[Path]) -> str:
    if damaged:
        return (
            f"{path} holds DICOM files that are cut off in their headers ({damaged[0].name}); "
            "expected complete files; copy or export them again."
        )
    if others:
        said = ", ".join(f"{count} {name}" for name, count in others.items())
        return (
            f"{path} holds DICOM objects without images ({said}); expected an image series or a "
            "segmentation; choose another place."
        )
    return (
        f"{path} holds no DICOM image; expected the files of a series; choose the folder that has "
        "them."
    )


def _name(header: Header) -> str:
    return text(header.dataset, "SeriesDescription") or header.path.stem


def _images(
    path: Path,
    headers: list[Header],
    where: str,
    spacing: tuple[float, ...] | None,
    problem: str | None,
) -> list[Found]:
    try:
        _check_kinds(headers, where)
        parts = stacks.parts_of([f for header in headers for f in frames_of(header)], where)
    except SpadError as error:
        parts = [Part([[]], problem=str(error))]
    if problem is not None:
        parts = [Part([[frame for part in parts for frame in part.all()]], problem=problem)]
    uid = text(headers[0].dataset, "SeriesInstanceUID") or headers[0].path.name
    mains = sum(not part.scout for part in parts)
    result = []
    for n, part in enumerate(parts, start=1):
        own = uid if n == 1 and mains == 1 else f"{uid}:{n}"
        grid = None
        if part.problem is None:
            try:
                grid = grid_of(part, where, spacing)
            except SpadError as error:
                part.problem = str(error)
        held = {id(frame.header) for frame in part.all()}
        files = tuple(h for h in headers if id(h) in held) or tuple(headers)
        result.append(Found(_series(path, own, part, grid, files), files, part, grid, where))
    return result


def _series(
    path: Path, uid: str, part: Part, grid: Grid | None, headers: tuple[Header, ...]
) -> Series:
    dataset = headers[0].dataset
    name = _name(headers[0]) + (f" ({part.why})" if part.why else "")
    shape = (whole(dataset, "Columns") or 0, whole(dataset, "Rows") or 0, len(part.all()))
    return Series(
        uid=uid,
        description=name,
        modality=text(dataset, "Modality"),
        kind="image",
        slices=len(part.all()) or len(headers),
        shape=shape if grid is None else grid.shape,
        spacing=() if grid is None else grid.spacing,
        path=str(path),
        problem=part.problem,
    )


def _check_kinds(headers: list[Header], where: str) -> None:
    for header in headers:
        if header.pixels is None:
            raise SpadError(
                f"{where} has no pixel data in {header.path.name}; expected an image in each "
                "file; copy or export it again."
            )
        if header.sop_class == _WHOLE_SLIDE:
            raise SpadError(
                f"{where} is a whole-slide image of microscopy; expected a scan; open it with a "
                "reader for slides."
            )
        if "MOSAIC" in " ".join(texts(header.dataset, "ImageType")):
            raise SpadError(
                f"{where} is a Siemens mosaic (all slices of a time in one image, "
                f"{header.path.name}); expected one image per slice; convert it with dcm2niix or "
                "export it as enhanced DICOM."
            )


def _missing(path: Path, names: list[str]) -> str:
    said = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return (
        f"{path} lists {len(names)} file{'s' if len(names) > 1 else ''} of a series that "
        f"{'are' if len(names) > 1 else 'is'} not there ({said}); expected all of them; copy the "
        "whole medium."
    )


def _absent(path: Path, uid: str, names: list[str]) -> Found:
    series = Series(
        uid, uid, None, "image", len(names), (0, 0, len(names)), (), str(path),
        _missing(path, names),
    )  # fmt: skip
    return Found(series, (), None, None, str(path))


def _labels(header: Header) -> Found:
    """List a segmentation; its own module reads it."""
    dataset = header.dataset
    frames = whole(dataset, "NumberOfFrames") or 0
    shared = item(dataset, "SharedFunctionalGroupsSequence")
    measures = None if shared is None else item(shared, "PixelMeasuresSequence")
    pixel = None if measures is None else numbers(measures, "PixelSpacing", 2)
    shape = (whole(dataset, "Columns") or 0, whole(dataset, "Rows") or 0, frames)
    series = Series(
        uid=text(dataset, "SeriesInstanceUID") or header.path.name,
        description=_name(header),
        modality=text(dataset, "Modality"),
        kind="labels",
        slices=frames,
        shape=shape,
        spacing=() if pixel is None else (pixel[1], pixel[0]),
        path=str(header.path),
    )
    return Found(series, (header,), None, None, str(header.path))
