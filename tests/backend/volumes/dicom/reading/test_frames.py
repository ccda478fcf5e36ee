"""Objects with many frames: enhanced ones with functional groups, films, pictures, doses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRBigEndian, generate_uid

from spad.errors import SpadError
from spad.volumes.axes import to_file_order
from spad.volumes.files.dicom import catalog
from spad.volumes.files.dicom.reader import read
from spad.volumes.files.options import Options

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
ENHANCED_CT, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.4.1"
US, US_FILM = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.3.1"
SECONDARY = "1.2.840.10008.5.1.4.1.1.7"


def group(**elements: Any) -> list[Dataset]:
    ds = Dataset()
    for key, value in elements.items():
        setattr(ds, key, value)
    return [ds]


def picture(scanner: Any, values: np.ndarray, frames: int = 1, **elements: Any) -> Any:
    """Write one file without a place in the patient."""
    uid = generate_uid()
    ds = scanner.dataset(0, uid, values[0] if frames > 1 else values, **elements)
    for key in ("ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RescaleSlope"):
        if key not in elements and key in ds:
            delattr(ds, key)
    if frames > 1:
        ds.NumberOfFrames = frames
        ds.PixelData = values.tobytes()
    return scanner.save(ds, f"picture{len(scanner.files())}")


def enhanced(
    scanner: Any, places: list[tuple[float, int]], values: np.ndarray, **elements: Any
) -> Any:
    """Write an enhanced object; `places` gives for each frame z in mm and time from 1."""
    ds = scanner.dataset(0, generate_uid(), values[0], SOPClassUID=ENHANCED_CT)
    for key in ("ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        delattr(ds, key)
    shared = Dataset()
    shared.PlaneOrientationSequence = group(ImageOrientationPatient=list(scanner.orientation))
    shared.PixelMeasuresSequence = group(PixelSpacing=list(scanner.spacing), SliceThickness=2.0)
    shared.PixelValueTransformationSequence = group(
        RescaleSlope=2, RescaleIntercept=-7, RescaleType="HU"
    )
    shared.FrameVOILUTSequence = group(WindowCenter=10, WindowWidth=20)
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = []
    for z, time in places:
        own = Dataset()
        own.PlanePositionSequence = group(ImagePositionPatient=[-30.5, -20.25, z])
        own.FrameContentSequence = group(TemporalPositionIndex=time, StackID="1")
        ds.PerFrameFunctionalGroupsSequence.append(own)
    ds.NumberOfFrames = len(places)
    ds.PixelData = values.tobytes()
    for key, value in elements.items():
        setattr(ds, key, value)
    return scanner.save(ds, "enhanced")


def test_an_enhanced_object_in_any_order(scanner: Any) -> None:
    values = np.random.default_rng(0).integers(-500, 500, (5, 12, 17)).astype(np.int16)
    order = [2, 0, 4, 1, 3]
    path = enhanced(scanner, [(100 + 2.5 * n, 1) for n in order], values[order])
    volume = read(path, Options())
    assert (volume.slope, volume.intercept, volume.unit) == (2, -7, "HU")
    assert volume.window == (0, 20)
    np.testing.assert_array_equal(
        to_file_order(volume.array, volume.source), values.transpose(2, 1, 0)
    )
    expected = np.diag([0.9, 0.7, 2.5, 1.0])
    expected[:3, 3] = (-30.5, -20.25, 100)
    np.testing.assert_allclose(volume.source.affine, LPS @ expected, atol=1e-9)
    source = volume.source.header
    assert source.is_multiframe
    assert [part.frame for part in source.slices[0]] == [2, 4, 1, 5, 3]
    assert len(source.files) == 1
    (series,) = catalog.catalog(path)
    assert (series.slices, series.shape) == (5, (17, 12, 5))


def test_an_enhanced_object_as_itk_reads_it(scanner: Any) -> None:
    values = np.random.default_rng(0).integers(-500, 500, (6, 12, 17)).astype(np.int16)
    path = enhanced(scanner, [(100 + 2.5 * n, 1) for n in range(6)], values)
    volume = read(path, Options())
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(
        to_file_order(volume.values(), volume.source).transpose(2, 1, 0),
        sitk.GetArrayFromImage(image),
    )
    direction = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    np.testing.assert_allclose(volume.source.affine[:3, :3], (LPS[:3, :3] @ direction), atol=1e-6)
    np.testing.assert_allclose(
        volume.source.affine[:3, 3], LPS[:3, :3] @ image.GetOrigin(), atol=1e-6
    )


def test_ordered_frames_are_mapped_and_not_copied(scanner: Any) -> None:
    values = np.arange(4 * 12 * 17, dtype=np.int16).reshape(4, 12, 17)
    volume = read(enhanced(scanner, [(3.0 * n, 1) for n in range(4)], values), Options())
    base = volume.array
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    assert not volume.array.flags.writeable
    np.testing.assert_array_equal(
        to_file_order(volume.array, volume.source), values.transpose(2, 1, 0)
    )


def test_big_endian_frames(scanner: Any) -> None:
    values = np.arange(4 * 12 * 17, dtype=np.int16).reshape(4, 12, 17)
    path = enhanced(scanner, [(3.0 * n, 1) for n in range(4)], values.astype(">i2"))
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    pydicom.dcmwrite(path, ds, implicit_vr=False, little_endian=False, force_encoding=True)
    volume = read(path, Options())
    np.testing.assert_array_equal(
        to_file_order(volume.array, volume.source), values.transpose(2, 1, 0)
    )


def test_an_enhanced_time_series(scanner: Any) -> None:
    values = np.random.default_rng(0).integers(0, 500, (6, 12, 17)).astype(np.int16)
    places = [(z, t) for z in (100.0, 105.0, 110.0) for t in (2, 1)]
    path = enhanced(scanner, places, values, SOPClassUID=ENHANCED_MR, Modality="MR")
    volume = read(path, Options())
    assert volume.axes == "tzyx"
    ours = to_file_order(volume.array, volume.source)
    for k in range(3):
        for t in range(2):
            np.testing.assert_array_equal(ours[:, :, k, t].T, values[2 * k + 1 - t])


def test_missing_frames_are_named(scanner: Any) -> None:
    values = np.zeros((4, 12, 17), np.int16)
    path = enhanced(scanner, [(z, 1) for z in (0.0, 2.0, 4.0, 8.0)], values)
    with pytest.raises(SpadError, match=r"lacks 1 slice \(at 6\.00 mm"):
        read(path, Options())


@pytest.mark.parametrize(("claimed", "words"), [(3, "describes 5"), (50, "describes 5")])
def test_groups_that_do_not_match_the_frames(scanner: Any, claimed: int, words: str) -> None:
    values = np.zeros((5, 12, 17), np.int16)
    path = enhanced(scanner, [(2.0 * n, 1) for n in range(5)], values)
    scanner.change(path, NumberOfFrames=claimed)
    with pytest.raises(SpadError, match=words):
        read(path, Options())


def test_frames_at_one_place_are_named(scanner: Any) -> None:
    places = [(z, 1) for z in (0.0, 2.0, 4.0, 2.0)]
    path = enhanced(scanner, places, np.zeros((4, 12, 17), np.int16))
    with pytest.raises(SpadError, match="enhanced frame 2 and enhanced frame 4"):
        read(path, Options())


def test_a_frame_without_a_place_is_named(scanner: Any) -> None:
    path = enhanced(scanner, [(2.0 * n, 1) for n in range(5)], np.zeros((5, 12, 17), np.int16))
    dataset = pydicom.dcmread(path)
    del dataset.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence
    dataset.save_as(path)
    with pytest.raises(SpadError, match=r"has 1 of 5 slices without .* \(enhanced frame 3\)"):
        read(path, Options())


def test_an_enhanced_object_without_frame_groups_is_refused(scanner: Any) -> None:
    path = enhanced(scanner, [(2.0 * n, 1) for n in range(5)], np.zeros((5, 12, 17), np.int16))
    scanner.change(path, PerFrameFunctionalGroupsSequence=None)
    with pytest.raises(SpadError, match="neither ImagePositionPatient nor PixelSpacing"):
        read(path, Options())


def test_enhanced_objects_of_one_frame_are_one_volume(scanner: Any) -> None:
    uid = generate_uid()
    for n in range(4):
        path = enhanced(scanner, [(2.0 * n, 1)], np.full((1, 12, 17), n, np.int16))
        scanner.change(path, SeriesInstanceUID=uid)
        path.rename(path.with_name(f"slice{n}"))
    volume = read(scanner.folder / "slice2", Options())
    assert to_file_order(volume.array, volume.source)[0, 0].tolist() == [0, 1, 2, 3]


def test_objects_of_many_frames_in_one_series_are_told_apart(scanner: Any) -> None:
    for name in ("early", "late"):
        path = enhanced(scanner, [(2.0 * n, 1) for n in range(3)], np.zeros((3, 12, 17), np.int16))
        scanner.change(path, SeriesInstanceUID="1.2.3.4")
        path.rename(path.with_name(name))
    early, late = (series.description for series in catalog.catalog(scanner.folder))
    assert "early" in early
    assert "late" in late


def test_compressed_frames(scanner: Any) -> None:
    values = np.random.default_rng(0).integers(0, 500, (5, 32, 32)).astype(np.uint16)
    path = enhanced(scanner, [(2.0 * n, 1) for n in range(5)], values)
    for syntax in ("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90"):
        ds = pydicom.dcmread(path)
        if ds.file_meta.TransferSyntaxUID.is_compressed:
            ds.decompress()
        ds.compress(UID(syntax), generate_instance_uid=False)
        ds.save_as(path)
        volume = read(path, Options())
        np.testing.assert_array_equal(
            to_file_order(volume.array, volume.source), values.transpose(2, 1, 0)
        )


def test_ultrasound_film(scanner: Any) -> None:
    values = np.random.default_rng(0).integers(0, 255, (7, 20, 30, 3)).astype(np.uint8)
    region = {"PhysicalUnitsXDirection": 3, "PhysicalUnitsYDirection": 3}
    place = {"RegionLocationMinX0": 0, "RegionLocationMinY0": 0}
    regions = [
        *group(**region, **place, RegionLocationMaxX1=9, RegionLocationMaxY1=9,
               PhysicalDeltaX=0.5, PhysicalDeltaY=0.5),
        *group(**region, **place, RegionLocationMaxX1=29, RegionLocationMaxY1=19,
               PhysicalDeltaX=0.03, PhysicalDeltaY=-0.04),
    ]  # fmt: skip
    path = picture(
        scanner, values, 7, SOPClassUID=US_FILM, Modality="US", FrameTime=33.3,
        FrameIncrementPointer=0x00181063, SequenceOfUltrasoundRegions=regions,
    )  # fmt: skip
    volume = read(path, Options())
    assert (volume.axes, volume.rgb, volume.time_step) == ("tczyx", True, (33.3, "ms"))
    ours = to_file_order(volume.array, volume.source)
    np.testing.assert_array_equal(ours[:, :, 0].transpose(2, 1, 0, 3), values)
    np.testing.assert_allclose(np.diag(volume.source.affine)[:2], (-0.3, -0.4))
    assert any("different scale" in note for note in volume.notes)
    assert any("no place in the patient" in note for note in volume.notes)


def test_frames_without_times_are_slices(scanner: Any, plane: Any) -> None:
    values = np.stack([plane(12, 17, k) for k in range(4)])
    path = picture(scanner, values, 4, SOPClassUID=SECONDARY, Modality="OT", SliceThickness=2.5)
    volume = read(path, Options())
    assert volume.axes == "zyx"
    assert volume.array.shape == (4, 17, 12)
    assert volume.spacing[0] == 2.5
    assert any("no pixel spacing; 1 mm" in note for note in volume.notes)


@pytest.mark.parametrize(
    ("elements", "spacing", "words"),
    [
        ({"PixelSpacing": [0.3, 0.4]}, (0.4, 0.3), None),
        ({"NominalScannedPixelSpacing": [0.3, 0.4]}, (0.4, 0.3), None),
        ({"ImagerPixelSpacing": [0.1, 0.2], "Modality": "DX"}, (0.2, 0.1), "on the detector"),
        (
            {"ImagerPixelSpacing": [0.1, 0.2], "PixelSpacing": [0.1, 0.2], "Modality": "CR"},
            (0.2, 0.1),
            "PixelSpacing equals ImagerPixelSpacing",
        ),
        ({"PixelAspectRatio": [2, 1]}, (1.0, 2.0), "aspect of 2 to 1"),
        ({}, (1.0, 1.0), "no pixel spacing"),
    ],
)
def test_spacing_of_pictures(
    scanner: Any, elements: dict[str, Any], spacing: tuple[float, float], words: str | None
) -> None:
    said = {"SOPClassUID": SECONDARY, "Modality": "OT", **elements}
    path = picture(scanner, np.zeros((12, 17), np.uint8), **said)
    volume = read(path, Options())
    assert volume.array.shape == (1, 17, 12)
    np.testing.assert_allclose(np.diag(volume.source.affine)[:2], [-s for s in spacing])
    notes = [note for note in volume.notes if "spacing" in note]
    assert bool(notes) == (words is not None)
    assert words is None or words in notes[0]


def test_pictures_of_one_series_are_listed_one_by_one(scanner: Any) -> None:
    for _ in range(3):
        path = picture(scanner, np.zeros((12, 17), np.uint8), Modality="US", SOPClassUID=US)
        scanner.change(path, SeriesInstanceUID="1.2.3.4")
    assert len(catalog.catalog(scanner.folder)) == 3
    assert read(path, Options()).array.shape == (1, 17, 12)


def test_a_dose_lies_where_its_offsets_say(scanner: Any) -> None:
    values = np.arange(4 * 12 * 17, dtype=np.uint32).reshape(4, 12, 17)
    path = picture(
        scanner, values, 4, Modality="RTDOSE", SOPClassUID="1.2.840.10008.5.1.4.1.1.481.2",
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0], ImagePositionPatient=[-5, -6, 50],
        PixelSpacing=[2, 2.5], GridFrameOffsetVector=[0, 3, 6, 9], DoseGridScaling=1e-4,
        DoseUnits="GY", FrameIncrementPointer=0x3004000C,
    )  # fmt: skip
    volume = read(path, Options())
    assert (volume.unit, volume.slope) == ("Gy", 1e-4)
    np.testing.assert_allclose(volume.source.affine @ (0, 0, 3, 1), (5, 6, 59, 1))
    np.testing.assert_allclose(np.linalg.norm(volume.source.affine[:3, :3], axis=0), (2.5, 2, 3))


def test_nuclear_medicine_follows_its_detector(scanner: Any) -> None:
    values = np.arange(4 * 12 * 17, dtype=np.uint16).reshape(4, 12, 17)
    detector = group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0], ImagePositionPatient=[-5, -6, 50])
    path = picture(
        scanner, values, 4, Modality="NM", SOPClassUID="1.2.840.10008.5.1.4.1.1.20",
        ImageType=["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"], PixelSpacing=[4, 4],
        SpacingBetweenSlices=-4.0, DetectorInformationSequence=detector,
    )  # fmt: skip
    volume = read(path, Options())
    np.testing.assert_allclose(volume.source.affine @ (0, 0, 3, 1), (5, 6, 50, 1))
    np.testing.assert_array_equal(
        to_file_order(volume.array, volume.source), values[::-1].transpose(2, 1, 0)
    )


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, "Siemens mosaic"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.6"}, "whole-slide"),
        ({"Modality": "CT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "neither"),
    ],
)
def test_objects_that_are_refused(scanner: Any, elements: dict[str, Any], words: str) -> None:
    path = picture(scanner, np.zeros((12, 17), np.int16), **{"Modality": "MR", **elements})
    with pytest.raises(SpadError, match=words):
        read(path, Options())
