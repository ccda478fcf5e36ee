"""Labels go out as DICOM SEG that other readers find in the right place, and come back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import generate_uid

from spad.errors import SpadError
from spad.phantoms import Phantom
from spad.volumes.axes import from_file_order, to_file_order
from spad.volumes.files import read, write
from spad.volumes.files.dicom import seg_codes, seg_writer
from spad.volumes.volume import Volume

NAMES = {1: "liver", 2: "right_kidney", 3: "Läsion α", 4: "absent organ"}
GRIDS = ["axial", "sagittal", "oblique", "tilted"]


def blobs() -> np.ndarray:
    """Give labels 1, 2 and 3 that touch borders and leave slices empty; (i, j, k), uint8."""
    array = np.zeros((21, 17, 9), np.uint8)
    array[:9, 3:12, 1:6] = 1
    array[9:15, 5:, 2:4] = 2
    array[-4:, :3, -1] = 3
    array[6, 7, 3] = 0
    return array


def scan_of(labels: np.ndarray) -> np.ndarray:
    """Give an image that shows the labels: 100 times the id, and another value beside each."""
    return labels.astype(np.int16) * 100


def labels_on(folder: Path, array: np.ndarray, names: dict[int, str] | None = None) -> Volume:
    scan = read(folder)
    return scan.with_array(from_file_order(array, scan.source), label_names=names or NAMES)


def in_file_order(volume: Volume) -> np.ndarray:
    return np.asarray(to_file_order(volume.array, volume.source))


@pytest.mark.parametrize("enhanced", [False, True], ids=["single", "enhanced"])
@pytest.mark.parametrize("kind", GRIDS)
def test_labels_come_back_on_the_grid_of_the_series(
    kind: str, enhanced: bool, make_series: Callable[..., Any], tmp_path: Path
) -> None:
    array = blobs()
    series = make_series(tmp_path / "ct", scan_of(array), kind, enhanced=enhanced)
    labels = labels_on(series.folder, array)
    np.testing.assert_allclose(labels.source.affine, series.affine, atol=1e-6)
    write(labels, tmp_path / "organs.dcm")
    again = read(tmp_path / "organs.dcm")
    np.testing.assert_array_equal(in_file_order(again), array)
    np.testing.assert_allclose(again.source.affine, series.affine, atol=1e-6)
    assert again.axes == labels.axes
    assert again.source.permutation == labels.source.permutation
    assert again.label_names == NAMES
    assert again.notes == ()
    # what was read can be written again
    write(again, tmp_path / "again.dcm")
    np.testing.assert_array_equal(in_file_order(read(tmp_path / "again.dcm")), array)


@pytest.mark.parametrize("kind", GRIDS)
def test_frames_overlay_their_images_in_simpleitk(
    kind: str, make_series: Callable[..., Any], tmp_path: Path
) -> None:
    array = blobs()
    series = make_series(tmp_path / "ct", scan_of(array), kind)
    write(labels_on(series.folder, array), tmp_path / "organs.dcm")
    images = {
        instance: sitk.ReadImage(str(file))
        for instance, file in zip(series.instances, series.files, strict=True)
    }
    found = hd.seg.segread(tmp_path / "organs.dcm")
    frames = found.pixel_array.reshape(-1, found.Rows, found.Columns)
    seen = 0
    for groups, frame in zip(found.PerFrameFunctionalGroupsSequence, frames, strict=True):
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        derived = groups.DerivationImageSequence[0].SourceImageSequence[0]
        image = images[derived.ReferencedSOPInstanceUID]
        position = groups.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(image.GetOrigin(), position, atol=1e-6)
        orientation = found.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
        row, column = np.reshape(np.array(orientation.ImageOrientationPatient, float), (2, 3))
        spacing = found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
        for j, i in np.argwhere(frame):
            place = np.array(position, float) + row * spacing[1] * i + column * spacing[0] * j
            index = image.TransformPhysicalPointToIndex(place.tolist())
            assert image[index] == 100 * number
        seen += int(frame.sum())
    assert seen == np.count_nonzero(array)


def test_highdicom_reads_what_the_segments_are(
    make_series: Callable[..., Any], tmp_path: Path
) -> None:
    array = blobs()
    series = make_series(tmp_path / "ct", scan_of(array))
    labels = labels_on(series.folder, array)
    write(labels, tmp_path / "organs.dcm")
    found = hd.seg.segread(tmp_path / "organs.dcm")
    assert found.number_of_segments == 4
    assert [found.get_segment_description(n).segment_label for n in range(1, 5)] == [
        *NAMES.values()
    ]
    liver, kidney, lesion, _ = (found.get_segment_description(n) for n in range(1, 5))
    assert liver.segmented_property_type.value == "10200004"
    assert kidney.segmented_property_type.value == "64033007"
    side = kidney.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence
    assert side[0].CodeMeaning == "Right"
    assert lesion.segmented_property_category.meaning == "Tissue"
    assert liver.algorithm_type.value == "MANUAL"
    assert found.FrameOfReferenceUID == series.frame
    assert found.StudyInstanceUID == series.study
    assert str(found.PatientName) == "Müller^Änne"
    assert found.SeriesInstanceUID != series.series
    referred = found.ReferencedSeriesSequence[0]
    assert referred.SeriesInstanceUID == series.series
    instances = {one.ReferencedSOPInstanceUID for one in referred.ReferencedInstanceSequence}
    assert instances == set(series.instances)
    # slices without a voxel have no frame: 5 of the liver, 2 of the kidney, 1 of the lesion
    assert found.NumberOfFrames == 8
    volume = found.get_volume(combine_segments=True)
    lps_kji = np.diag([-1, -1, 1, 1]) @ series.affine
    for index, value in np.ndenumerate(volume.array):
        if value:
            place = volume.affine @ (*index, 1)
            i, j, k = np.rint(np.linalg.solve(lps_kji, place))[:3].astype(int)
            assert array[i, j, k] == value


def test_a_model_and_its_colours_are_named(make_series: Callable[..., Any], tmp_path: Path) -> None:
    from dataclasses import replace

    array = blobs()
    series = make_series(tmp_path / "ct", scan_of(array))
    labels = replace(
        labels_on(series.folder, array),
        report={"model": "organs-tiny"},
        label_colors={1: (1.0, 0.5, 0.0, 1.0), 3: (0.0, 0.0, 1.0, 1.0)},
    )
    write(labels, tmp_path / "organs.dcm")
    dataset = pydicom.dcmread(tmp_path / "organs.dcm")
    assert {item.SegmentAlgorithmType for item in dataset.SegmentSequence} == {"AUTOMATIC"}
    assert dataset.SegmentSequence[0].SegmentAlgorithmName == "organs-tiny"
    colors = read(tmp_path / "organs.dcm").label_colors or {}
    np.testing.assert_allclose(colors[1], (1.0, 0.5, 0.0, 1.0), atol=1 / 128)
    np.testing.assert_allclose(colors[3], (0.0, 0.0, 1.0, 1.0), atol=1 / 128)
    # the others get the colour that their name has everywhere
    assert colors[2][0] > 0.9


def test_ids_with_gaps_are_numbered_anew(make_series: Callable[..., Any], tmp_path: Path) -> None:
    array = blobs().astype(np.int32)
    array[array == 2] = 700
    array[array == 3] = -5
    series = make_series(tmp_path / "ct", scan_of(blobs()))
    write(labels_on(series.folder, array, {0: "background", 700: "spleen"}), tmp_path / "a.dcm")
    again = read(tmp_path / "a.dcm")
    assert again.label_names == {1: "label -5", 2: "label 1", 3: "spleen"}
    expected = np.select([array == -5, array == 1, array == 700], [1, 2, 3])
    np.testing.assert_array_equal(in_file_order(again), expected)


def test_labels_of_a_series_with_times_refer_to_all_of_it(
    make_series: Callable[..., Any], tmp_path: Path
) -> None:
    array = blobs()
    series = make_series(tmp_path / "ct", scan_of(array))
    later = make_series(tmp_path / "later", scan_of(array) + 1, frame=series.frame)
    for time, made in enumerate((series, later), 1):
        for file in made.files:
            dataset = pydicom.dcmread(file)
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID = series.study, series.series
            dataset.TemporalPositionIdentifier = time
            dataset.save_as(series.folder / f"{time}-{file.name}")
            file.unlink()
    scan = read(series.folder)
    assert scan.axes == "tzyx"
    spatial = from_file_order(array, scan.source)
    labels = scan.with_array(spatial, label_names=NAMES)
    write(labels, tmp_path / "organs.dcm")
    referred = pydicom.dcmread(tmp_path / "organs.dcm").ReferencedSeriesSequence[0]
    instances = {one.ReferencedSOPInstanceUID for one in referred.ReferencedInstanceSequence}
    assert instances == {*series.instances, *later.instances}
    again = read(tmp_path / "organs.dcm")
    np.testing.assert_array_equal(in_file_order(again), array)
    moving = scan.with_array(np.stack([spatial, spatial]), label_names=NAMES)
    with pytest.raises(SpadError, match="three dimensions"):
        write(moving, tmp_path / "moving.dcm")


def test_labels_without_a_voxel_are_written(
    make_series: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    array = np.zeros_like(blobs())
    series = make_series(tmp_path / "ct", scan_of(array))
    write(labels_on(series.folder, array, {1: "liver"}), tmp_path / "a.dcm")
    again = read(tmp_path / "a.dcm")
    assert not again.array.any()
    assert again.label_names == {1: "liver"}
    assert not caplog.records


def test_an_enhanced_scan_may_state_its_orientation_frame_by_frame(
    make_series: Callable[..., Any], tmp_path: Path
) -> None:
    array = blobs()
    series = make_series(tmp_path / "ct", scan_of(array), "oblique", enhanced=True)
    dataset = pydicom.dcmread(series.files[0])
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        frame.PlaneOrientationSequence = shared.PlaneOrientationSequence
    del shared.PlaneOrientationSequence
    dataset.save_as(series.files[0])
    write(labels_on(series.folder, array), tmp_path / "a.dcm")
    np.testing.assert_array_equal(in_file_order(read(tmp_path / "a.dcm")), array)


def test_refusals(make_series: Callable[..., Any], ct_phantom: Phantom, tmp_path: Path) -> None:
    target = tmp_path / "a.dcm"
    with pytest.raises(SpadError, match="open the DICOM series first"):
        write(ct_phantom.labels, target)
    write(ct_phantom.labels, tmp_path / "labels.nii.gz")
    with pytest.raises(SpadError, match=r"write \.nii\.gz or \.nrrd"):
        write(read(tmp_path / "labels.nii.gz"), target)
    series = make_series(tmp_path / "ct", scan_of(blobs()))
    with pytest.raises(SpadError, match="64 characters"):
        write(labels_on(series.folder, blobs(), {1: "x" * 65}), target)
    with pytest.raises(SpadError, match="backslash"):
        write(labels_on(series.folder, blobs(), {1: "a\\b"}), target)
    for file in series.files:
        dataset = pydicom.dcmread(file)
        dataset.StudyInstanceUID = ""
        dataset.save_as(file)
    with pytest.raises(SpadError, match="StudyInstanceUID"):
        write(labels_on(series.folder, blobs()), target)
    assert not target.exists()


def test_a_header_that_cannot_be_copied_is_refused(
    make_series: Callable[..., Any], tmp_path: Path
) -> None:
    series = make_series(tmp_path / "ct", scan_of(blobs()))
    for file in series.files:
        data = file.read_bytes()
        file.write_bytes(data.replace(b"\x20\0\x11\0IS", b"\x20\0\x11\0Ij"))
    with pytest.raises(SpadError, match="lacks what a DICOM segmentation needs") as error:
        write(labels_on(series.folder, blobs()), tmp_path / "a.dcm")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "fault", ["voxel", "place", "segment", "name", "frame lost", "reference", "study"]
)
def test_a_faulty_file_is_found_and_the_older_one_stays(
    fault: str,
    make_series: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    series = make_series(tmp_path / "ct", scan_of(blobs()))
    right = seg_writer._dataset

    def wrong(*args: Any) -> Any:
        made = right(*args)
        frames = made.PerFrameFunctionalGroupsSequence
        if fault == "voxel":
            made.PixelData = bytes([made.PixelData[0] ^ 4]) + made.PixelData[1:]
        elif fault == "place":
            frames[2].PlanePositionSequence[0].ImagePositionPatient[0] += 0.2
        elif fault == "segment":
            frames[2].SegmentIdentificationSequence[0].ReferencedSegmentNumber = 4
        elif fault == "name":
            made.SegmentSequence[1].SegmentLabel = "spleen"
        elif fault == "frame lost":
            made.PerFrameFunctionalGroupsSequence = frames[:-1]
            made.NumberOfFrames = len(frames) - 1
        elif fault == "reference":
            made.ReferencedSeriesSequence[0].ReferencedInstanceSequence.pop()
        else:
            made.StudyInstanceUID = generate_uid()
        return made

    monkeypatch.setattr(seg_writer, "_dataset", wrong)
    (tmp_path / "a.dcm").write_bytes(b"older")
    with pytest.raises(SpadError, match="did not read back"):
        write(labels_on(series.folder, blobs()), tmp_path / "a.dcm")
    assert (tmp_path / "a.dcm").read_bytes() == b"older"


def test_codes_are_those_of_pydicom() -> None:
    from pydicom.sr.codedict import codes

    known = {*seg_codes._ANATOMY, *seg_codes._ABNORMAL, *seg_codes._ALIASES.values()}
    assert all(getattr(codes.SCT, keyword).value for keyword in known)
    expected = {
        "liver": ("10200004", None),
        "Spleen": ("78961009", None),
        "kidney_left": ("64033007", "Left"),
        "right adrenal gland": ("23451007", "Right"),
        "aorta": ("15825003", None),
        "inferior_vena_cava": ("64131007", None),
        "portal_and_splenic_veins": ("32764006", None),
        "urinary_bladder": ("89837001", None),
        "vertebrae_L3": ("36470004", None),
        "left_atrium": ("82471001", None),
        "something": ("91772007", None),
        "something_left": ("91772007", None),
    }
    for name, (value, side) in expected.items():
        found = seg_codes.property_of(name)
        assert found.kind.value == value, name
        assert (found.side.meaning if found.side else None) == side, name


def test_a_real_series(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "totalsegmentator" / "example_ct_dicom"
    if not source.is_dir():
        pytest.skip("the real DICOM series is absent")
    scan = read(source)
    array = np.zeros(scan.array.shape, np.uint8)
    array[2:7, 100:200, 150:180] = 1
    array[10:, :50, :9] = 2
    labels = scan.with_array(array, label_names={1: "liver", 2: "spleen"})
    with pytest.raises(SpadError, match="StudyInstanceUID, SeriesInstanceUID"):
        write(labels, tmp_path / "a.dcm")
    study, series = generate_uid(), generate_uid()
    (tmp_path / "ct").mkdir()
    for file in source.iterdir():
        copy = shutil.copyfile(file, tmp_path / "ct" / file.name)
        dataset = pydicom.dcmread(copy)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.save_as(copy)
    scan = read(tmp_path / "ct")
    labels = scan.with_array(array, label_names={1: "liver", 2: "spleen"})
    write(labels, tmp_path / "a.dcm")
    again = read(tmp_path / "a.dcm")
    np.testing.assert_array_equal(again.array, array)
    np.testing.assert_allclose(again.affine, scan.affine)
    assert hd.seg.segread(tmp_path / "a.dcm").number_of_segments == 2
