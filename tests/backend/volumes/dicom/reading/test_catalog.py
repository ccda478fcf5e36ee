"""What folders, files and DICOMDIRs hold, what belongs together, and what is a time."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.fileset import FileSet
from pydicom.uid import generate_uid

from spad.errors import SpadError
from spad.volumes.axes import to_file_order
from spad.volumes.files.dicom import catalog
from spad.volumes.files.dicom.reader import read
from spad.volumes.files.options import Options


def array_of(volume: Any) -> np.ndarray:
    return to_file_order(volume.array, volume.source)


def test_files_below_are_found_and_others_passed_over(scanner: Any) -> None:
    scanner.series(4)
    deep = scanner.folder / "Übung α" / "deeper"
    deep.mkdir(parents=True)
    for path in scanner.files()[:2]:
        shutil.move(path, deep / path.name)
    (scanner.folder / "notes.txt").write_text("no scan")
    (scanner.folder / "empty").write_bytes(b"")
    (scanner.folder / "zeros").write_bytes(bytes(4096))
    (scanner.folder / "gzip").write_bytes(b"\x1f\x8b" + bytes(300))
    (deep / "loop").symlink_to(scanner.folder, target_is_directory=True)
    (deep / "gone").symlink_to(scanner.folder / "nowhere")
    volume = read(scanner.folder, Options())
    assert volume.array.shape == (4, 17, 12)
    (series,) = catalog.catalog(scanner.folder)
    assert (series.kind, series.modality, series.slices) == ("image", "CT", 4)
    assert series.shape == (17, 12, 4)
    assert series.spacing == pytest.approx((0.9, 0.7, 3.0))
    assert series.problem is None


def test_one_file_finds_its_series(scanner: Any) -> None:
    uid = scanner.series(4)
    scanner.series(3, SeriesDescription="other")
    volume = read(scanner.files()[0], Options())
    assert volume.source.header.series_uid == uid
    assert volume.array.shape[0] == 4


def test_one_file_finds_its_series_without_instance_uids(scanner: Any) -> None:
    scanner.series(4)
    for path in scanner.files():
        dataset = pydicom.dcmread(path)
        del dataset.SOPInstanceUID, dataset.file_meta.MediaStorageSOPInstanceUID
        dataset.save_as(path, enforce_file_format=False)
    assert read(scanner.files()[0], Options()).array.shape[0] == 4


@pytest.mark.parametrize("one_file", [False, True])
def test_slices_that_share_an_instance_uid_are_named(scanner: Any, one_file: bool) -> None:
    scanner.series(4, SOPInstanceUID="1.2.3.4")
    with pytest.raises(SpadError, match="different places that share one SOPInstanceUID") as error:
        read(scanner.files()[0] if one_file else scanner.folder, Options())
    assert "remove" not in str(error.value)


def test_a_folder_without_dicom(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    assert catalog.catalog(tmp_path) == []
    with pytest.raises(SpadError, match="holds no DICOM image"):
        read(tmp_path, Options())


def test_a_file_that_is_not_dicom(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"plain text" * 50)
    with pytest.raises(SpadError, match="is not DICOM"):
        read(tmp_path / "a.dcm", Options())


def test_an_element_of_an_unknown_kind_is_passed_over(scanner: Any) -> None:
    scanner.series(3)
    for path in scanner.files():
        path.write_bytes(path.read_bytes().replace(b"\x08\0\x08\0CS", b"\x08\0\x08\0CH"))
    assert read(scanner.folder, Options()).array.shape[0] == 3


def test_objects_without_images_are_named(scanner: Any) -> None:
    ds = scanner.dataset(0, generate_uid(), np.zeros((2, 2), np.uint8), Modality="SR")
    for key in ("PixelData", "Rows", "Columns"):
        delattr(ds, key)
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    scanner.save(ds, "report")
    with pytest.raises(SpadError, match="without images \\(1 SR\\)"):
        read(scanner.folder, Options())


def test_several_series_are_listed_and_chosen(scanner: Any) -> None:
    first = scanner.series(4, SeriesDescription="arterial")
    second = scanner.series(3, SeriesDescription="venös")
    with pytest.raises(SpadError, match="holds 2 series") as error:
        read(scanner.folder, Options())
    for part in (first, second, "arterial", "venös", "17 x 12 x 4"):
        assert part in str(error.value)
    for uid, slices in ((first, 4), (second, 3)):
        assert read(scanner.folder, Options(series=uid)).array.shape[0] == slices
    with pytest.raises(SpadError, match=r"has no series '1\.2\.3'"):
        read(scanner.folder, Options(series="1.2.3"))


def test_scouts_of_the_series_are_split_off(scanner: Any) -> None:
    uid = scanner.series(5)
    scanner.orientation = (1, 0, 0, 0, 0, -1)
    scanner.rows = 30
    scanner.series(1, uid=uid, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    volume = read(scanner.folder, Options())
    assert volume.array.shape == (5, 17, 12)
    assert "1 localizer image of the same series is left out." in volume.notes
    scan, scout = catalog.catalog(scanner.folder)
    assert scan.uid == uid
    assert "localizer" in scout.description
    assert read(scanner.folder, Options(series=scout.uid)).array.shape == (1, 17, 30)


def test_a_scout_that_is_opened_is_not_left_out(scanner: Any) -> None:
    uid = scanner.series(5)
    scanner.rows = 30
    scanner.series(1, uid=uid, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    volume = read(scanner.files()[-1], Options())
    assert volume.array.shape == (1, 17, 30)
    assert not volume.notes


def test_two_orientations_in_one_series_are_two_volumes(scanner: Any) -> None:
    uid = scanner.series(5)
    scanner.orientation = (0, 1, 0, 0, 0, -1)
    scanner.series(4, uid=uid, step=(-2, 0, 0))
    with pytest.raises(SpadError, match="holds 2 series") as error:
        read(scanner.folder, Options())
    assert "100.0 to 112.0 mm" in str(error.value)
    large, small = catalog.catalog(scanner.folder)
    assert large.uid == f"{uid}:1"
    assert read(scanner.folder, Options(series=large.uid)).orientation == "SLP"
    assert read(scanner.folder, Options(series=small.uid)).orientation == "RPI"
    with pytest.raises(SpadError, match="several volumes in"):
        read(scanner.folder, Options(series=uid))
    assert read(scanner.files()[-1], Options()).array.shape[0] == 4


@pytest.mark.parametrize(
    ("element", "values", "words", "step"),
    [
        ("TemporalPositionIdentifier", [1, 2, 3], "temporal position", None),
        ("EchoTime", [2.3, 4.6, 6.9], "echo time", None),
        ("TriggerTime", [0.0, 40.0, 80.0], "trigger time", (40.0, "ms")),
        ("AcquisitionNumber", [1, 2, 3], "acquisition number", None),
        ("DiffusionBValue", [0.0, 500.0, 1000.0], "b-value", None),
        ("FrameReferenceTime", [500.0, 1500.0, 2500.0], "frame reference time", (1000.0, "ms")),
        ("AcquisitionTime", ["101500", "101502", "101504"], "acquisition time", (2.0, "s")),
    ],
)
def test_planes_at_one_place_become_times(
    scanner: Any, plane: Any, element: str, values: list[Any], words: str, step: Any
) -> None:
    uid = generate_uid()
    for t in (2, 0, 1):
        scanner.series(
            4,
            uid=uid,
            values=lambda k, t=t: plane(12, 17, 10 * t + k),
            Modality="MR",
            **{element: values[t]},
        )
    volume = read(scanner.folder, Options())
    assert volume.axes == "tzyx"
    for t in range(3):
        for k in range(4):
            np.testing.assert_array_equal(array_of(volume)[:, :, k, t].T, plane(12, 17, 10 * t + k))
    assert any(words in note and note.startswith("3 volumes") for note in volume.notes)
    assert volume.time_step == step
    (series,) = catalog.catalog(scanner.folder)
    assert series.shape == (17, 12, 4, 3)
    assert len(volume.source.header.slices) == 3


def test_diffusion_directions_are_times(scanner: Any) -> None:
    uid = generate_uid()
    scheme = [(0.0, None), (1000.0, (1, 0, 0)), (1000.0, (0, 1, 0)), (500.0, (0, 0, 1))]
    for b, along in scheme:
        more = {} if along is None else {"DiffusionGradientOrientation": list(map(float, along))}
        scanner.series(3, uid=uid, Modality="MR", DiffusionBValue=b, **more)
    volume = read(scanner.folder, Options())
    source = volume.source.header
    found = [source.headers[time[0].file].DiffusionBValue for time in source.slices]
    assert found == [0, 500, 1000, 1000]


@pytest.mark.parametrize(
    ("creator", "element", "values"),
    [
        ((0x00190010, "SIEMENS MR HEADER"), (0x0019100C, "IS"), [0, 500, 1000]),
        ((0x00430010, "GEMS_PARM_01"), (0x00431039, "IS"), [1000000000, 1000000500, 1000001000]),
        ((0x20010010, "Philips Imaging DD 001"), (0x20011003, "FL"), [0.0, 500.0, 1000.0]),
    ],
)
def test_b_values_of_the_makers_are_times(
    scanner: Any, creator: tuple[int, str], element: tuple[int, str], values: list[Any]
) -> None:
    uid = generate_uid()
    for value in (values[1], values[2], values[0]):

        def edit(dataset: Any, k: int, value: Any = value) -> None:
            dataset.add_new(creator[0], "LO", creator[1])
            dataset.add_new(*element, value)

        scanner.series(3, edit=edit, uid=uid, Modality="MR", InstanceNumber=1)
    volume = read(scanner.folder, Options())
    assert "diffusion b-value" in volume.notes[0]
    source = volume.source.header
    found = [source.headers[time[0].file][element[0]].value for time in source.slices]
    assert found == values


def test_uneven_times_are_noted(scanner: Any) -> None:
    uid = generate_uid()
    for at in (0.0, 10.0, 40.0):
        scanner.series(3, uid=uid, Modality="PT", FrameReferenceTime=at)
    volume = read(scanner.folder, Options())
    assert volume.time_step is None
    assert any("uneven (steps of 10 to 30 ms)" in note for note in volume.notes)


def test_an_incomplete_time_is_refused(scanner: Any) -> None:
    uid = scanner.series(4, Modality="MR", EchoTime=2.0)
    scanner.series(3, uid=uid, Modality="MR")
    with pytest.raises(SpadError, match="several slices at one place"):
        read(scanner.folder, Options())


def test_magnitude_and_phase_are_two_volumes(scanner: Any) -> None:
    uid = generate_uid()
    for kind in ("M", "P"):
        scanner.series(4, uid=uid, Modality="MR", ImageType=["ORIGINAL", "PRIMARY", kind])
    found = catalog.catalog(scanner.folder)
    assert sorted(series.description for series in found) == ["Body (M)", "Body (P)"]
    assert all(series.problem is None for series in found)


def test_acquisitions_with_a_gap_between_are_two_volumes(scanner: Any) -> None:
    uid = scanner.series(4, AcquisitionNumber=1)
    scanner.origin = (-30.5, -20.25, 300.0)
    scanner.series(5, uid=uid, AcquisitionNumber=2)
    found = catalog.catalog(scanner.folder)
    assert [series.slices for series in found] == [4, 5] or [s.slices for s in found] == [5, 4]
    assert all("acquisition number" in series.description for series in found)


def test_acquisitions_that_overlap_are_two_volumes(scanner: Any) -> None:
    uid = scanner.series(4, AcquisitionNumber=1)
    scanner.series(6, uid=uid, AcquisitionNumber=2)
    found = catalog.catalog(scanner.folder)
    assert sorted(series.slices for series in found) == [4, 6]
    assert all(series.problem is None for series in found)


def test_anonymised_files_without_uids_are_one_series(scanner: Any) -> None:
    scanner.series(4)
    for path in scanner.files():
        scanner.change(path, SeriesInstanceUID="", StudyInstanceUID="", SOPInstanceUID="")
    volume = read(scanner.folder, Options())
    assert volume.array.shape[0] == 4
    assert volume.source.header.series_uid == ""
    assert all(part.sop_instance_uid for part in volume.source.header.slices[0])


@pytest.fixture
def medium(scanner: Any, tmp_path: Path) -> Path:
    """A DICOMDIR that pydicom writes, with two series."""
    for count in (4, 3):
        scanner.series(count)
    files = FileSet()
    for path in scanner.files():
        ds = pydicom.dcmread(path)
        ds.PatientID, ds.PatientName, ds.StudyDate, ds.StudyTime = "1", "A", "20200101", "10"
        ds.StudyID, ds.SeriesNumber = "1", 1
        files.add(ds)
    files.write(tmp_path / "medium")
    return tmp_path / "medium"


def test_a_dicomdir_lists_its_series(medium: Path) -> None:
    found = catalog.catalog(medium / "DICOMDIR")
    assert sorted(series.slices for series in found) == [3, 4]
    volume = read(medium / "DICOMDIR", Options(series=found[0].uid))
    assert volume.array.shape[0] == found[0].slices
    assert len(catalog.catalog(medium)) == 2


def test_a_dicomdir_with_letters_of_another_case(medium: Path) -> None:
    for folder, folders, files in os.walk(medium, topdown=False):
        for name in (*folders, *files):
            if name != "DICOMDIR":
                os.rename(Path(folder) / name, Path(folder) / name.lower())
    assert len(catalog.catalog(medium / "DICOMDIR")) == 2


def test_files_that_a_dicomdir_lacks_are_named(medium: Path) -> None:
    large = max(catalog.scan(medium), key=lambda found: found.series.slices)
    gone = large.headers[1].path
    gone.unlink()
    with pytest.raises(SpadError, match="lists 1 file of a series that is not there") as error:
        read(medium / "DICOMDIR", Options(series=large.series.uid))
    assert gone.name in str(error.value)


def test_a_series_that_a_dicomdir_lacks_hinders_no_other(medium: Path) -> None:
    large, small = sorted(catalog.scan(medium), key=lambda found: -found.series.slices)
    for header in large.headers:
        header.path.unlink()
    volume = read(medium / "DICOMDIR", Options(series=small.series.uid))
    assert volume.array.shape[0] == small.series.slices
    with pytest.raises(SpadError, match="has no series '9'"):
        read(medium / "DICOMDIR", Options(series="9"))


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_a_dicomdir_that_points_outside_is_not_followed(medium: Path) -> None:
    ds = pydicom.dcmread(medium / "DICOMDIR")
    for record in ds.DirectoryRecordSequence:
        if "ReferencedFileID" in record:
            record.ReferencedFileID = ["..", "scan", "im0001"]
    ds.save_as(medium / "DICOMDIR")
    assert all(series.problem for series in catalog.catalog(medium / "DICOMDIR"))


def test_a_whole_disk_is_refused_soon(tmp_path, monkeypatch):
    from spad.volumes.files.dicom import discovery

    monkeypatch.setattr(discovery, "MOST_FILES", 5)
    for number in range(7):
        (tmp_path / f"{number}.txt").write_text("no scan")
    with pytest.raises(SpadError, match="holds more than 5 files; expected the folder of a study"):
        catalog.scan(tmp_path, None)
