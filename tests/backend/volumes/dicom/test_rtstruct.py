"""Contours of structure sets become the voxels whose centres they enclose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from skimage.draw import polygon
from skimage.measure import find_contours

from spad.errors import SpadError
from spad.phantoms import Phantom
from spad.volumes.axes import to_file_order
from spad.volumes.files import read
from spad.volumes.files.dicom.rtstruct_polygon import fill
from spad.volumes.volume import Volume

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SHAPE = (40, 44, 14)
Contours = list[tuple[str, np.ndarray]]


def in_file_order(volume: Volume) -> np.ndarray:
    return np.asarray(to_file_order(volume.array, volume.source))


def structure_set(
    path: Path,
    series: Any,
    regions: dict[str, Contours],
    *,
    numbers: list[int] | None = None,
    series_uid: str | None = None,
) -> Path:
    """Write a structure set by hand; contours are (kind, points in LPS mm)."""
    dataset, named, study, frame = Dataset(), Dataset(), Dataset(), Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.SOPInstanceUID = generate_uid()
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.Modality, dataset.StructureSetLabel = "RTSTRUCT", "plan 1"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = series.study, generate_uid()
    named.SeriesInstanceUID = series.series if series_uid is None else series_uid
    study.RTReferencedSeriesSequence = [named] if named.SeriesInstanceUID else []
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = series.frame, [study]
    dataset.ReferencedFrameOfReferenceSequence = [frame]
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for n, (name, contours) in enumerate(regions.items()):
        region, drawn = Dataset(), Dataset()
        region.ROINumber = drawn.ReferencedROINumber = n + 1 if numbers is None else numbers[n]
        region.ROIName = name
        drawn.ROIDisplayColor = [255, 40 * n, 0]
        drawn.ContourSequence = []
        for kind, points in contours:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points)
            contour.ContourData = [f"{value:.8g}" for value in points.ravel()]
            drawn.ContourSequence.append(contour)
        dataset.StructureSetROISequence.append(region)
        dataset.ROIContourSequence.append(drawn)
    dataset.save_as(path, enforce_file_format=True)
    return path


def scan() -> np.ndarray:
    return np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)


def on_slice(series: Any, corners: Any, k: float) -> tuple[str, np.ndarray]:
    """Give a closed contour by its corners in voxels i, j on slice k."""
    corners = np.asarray(corners, float)
    index = np.c_[corners, np.full(len(corners), k)]
    lps = LPS @ series.affine
    return "CLOSED_PLANAR", index @ lps[:3, :3].T + lps[:3, 3]


def square(i: float, j: float, size: float) -> list[tuple[float, float]]:
    return [(i, j), (i + size, j), (i + size, j + size), (i, j + size)]


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))


def ellipsoid(series: Any) -> tuple[np.ndarray, Contours]:
    """Give the voxels of a turned ellipsoid in the patient, and its outlines on the slices.

    The outlines are exact: where the plane of a slice meets the surface, in polar angles.
    """
    lps = LPS @ series.affine
    centre = lps[:3, :3] @ (np.array(SHAPE) / 2 + (0.3, -0.2, 0.1)) + lps[:3, 3]
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    form = turn @ np.diag(1 / np.array([17.0, 21.0, 24.0]) ** 2) @ turn.T
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
    away = index @ lps[:3, :3].T + lps[:3, 3] - centre
    inside = np.einsum("...i,ij,...j->...", away, form, away) <= 1
    plane = lps[:3, :2]
    outlines = []
    for k in range(SHAPE[2]):
        start = lps[:3, 3] + k * lps[:3, 2] - centre
        # (start + plane x)' form (start + plane x) = 1
        a, b = plane.T @ form @ plane, plane.T @ form @ start
        middle = -np.linalg.solve(a, b)
        rest = 1 - start @ form @ start + b @ np.linalg.solve(a, b)
        if rest <= 0:
            continue
        angles = np.linspace(0, 2 * np.pi, 120, endpoint=False)
        around = np.linalg.solve(np.linalg.cholesky(a).T, [np.cos(angles), np.sin(angles)])
        corners = middle + np.sqrt(rest) * around.T
        outlines.append(("CLOSED_PLANAR", corners @ plane.T + lps[:3, 3] + k * lps[:3, 2]))
    return inside, outlines


@pytest.mark.parametrize("enhanced", [False, True], ids=["single", "enhanced"])
@pytest.mark.parametrize("kind", ["axial", "sagittal", "oblique", "tilted"])
def test_an_ellipsoid(
    kind: str, enhanced: bool, make_series: Callable[..., Any], tmp_path: Path
) -> None:
    series = make_series(tmp_path / "plan" / "ct", scan(), kind, enhanced=enhanced)
    inside, outlines = ellipsoid(series)
    (tmp_path / "plan" / "rt").mkdir()
    path = structure_set(tmp_path / "plan" / "rt" / "rs.dcm", series, {"Tumör": outlines})
    volume = read(path)
    assert volume.label_names == {1: "Tumör"}
    assert volume.label_colors == {1: (1.0, 0.0, 0.0, 1.0)}
    assert volume.name == "plan 1"
    assert volume.notes == ()
    np.testing.assert_allclose(volume.source.affine, series.affine, atol=1e-6)
    assert volume.array.shape == read(series.folder).array.shape
    assert dice(in_file_order(volume) == 1, inside) > 0.98


def test_organs_traced_around_their_voxels(
    ct_phantom: Phantom, make_series: Callable[..., Any], tmp_path: Path
) -> None:
    labels = in_file_order(ct_phantom.labels)
    series = make_series(tmp_path / "ct", labels.astype(np.int16), "tilted")
    names = ct_phantom.labels.label_names or {}
    regions = {}
    for label, name in names.items():
        regions[name] = [
            on_slice(series, outline[:-1] - 1, k)
            for k in range(labels.shape[2])
            for outline in find_contours(np.pad(labels[:, :, k] == label, 1).astype(float), 0.5)
        ]
    volume = read(structure_set(tmp_path / "rs.dcm", series, regions))
    np.testing.assert_array_equal(in_file_order(volume), labels)
    assert volume.label_names == names


def test_holes_by_a_contour_or_a_keyhole(make_series: Callable[..., Any], tmp_path: Path) -> None:
    series = make_series(tmp_path / "ct", scan(), "oblique")
    outer, inner = square(4.5, 5.5, 20), square(9.5, 10.5, 8)
    keyhole = [*outer, outer[0], *reversed(inner), inner[-1]]
    contours = [
        on_slice(series, outer, 3),
        on_slice(series, inner, 3),
        on_slice(series, keyhole, 4),
        # the same contour twice is one contour
        on_slice(series, outer, 5),
        on_slice(series, outer, 5),
        # an island in the hole
        on_slice(series, outer, 6),
        on_slice(series, inner, 6),
        on_slice(series, square(11.5, 12.5, 3), 6),
    ]
    array = in_file_order(read(structure_set(tmp_path / "rs.dcm", series, {"ring": contours})))
    full = np.zeros(SHAPE[:2], bool)
    full[5:25, 6:26] = True
    ring = full.copy()
    ring[10:18, 11:19] = False
    island = ring.copy()
    island[12:15, 13:16] = True
    for k, expected in {3: ring, 4: ring, 5: full, 6: island}.items():
        np.testing.assert_array_equal(array[:, :, k] == 1, expected, err_msg=str(k))


def test_a_contour_through_voxel_centres_keeps_them(
    make_series: Callable[..., Any], tmp_path: Path
) -> None:
    series = make_series(tmp_path / "ct", scan(), "oblique")
    contours = [
        on_slice(series, square(4, 5, 6), 2),
        on_slice(series, [(9, 9), (15, 15), (9, 21)], 3),
    ]
    array = in_file_order(read(structure_set(tmp_path / "rs.dcm", series, {"a": contours})))
    assert array[4:11, 5:12, 2].all()
    assert array[:, :, 2].sum() == 49
    assert array[:, :, 3].sum() == 7 * 7


def test_overlaps_go_to_the_later(make_series: Callable[..., Any], tmp_path: Path) -> None:
    series = make_series(tmp_path / "ct", scan())
    regions = {
        "a": [on_slice(series, square(4.5, 4.5, 10), 3)],
        "b": [on_slice(series, square(9.5, 4.5, 10), 3)],
    }
    volume = read(structure_set(tmp_path / "rs.dcm", series, regions, numbers=[7, 300]))
    array = in_file_order(volume)
    assert array.dtype == np.uint16
    assert volume.label_names == {7: "a", 300: "b"}
    assert (array == 7).sum() == 50
    assert (array == 300).sum() == 100
    assert "50 voxels are claimed by two labels: a and b (50)" in volume.notes[0]


def test_notes_tell_what_was_moved_or_left_out(
    make_series: Callable[..., Any], tmp_path: Path
) -> None:
    series = make_series(tmp_path / "ct", scan())
    box = square(4.5, 4.5, 10)
    regions = {
        "moved": [
            on_slice(series, box, 2.3),
            on_slice(series, box, 2.95),
            on_slice(series, box, 6),
        ],
        "outside": [on_slice(series, box, -3), on_slice(series, box, 40), on_slice(series, box, 1)],
        "marks": [
            ("POINT", on_slice(series, box, 1)[1][:1]),
            ("OPEN_PLANAR", on_slice(series, box, 1)[1]),
            ("CLOSED_PLANAR", on_slice(series, box, 1)[1][:2]),
        ],
        "thin": [on_slice(series, square(4.2, 4.2, 0.3), 4)],
    }
    volume = read(structure_set(tmp_path / "rs.dcm", series, regions, numbers=[0, 1, 2, 3]))
    # ROI number 0 is no label
    assert volume.label_names == {1: "moved", 2: "outside", 3: "marks", 4: "thin"}
    array = in_file_order(volume)
    assert {int(k) for k in np.nonzero(array == 1)[2]} == {2, 3, 6}
    assert {int(k) for k in np.nonzero(array == 2)[2]} == {1}
    notes = " ".join(volume.notes)
    assert "marks (1 POINT, 1 OPEN_PLANAR, 1 CLOSED_PLANAR of 2 points)" in notes
    assert "1 contours lie up to 1.2 mm off their nearest slice" in notes
    assert "2 contours lie outside the slices" in notes
    assert "stay empty: moved (2)" in notes
    assert "No voxel centre lies inside thin" in notes


def test_of_contours_between_slices_the_nearest_counts(
    make_series: Callable[..., Any], tmp_path: Path
) -> None:
    series = make_series(tmp_path / "ct", scan())
    contours = [
        on_slice(series, square(4.5, 4.5, 8 + n), place)
        for n, place in enumerate((2.75, 3.0, 3.25, 3.5001, 3.9))
    ]
    volume = read(structure_set(tmp_path / "rs.dcm", series, {"a": contours}))
    array = in_file_order(volume)
    assert array[:, :, 3].sum() == 81
    assert array[:, :, 4].sum() == 144
    assert any("3 contours lie between slices" in note for note in volume.notes)


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
def test_refusals(make_series: Callable[..., Any], tmp_path: Path) -> None:
    series = make_series(tmp_path / "ct", scan(), "oblique")
    lps = LPS @ series.affine
    upright = np.array([(5, 4, 2), (5, 20, 2), (5, 20, 9), (5, 4, 9)], float)
    leaning = np.array([(5, 4, 2), (5, 20, 2), (9, 20, 9), (9, 4, 9)], float)
    good = on_slice(series, square(4, 4, 9), 3)
    path = tmp_path / "rs.dcm"
    for corners, sentence in ((upright, "sagittal or coronal"), (leaning, "at an angle")):
        contour = ("CLOSED_PLANAR", corners @ lps[:3, :3].T + lps[:3, 3])
        with pytest.raises(SpadError, match=sentence) as caught:
            read(structure_set(path, series, {"fine": [good], "odd": [good, contour]}))
        assert "'odd'" in str(caught.value)
    with pytest.raises(SpadError, match="no closed contour"):
        read(structure_set(path, series, {"a": [("POINT", good[1][:1])]}))
    with pytest.raises(SpadError, match="no closed contour"):
        read(structure_set(path, series, {}))
    with pytest.raises(SpadError, match="triples"):
        read(structure_set(path, series, {"a": [("CLOSED_PLANAR", good[1].ravel()[:-1])]}))
    with pytest.raises(SpadError, match="finite"):
        read(structure_set(path, series, {"a": [("CLOSED_PLANAR", good[1] * np.nan)]}))
    absent = generate_uid()
    with pytest.raises(SpadError, match="put the folder of the series beside") as caught:
        read(structure_set(path, series, {"a": [good]}, series_uid=absent))
    assert absent in str(caught.value)


def test_a_series_with_a_fault_is_named(make_series: Callable[..., Any], tmp_path: Path) -> None:
    series = make_series(tmp_path / "ct", scan())
    path = structure_set(tmp_path / "rs.dcm", series, {"a": [on_slice(series, square(4, 4, 9), 3)]})
    series.files[5].unlink()
    with pytest.raises(SpadError, match=r"drawn on a series that cannot be read: .*lacks 1 slice"):
        read(path)


def test_a_frame_of_reference_will_do_where_no_series_is_named(
    make_series: Callable[..., Any], tmp_path: Path
) -> None:
    series = make_series(tmp_path / "ct", scan())
    contour = on_slice(series, square(4.5, 4.5, 10), 3)
    path = structure_set(tmp_path / "rs.dcm", series, {"a": [contour]}, series_uid="")
    volume = read(path)
    assert (in_file_order(volume) == 1).sum() == 100
    assert "names no series" in volume.notes[0]


@pytest.mark.parametrize("undefined", [False, True])
def test_a_cut_file_is_refused(
    undefined: bool, make_series: Callable[..., Any], tmp_path: Path
) -> None:
    series = make_series(tmp_path / "ct", scan())
    contours = [on_slice(series, square(4.5, 4.5, 10), k) for k in range(9)]
    path = structure_set(tmp_path / "rs.dcm", series, {"a": contours})
    if undefined:
        dataset = pydicom.dcmread(path)
        for element in dataset.iterall():
            element.is_undefined_length = element.VR == "SQ"
        dataset.save_as(path)
    whole = path.read_bytes()
    for kept in (200, 400, 700, 900, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:kept])
        with pytest.raises(SpadError, match=r"rs\.dcm") as error:
            read(path)
        assert "None" not in str(error.value)


@pytest.mark.parametrize("step", [0.0, 0.5, 1.0])
def test_polygons_are_those_of_skimage(step: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        corners = rng.uniform(-5, 25, (rng.integers(3, 12), 2))
        if step:
            corners = np.round(corners / step) * step
        mine, theirs = np.zeros((20, 18), bool), np.zeros((20, 18), bool)
        box, mask = fill(corners, mine.shape)
        mine[box] = mask
        theirs[polygon(corners[:, 1], corners[:, 0], theirs.shape)] = True
        for j, i in np.argwhere(mine != theirs):
            # on an edge skimage depends on rounding, here it always counts
            assert mine[j, i]
            ends = np.roll(corners, -1, 0) - corners
            along = np.clip(((i, j) - corners) @ ends.T / np.maximum((ends**2).sum(1), 1e-12), 0, 1)
            feet = corners + np.diag(along)[:, None] * ends
            assert np.linalg.norm(feet - (i, j), axis=1).min() < 1e-6
