"""One of the things that a folder holds: what a list shows to choose from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Series:
    """A scan or a segmentation that can be opened, as its headers describe it.

    Attributes:
        uid: SeriesInstanceUID (with a suffix where one series holds several scans), or the file's
            name where there is none; what `read(path, series=uid)` takes.
        description: the series' own words, or the file's name.
        modality: DICOM code such as "CT", or None.
        kind: "image" or "labels".
        slices: how many slices (of all times).
        shape: voxels in file order (i, j, k[, t]).
        spacing: mm along i, j and k.
        path: the file or folder that `read` takes together with `uid`.
        problem: one sentence if it cannot be read as a volume, else None.
    """

    uid: str
    description: str
    modality: str | None
    kind: str
    slices: int
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    path: str
    problem: str | None = None
