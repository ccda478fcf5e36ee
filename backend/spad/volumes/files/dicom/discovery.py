"""The DICOM files of a folder: found in any depth, each header read once."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from spad.errors import SpadError
from spad.volumes.files.dicom.headers import (
    DIRECTORY,
    Header,
    is_dicom,
    parse_header,
    read_block,
    read_header,
    text,
)

MOST_FILES = 100_000
"""Below a folder that is opened: more are those of an archive or a whole disk."""
_THREADS = 8
_AHEAD = 64
_SERIES_UID = 0x0020000E


@dataclass(frozen=True)
class Held:
    """What some files hold.

    Attributes:
        headers: of the DICOM files.
        damaged: files that begin as DICOM but break off before they name their series.
    """

    headers: list[Header]
    damaged: list[Path]


def read_all(files: Iterable[Path]) -> Held:
    """Read the headers of the DICOM files among these; others are passed over.

    Threads read (disks and networks wait), this one parses: the parser holds the GIL, so that
    several would only be in each other's way.
    """
    held = Held([], [])

    def block(path: Path) -> tuple[bytes, int] | None:
        try:
            return read_block(path)
        except SpadError:
            return None

    files = list(files)
    with ThreadPoolExecutor(_THREADS) as pool:
        for some in (files[n : n + _AHEAD] for n in range(0, len(files), _AHEAD)):
            for path, start in zip(some, list(pool.map(block, some)), strict=True):
                if start is not None:
                    _sort_in(held, path, *start)
    return held


def _sort_in(held: Held, path: Path, start: bytes, size: int) -> None:
    marked = start[128:132] == b"DICM"
    try:
        header = parse_header(path, start, size)
    except SpadError:
        header = None
        if marked:
            held.damaged.append(path)
    if header is None or header.sop_class == DIRECTORY:
        return
    dataset = header.dataset
    named = text(dataset, "SeriesInstanceUID") is not None
    # a UID at the very end may be half a UID
    named &= not header.cut or max(dataset.keys(), default=0) > _SERIES_UID
    whole = named or header.pixels is not None or "Rows" in dataset
    known = "TransferSyntaxUID" in dataset.file_meta and bool(header.sop_class)
    image = is_image_class(header.sop_class) or (not known and (header.cut or not dataset))
    if marked and image and not whole:
        held.damaged.append(path)
    else:
        held.headers.append(header)


def is_image_class(sop_class: str) -> bool:
    """Tell whether objects of a SOP class hold images, by the name that DICOM gives the class."""
    from pydicom.uid import UID

    return UID(sop_class).name.endswith("Image Storage")


def same(a: Path, b: Path) -> bool:
    """Tell whether two paths name one file."""
    return a == b or (a.name == b.name and os.path.samefile(a, b))


def files_in(folder: Path) -> list[Path]:
    """Give the files of a folder in the order of their names."""
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_file())
    except OSError as error:
        raise SpadError(
            f"{folder} cannot be read ({error.strerror or error}); expected a folder that may be "
            "listed; check its permissions."
        ) from error


def files_below(root: Path) -> list[Path]:
    """Give all files below a folder in the order of their paths; each folder is entered once.

    Raises:
        SpadError: it cannot be listed, or holds far more files than any study has.
    """
    seen: set[tuple[int, int]] = set()
    pending, files = [root], []
    while pending:
        folder = pending.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen and status.st_ino:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir():
                        pending.append(Path(entry.path))
                    elif entry.is_file():
                        files.append(Path(entry.path))
            if len(files) > MOST_FILES:
                raise SpadError(
                    f"{root} holds more than {MOST_FILES} files; expected the folder of a study; "
                    "name a folder below it."
                )
        except OSError as error:
            if folder == root:
                raise SpadError(
                    f"{root} cannot be read ({error.strerror or error}); expected a folder that "
                    "may be listed; check its permissions."
                ) from error
    return sorted(files)


def starts_as_dicom(path: Path) -> bool:
    """Tell whether a file begins as DICOM; one that cannot be read does not."""
    try:
        with path.open("rb") as file:
            start = file.read(132)
        return start[128:] == b"DICM" or (is_dicom(start) and read_header(path) is not None)
    except (OSError, SpadError):
        return False
