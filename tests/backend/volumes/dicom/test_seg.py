"""Segmentations of other software, written with highdicom, come in as named labels."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import RLELossless

from spad.errors import SpadError
from spad.volumes.axes import to_file_order
from spad.volumes.files import catalog, read
from spad.volumes.volume import Volume

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SHAPE = (21, 17, 9)


def in_file_order(volume: Volume) -> np.ndarray:
    return np.asarray(to_file_order(volume.array, volume.source))


def described(names: list[str]) -> list[Any]:
    return [
        hd.seg.SegmentDescription(
            n,
            name,
            codes.SCT.Tissue,
            codes.SCT.Organ,
            "MANUAL",
            display_color=hd.color.CIELabColor.from_rgb(255, 20 * n, 0),
        )
        for n, name in enumerate(names, 1)
    ]


def segmentation(
    series: Any, pixels: np.ndarray, names: list[str], kind: str = "BINARY", **more: Any
) -> Any:
    """Make a segmentation of a series; `pixels` are (k, j, i[, segment])."""
    order = [pydicom.dcmread(file) for file in series.files]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return hd.seg.Segmentation(
            source_images=order,
            pixel_array=pixels,
            segmentation_type=kind,
            segment_descriptions=described(names),
            series_instance_uid=hd.UID(),
            series_number=9,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="another",
            manufacturer_model_name="another",
            software_versions="1",
            device_serial_number="1",
            series_description="Organs of another",
            **more,
        )


def two(overlap: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Give two masks as segments (k, j, i, 2), and the labels (i, j, k) where the later wins."""
    masks = np.zeros((9, 17, 21, 2), np.uint8)
    masks[2:6, 3:9, :11, 0] = 1
    masks[4:8, 6 if overlap else 9 :, 5:, 1] = 1
    labels = np.where(masks[..., 1] > 0, 2, masks[..., 0]).astype(np.uint8)
    return masks, labels.T


def scan() -> np.ndarray:
    return np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)


@pytest.mark.parametrize("kind", ["axial", "sagittal", "oblique", "tilted"])
def test_segments_become_labels_on_the_series(
    kind: str, make_series: Callable[..., Any], tmp_path: Path
) -> None:
    series = make_series(tmp_path / "study" / "ct", scan(), kind)
    masks, labels = two()
    (tmp_path / "study" / "seg").mkdir()
    path = tmp_path / "study" / "seg" / "IM0001"
    segmentation(series, masks, ["liver", "Läber"]).save_as(path)
    volume = read(path)
    np.testing.assert_array_equal(in_file_order(volume), labels)
    np.testing.assert_allclose(volume.source.affine, series.affine, atol=1e-6)
    assert volume.array.dtype == np.uint8
    assert volume.label_names == {1: "liver", 2: "Läber"}
    np.testing.assert_allclose((volume.label_colors or {})[2], (1, 40 / 255, 0, 1), atol=1 / 128)
    assert volume.name == "Organs of another"
    assert volume.notes == ()
    image = read(series.folder)
    assert volume.array.shape == image.array.shape
    np.testing.assert_array_equal(volume.affine, image.affine)


def test_overlaps_are_told(make_series: Callable[..., Any], tmp_path: Path) -> None:
    series = make_series(tmp_path / "ct", scan())
    masks, labels = two(overlap=True)
    segmentation(series, masks, ["liver", "liver"]).save_as(tmp_path / "seg.dcm")
    volume = read(tmp_path / "seg.dcm")
    np.testing.assert_array_equal(in_file_order(volume), labels)
    assert volume.label_names == {1: "liver", 2: "liver (2)"}
    count = int((masks.sum(-1) == 2).sum())
    assert f"{count} voxels are claimed by two labels: liver and liver (2)" in volume.notes[0]


@pytest.mark.parametrize("syntax", [None, RLELossless])
def test_fractional(syntax: Any, make_series: Callable[..., Any], tmp_path: Path) -> None:
    series = make_series(tmp_path / "ct", scan())
    masks, labels = two()
    parts = masks * np.float32(0.9)
    parts[0] = 0.3
    made = segmentation(series, parts, ["a", "b"], "FRACTIONAL", max_fractional_value=200)
    if syntax is not None:
        made.compress(syntax, encoding_plugin="pydicom")
    made.save_as(tmp_path / "seg.dcm")
    volume = read(tmp_path / "seg.dcm")
    np.testing.assert_array_equal(in_file_order(volume), labels)
    assert any("at least half" in note for note in volume.notes)


def test_label_map(make_series: Callable[..., Any], tmp_path: Path) -> None:
    series = make_series(tmp_path / "ct", scan(), "oblique")
    _, labels = two()
    pixels = np.ascontiguousarray(labels.T)
    segmentation(series, pixels, ["a", "b"], "LABELMAP").save_as(tmp_path / "seg.dcm")
    volume = read(tmp_path / "seg.dcm")
    np.testing.assert_array_equal(in_file_order(volume), labels)
    assert volume.label_names == {1: "a", 2: "b"}


@pytest.mark.parametrize("kind", ["axial", "oblique", "tilted"])
def test_without_its_series_it_has_a_grid_of_its_own(
    kind: str, make_series: Callable[..., Any], tmp_path: Path
) -> None:
    series = make_series(tmp_path / "elsewhere" / "below" / "ct", scan(), kind)
    masks = np.zeros((9, 17, 21, 1), np.uint8)
    masks[[1, 3, 7], 2:5, 4:9] = 1
    (tmp_path / "here" / "seg").mkdir(parents=True)
    path = tmp_path / "here" / "seg" / "a.dcm"
    segmentation(series, masks, ["a"]).save_as(path)
    volume = read(path)
    array = in_file_order(volume)
    assert array.shape == (21, 17, 7)
    np.testing.assert_array_equal(array, masks[1:8, ..., 0].T)
    expected = series.affine.copy()
    expected[:3, 3] += expected[:3, 2]
    np.testing.assert_allclose(volume.source.affine, expected, atol=1e-5)
    assert series.series in volume.notes[0]
    assert "a grid of its own" in volume.notes[0]


def test_another_grid_beside_is_not_taken(make_series: Callable[..., Any], tmp_path: Path) -> None:
    series = make_series(tmp_path / "ct", scan(), "axial")
    masks, labels = two()
    path = tmp_path / "seg.dcm"
    segmentation(series, masks, ["a", "b"]).save_as(path)
    for file in series.files:
        file.unlink()
    make_series(tmp_path / "other", scan(), "oblique", frame=series.frame)
    volume = read(path)
    assert "not planes of the series" in volume.notes[0]
    np.testing.assert_array_equal(in_file_order(volume), labels[:, :, 2:8])
    # another series of the same frame of reference whose slices are the same will do
    make_series(tmp_path / "same", scan(), "axial", frame=series.frame)
    volume = read(path)
    np.testing.assert_array_equal(in_file_order(volume), labels)
    assert volume.notes == ()


def test_a_part_of_the_image_is_placed(make_series: Callable[..., Any], tmp_path: Path) -> None:
    series = make_series(tmp_path / "ct", scan(), "oblique")
    lps = LPS @ series.affine
    i, j, k = 6, 4, 3
    patient = hd.enum.CoordinateSystemNames.PATIENT
    places = [(lps @ (i, j, k + n, 1))[:3] for n in range(2)]
    pixels = (np.random.default_rng(0).random((2, 5, 7)) < 0.5).astype(np.uint8)
    made = segmentation(
        series,
        pixels,
        ["a"],
        plane_positions=[hd.PlanePositionSequence(patient, place) for place in places],
        pixel_measures=hd.PixelMeasuresSequence([1.25, 1.5], 4.0, 4.0),
    )
    made.save_as(tmp_path / "seg.dcm")
    expected = np.zeros(SHAPE, np.uint8)
    expected[i : i + 7, j : j + 5, k : k + 2] = pixels.T
    volume = read(tmp_path / "seg.dcm")
    np.testing.assert_array_equal(in_file_order(volume), expected)


def edit(path: Path, change: Callable[[Dataset], None]) -> Path:
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)
    return path


def groups(dataset: Dataset) -> Any:
    return dataset.PerFrameFunctionalGroupsSequence


@pytest.mark.parametrize("axis", [0, 2])
def test_frames_between_voxels_of_the_series_keep_their_place(
    axis: int, make_series: Callable[..., Any], tmp_path: Path
) -> None:
    series = make_series(tmp_path / "ct", scan())
    masks, labels = two()
    segmentation(series, masks, ["a", "b"]).save_as(tmp_path / "seg.dcm")

    def shift(dataset: Dataset) -> None:
        for group in groups(dataset):
            group.PlanePositionSequence[0].ImagePositionPatient[axis] += 0.5

    volume = read(edit(tmp_path / "seg.dcm", shift))
    expected = series.affine[:3, 3] + 2 * series.affine[:3, 2]
    expected[axis] += -0.5 if axis == 0 else 0.5
    np.testing.assert_allclose(volume.source.affine[:3, 3], expected, atol=1e-5)
    np.testing.assert_array_equal(in_file_order(volume), labels[:, :, 2:8])
    assert "not planes of the series 'Abdomen'" in volume.notes[0]


def no_place(dataset: Dataset) -> None:
    del groups(dataset)[1].PlanePositionSequence


def no_segment(dataset: Dataset) -> None:
    del groups(dataset)[1].SegmentIdentificationSequence


def uneven(dataset: Dataset) -> None:
    dataset.FrameOfReferenceUID = "1.2.3"
    dataset.ReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3.4"
    groups(dataset)[0].PlanePositionSequence[0].ImagePositionPatient[2] -= 1.23


def far(dataset: Dataset) -> None:
    dataset.ReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3.4"
    dataset.FrameOfReferenceUID = "1.2.3"
    groups(dataset)[-1].PlanePositionSequence[0].ImagePositionPatient[2] += 4e6


def other_kind(dataset: Dataset) -> None:
    dataset.SegmentationType = "SURFACE"


def fewer_groups(dataset: Dataset) -> None:
    groups(dataset).pop()


def many_rows(dataset: Dataset) -> None:
    dataset.Rows = dataset.Columns = 65535


def many_frames(dataset: Dataset) -> None:
    dataset.NumberOfFrames = 100000


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (no_place, "does not state where its frame 2 lies"),
        (no_segment, "does not state the segment of frame 2"),
        (uneven, "uneven distances"),
        (far, "spans .* slices"),
        (other_kind, "type SURFACE"),
        (fewer_groups, "expected one item"),
        (many_rows, "its header claims"),
        (many_frames, "expected"),
    ],
)
def test_odd_files_are_refused(
    change: Any, sentence: str, make_series: Callable[..., Any], tmp_path: Path
) -> None:
    import tracemalloc

    series = make_series(tmp_path / "ct", scan())
    segmentation(series, two()[0], ["a", "b"]).save_as(tmp_path / "seg.dcm")
    edit(tmp_path / "seg.dcm", change)
    tracemalloc.start()
    with pytest.raises(SpadError, match=sentence) as caught:
        read(tmp_path / "seg.dcm")
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    assert str(tmp_path / "seg.dcm") in str(caught.value)


def test_a_cut_file_is_refused(make_series: Callable[..., Any], tmp_path: Path) -> None:
    series = make_series(tmp_path / "ct", scan())
    path = tmp_path / "seg.dcm"
    segmentation(series, two()[0], ["a", "b"]).save_as(path)
    whole = path.read_bytes()
    for kept in (len(whole) - 60, len(whole) - 600, len(whole) // 2, 300, 140):
        path.write_bytes(whole[:kept])
        with pytest.raises(SpadError, match=r"seg\.dcm"):
            read(path)


def test_a_frame_of_one_slice_knows_its_thickness(
    make_series: Callable[..., Any], tmp_path: Path
) -> None:
    series = make_series(tmp_path / "ct", scan())
    masks = np.zeros((9, 17, 21), np.uint8)
    masks[4, 3:6, 3:6] = 1
    segmentation(series, masks, ["a"]).save_as(tmp_path / "seg.dcm")
    for file in series.files:
        file.unlink()
    volume = read(tmp_path / "seg.dcm")
    assert volume.source.shape == (21, 17, 1)
    np.testing.assert_allclose(volume.source.affine[:3, 2], series.affine[:3, 2], atol=1e-6)


def test_segmentations_of_one_series_can_be_chosen(
    make_series: Callable[..., Any], tmp_path: Path
) -> None:
    series = make_series(tmp_path / "ct", scan())
    for n in (1, 2):
        dataset = segmentation(series, two()[0][..., n - 1], ["a"])
        dataset.SeriesInstanceUID = "1.2.3.4"
        dataset.save_as(tmp_path / "ct" / f"seg{n}.dcm")
    listed = [one for one in catalog(tmp_path / "ct") if one.kind == "labels"]
    for n, one in enumerate(listed):
        expected = two()[0][..., n].T
        for place in (tmp_path / "ct", one.path):
            np.testing.assert_array_equal(in_file_order(read(place, series=one.uid)), expected)
