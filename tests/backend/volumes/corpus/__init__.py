"""Broken and odd files of every format, made on the fly from good ones that others wrote."""

from __future__ import annotations

from .arrays import CASES as ARRAYS
from .case import Case
from .dicom import CASES as DICOM
from .dicom_compressed import CASES as DICOM_COMPRESSED
from .dicom_labels import CASES as DICOM_LABELS
from .metaimage import CASES as METAIMAGE
from .nifti import CASES as NIFTI
from .nrrd import CASES as NRRD
from .pictures import CASES as PICTURES
from .places import CASES as PLACES
from .zarrs import CASES as ZARRS

CASES: tuple[Case, ...] = (
    *(*NIFTI, *NRRD, *METAIMAGE, *DICOM, *DICOM_COMPRESSED, *DICOM_LABELS),
    *(*PICTURES, *ARRAYS, *ZARRS, *PLACES),
)

__all__ = ["CASES", "Case"]
