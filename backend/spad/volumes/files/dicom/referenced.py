"""Finding the image series that a segmentation or structure set was drawn on, near its file."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from spad.errors import SpadError
from spad.volumes.files.dicom import catalog
from spad.volumes.files.dicom.catalog import Found
from spad.volumes.files.dicom.headers import read_header, text

_START = 1 << 16
_MOST_FILES = 50_000
_MOST_SERIES = 8


def find(
    path: Path,
    series_uid: str | None,
    frame_uid: str | None,
    instances: Collection[str] = (),
) -> Iterator[Found]:
    """Look for a series in a file's folder, those below, the one above and those beside.

    Files are told apart by their first 64 KiB, which name the UIDs, so that folders of many scans
    are passed quickly; at most 50 000 files are looked at.

    Args:
        path: the file that refers to the series.
        series_uid: SeriesInstanceUID, if the file states it.
        frame_uid: FrameOfReferenceUID, which counts where the series itself is not found.
        instances: SOPInstanceUIDs that the file refers to: they choose among the volumes of a
            series that holds several.

    Yields:
        The volumes of the series, else those of series in that frame of reference (eight at most);
        each may have a problem and no grid.
    """
    wanted = [uid.encode() for uid in (series_uid, frame_uid) if uid]
    alike: dict[str, Path] = {}
    exact: Path | None = None
    looked = 0
    for folder in _folders(path):
        hits = []
        for file in _files(folder):
            looked += 1
            if looked > _MOST_FILES:
                break
            if _mentions(file, wanted):
                hits.append(file)
        for file in hits:
            uids = _image_of(file)
            if uids is None:
                continue
            series, frame, instance = uids
            if series_uid and series == series_uid:
                exact = exact or file
                if not instances or instance in instances:
                    yield from _volumes(file)
                    return
            elif frame_uid and frame == frame_uid:
                alike.setdefault(series, file)
        if exact is not None:
            yield from _volumes(exact)
            return
    for file in list(alike.values())[:_MOST_SERIES]:
        yield from _volumes(file)


def _folders(path: Path) -> Iterator[Path]:
    """Give the file's folder, those below it, its parent and those beside it, each once."""
    home = Path(os.path.abspath(path)).parent
    seen = set()
    for top in dict.fromkeys((home, home.parent)):
        for folder in (top, *_entries(top, folders=True)):
            if folder not in seen:
                seen.add(folder)
                yield folder


def _files(folder: Path) -> list[Path]:
    return _entries(folder, folders=False)


def _entries(folder: Path, folders: bool) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                Path(entry.path)
                for entry in entries
                if (entry.is_dir() if folders else entry.is_file())
            )
    except OSError:
        return []


def _mentions(file: Path, uids: list[bytes]) -> bool:
    try:
        with file.open("rb") as data:
            start = data.read(_START)
    except OSError:
        return False
    return any(uid in start for uid in uids)


def _image_of(file: Path) -> tuple[str, str, str] | None:
    """Give series, frame of reference and instance of an image file; None for anything else."""
    try:
        header = read_header(file)
    except SpadError:
        return None
    if header is None or header.pixels is None or header.sop_class in catalog.SEGMENTATIONS:
        return None
    return (
        text(header.dataset, "SeriesInstanceUID") or "",
        text(header.dataset, "FrameOfReferenceUID") or "",
        header.sop_instance,
    )


def _volumes(file: Path) -> list[Found]:
    try:
        return [found for found in catalog.scan(file) if found.part is not None]
    except SpadError:
        return []
