"""Measures of labels, against the plain way on the whole array."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import pdist

from spad.volumes import measures
from spad.volumes.measures import diameter, measure
from spad.volumes.volume import Volume

AFFINE = np.array([[0, 0.3, -0.7, 5], [0.1, 0.9, 0.2, -7], [-3.0, 0.1, 0, 40], [0, 0, 0, 1]])


def scan_and_labels() -> tuple[Volume, np.ndarray]:
    """Blobs of four labels in noise; 9 occurs, but is not asked for."""
    rng = np.random.default_rng(4)
    shape = (14, 22, 26)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 2)
    labels = np.digitize(smooth, np.quantile(smooth, [0.5, 0.7, 0.8, 0.9])).astype(np.uint8)
    labels[labels == 4] = 9
    scan = Volume.from_array(
        rng.normal(40, 90, shape).round().astype(np.int16), AFFINE, slope=0.5, intercept=-3
    )
    return scan, labels


def farthest(points: np.ndarray, affine: np.ndarray) -> float:
    return float(pdist(points @ affine[:3, :3].T).max()) if len(points) > 1 else 0.0


def test_against_the_plain_way() -> None:
    scan, labels = scan_and_labels()
    names = {1: "spleen", 2: "liver", 3: "aorta", 700: "pancreas"}
    table = measure(scan, labels, names)
    assert list(table) == ["spleen", "liver", "aorta", "pancreas"]
    values = scan.values().astype(float)
    for label in (1, 2, 3):
        inside = labels == label
        found = table[names[label]]
        assert (found["id"], found["voxels"]) == (label, inside.sum())
        voxel = abs(np.linalg.det(AFFINE[:3, :3]))
        assert found["volume_ml"] == pytest.approx(inside.sum() * voxel / 1000)
        assert found["mean"] == pytest.approx(values[inside].mean())
        assert found["sd"] == pytest.approx(values[inside].std())
        assert found["slices"] == inside.any((1, 2)).sum()
        assert found["diameter_mm"] == pytest.approx(farthest(np.argwhere(inside), AFFINE))
    empty = {"id": 700, "voxels": 0, "volume_ml": 0, "mean": None, "sd": None}
    assert table["pancreas"] == empty | {"slices": 0, "diameter_mm": None}
    assert measure(scan, labels, {}) == {}


def test_any_strides_and_types() -> None:
    scan, labels = scan_and_labels()
    wanted = measure(scan, labels, {1: "a", 3: "b"})
    turned = np.ascontiguousarray(labels[::-1].transpose(2, 0, 1)).transpose(1, 2, 0)[::-1]
    assert measure(scan, turned.astype(np.int64), {1: "a", 3: "b"}) == wanted
    one = measure(scan, labels == 1, {1: "a"})["a"]
    assert one == wanted["a"]


def test_voxels_that_are_not_finite_count_for_the_volume_alone() -> None:
    array = np.ones((2, 3, 4), np.float32)
    array[0, 0, 0] = np.nan
    labels = np.zeros(array.shape, np.uint8)
    labels[0, 0, :2] = 1
    labels[1, 2, 3] = 2
    array[1, 2, 3] = np.inf
    table = measure(Volume.from_array(array, np.eye(4)), labels, {1: "a", 2: "b"})
    assert (table["a"]["voxels"], table["a"]["mean"], table["a"]["diameter_mm"]) == (2, 1, 1)
    assert (table["b"]["voxels"], table["b"]["mean"], table["b"]["diameter_mm"]) == (1, None, 0)


def test_times() -> None:
    array = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).astype(np.int16)
    scan = Volume.from_array(array, np.diag([2.0, 1, 1, 1]), axes="tzyx")
    still = np.zeros((3, 4, 5), np.uint8)
    still[1] = 1
    moving = np.stack([still, np.roll(still, 1, axis=0)])
    one, each = (measure(scan, labels, {1: "a"})["a"] for labels in (still, moving))
    assert (one["voxels"], each["voxels"]) == (20, 40)
    assert one["volume_ml"] == each["volume_ml"] == pytest.approx(0.04)
    assert one["mean"] == pytest.approx(array[:, 1].mean())
    assert each["mean"] == pytest.approx(array[moving == 1].mean())
    assert (one["slices"], each["slices"]) == (1, 2)
    assert one["diameter_mm"] == each["diameter_mm"] == 5


class TestDiameter:
    @pytest.mark.parametrize(
        "box",
        [(1, 1, 1), (1, 1, 7), (6, 1, 1), (1, 5, 8), (4, 1, 9), (3, 4, 1), (2, 2, 2), (5, 6, 7)],
    )
    def test_points_lines_planes_and_boxes(self, box) -> None:
        points = np.argwhere(np.ones(box, bool)) + 3
        assert diameter(points, AFFINE) == pytest.approx(farthest(points, AFFINE))

    def test_a_slanted_line_and_plane(self) -> None:
        line = np.arange(9)[:, None] * np.array([1, 2, -3]) + 40
        assert diameter(line, AFFINE) == pytest.approx(farthest(line, AFFINE))
        y, x = np.mgrid[:7, :9].reshape(2, -1)
        plane = np.stack([y + 2 * x, y, x], 1)
        assert diameter(plane, AFFINE) == pytest.approx(farthest(plane, AFFINE))

    def test_pairs_are_compared_in_parts(self, monkeypatch) -> None:
        z, y, x = np.mgrid[-9:10, -9:10, -9:10].reshape(3, -1)
        ball = np.stack([z, y, x], 1)[z * z + y * y + x * x <= 81]
        monkeypatch.setattr(measures, "_PAIRS_AT_ONCE", 50)
        assert diameter(ball, AFFINE) == pytest.approx(farthest(ball, AFFINE))
