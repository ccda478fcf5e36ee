"""Reading and writing scans: one door for every format, light until a file is opened."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from spad.errors import SpadError

if TYPE_CHECKING:
    from spad.volumes.volume import Volume

NIFTI_SUFFIXES = (".nii", ".nii.gz", ".hdr", ".img", ".hdr.gz", ".img.gz")
WRITABLE_SUFFIXES = (".nii", ".nii.gz", ".hdr", ".img")


def suffix_of(path: str | os.PathLike[str]) -> str:
    """Give a file's suffix in lower case, with ".gz" joined to the one before it."""
    name = Path(path).name.lower()
    for suffix in sorted(NIFTI_SUFFIXES, key=len, reverse=True):
        if name.endswith(suffix) and name != suffix:
            return suffix
    return Path(name).suffix


def stem_of(path: str | os.PathLike[str]) -> str:
    """Give a file's name without its suffix: "scan" for "scan.nii.gz"."""
    name = Path(path).name
    suffix = suffix_of(path)
    return name[: len(name) - len(suffix)] if suffix else name


def read(
    path: str | os.PathLike[str], depth: int | None = None, *, labels: bool | None = None
) -> Volume:
    """Read a scan or labels with their true geometry; nothing is resampled or flipped.

    Args:
        path: a NIfTI-1 or NIfTI-2 file (.nii, .nii.gz), or either file of a .hdr/.img pair
            (NIfTI or Analyze 7.5).
        depth: the file's axis (0, 1, 2 = i, j, k) that is depth, if somebody knows; else the
            rule of `spad.volumes.depth` decides.
        labels: True to insist on labels (whole numbers), False to insist on an image; None to
            tell from the names file beside it and from the header.

    Returns:
        The volume, its array with depth first; a memory map where the file is not compressed.

    Raises:
        SpadError: the file cannot be used; the sentence says why.
    """
    path = Path(path)
    _check_readable(path)
    if suffix_of(path) not in NIFTI_SUFFIXES:
        raise SpadError(
            f"{path} has a name that no reader knows; expected {', '.join(NIFTI_SUFFIXES)}; "
            "convert it to NIfTI or rename it."
        )
    from spad.volumes.files import nifti

    return nifti.read(path, depth, labels=labels)


def write(volume: Volume, path: str | os.PathLike[str]) -> Path:
    """Write a volume; on its source grid the file gets the source's geometry exactly.

    The file (and the names of labels, `<stem>.labels.json`) is written to a temporary folder
    beside the target, read again and compared, then moved there, so an older file stays as it
    was unless all went well.

    Args:
        volume: a scan or labels. Labels get the smallest integer type that holds them.
        path: ends in .nii, .nii.gz, .hdr or .img (the last two write a pair).

    Returns:
        The path written.

    Raises:
        SpadError: the format cannot be written, or the folder or the disk does not allow it.
    """
    path = Path(path)
    if suffix_of(path) not in WRITABLE_SUFFIXES:
        raise SpadError(
            f"{path} has a name that no writer knows; expected one that ends in "
            f"{', '.join(WRITABLE_SUFFIXES)}; choose such a name."
        )
    from spad.volumes.files import nifti_writer

    return nifti_writer.write(volume, path)


def readable(path: str | os.PathLike[str]) -> bool:
    """Tell by its name alone whether `read` takes a file."""
    return suffix_of(path) in NIFTI_SUFFIXES


def _check_readable(path: Path) -> None:
    checks: list[tuple[Callable[[], bool], str]] = [
        (path.exists, "does not exist; expected a scan; check the path"),
        (
            lambda: not path.is_dir(),
            "is a folder; expected one NIfTI file; name the file inside it",
        ),
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
        raise SpadError(
            f"{path} cannot be opened ({getattr(error, 'strerror', None) or error}); expected a "
            "file that may be read; check its permissions and path."
        ) from error
