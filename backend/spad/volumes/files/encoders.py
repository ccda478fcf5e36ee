"""Which module writes which format, and what such a module must offer."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

if TYPE_CHECKING:
    from spad.volumes.volume import Volume


@dataclass(frozen=True, eq=False)
class Reopened:
    """What an independent reader finds in a file that was just written.

    Attributes:
        array: as stored, in file order (i, j, k[, t][, c]); it may lack axes of one voxel.
        affine: (4, 4), file index (i, j, k) to RAS+ mm.
        slope: unit per stored step.
        intercept: the unit's value of a stored 0.
        names: id to name of labels, or None where the format holds none.
    """

    array: Any
    affine: np.ndarray
    slope: float = 1.0
    intercept: float = 0.0
    names: dict[int, str] | None = None


class Encoder(Protocol):
    """One format's way of writing a volume.

    Attributes:
        sidecar: whether the names of labels need a `<stem>.labels.json` beside the file.
    """

    sidecar: bool

    def targets(self, volume: Volume, path: Path) -> list[Path]:
        """Name all files that will be written, data before header; refuse what cannot be."""

    def encode(self, volume: Volume, array: np.ndarray, files: list[Path]) -> None:
        """Write the array (i, j, k[, t][, c]; labels in their smallest type) under these names."""

    def verify(self, volume: Volume, array: np.ndarray, files: list[Path]) -> None:
        """Open the files with an independent reader and refuse any difference."""


_MODULES = {
    ".nii": "nifti_writer",
    ".nii.gz": "nifti_writer",
    ".hdr": "nifti_writer",
    ".img": "nifti_writer",
    ".nrrd": "nrrd_writer",
    ".nhdr": "nrrd_writer",
    ".seg.nrrd": "nrrd_writer",
    ".mha": "metaimage_writer",
    ".mhd": "metaimage_writer",
    ".dcm": "dicom.seg_writer",
    ".stl": "stl",
}
WRITABLE_SUFFIXES = tuple(_MODULES)
LABELS_ONLY = (".seg.nrrd", ".dcm", ".stl")


def encoder_of(suffix: str) -> Encoder:
    """Give the encoder for a suffix of `WRITABLE_SUFFIXES`."""
    module = import_module(f"spad.volumes.files.{_MODULES[suffix]}")
    return cast(Encoder, module.ENCODER)
