"""Writing labels as a DICOM Segmentation that refers to every image of its series."""

from __future__ import annotations

import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spad.errors import SpadError
from spad.volumes.colors import organ_color
from spad.volumes.files.dicom.seg_check import problem_of
from spad.volumes.files.dicom.seg_codes import property_of
from spad.volumes.files.dicom.source import DicomSource
from spad.volumes.files.reasons import reason

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from spad.volumes.volume import Volume

_LONGEST = 64
_MOST = 65535
_TYPE_2 = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName", "PositionReferenceIndicator"),
)


class Segment(NamedTuple):
    """One label as a segment.

    Attributes:
        number: 1, 2, ... in the order of ids: the standard allows no gaps.
        label: the id in the array.
        name: SegmentLabel.
    """

    number: int
    label: int
    name: str


class SegEncoder:
    """Writes a binary DICOM SEG (PS3.3 A.51); see `spad.volumes.files.encoders.Encoder`.

    There is one segment for each id that has a name or a voxel, in ascending order; they are
    numbered from 1 without gaps, as the standard demands, so ids that are not come back renumbered.
    Patient, study and frame of reference are those of the series; each frame has the position of
    its own source image, so a tilted gantry's shear is kept; frames without a voxel are left out.
    """

    sidecar = False

    def targets(self, volume: Volume, path: Path) -> list[Path]:
        """Give the one file.

        Raises:
            SpadError: the labels do not come from a DICOM series with UIDs and positions, have
                times, or names that DICOM cannot hold.
        """
        _source(volume, path)
        if volume.axes != "zyx":
            raise SpadError(
                f"{path} was to be written from labels with times or channels; expected labels in "
                "three dimensions for a DICOM segmentation; write .nii.gz or .nrrd instead."
            )
        _check_names(volume, path)
        return [path]

    def encode(self, volume: Volume, array: np.ndarray, files: list[Path]) -> None:
        """Write the segmentation.

        Args:
            volume: the labels, on the grid of a DICOM series.
            array: the same in file order (i, j, k), integers.
            files: the one path.
        """
        source = _source(volume, files[0])
        segments = segments_of(volume, array)
        if not segments or len(segments) > _MOST:
            raise SpadError(
                f"{files[0].name} was not written because there are {len(segments)} labels; "
                f"expected 1 to {_MOST}; name or draw at least one."
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _dataset(volume, array, source, segments).save_as(files[0])
        except (OSError, MemoryError):
            raise
        except Exception as error:  # what pydicom and highdicom raise on odd headers is not bounded
            raise SpadError(
                f"{files[0].name} was not written because the series {source.series_uid} lacks "
                f"what a DICOM segmentation needs ({reason(error)}); write .nii.gz or .nrrd "
                "instead."
            ) from error

    def verify(self, volume: Volume, array: np.ndarray, files: list[Path]) -> None:
        """Decode the file with pydicom alone and compare it voxel by voxel.

        Raises:
            SpadError: a reference, a name, a frame's place in mm or a voxel differs.
        """
        source = _source(volume, files[0])
        segments = segments_of(volume, array)
        found = problem_of(
            files[0],
            source,
            array,
            volume.source.affine,
            [(segment.label, segment.name) for segment in segments],
        )
        if found:
            raise SpadError(
                f"{files[0].name} did not read back as it was written ({found}), so nothing was "
                "saved and an older file is as it was; choose another place, or write .nii.gz or "
                ".nrrd instead."
            )


ENCODER = SegEncoder()


def segments_of(volume: Volume, array: np.ndarray) -> list[Segment]:
    """Give the segments of labels: ids with a name or a voxel, without the background (0)."""
    from spad.volumes.files.stl import label_ids

    names = {int(label): name for label, name in (volume.label_names or {}).items()}
    labels = sorted({*names, *label_ids(array)} - {0})
    return [
        Segment(number, label, names.get(label) or f"label {label}")
        for number, label in enumerate(labels, 1)
    ]


def _source(volume: Volume, path: Path) -> DicomSource:
    """Give the series that labels lie on, if a segmentation can refer to it."""
    source = volume.source.header
    if volume.source.format != "dicom" or not isinstance(source, DicomSource):
        raise SpadError(
            f"{path} was to be written from labels that do not lie on a DICOM series; expected "
            "one, since a DICOM segmentation refers to its images; write .nii.gz or .nrrd, or "
            "open the DICOM series first and segment that."
        )
    missing = {
        "StudyInstanceUID": source.study_uid,
        "SeriesInstanceUID": source.series_uid,
        "FrameOfReferenceUID": source.frame_of_reference_uid,
        "ImagePositionPatient": all(plane.position for plane in source.slices[0]),
        "ImageOrientationPatient": all(plane.orientation for plane in source.slices[0]),
    }
    absent = [keyword for keyword, value in missing.items() if not value]
    if absent:
        raise SpadError(
            f"{path} was to be written for a DICOM series without {', '.join(absent)} (an "
            "anonymiser may have removed it); expected them, since a DICOM segmentation refers to "
            "its images by them; write .nii.gz or .nrrd instead."
        )
    return source


def _check_names(volume: Volume, path: Path) -> None:
    for label, name in (volume.label_names or {}).items():
        if len(name) > _LONGEST or "\\" in name or not name.isprintable() or name != name.strip():
            raise SpadError(
                f"{path} was to hold the label {label} named {name[:80]!r}, which DICOM cannot; "
                f"expected at most {_LONGEST} characters without backslash, line break or blanks "
                "around it; rename the label."
            )


def _dataset(
    volume: Volume, array: np.ndarray, source: DicomSource, segments: list[Segment]
) -> Any:
    import highdicom as hd

    planes = source.slices[0]
    orientation = planes[0].orientation or ()
    step = np.linalg.norm(volume.source.affine[:3, :3], axis=0)
    normal = np.cross(orientation[:3], orientation[3:])
    apart = abs(float(np.diag([-1, -1, 1]) @ volume.source.affine[:3, 2] @ normal))
    main, further = _images(source, apart)
    first = main[0]
    patient = hd.enum.CoordinateSystemNames.PATIENT
    name = volume.name or "series"
    number = first.get("SeriesNumber")
    return hd.seg.Segmentation(
        source_images=main,
        further_source_images=further or None,
        pixel_array=_numbers(array, segments),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(volume, segment) for segment in segments],
        series_instance_uid=hd.UID(),
        series_number=1000 + int(number or 0),
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="napari-spad",
        manufacturer_model_name="napari-spad",
        software_versions=_version(),
        device_serial_number="0",
        plane_positions=[
            hd.PlanePositionSequence(patient, plane.position or ()) for plane in planes
        ],
        plane_orientation=hd.PlaneOrientationSequence(patient, orientation),
        pixel_measures=hd.PixelMeasuresSequence(
            pixel_spacing=[float(step[1]), float(step[0])],
            slice_thickness=float(first.get("SliceThickness") or apart),
            spacing_between_slices=apart,
        ),
        series_description=f"Segmentation of {name}"[:_LONGEST].strip(),
        omit_empty_frames=bool(array.any()),
        content_label="SEGMENTATION",
    )


def _images(source: DicomSource, apart: float) -> tuple[list[Dataset], list[Dataset]]:
    """Give the files of the first time, in the order of k, and all others, as highdicom wants them.

    What the standard demands but allows to be empty is there, texts are in UTF-8 (names of labels
    may be in any script), and all have one and the same orientation. A thickness that is not
    stated is the distance of the slices (`apart`, mm).
    """
    datasets = source.datasets()
    for dataset in datasets:
        dataset.decode()
        dataset.SpecificCharacterSet = "ISO_IR 192"
        for keyword in _TYPE_2:
            if keyword not in dataset:
                setattr(dataset, keyword, "")
        for keyword, uid in (
            ("StudyInstanceUID", source.study_uid),
            ("SeriesInstanceUID", source.series_uid),
            ("FrameOfReferenceUID", source.frame_of_reference_uid),
        ):
            setattr(dataset, keyword, uid)
        if not source.is_multiframe:
            dataset.ImageOrientationPatient = datasets[0].ImageOrientationPatient
            if not dataset.get("SliceThickness"):
                dataset.SliceThickness = f"{apart:.6g}"
        elif "SharedFunctionalGroupsSequence" in dataset:
            _share_orientation(dataset, source)
    order = dict.fromkeys(plane.file for plane in source.slices[0])
    main = [datasets[index] for index in order]
    return main, [dataset for index, dataset in enumerate(datasets) if index not in order]


def _share_orientation(dataset: Dataset, source: DicomSource) -> None:
    """Give an enhanced image that states its orientation frame by frame a shared one, too."""
    import highdicom as hd

    plane = hd.PlaneOrientationSequence(
        hd.enum.CoordinateSystemNames.PATIENT, source.slices[0][0].orientation or ()
    )
    shared = dataset.SharedFunctionalGroupsSequence
    if not shared:
        return
    shared[0].PlaneOrientationSequence = plane


def _numbers(array: np.ndarray, segments: list[Segment]) -> np.ndarray:
    """Give the labels as segment numbers, frame by frame: (k, j, i), unsigned."""
    dtype = np.uint8 if len(segments) <= 255 else np.uint16
    frames = np.empty(array.shape[::-1], dtype)
    labels = np.array([segment.label for segment in segments])
    same = all(segment.label == segment.number for segment in segments)
    for frame, plane in zip(frames, array.T, strict=True):
        frame[:] = plane if same else np.where(plane == 0, 0, np.searchsorted(labels, plane) + 1)
    return frames


def _description(volume: Volume, segment: Segment) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    found = property_of(segment.name)
    color = (volume.label_colors or {}).get(segment.label) or organ_color(segment.name)
    algorithm = None
    if volume.report is not None:
        algorithm = hd.AlgorithmIdentificationSequence(
            name=str(volume.report.get("model") or "napari-spad")[:_LONGEST],
            family=codes.cid7162.ArtificialIntelligence,
            version=_version(),
        )
    description = hd.seg.SegmentDescription(
        segment_number=segment.number,
        segment_label=segment.name,
        segmented_property_category=found.category,
        segmented_property_type=found.kind,
        algorithm_type="MANUAL" if algorithm is None else "AUTOMATIC",
        algorithm_identification=algorithm,
        display_color=hd.color.CIELabColor.from_rgb(
            *(round(255 * min(max(part, 0.0), 1.0)) for part in color[:3])
        ),
    )
    if found.side is not None:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [hd.sr.CodedConcept.from_code(found.side)]
    return description


def _version() -> str:
    try:
        return version("napari-spad")
    except PackageNotFoundError:
        return "0"
