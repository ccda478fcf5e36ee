"""Slices lie where their headers say, whatever their names; what is no even stack is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from spad.errors import SpadError
from spad.volumes.axes import to_file_order
from spad.volumes.files.dicom import catalog
from spad.volumes.files.dicom.reader import read
from spad.volumes.files.dicom.source import DicomSource
from spad.volumes.files.options import Options

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
TURNED = np.linalg.qr(np.array([[1, 0.2, -0.1], [-0.15, 1, 0.3], [0.12, -0.28, 1]]))[0]
ORIENTATIONS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "axial feet first": (-1, 0, 0, 0, 1, 0),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "coronal": (1, 0, 0, 0, 0, -1),
    "oblique": (*TURNED[:, 0], *TURNED[:, 1]),
}


def itk(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a series with SimpleITK: values as (i, j, k), affine to RAS+ mm."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    affine[:3, :3] = direction * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), LPS @ affine


def problem(folder: Path) -> str:
    """Give the sentence of the only series, which must be the one that reading raises."""
    (found,) = catalog.scan(folder)
    assert found.series.problem is not None
    with pytest.raises(SpadError) as error:
        read(folder, Options())
    assert str(error.value) == found.series.problem
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_itk_agrees(scanner: Any, name: str) -> None:
    scanner.orientation = ORIENTATIONS[name]
    row, column = np.array(scanner.orientation[:3]), np.array(scanner.orientation[3:])
    scanner.series(6, step=np.cross(row, column) * 2.5)
    volume = read(scanner.folder, Options())
    values, affine = itk(scanner.folder)
    np.testing.assert_array_equal(to_file_order(volume.values(), volume.source), values)
    np.testing.assert_allclose(volume.source.affine, affine, atol=1e-6)
    assert volume.source.shape == (17, 12, 6)
    assert volume.unit == "HU"
    assert volume.modality == "CT"
    assert volume.name == "Body"
    assert volume.notes == ()


def test_slices_are_ordered_by_place_and_not_by_name_or_number(scanner: Any, plane: Any) -> None:
    order = [3, 0, 4, 1, 2]
    places = [np.add(scanner.origin, (0, 0, 3 * n)) for n in order]
    scanner.series(places=places)
    array = to_file_order(*(lambda v: (v.array, v.source))(read(scanner.folder, Options())))
    for k, n in enumerate(np.argsort(order)):
        np.testing.assert_array_equal(array[:, :, k].T, plane(12, 17, n))


@pytest.mark.parametrize("degrees", [0.5, -12.0, 25.0])
def test_gantry_tilt_is_sheared_into_the_affine(scanner: Any, degrees: float) -> None:
    tilt = np.radians(degrees)
    scanner.orientation = (1, 0, 0, 0, np.cos(tilt), -np.sin(tilt))
    scanner.series(8, step=(0, 0, 4.0))
    volume = read(scanner.folder, Options())
    affine = volume.source.affine
    for k in range(8):
        place = LPS[:3, :3] @ np.add(scanner.origin, (0, 0, 4.0 * k))
        np.testing.assert_allclose(affine @ (0, 0, k, 1), (*place, 1), atol=1e-6)
    row = affine[:3, 1] / np.linalg.norm(affine[:3, 1])
    np.testing.assert_allclose(LPS[:3, :3] @ row, (0, np.cos(tilt), -np.sin(tilt)), atol=1e-9)
    (note,) = volume.notes
    assert f"{abs(degrees):.2f} degrees" in note


def test_jitter_of_real_scanners_is_no_fault(scanner: Any) -> None:
    noise = np.random.default_rng(0).uniform(-1e-3, 1e-3, (20, 3))
    places = [np.add(scanner.origin, (0, 0, 1.25 * k)) + noise[k] for k in range(20)]
    scanner.series(places=places)
    volume = read(scanner.folder, Options())
    assert volume.spacing[0] == pytest.approx(1.25, abs=2e-4)
    normal = volume.source.affine[:3, 2] / volume.spacing[0]
    np.testing.assert_allclose(normal, (0, 0, 1), atol=1e-9)
    assert volume.notes == ()


@pytest.mark.parametrize(("off", "fine"), [(0.008, True), (0.03, False), (-0.4, False)])
def test_tolerance_of_uneven_steps(scanner: Any, off: float, fine: bool) -> None:
    along = np.arange(9) * 1.0
    along[4] += off
    scanner.series(places=[np.add(scanner.origin, (0, 0, z)) for z in along])
    if fine:
        assert read(scanner.folder, Options()).spacing[0] == pytest.approx(1.0)
    else:
        assert "uneven distances" in problem(scanner.folder)
        assert "103.00" in problem(scanner.folder)


def test_missing_slices_are_named(scanner: Any) -> None:
    places = [np.add(scanner.origin, (0, 0, 2.0 * k)) for k in range(12) if k not in (3, 7, 8)]
    scanner.series(places=places)
    said = problem(scanner.folder)
    assert "lacks 3 slices" in said
    for place in ("106.00", "114.00", "116.00"):
        assert place in said


def test_many_missing_slices_are_counted(scanner: Any) -> None:
    places = [np.add(scanner.origin, (0, 0, 2.0 * k)) for k in (0, 1, 2, 3, 200)]
    scanner.series(places=places)
    said = problem(scanner.folder)
    assert "lacks 196 slices" in said
    assert "and 190 more" in said


def test_changing_spacing_is_named(scanner: Any) -> None:
    along = [0, 1, 2, 3, 4, 6.5, 9, 11.5]
    scanner.series(places=[np.add(scanner.origin, (0, 0, z)) for z in along])
    assert "uneven distances" in problem(scanner.folder)
    assert "104.00 to 106.50" in problem(scanner.folder)


def test_duplicates_are_named(scanner: Any) -> None:
    along = [0, 3, 6, 6, 9, 12]
    scanner.series(places=[np.add(scanner.origin, (0, 0, z)) for z in along])
    said = problem(scanner.folder)
    assert "several slices at one place" in said
    assert "106.00" in said


def test_the_same_file_twice_is_named(scanner: Any) -> None:
    scanner.series(4)
    first = scanner.files()[0]
    (scanner.folder / "copy").write_bytes(first.read_bytes())
    said = problem(scanner.folder)
    assert "same SOPInstanceUID" in said
    assert "copy" in said
    assert "109" in said


def test_one_turned_slice_is_named(scanner: Any) -> None:
    def edit(ds: Any, k: int) -> None:
        if k == 2:
            ds.ImageOrientationPatient = [1, 0, 0, 0, float(np.cos(0.2)), float(np.sin(0.2))]

    scanner.series(6, edit=edit)
    said = problem(scanner.folder)
    assert "turned by 11.5 degrees" in said
    assert "106 mm" in said


def test_one_slice_of_another_size_is_named(scanner: Any, plane: Any) -> None:
    scanner.series(6, values=lambda k: plane(20 if k == 3 else 12, 17, k))
    said = problem(scanner.folder)
    assert "17 x 20 voxels among 5 of 17 x 12" in said
    assert "109 mm" in said


def test_one_slice_of_another_spacing_is_named(scanner: Any) -> None:
    def edit(ds: Any, k: int) -> None:
        if k == 1:
            ds.PixelSpacing = [0.8, 0.9]

    scanner.series(6, edit=edit)
    assert "0.8 x 0.9 mm among 5 of 0.7 x 0.9 mm" in problem(scanner.folder)


def test_a_displaced_slice_is_named(scanner: Any) -> None:
    places = [np.add(scanner.origin, (5.0 * (k == 3), 0, 3 * k)) for k in range(7)]
    scanner.series(places=places)
    assert "displaced by 5 mm (at 109.00 mm" in problem(scanner.folder)


@pytest.mark.parametrize(
    ("orientation", "words"),
    [
        ((2, 0, 0, 0, 1, 0), "not two directions of length 1"),
        ((0, 0, 0, 0, 0, 0), "not two directions of length 1"),
        ((1, 0, 0, 0.1, 0.994987, 0), "84.26 degrees"),
    ],
)
def test_impossible_orientations(scanner: Any, orientation: Any, words: str) -> None:
    scanner.orientation = orientation
    scanner.series(3)
    assert words in problem(scanner.folder)


@pytest.mark.parametrize("spacing", [(0.0, 1.0), (-1.0, 1.0)])
def test_impossible_spacing(scanner: Any, spacing: Any) -> None:
    scanner.spacing = spacing
    scanner.series(3)
    assert "expected positive numbers" in problem(scanner.folder)


@pytest.mark.parametrize("key", ["PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"])
def test_a_series_without_geometry(scanner: Any, key: str) -> None:
    scanner.series(4)
    for path in scanner.files():
        scanner.change(path, **{key: None})
    assert key in problem(scanner.folder)


def test_stated_spacing_counts_where_files_have_none(scanner: Any) -> None:
    scanner.series(4)
    for path in scanner.files():
        scanner.change(path, PixelSpacing=None)
    volume = read(scanner.folder, Options(spacing=(0.5, 0.6, 9.0)))
    np.testing.assert_allclose(np.linalg.norm(volume.source.affine[:3, :3], axis=0), (0.5, 0.6, 3))
    assert any("stated one" in note for note in volume.notes)


def test_a_single_slice_is_as_thick_as_it_says(scanner: Any) -> None:
    scanner.series(1, SliceThickness=4.5)
    volume = read(scanner.folder, Options())
    assert volume.array.shape == (1, 17, 12)
    assert volume.spacing[0] == pytest.approx(4.5)
    assert volume.source.affine[2, 3] == pytest.approx(100.0)


def test_the_source_names_each_slice(scanner: Any) -> None:
    uid = scanner.series(5, PatientName="Müller^Änne", SpecificCharacterSet="ISO_IR 192")
    source = read(scanner.folder, Options()).source.header
    assert isinstance(source, DicomSource)
    assert source.series_uid == uid
    assert source.study_uid == scanner.study
    assert source.frame_of_reference_uid == scanner.frame
    assert [s.position[2] for s in source.slices[0] if s.position] == [100, 103, 106, 109, 112]
    assert [source.files[s.file].name for s in source.slices[0]] == [
        f"im{n:04d}" for n in (5, 4, 3, 2, 1)
    ]
    assert not source.is_multiframe
    datasets = source.datasets()
    assert str(datasets[0].PatientName) == "Müller^Änne"
    assert [ds.SOPInstanceUID for ds in datasets] == [s.sop_instance_uid for s in source.slices[0]]
    assert all("PixelData" not in ds for ds in datasets)
