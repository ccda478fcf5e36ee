"""A scanner that writes DICOM files with pydicom, compressed ones with GDCM and OpenJPEG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    generate_uid,
)

Edit = Callable[[Dataset, int], None]


def pattern(rows: int, columns: int, k: int, low: int = -1000, high: int = 1000) -> np.ndarray:
    """Give a slice whose every voxel tells its place; (rows, columns) int16."""
    values = np.arange(rows * columns).reshape(rows, columns) * 7 + k * 131
    return (values % (high - low) + low).astype(np.int16)


@dataclass
class Scanner:
    """Writes one series after another; every value can be set for all slices or edited."""

    folder: Path
    rows: int = 12
    columns: int = 17
    spacing: tuple[float, float] = (0.7, 0.9)
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0)
    origin: Sequence[float] = (-30.5, -20.25, 100.0)
    study: str = field(default_factory=generate_uid)
    frame: str = field(default_factory=generate_uid)

    def dataset(self, k: int, uid: str, values: np.ndarray, **elements: Any) -> Dataset:
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
        ds.StudyInstanceUID, ds.SeriesInstanceUID = self.study, uid
        ds.FrameOfReferenceUID = self.frame
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.Modality, ds.SeriesDescription = "CT", "Body"
        ds.InstanceNumber = k + 1
        ds.ImageOrientationPatient = [float(v) for v in self.orientation]
        ds.PixelSpacing, ds.SliceThickness = list(self.spacing), 2.0
        ds.Rows, ds.Columns = values.shape[:2]
        ds.SamplesPerPixel = 3 if values.ndim == 3 else 1
        ds.PhotometricInterpretation = "RGB" if values.ndim == 3 else "MONOCHROME2"
        ds.BitsAllocated = ds.BitsStored = values.dtype.itemsize * 8
        ds.HighBit = ds.BitsStored - 1
        ds.PixelRepresentation = int(values.dtype.kind == "i")
        if values.ndim == 2:
            ds.RescaleSlope, ds.RescaleIntercept = 1, 0
        else:
            ds.PlanarConfiguration = 0
        ds.PixelData = values.tobytes()
        ds["PixelData"].VR = "OB" if values.dtype.itemsize == 1 else "OW"
        for key, value in elements.items():
            setattr(ds, key, value)
        return ds

    def series(
        self,
        count: int = 5,
        step: Sequence[float] = (0, 0, 3),
        edit: Edit | None = None,
        uid: str | None = None,
        places: Sequence[Sequence[float]] | None = None,
        values: Callable[[int], np.ndarray] | None = None,
        **elements: Any,
    ) -> str:
        """Write slices at origin + k * step, in files whose names run the other way."""
        uid = uid or generate_uid()
        start = len(list(self.folder.glob("*")))
        places = places or [np.add(self.origin, np.multiply(step, k)) for k in range(count)]
        for k, place in enumerate(places):
            plane = pattern(self.rows, self.columns, k) if values is None else values(k)
            ds = self.dataset(k, uid, plane, **elements)
            ds.ImagePositionPatient = [round(float(v), 9) for v in place]
            if edit is not None:
                edit(ds, k)
            self.save(ds, f"im{start + len(places) - k:04d}")
        return uid

    def save(self, ds: Dataset, name: str) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / name
        ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", CTImageStorage)
        ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID") or generate_uid()
        big = ds.file_meta.TransferSyntaxUID == ExplicitVRBigEndian
        ds.save_as(
            path,
            enforce_file_format=True,
            little_endian=not big if ds.file_meta.TransferSyntaxUID.is_private else None,
        )
        return path

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def change(self, path: Path, **elements: Any) -> None:
        ds = pydicom.dcmread(path)
        for key, value in elements.items():
            if value is None:
                delattr(ds, key)
            else:
                setattr(ds, key, value)
        ds.save_as(path)


@pytest.fixture
def scanner(tmp_path: Path) -> Scanner:
    folder = tmp_path / "scan"
    folder.mkdir()
    return Scanner(folder)


@pytest.fixture
def plane() -> Callable[..., np.ndarray]:
    return pattern
