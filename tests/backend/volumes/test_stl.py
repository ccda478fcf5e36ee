"""Surfaces of labels: closed, outward, where the voxels are, and as large."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spad.errors import SpadError
from spad.phantoms import Phantom, phantom
from spad.volumes.files import stl, write
from spad.volumes.volume import Volume

MIRRORED = np.diag([-1.0, 1.0, 1.0, 1.0])


def parse(path: Path) -> np.ndarray:
    """Read corners (triangles, 3, 3) in RAS mm, by hand and not as the writer does."""
    data = path.read_bytes()
    assert not data.startswith(b"solid")
    assert b"SPACE=LPS " in data[:80]
    (count,) = struct.unpack_from("<I", data, 80)
    assert len(data) == 84 + 50 * count
    rows = [struct.unpack_from("<12f", data, 84 + 50 * n) for n in range(count)]
    table = np.array(rows)
    corners = table[:, 3:].reshape(-1, 3, 3)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    np.testing.assert_allclose(normals, table[:, :3], atol=1e-3)
    return corners * (-1, -1, 1)


def volume_of(corners: np.ndarray) -> float:
    """Give the enclosed volume in mm^3 by the divergence theorem."""
    return float(np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))) / 6


def edges_close(corners: np.ndarray) -> bool:
    """Tell whether each edge is met exactly twice, once from either side."""
    edges: dict[tuple[bytes, bytes], int] = {}
    for triangle in np.asarray(corners, np.float32) + np.float32(0):
        points = [point.tobytes() for point in triangle]
        for a, b in zip(points, points[1:] + points[:1], strict=True):
            edges[a, b] = edges.get((a, b), 0) + 1
    return all(n == 1 and edges.get((b, a)) == 1 for (a, b), n in edges.items())


def labels_of(array: np.ndarray, affine: np.ndarray, names: dict[int, str] | None = None) -> Volume:
    return Volume.from_array(array, affine, label_names=names or {})


@pytest.fixture(scope="module")
def labels() -> Volume:
    return phantom(3, spacing=(5.0, 2.5, 2.5), shape=(56, 128, 146), tilt_degrees=12.0).labels


def sheared(labels: Volume) -> Volume:
    """Give the same voxels on a grid whose slices are shifted as by a tilted gantry."""
    shear = np.eye(4)
    shear[1, 2] = np.tan(np.radians(20))
    return labels_of(labels.array, shear @ labels.affine, labels.label_names)


@pytest.mark.parametrize("kind", ["oblique", "mirrored", "tilted gantry"])
def test_each_organ_has_the_volume_and_place_of_its_voxels(
    labels: Volume, kind: str, tmp_path: Path
) -> None:
    if kind == "mirrored":
        labels = labels_of(labels.array, MIRRORED @ labels.affine, labels.label_names)
    elif kind == "tilted gantry":
        labels = sheared(labels)
    write(labels, tmp_path / "organs.stl")
    names = labels.label_names or {}
    assert {file.name for file in tmp_path.iterdir()} == {f"organs_{n}.stl" for n in names.values()}
    voxel = abs(np.linalg.det(labels.affine[:3, :3]))
    for label, name in names.items():
        corners = parse(tmp_path / f"organs_{name}.stl")
        index = np.argwhere(labels.array == label)
        world = index @ labels.affine[:3, :3].T + labels.affine[:3, 3]
        # an organ of a few voxels is mostly corners, which marching cubes cuts
        tolerance = 0.02 if len(index) > 1000 else 0.25
        assert volume_of(corners) == pytest.approx(len(index) * voxel, rel=tolerance), name
        middle = corners.mean((0, 1))
        assert np.linalg.norm(middle - world.mean(0)) < 12, name
        if len(index) > 1000:
            half = np.abs(labels.affine[:3, :3]).sum(1) / 2
            np.testing.assert_allclose(corners.min((0, 1)), world.min(0), atol=half.max())
            np.testing.assert_allclose(corners.max((0, 1)), world.max(0), atol=half.max())
    assert edges_close(parse(tmp_path / "organs_spleen.stl"))


@pytest.mark.parametrize("affine", [np.eye(4), MIRRORED, np.diag([0.5, 2.0, 3.0, 1.0])])
def test_a_label_on_the_border_is_closed(affine: np.ndarray, tmp_path: Path) -> None:
    array = np.zeros((9, 10, 11), np.uint8)
    array[:4, :5, 6:] = 7
    write(labels_of(array, affine), tmp_path / "corner.stl")
    corners = parse(tmp_path / "corner.stl")
    assert edges_close(corners)
    voxel = abs(np.linalg.det(affine))
    # all but the cut edges of the box of 4 x 5 x 5 voxels
    assert 0.85 * 100 < volume_of(corners) / voxel < 100


def test_voxels_that_touch_at_edges_and_corners_are_still_closed(tmp_path: Path) -> None:
    array = (np.random.default_rng(0).random((12, 13, 14)) < 0.4).astype(np.uint8)
    write(labels_of(array, np.eye(4)), tmp_path / "noise.stl")
    assert edges_close(parse(tmp_path / "noise.stl"))


def test_files_are_named_after_labels_that_are_present(tmp_path: Path) -> None:
    array = np.zeros((5, 6, 7), np.int32)
    for n, label in enumerate((1, 2, 3, -4, 100000)):
        array[1 + n // 2, 1 + 2 * (n % 2), 2:5] = label
    names = {1: "Left kidney/cyst", 2: "Mass", 3: "mass", 9: "absent", 100000: "Niere ä"}
    write(labels_of(array, np.eye(4), names), tmp_path / "a.stl")
    assert {file.name for file in tmp_path.iterdir()} == {
        *("a_Left_kidney_cyst.stl", "a_Mass_2.stl", "a_mass_3.stl", "a_-4.stl", "a_Niere_ä.stl")
    }
    rows = {file.name: parse(file) for file in tmp_path.iterdir()}
    z = {name: corners.mean((0, 1)) for name, corners in rows.items()}
    np.testing.assert_allclose(z["a_Niere_ä.stl"], (3, 1, 3), atol=0.01)
    np.testing.assert_allclose(z["a_-4.stl"], (2, 3, 3), atol=0.01)


def test_refusals(ct_phantom: Phantom, tmp_path: Path) -> None:
    empty = labels_of(np.zeros((3, 4, 5), np.uint8), np.eye(4), {1: "liver"})
    with pytest.raises(SpadError, match="without a single labelled voxel"):
        write(empty, tmp_path / "a.stl")
    with pytest.raises(SpadError, match="labels"):
        write(ct_phantom.image, tmp_path / "a.stl")
    moving = Volume.from_array(np.ones((2, 3, 4, 5), np.uint8), np.eye(4), axes="tzyx")
    with pytest.raises(SpadError, match="three dimensions"):
        write(replace(moving, label_names={}), tmp_path / "a.stl")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fault", ["shift", "hole", "inside out", "not a number", "cut off"])
def test_a_faulty_surface_is_found_and_nothing_is_kept(
    fault: str, ct_phantom: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = stl._write

    def wrong(file: Path, header: bytes, corners: np.ndarray) -> None:
        corners = corners.copy()
        if fault == "shift":
            corners += np.float32(0.3)
        elif fault == "hole":
            corners = corners[1:]
        elif fault == "inside out":
            corners = corners[:, ::-1]
        elif fault == "not a number":
            corners[5, 1, 1] = np.nan
        right(file, header, corners)
        if fault == "cut off":
            file.write_bytes(file.read_bytes()[:-10])

    monkeypatch.setattr(stl, "_write", wrong)
    (tmp_path / "organs_liver.stl").write_bytes(b"older")
    with pytest.raises(SpadError, match="did not read back"):
        write(ct_phantom.labels, tmp_path / "organs.stl")
    assert [file.name for file in tmp_path.iterdir()] == ["organs_liver.stl"]
    assert (tmp_path / "organs_liver.stl").read_bytes() == b"older"
