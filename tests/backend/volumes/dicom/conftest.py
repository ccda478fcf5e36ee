"""Series written with pydicom: what segmentations and structure sets refer to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Series:
    """A series on the disk: `array` is (i, j, k), `affine` goes from there to RAS+ mm."""

    folder: Path
    array: np.ndarray
    affine: np.ndarray
    study: str
    series: str
    frame: str
    files: list[Path]
    instances: list[str]


SeriesMaker = Callable[..., Series]


def grid(kind: str, spacing: tuple[float, float, float] = (1.5, 1.25, 4.0)) -> np.ndarray:
    """Give an affine whose k runs along row x column, as a series has it."""
    rotation = np.diag([-1.0, -1.0, 1.0])
    if kind == "sagittal":
        rotation = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], float)
    if kind == "oblique":
        a, b = np.radians(12), np.radians(-7)
        about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
        about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
        rotation = about_y @ about_x @ rotation
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag(spacing)
    affine[:3, 3] = (31.5, -17.25, -240.75)
    if kind == "tilted":
        # the table moves along the patient while the planes lean by 15 degrees
        lean = np.radians(15)
        about_x = np.array(
            [[1, 0, 0], [0, np.cos(lean), -np.sin(lean)], [0, np.sin(lean), np.cos(lean)]]
        )
        affine[:3, :2] = about_x @ affine[:3, :2]
    return affine


def common(dataset: Dataset, uids: tuple[str, str, str], sop_class: str) -> None:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    instance = generate_uid()
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = instance
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = uids
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientName = "Müller^Änne"
    dataset.PatientID, dataset.PatientBirthDate, dataset.PatientSex = "P1", "19600102", "F"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20240102", "101010", "7"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "A1", ""
    dataset.Modality, dataset.SeriesDescription, dataset.SeriesNumber = "CT", "Abdomen", 3
    dataset.PositionReferenceIndicator = ""
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.RescaleSlope, dataset.RescaleIntercept = "1", "0"


def texts(values: np.ndarray) -> list[str]:
    return [f"{value:.10g}" for value in values]


def frame_of(array: np.ndarray, k: int) -> bytes:
    return np.ascontiguousarray(array[:, :, k].T, dtype="<i2").tobytes()


def write_single(
    folder: Path, array: np.ndarray, affine: np.ndarray, uids: tuple[str, str, str]
) -> tuple[list[Path], list[str]]:
    """Write one file per slice, under names that say nothing of their order."""
    lps = LPS @ affine
    steps = np.linalg.norm(lps[:3, :3], axis=0)
    files, instances = [], []
    for k in range(array.shape[2]):
        dataset = Dataset()
        common(dataset, uids, CT)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.InstanceNumber = k + 1
        dataset.ImagePositionPatient = texts(lps[:3, 3] + k * lps[:3, 2])
        dataset.ImageOrientationPatient = texts((lps[:3, :2] / steps[:2]).T.ravel())
        dataset.PixelSpacing = texts(steps[[1, 0]])
        dataset.SliceThickness = "4"
        dataset.Columns, dataset.Rows = array.shape[:2]
        dataset.PixelData = frame_of(array, k)
        path = folder / f"{(k * 7919 + 5) % 9973:04d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        files.append(path)
        instances.append(str(dataset.SOPInstanceUID))
    return files, instances


def write_enhanced(
    folder: Path, array: np.ndarray, affine: np.ndarray, uids: tuple[str, str, str]
) -> tuple[list[Path], list[str]]:
    """Write all slices as frames of one file, from the last to the first."""
    lps = LPS @ affine
    steps = np.linalg.norm(lps[:3, :3], axis=0)
    dataset, shared, plane = Dataset(), Dataset(), Dataset()
    common(dataset, uids, ENHANCED_CT)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.InstanceNumber = 1
    dataset.Columns, dataset.Rows, dataset.NumberOfFrames = array.shape
    plane.ImageOrientationPatient = texts((lps[:3, :2] / steps[:2]).T.ravel())
    measures = Dataset()
    measures.PixelSpacing = texts(steps[[1, 0]])
    measures.SliceThickness = "4"
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [measures]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = []
    order = range(array.shape[2] - 1, -1, -1)
    for n, k in enumerate(order, 1):
        groups, content, position = Dataset(), Dataset(), Dataset()
        content.StackID, content.InStackPositionNumber, content.DimensionIndexValues = "1", n, [n]
        position.ImagePositionPatient = texts(lps[:3, 3] + k * lps[:3, 2])
        groups.FrameContentSequence, groups.PlanePositionSequence = [content], [position]
        dataset.PerFrameFunctionalGroupsSequence.append(groups)
    dataset.PixelData = b"".join(frame_of(array, k) for k in order)
    dataset.save_as(folder / "enhanced.dcm", enforce_file_format=True)
    return [folder / "enhanced.dcm"], [str(dataset.SOPInstanceUID)]


@pytest.fixture
def make_series() -> SeriesMaker:
    """Give a function that writes a series of an array (i, j, k) on one of the grids."""

    def make(
        folder: Path,
        array: np.ndarray,
        kind: str = "axial",
        *,
        enhanced: bool = False,
        frame: str | None = None,
    ) -> Series:
        folder.mkdir(parents=True, exist_ok=True)
        affine = grid(kind)
        uids = (generate_uid(), generate_uid(), frame or generate_uid())
        writer = write_enhanced if enhanced else write_single
        files, instances = writer(folder, array, affine, uids)
        return Series(folder, array, affine, *map(str, uids), files, instances)

    return make
