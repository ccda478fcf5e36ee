"""DICOM in the round trip: series made with pydicom, segmentations read back with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)
from scans import INTERCEPT, SLOPE, Truth

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def along_normal(truth: Truth) -> Truth:
    """Count slices along the normal of the image plane, as readers of DICOM do."""
    lps = _LPS[:3, :3] @ truth.affine[:3, :3]
    if np.linalg.det(lps) > 0:
        return truth
    affine = truth.affine.copy()
    affine[:3, 3] += (truth.stored.shape[2] - 1) * affine[:3, 2]
    affine[:3, 2] *= -1
    return replace(truth, stored=truth.stored[:, :, ::-1], affine=affine)


def series(truth: Truth, folder: Path) -> Path:
    """Write one file per slice (and time), under names in another order than the positions."""
    folder.mkdir()
    times = truth.stored.shape[3] if truth.variant == "4D" else 1
    uids = [generate_uid(entropy_srcs=[truth.variant, truth.orientation, w]) for w in "abc"]
    names = np.random.default_rng(0).permutation(truth.stored.shape[2] * times)
    for number, (k, t) in enumerate(np.ndindex(truth.stored.shape[2], times)):
        plane = truth.stored[:, :, k, t] if truth.variant == "4D" else truth.stored[:, :, k]
        dataset = _slice(truth, np.swapaxes(plane, 0, 1), k, t, uids)
        order = {"implicit_vr": False, "little_endian": not truth.big_endian}
        pydicom.dcmwrite(folder / f"{names[number]:03}.dcm", dataset, **order)
    return folder


def _slice(truth: Truth, plane: np.ndarray, k: int, t: int, uids: list[str]) -> FileDataset:
    meta = FileMetaDataset()
    big = truth.big_endian
    meta.TransferSyntaxUID = ExplicitVRBigEndian if big else ExplicitVRLittleEndian
    colours = truth.variant == "RGB"
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage if colours else CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[uids[1], str(k), str(t)])
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = uids
    dataset.Modality, dataset.SeriesDescription = "CT", truth.variant
    dataset.PatientName, dataset.PatientID, dataset.StudyID = "Nobody", "1", "1"
    dataset.PatientBirthDate = dataset.PatientSex = dataset.AccessionNumber = ""
    dataset.StudyDate, dataset.StudyTime, dataset.SeriesNumber = "20260101", "120000", 1
    dataset.InstanceNumber = 99 - k
    if truth.variant == "4D":
        dataset.TemporalPositionIdentifier = t + 1
    lps = _LPS @ truth.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    dataset.ImageOrientationPatient = (lps[:3, :2] / spacing[:2]).T.ravel().tolist()
    dataset.ImagePositionPatient = (lps @ (0, 0, k, 1))[:3].tolist()
    dataset.PixelSpacing = [float(spacing[1]), float(spacing[0])]
    dataset.Rows, dataset.Columns = plane.shape[:2]
    dataset.SamplesPerPixel = 3 if colours else 1
    dataset.PhotometricInterpretation = "RGB" if colours else "MONOCHROME2"
    if colours:
        dataset.PlanarConfiguration = 0
    bits = plane.dtype.itemsize * 8
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, int(not colours)
    if not colours:
        scaled = truth.variant == "scaled"
        dataset.RescaleSlope, dataset.RescaleIntercept = (SLOPE, INTERCEPT) if scaled else (1, 0)
    dataset.PixelData = plane.astype(plane.dtype.newbyteorder(">" if big else "<")).tobytes()
    return dataset


def by_pydicom(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Give the labels of a segmentation in file order and their affine (RAS+), frame by frame.

    highdicom can give the whole volume, but not of a sheared grid.
    """
    dataset = pydicom.dcmread(path)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    spacing = shared.PixelMeasuresSequence[0].PixelSpacing
    normal = np.cross(cosines[:3], cosines[3:])
    planes: dict[float, tuple[np.ndarray, np.ndarray]] = {}
    groups = dataset.PerFrameFunctionalGroupsSequence
    for frame, group in zip(dataset.pixel_array, groups, strict=True):
        place = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        empty = np.zeros(frame.shape, np.uint8)
        plane = planes.setdefault(round(float(place @ normal), 4), (place, empty))[1]
        plane[frame > 0] = number
    places, labels = zip(*(planes[key] for key in sorted(planes)), strict=True)
    affine = np.eye(4)
    affine[:3, 0] = cosines[:3] * float(spacing[1])
    affine[:3, 1] = cosines[3:] * float(spacing[0])
    affine[:3, 2] = (places[-1] - places[0]) / (len(places) - 1)
    affine[:3, 3] = places[0]
    return np.stack(labels).transpose(2, 1, 0), _LPS @ affine
