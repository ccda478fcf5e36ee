"""Labels as pictures, one for each slice of a DICOM series, as CHAOS gives them in `Ground`.

Source: CHAOS challenge, https://doi.org/10.5281/zenodo.3362844: in MR gray value 63 is the liver,
126 the right kidney, 189 the left kidney and 252 the spleen, read within the ranges of the
challenge's own evaluation; in CT whatever is not black is the liver.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from spad.errors import SpadError
from spad.volumes.axes import from_file_order, to_file_order
from spad.volumes.files import read
from spad.volumes.files.dicom.source import DicomSource
from spad.volumes.volume import Volume

MR_NAMES = {1: "liver", 2: "right_kidney", 3: "left_kidney", 4: "spleen"}
CT_NAMES = {1: "liver"}
_MR_RANGES = {1: (55, 70), 2: (110, 135), 3: (175, 200), 4: (240, 255)}


def is_ground(path: Path) -> bool:
    """Tell a folder of label pictures."""
    return path.is_dir() and any(path.glob("*.png"))


def read_ground(folder: Path, scan: Volume) -> Volume:
    """Read the label pictures of a DICOM series onto its grid.

    A picture belongs to the slice whose file has the same name; where names differ, pictures and
    slices go together in the order of their names, which is often not the order of the slices'
    places in the body.

    Args:
        folder: the pictures, one for each slice.
        scan: 3D, read from a DICOM series.

    Raises:
        SpadError: there are more or fewer pictures than slices, or one has another size.
    """
    pictures = sorted(folder.glob("*.png"), key=_natural)
    values = np.stack([_pixels(path, scan) for path in _in_place(pictures, scan, folder)], axis=2)
    if scan.modality == "CT":
        labels, names = (values > 0).astype(np.uint8), CT_NAMES
    else:
        labels, names = np.zeros(values.shape, np.uint8), MR_NAMES
        for label, (low, high) in _MR_RANGES.items():
            labels[(values >= low) & (values <= high)] = label
    return scan.with_array(from_file_order(labels, scan.source), label_names=names)


def _in_place(pictures: list[Path], scan: Volume, folder: Path) -> list[Path]:
    """Order pictures as the slices of the scan lie."""
    source = scan.source.header
    if not isinstance(source, DicomSource):
        raise SpadError(
            f"{folder} holds pictures of slices, but {scan.source.path} is no DICOM series; "
            "expected the series they were drawn on; give CHAOS as it was downloaded."
        )
    series = [[source.files[plane.file] for plane in time] for time in source.slices]
    by_name = {picture.stem: picture for picture in pictures}
    for files in series:
        if {file.stem for file in files} == set(by_name):
            return [by_name[file.stem] for file in files]
    files = series[0]
    if len(pictures) != len(files):
        raise SpadError(
            f"{folder} holds {len(pictures)} pictures for the {len(files)} slices of "
            f"{scan.source.path}; expected one for each; copy the case again."
        )
    by_file = dict(zip(sorted(files, key=_natural), pictures, strict=True))
    return [by_file[file] for file in files]


def _pixels(path: Path, scan: Volume) -> np.ndarray:
    """Read a picture as (columns, rows), the order of a DICOM series' own first axes."""
    picture = read(path, labels=True)
    pixels = to_file_order(np.asarray(picture.array), picture.source)[:, :, 0]
    if pixels.shape != scan.source.shape[:2]:
        found, wanted = (" x ".join(map(str, s)) for s in (pixels.shape, scan.source.shape[:2]))
        raise SpadError(
            f"{path} has {found} pixels, its slice {wanted}; expected the same; copy the case "
            "again."
        )
    return pixels


def _natural(path: Path) -> tuple[tuple[int, str], ...]:
    """Sort numbers in names by their value: "IMG-9" before "IMG-10"."""
    parts = re.split(r"(\d+)", path.name.lower())
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)
