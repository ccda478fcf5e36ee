"""DICOM SEG and RTSTRUCT: highdicom and pydicom write them beside their series."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from .case import AFFINE, LABELS, Case, Make, Reads, Refused, flip_bits
from .dicom import FRAME, SERIES, STUDY, series

ORGANS = Reads(LABELS, AFFINE, labels=True)
MAYBE = Reads(LABELS, AFFINE, labels=True, or_refused=True)


def segmentation(change: Callable[[Dataset], object] | None = None) -> Make:
    def make(folder: Path) -> Path:
        import highdicom
        from pydicom.sr.codedict import codes

        images = [pydicom.dcmread(file) for file in series()(folder).iterdir()]
        images.sort(key=lambda image: float(image.ImagePositionPatient[2]))
        described = [
            highdicom.seg.SegmentDescription(
                segment_number=n,
                segment_label=name,
                segmented_property_category=codes.SCT.Organ,
                segmented_property_type=kind,
                algorithm_type="MANUAL",
            )
            for n, name, kind in (
                (1, "liver", codes.SCT.Liver),
                (2, "spleen", codes.SCT.Spleen),
            )
        ]
        dataset = highdicom.seg.Segmentation(
            source_images=images,
            pixel_array=LABELS.transpose(2, 1, 0),
            segmentation_type="BINARY",
            segment_descriptions=described,
            series_instance_uid=generate_uid(entropy_srcs=["seg series"]),
            series_number=9,
            sop_instance_uid=generate_uid(entropy_srcs=["seg"]),
            instance_number=1,
            manufacturer="nobody",
            manufacturer_model_name="none",
            software_versions="1",
            device_serial_number="1",
        )
        if change is not None:
            change(dataset)
        path = folder / "labels.dcm"
        dataset.save_as(path)
        return path

    return make


def segmentations() -> Iterator[Case]:
    family = "DICOM SEG"
    yield Case(family, "good", segmentation(), ORGANS)

    def alone(folder: Path) -> Path:
        path = segmentation()(folder)
        for file in (folder / "series").iterdir():
            file.unlink()
        (folder / "series").rmdir()
        return path

    yield Case(family, "without its series", alone, lambda path: Reads(
        LABELS, AFFINE, labels=True, or_refused=True, values_matter=False))  # fmt: skip
    per_frame = "PerFrameFunctionalGroupsSequence"
    bad: dict[str, Callable[[Dataset], object]] = {
        "no frames described": lambda d: delattr(d, per_frame),
        "too few frames described": lambda d: d[per_frame].value.pop(),
        "no pixels": lambda d: delattr(d, "PixelData"),
        "no type": lambda d: delattr(d, "SegmentationType"),
        "an unknown type": lambda d: setattr(d, "SegmentationType", "WISHFUL"),
        "huge frames": lambda d: setattr(d, "Rows", 65535),
        "a million frames": lambda d: setattr(d, "NumberOfFrames", 1000000),
        "no rows": lambda d: delattr(d, "Rows"),
        "16 bits": lambda d: setattr(d, "BitsAllocated", 16),
        "a frame without a segment": lambda d: delattr(
            d[per_frame][0], "SegmentIdentificationSequence"
        ),
        "a frame without a place": lambda d: delattr(d[per_frame][0], "PlanePositionSequence"),
        "a frame far away": lambda d: setattr(
            d[per_frame][0].PlanePositionSequence[0], "ImagePositionPatient", [-50, -40, 1e7]
        ),
        "a frame aside": lambda d: setattr(
            d[per_frame][0].PlanePositionSequence[0], "ImagePositionPatient", [-30, -40, -300]
        ),
        "a spacing of zero": lambda d: setattr(
            d.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0], "PixelSpacing", [0, 1]
        ),
        "no spacing": lambda d: delattr(
            d.SharedFunctionalGroupsSequence[0], "PixelMeasuresSequence"
        ),
        "no orientation": lambda d: delattr(
            d.SharedFunctionalGroupsSequence[0], "PlaneOrientationSequence"
        ),
    }
    for name, change in bad.items():
        yield Case(family, name, segmentation(change), Refused("."))
    odd: dict[str, Callable[[Dataset], object]] = {
        "no segments": lambda d: delattr(d, "SegmentSequence"),
        "a segment without a name": lambda d: delattr(d.SegmentSequence[0], "SegmentLabel"),
        "a segment without a number": lambda d: delattr(d.SegmentSequence[0], "SegmentNumber"),
        "two segments of one number": lambda d: setattr(d.SegmentSequence[1], "SegmentNumber", 1),
        "a wrong colour": lambda d: setattr(
            d.SegmentSequence[0], "RecommendedDisplayCIELabValue", [1, 2]
        ),
        "no reference": lambda d: delattr(d, "ReferencedSeriesSequence"),
        "an unknown reference": lambda d: setattr(
            d.ReferencedSeriesSequence[0], "SeriesInstanceUID", "1.2.3"
        ),
        "another frame of reference": lambda d: setattr(d, "FrameOfReferenceUID", "1.2.3"),
    }
    for name, change in odd.items():
        yield Case(family, name, segmentation(change), MAYBE)
    for share in (0.2, 0.5, 0.8, 0.99):

        def cut(folder: Path, share: float = share) -> Path:
            path = segmentation()(folder)
            path.write_bytes(path.read_bytes()[: round(path.stat().st_size * share)])
            return path

        yield Case(family, f"cut at {share}", cut, Refused("."))
    for seed in range(6):

        def flip(folder: Path, seed: int = seed) -> Path:
            path = segmentation()(folder)
            path.write_bytes(flip_bits(path.read_bytes(), seed, 1000, 6000))
            return path

        noted = Reads(LABELS, AFFINE, labels=True, or_refused=True, or_noted=True)
        yield Case(family, f"a bit, seed {seed}", flip, noted)


BOX = (slice(3, 9), slice(2, 7), slice(2, 6))


def structures(change: Callable[[Dataset], object] | None = None, alone: bool = False) -> Make:
    """Write contours round a box, on the edges of its voxels."""

    def make(folder: Path) -> Path:
        path = series()(folder)
        if alone:
            for file in path.iterdir():
                file.unlink()
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = RTStructureSetStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["rtstruct"])
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        dataset.SOPClassUID, dataset.SOPInstanceUID = (
            RTStructureSetStorage, meta.MediaStorageSOPInstanceUID,
        )  # fmt: skip
        dataset.StudyInstanceUID = STUDY
        dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["rt series"])
        dataset.Modality, dataset.StructureSetLabel = "RTSTRUCT", "organs"
        dataset.ReferencedFrameOfReferenceSequence = [referenced()]
        roi = Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = 1, "liver", FRAME
        roi.ROIGenerationAlgorithm = "MANUAL"
        dataset.StructureSetROISequence = [roi]
        item = Dataset()
        item.ReferencedROINumber, item.ROIDisplayColor = 1, [255, 0, 0]
        item.ContourSequence = [contour(k) for k in range(2, 6)]
        dataset.ROIContourSequence = [item]
        if change is not None:
            change(dataset)
        dataset.save_as(folder / "organs.dcm")
        return folder / "organs.dcm"

    return make


def referenced() -> Dataset:
    inner, study, frame = Dataset(), Dataset(), Dataset()
    inner.SeriesInstanceUID = SERIES
    study.RTReferencedSeriesSequence = [inner]
    frame.FrameOfReferenceUID = FRAME
    frame.RTReferencedStudySequence = [study]
    return frame


def contour(k: int) -> Dataset:
    corners = [(2.5, 1.5), (8.5, 1.5), (8.5, 6.5), (2.5, 6.5)]
    points = [AFFINE @ (i, j, k, 1) for i, j in corners]
    item = Dataset()
    item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", 4
    item.ContourData = [float(v) for x, y, z, _ in points for v in (-x, -y, z)]
    return item


def contours(d: Dataset) -> list[Dataset]:
    found: list[Dataset] = d.ROIContourSequence[0].ContourSequence
    return found


def structure_sets() -> Iterator[Case]:
    family = "RTSTRUCT"
    box = np.zeros_like(LABELS)
    box[BOX] = 1
    yield Case(family, "good", structures(), Reads(box, AFFINE, labels=True))
    yield Case(family, "without its series", structures(alone=True), Refused("."))
    bad: dict[str, Callable[[Dataset], object]] = {
        "no organs": lambda d: delattr(d, "StructureSetROISequence"),
        "no contours": lambda d: delattr(d, "ROIContourSequence"),
        "no reference": lambda d: delattr(d, "ReferencedFrameOfReferenceSequence"),
        "an unknown reference": lambda d: setattr(
            d.ReferencedFrameOfReferenceSequence[0]
            .RTReferencedStudySequence[0]
            .RTReferencedSeriesSequence[0],
            "SeriesInstanceUID",
            "1.2.3",
        ),
        "empty contours": lambda d: [setattr(one, "ContourData", []) for one in contours(d)],
        "half a point": lambda d: setattr(
            contours(d)[0], "ContourData", list(contours(d)[0].ContourData)[:-1]
        ),
        "contours beyond the scan": lambda d: [
            setattr(one, "ContourData", [float(v) + 9000 for v in one.ContourData])
            for one in contours(d)
        ],
        "contours of nothing": lambda d: [delattr(one, "ContourData") for one in contours(d)],
    }
    maybe = Reads(box, AFFINE, labels=True, or_refused=True, values_matter=False)
    for name, change in bad.items():
        yield Case(family, name, structures(change), maybe)
    for share in (0.3, 0.7, 0.95):

        def cut(folder: Path, share: float = share) -> Path:
            path = structures()(folder)
            path.write_bytes(path.read_bytes()[: round(path.stat().st_size * share)])
            return path

        yield Case(family, f"cut at {share}", cut, maybe)
    for seed in range(6):

        def flip(folder: Path, seed: int = seed) -> Path:
            path = structures()(folder)
            path.write_bytes(flip_bits(path.read_bytes(), seed, 132, path.stat().st_size))
            return path

        yield Case(family, f"a bit, seed {seed}", flip, maybe)


CASES = (*segmentations(), *structure_sets())
