"""The formats of the round trip: who writes them, and who reads what is written here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from dicom_scans import along_normal, by_pydicom, series
from scans import Truth, by_itk, by_nibabel, itk, nifti


@dataclass(frozen=True)
class Format:
    """A format: how others write it, what we write it as, and how others read that.

    Attributes:
        name: of the format.
        file: what others write.
        make: by which they do; gives None where the format has no such scan.
        again: what we write the image as.
        read: by which others read that.
        labels: what we write labels as.
        read_labels: by which others read that.
        truth: how the format counts axes that have no order of their own.
    """

    name: str
    file: str
    make: Callable[[Truth, Path], Path | None]
    again: str
    read: Callable[[Path], tuple[np.ndarray, np.ndarray]]
    labels: str
    read_labels: Callable[[Path], tuple[np.ndarray, np.ndarray]]
    truth: Callable[[Truth], Truth] = lambda truth: truth


def _same(name: str, file: str, make: Any, read: Any) -> Format:
    stem, _, ending = file.partition(".")
    return Format(name, file, make, f"{stem}-b.{ending}", read, f"{stem}-labels.{ending}", read)


FORMATS = (
    _same("NIfTI-1 .nii", "a.nii", nifti, by_nibabel),
    _same("NIfTI-1 .nii.gz", "a.nii.gz", nifti, by_nibabel),
    _same("NIfTI-1 pair", "a.hdr", nifti, by_nibabel),
    _same("NIfTI-2 .nii.gz", "second.nii.gz", nifti, by_nibabel),
    _same("NRRD", "a.nrrd", itk, by_itk),
    _same("NHDR", "a.nhdr", itk, by_itk),
    _same("MHA", "a.mha", itk, by_itk),
    _same("MHD", "a.mhd", itk, by_itk),
    Format(
        *("DICOM to NIfTI and SEG", "series", series, "b.nii.gz", by_nibabel),
        *("labels.dcm", by_pydicom, along_normal),
    ),
)
