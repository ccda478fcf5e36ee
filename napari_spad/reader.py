"""napari's File > Open: medical scans and segmentations with their true geometry."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_spad import notify, start
from spad.errors import SpadError

PathOrPaths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
NOTHING: list[Any] = [(None,)]
SUFFIXES = (
    *(".nii", ".nii.gz", ".hdr", ".img", ".hdr.gz", ".img.gz"),
    *(".nrrd", ".nhdr", ".mha", ".mhd"),
    *(".dcm", ".dicom", ".ima"),
)
"""What the manifest claims, with DICOMDIR. Pictures, arrays and folders are napari's own."""

_DICOMDIR = "DICOMDIR"
_ONE_DROP_SECONDS = 1.5


@dataclass
class _Drop:
    """Files opened a moment ago: napari hands over the files of one drop one by one.

    Attributes:
        asked: the paths that were handed over.
        covered: the files of the DICOM series that they opened.
        refused: folder and SeriesInstanceUID of those that could not be opened.
        ended: when the last of them was done.
    """

    asked: set[str] = field(default_factory=set)
    covered: set[str] = field(default_factory=set)
    refused: set[tuple[str, str]] = field(default_factory=set)
    ended: float = float("-inf")

    def forget(self) -> None:
        """Begin anew."""
        for known in (self.asked, self.covered, self.refused):
            known.clear()


_drop = _Drop()


def get_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[Any]] | None:
    """Offer to read scans, judged by their names alone.

    Args:
        path: a path, or several.

    Returns:
        `read_layers` if it can read all of them, else None.
    """
    try:
        paths = _paths(path)
        known = bool(paths) and all(_is_ours(one) for one in paths)
    except TypeError:
        return None
    return read_layers if known else None


def read_layers(path: PathOrPaths) -> list[Any]:
    """Read files as layers; what is wrong with one is shown as a notification.

    A DICOM file opens the series that it belongs to; further files of that series in the same
    drop (or list) open nothing more.

    Args:
        path: a path, or several.

    Returns:
        Layer data tuples, or napari's sign for "nothing to show".
    """
    start.use()
    layers = []
    for one in _paths(path):
        if _is_done(one):
            continue
        try:
            volume, layer = _read(one)
        except SpadError as error:
            _remember(one, None)
            notify.error(str(error))
            continue
        _remember(one, volume)
        layers.append(layer)
    _drop.ended = time.monotonic()
    return layers or NOTHING


def read_layer(
    path: str | os.PathLike[str],
    depth: int | None = None,
    *,
    labels: bool | None = None,
    spacing: tuple[float, ...] | None = None,
    series: str | None = None,
) -> Any:
    """Read one file or folder as a layer.

    Args:
        path: any scan that `spad.volumes.files.read` takes.
        depth: the file's axis that is depth, if a person states it.
        labels: True for labels, False for an image, if a person states it.
        spacing: mm along i, j and k, for formats that state none.
        series: SeriesInstanceUID to read where a folder holds several.

    Returns:
        A layer data tuple, named as the file names itself, else as the file is named.

    Raises:
        SpadError: the file cannot be read.
    """
    return _read(path, depth, labels=labels, spacing=spacing, series=series)[1]


def _read(path: str | os.PathLike[str], depth: int | None = None, **options: Any) -> Any:
    from napari_spad.layers import to_layer
    from spad.volumes.files import read, stem_of

    volume = read(Path(path), depth=depth, **options)
    for note in volume.notes:
        notify.info(note)
    name = volume.name or stem_of(path)
    return volume, to_layer(volume, name, role="labels" if volume.is_labels else "scan")


def _is_ours(path: str) -> bool:
    return path.lower().endswith(SUFFIXES) or os.path.basename(path) == _DICOMDIR


def _is_done(path: str) -> bool:
    """Whether a file's series came with another file of the same drop."""
    if path in _drop.asked or time.monotonic() - _drop.ended > _ONE_DROP_SECONDS:
        _drop.forget()
    _drop.asked.add(path)
    if _real(path) in _drop.covered:
        return True
    return bool(_drop.refused) and _series_of(path) in _drop.refused


def _remember(path: str, volume: Any) -> None:
    if volume is None:
        if (series := _series_of(path)) is not None:
            _drop.refused.add(series)
        return
    _drop.covered.update(_real(file) for file in getattr(volume.source.header, "files", ()))


def _series_of(path: str) -> tuple[str, str] | None:
    """Give a DICOM file's folder and series; None for other files."""
    if not path.lower().endswith((".dcm", ".dicom", ".ima")):
        return None
    from spad.volumes.files.dicom.headers import read_header, text

    try:
        header = read_header(Path(path))
    except SpadError:
        return None
    uid = None if header is None else text(header.dataset, "SeriesInstanceUID")
    return None if uid is None else (os.path.dirname(_real(path)), uid)


def _real(path: str | os.PathLike[str]) -> str:
    try:
        return os.path.realpath(path)
    except ValueError:  # a NUL in the name, which `read` refuses in a sentence
        return os.fspath(path)


def _paths(path: PathOrPaths) -> list[str]:
    if isinstance(path, str | os.PathLike):
        return [os.fspath(path)]
    return [os.fspath(one) for one in path]
