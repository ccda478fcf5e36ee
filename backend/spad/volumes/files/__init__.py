"""Reading and writing scans: one door for every format, light until a file is opened."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from spad.errors import SpadError
from spad.volumes.files.encoders import WRITABLE_SUFFIXES as WRITABLE_SUFFIXES
from spad.volumes.files.options import Options

if TYPE_CHECKING:
    from spad.volumes.files.series import Series
    from spad.volumes.volume import Volume

_MODULES = {
    "nifti": (".nii", ".nii.gz", ".hdr", ".img", ".hdr.gz", ".img.gz"),
    "nrrd": (".nrrd", ".nhdr", ".seg.nrrd", ".seg.nhdr"),
    "metaimage": (".mha", ".mhd"),
    "dicom.reader": (".dcm", ".dicom", ".ima"),
    "picture": (".png", ".jpg", ".jpeg", ".tif", ".tiff"),
    "arrays": (".npy", ".npz"),
    "omezarr": (".zarr", ".ome.zarr", ".zarr.zip", ".ozx"),
}
_MODULE_OF = {suffix: module for module, suffixes in _MODULES.items() for suffix in suffixes}
READABLE_SUFFIXES = tuple(_MODULE_OF)
_WITH_SPACING = ("nifti1", "nifti2", "analyze", "nrrd", "mha")
_SUFFIXES = sorted({*READABLE_SUFFIXES, *WRITABLE_SUFFIXES}, key=len, reverse=True)


def suffix_of(path: str | os.PathLike[str]) -> str:
    """Give a file's suffix in lower case: ".nii.gz" and ".seg.nrrd" count as one."""
    name = Path(path).name.lower()
    for suffix in _SUFFIXES:
        if name.endswith(suffix) and name != suffix:
            return suffix
    return Path(name).suffix


def stem_of(path: str | os.PathLike[str]) -> str:
    """Give a file's name without its suffix: "scan" for "scan.nii.gz"."""
    name = Path(path).name
    suffix = suffix_of(path)
    return name[: len(name) - len(suffix)] if suffix else name


def read(
    path: str | os.PathLike[str],
    depth: int | None = None,
    *,
    labels: bool | None = None,
    spacing: tuple[float, ...] | None = None,
    series: str | None = None,
) -> Volume:
    """Read a scan or labels with their true geometry; nothing is resampled or flipped.

    Args:
        path: NIfTI-1 or -2 (.nii, .nii.gz, .hdr/.img), Analyze 7.5, NRRD (.nrrd, .nhdr, .seg.nrrd),
            MetaImage (.mha, .mhd), DICOM (a folder, one file of a series, a DICOMDIR; SEG and
            RTSTRUCT too), PNG, JPEG, TIFF, .npy, .npz, an OME-Zarr folder, or a folder with one
            mask file per organ.
        depth: the file's axis (0, 1, 2 = i, j, k) that is depth, if somebody knows; else the
            rule of `spad.volumes.depth` decides.
        labels: True to insist on labels (whole numbers), False to insist on an image; None to
            tell from the names file beside it, from the header and from its name.
        spacing: mm along i, j and k, for formats that state none.
        series: SeriesInstanceUID to read where a folder holds several (see `catalog`).

    Returns:
        The volume, its array with depth first; a memory map where the file is not compressed.

    Raises:
        SpadError: the file cannot be used; the sentence says why.
    """
    path = Path(path)
    options = Options(depth=depth, labels=labels, spacing=spacing, series=series)
    module = import_module(f"spad.volumes.files.{_module_for(path)}")
    volume: Volume = module.read(path, options)
    if spacing is not None and volume.source.format in _WITH_SPACING:
        note = "The stated spacing is not used, since the file's header has its own."
        volume = replace(volume, notes=(*volume.notes, note))
    return volume


def catalog(path: str | os.PathLike[str]) -> list[Series]:
    """List the scans and segmentations that a DICOM folder, file or DICOMDIR holds.

    Args:
        path: a folder (searched with all below it), a DICOM file or a DICOMDIR.

    Returns:
        One entry per series, what can be read first; empty where there is no DICOM file.

    Raises:
        SpadError: the path cannot be read.
    """
    path = Path(path)
    _check_there(path)
    from spad.volumes.files.dicom import catalog as dicom

    if not path.is_dir() and _module_for(path) != "dicom.reader":
        return []
    return dicom.catalog(path)


def write(volume: Volume, path: str | os.PathLike[str]) -> Path:
    """Write a volume; on its source grid the file gets the source's geometry exactly.

    The files are written to a temporary folder beside the target, opened again with an
    independent reader and compared (shape, affine, voxels, 500 random points of the world, names),
    then moved there, so an older file stays as it was unless all went well.

    Args:
        volume: a scan or labels. Labels get the smallest integer type that holds them; their
            names go into the file (NRRD, DICOM SEG) or to `<stem>.labels.json` beside it.
        path: ends in .nii, .nii.gz, .hdr or .img (a pair), .nrrd, .nhdr, .mha or .mhd; for labels
            also .seg.nrrd, .dcm (DICOM SEG) or .stl (surfaces).

    Returns:
        The path written; the first of several surfaces, each of which has its label's name.

    Raises:
        SpadError: the format cannot hold the volume, or the folder or the disk does not allow it.
    """
    path = Path(path)
    if suffix_of(path) not in WRITABLE_SUFFIXES:
        raise SpadError(
            f"{path} has a name that no writer knows; expected one that ends in "
            f"{', '.join(WRITABLE_SUFFIXES)}; choose such a name."
        )
    from spad.volumes.files import writer

    files = writer.write(volume, path)
    return path if path in files else files[0]


def readable(path: str | os.PathLike[str]) -> bool:
    """Tell by its name alone whether `read` takes a file."""
    return suffix_of(path) in READABLE_SUFFIXES


def _module_for(path: Path) -> str:
    """Choose the reader by the path's kind and name, and by its first bytes where they are mute."""
    _check_there(path)
    suffix = suffix_of(path)
    if path.is_dir():
        return _module_for_folder(path)
    _check_readable(path)
    if suffix in (".zarr", ".ome.zarr"):
        raise SpadError(
            f"{path} is a file although its name ends in .zarr; expected a folder; copy the whole "
            "folder again."
        )
    if suffix in _MODULE_OF:
        return _MODULE_OF[suffix]
    if _is_dicom(path):
        return "dicom.reader"
    raise SpadError(
        f"{path} has a name that no reader knows; expected {', '.join(READABLE_SUFFIXES)} or a "
        "DICOM file; convert it to NIfTI or rename it."
    )


def _module_for_folder(path: Path) -> str:
    markers = (".zgroup", ".zarray", ".zattrs", "zarr.json")
    if any((path / name).is_file() for name in markers):
        return "omezarr"
    from spad.volumes.files import masks
    from spad.volumes.files.dicom import catalog as dicom

    if dicom.has_dicom(path):
        return "dicom.reader"
    if masks.is_mask_folder(path):
        return "masks"
    files = sorted(entry.name for entry in path.iterdir() if readable(entry))
    if files:
        more = f" and {len(files) - 3} more" if len(files) > 3 else ""
        raise SpadError(
            f"{path} is a folder of several scans ({', '.join(files[:3])}{more}); expected one "
            "scan; name the file inside it."
        )
    raise SpadError(
        f"{path} is a folder without scans; expected a DICOM series, an OME-Zarr image or one mask "
        "file per organ; check the path."
    )


def _is_dicom(path: Path) -> bool:
    """Tell by the mark at byte 128, or by the first elements of old files without it."""
    from spad.volumes.files.dicom.discovery import starts_as_dicom

    return path.name.upper() == "DICOMDIR" or starts_as_dicom(path)


def _check_there(path: Path) -> None:
    try:
        there = path.exists()
    except (OSError, ValueError) as error:
        raise _cannot_open(path, error) from error
    if not there:
        raise SpadError(f"{path} does not exist; expected a scan; check the path.")


def _check_readable(path: Path) -> None:
    checks: list[tuple[Callable[[], bool], str]] = [
        (path.is_file, "is not a regular file; expected a scan; check the path"),
        (
            lambda: path.stat().st_size > 0,
            "is empty (0 bytes); expected a scan; copy or export it again",
        ),
    ]
    try:
        for passes, sentence in checks:
            if not passes():
                raise SpadError(f"{path} {sentence}.")
        with path.open("rb"):
            pass
    except (OSError, ValueError) as error:
        raise _cannot_open(path, error) from error


def _cannot_open(path: Path, error: Exception) -> SpadError:
    return SpadError(
        f"{path} cannot be opened ({getattr(error, 'strerror', None) or error}); expected a file "
        "that may be read; check its permissions and path."
    )
