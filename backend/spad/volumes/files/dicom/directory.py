"""DICOMDIR: the list of files on a DICOM medium (PS3.3 annex F)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spad.errors import SpadError
from spad.volumes.files.dicom.headers import text, texts, value

_MOST = 1 << 27


@dataclass(frozen=True)
class Listing:
    """What a DICOMDIR names.

    Attributes:
        files: those that are there.
        absent: SeriesInstanceUID to the names of its files that are not.
    """

    files: list[Path]
    absent: dict[str, list[str]]


def read(path: Path) -> Listing:
    """Find the files that a DICOMDIR names; their letters may have changed case on the way.

    Raises:
        SpadError: it cannot be read or names no file.
    """
    import pydicom

    try:
        if path.stat().st_size > _MOST:
            raise ValueError("it is larger than 128 MiB")
        dataset = pydicom.dcmread(path, force=True)
        records = list(value(dataset, "DirectoryRecordSequence") or ())
    except Exception as error:  # a parser of hostile bytes may raise anything
        raise SpadError(
            f"{path} is a DICOMDIR that cannot be read ({error}); expected a list of files; open "
            "the folder instead."
        ) from error
    files: list[Path] = []
    absent: dict[str, list[str]] = {}
    series = ""
    names: dict[Path, dict[str, Path]] = {}
    for record in records:
        kind = text(record, "DirectoryRecordType")
        if kind == "SERIES":
            series = text(record, "SeriesInstanceUID") or ""
        parts = texts(record, "ReferencedFileID")
        if not parts:
            continue
        found = _find(path.parent, parts, names)
        if found is not None:
            files.append(found)
        elif kind == "IMAGE":
            absent.setdefault(series, []).append("/".join(parts))
    if not files and not absent:
        raise SpadError(
            f"{path} is a DICOMDIR that names no file; expected a list of images; open the folder "
            "instead."
        )
    return Listing(files, absent)


def _find(root: Path, parts: tuple[str, ...], names: dict[Path, dict[str, Path]]) -> Path | None:
    place: Any = root
    for part in parts:
        if part in ("", ".", "..") or "/" in part or os.sep in part:
            return None
        if place not in names:
            try:
                names[place] = {
                    entry.name.lower().split(";")[0]: entry for entry in place.iterdir()
                }
            except OSError:
                return None
        place = names[place].get(part.lower())
        if place is None:
            return None
    return Path(place) if place.is_file() else None
