"""Canonical views are upright in every orientation, and every change of axes has its inverse."""

from __future__ import annotations

import itertools

import nibabel
import numpy as np
import pytest

from spad.errors import SpadError
from spad.volumes.axes import (
    axis_assignment,
    canonical_affine,
    degrees_off_axis,
    from_canonical,
    from_file_order,
    orientation_letters,
    to_canonical,
    to_file_order,
)
from spad.volumes.files import read
from spad.volumes.volume import SourceGrid, Volume

WORLD = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
ALL = [
    "".join(letters)
    for order in itertools.permutations((("R", "L"), ("A", "P"), ("S", "I")))
    for letters in itertools.product(*order)
]


def matrix(letters: str, tilt: float = 0.0, spacing: tuple[float, ...] = (4, 2, 1)) -> np.ndarray:
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, letter in enumerate(letters):
        row, sign = WORLD[letter]
        affine[row, axis] = sign
    a = np.radians(tilt)
    turn = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    turn = turn @ np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    affine[:3, :3] = turn @ affine[:3, :3] @ np.diag(spacing)
    affine[:3, 3] = (-40, 13, 77)
    return affine


def body(letters: str, tilt: float, axes: str = "zyx") -> Volume:
    """Make a volume whose voxels hold their own place: 1e6 S + 1e3 A + R, in whole steps."""
    affine = matrix(letters, tilt)
    index = np.stack(np.meshgrid(*map(np.arange, (5, 6, 7)), indexing="ij"), -1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    array = world @ (1, 1e3, 1e6)
    if len(axes) == 4:
        array = np.stack([array, array + 0.5])
    return Volume.from_array(array, affine, axes=axes)


def test_all_orientations_are_tried():
    assert len(set(ALL)) == 48


@pytest.mark.parametrize("letters", ALL)
@pytest.mark.parametrize("tilt", [0.0, 17.0])
def test_layer_axes_run_s_to_i_a_to_p_r_to_l(letters, tilt):
    volume = body(letters, tilt)
    view, affine = to_canonical(volume, depth_first=False)
    assert orientation_letters(affine) == "IPL"
    assert np.shares_memory(view, volume.array)
    # head first: each step goes down, then back, then left
    for axis, world in enumerate((2, 1, 0)):
        assert affine[world, axis] < 0
    for index in ((0, 0, 0), (1, 2, 3), tuple(n - 1 for n in view.shape)):
        place = affine[:3, :3] @ index + affine[:3, 3]
        assert view[index] == pytest.approx(place @ (1, 1e3, 1e6))
    back = from_canonical(view, volume, depth_first=False)
    np.testing.assert_array_equal(back, volume.array)
    assert np.shares_memory(back, volume.array)


@pytest.mark.parametrize("letters", ALL)
@pytest.mark.parametrize("axes", ["zyx", "tzyx", "czyx"])
def test_model_axes_have_depth_first(letters, axes):
    volume = body(letters, 9.0, axes)
    view, affine = to_canonical(volume, depth_first=True)
    assert np.linalg.norm(affine[:3, 0]) == pytest.approx(volume.spacing[0])
    assert set(orientation_letters(affine)) == set("IPL")
    last_two = orientation_letters(affine)[1:]
    assert last_two in ("IP", "IL", "PL")
    assert view.shape[:-3] == volume.array.shape[:-3]
    for index in ((0, 0, 0), (1, 2, 3)):
        place = affine[:3, :3] @ index + affine[:3, 3]
        assert view[(*(0,) * (view.ndim - 3), *index)] == pytest.approx(place @ (1, 1e3, 1e6))
    np.testing.assert_array_equal(from_canonical(view, volume, depth_first=True), volume.array)
    np.testing.assert_allclose(
        affine, canonical_affine(volume.affine, volume.spatial_shape, depth_first=True)
    )


def test_letters_and_assignment_agree_with_nibabel():
    rng = np.random.default_rng(0)
    for _ in range(300):
        affine = np.eye(4)
        affine[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0] @ np.diag(rng.uniform(0.5, 6, 3))
        affine[:3, :3] += rng.normal(size=(3, 3)) * 0.05
        assert orientation_letters(affine) == "".join(nibabel.aff2axcodes(affine))
        world, sign = axis_assignment(affine)
        expected = nibabel.io_orientation(affine)
        np.testing.assert_array_equal(np.stack([world, sign], 1), expected)


@pytest.mark.parametrize(
    ("tilt", "oblique"), [(0.0, False), (0.05, False), (0.2, True), (30, True)]
)
def test_oblique_from_a_tenth_of_a_degree(tilt, oblique):
    a = np.radians(tilt)
    affine = np.eye(4)
    affine[1:3, 1:3] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    assert degrees_off_axis(affine) == pytest.approx(tilt, abs=1e-6)
    assert Volume.from_array(np.zeros((2, 2, 2)), affine).is_oblique == oblique


@pytest.mark.parametrize("permutation", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", list(itertools.product((False, True), repeat=3)))
@pytest.mark.parametrize("times", [0, 2])
def test_file_order_and_back(permutation, flips, times):
    shape = (3, 4, 5) + ((times,) if times else ())
    source = SourceGrid(
        path=None,
        format="none",
        shape=shape,
        dtype=np.dtype(np.int64),
        affine=np.eye(4),
        permutation=((3,) if times else ()) + permutation,
        flips=((False,) if times else ()) + flips,
    )
    data = np.arange(np.prod(shape)).reshape(shape)
    array = from_file_order(data, source)
    assert array.shape[-3:] == tuple(shape[p] for p in permutation)
    np.testing.assert_array_equal(to_file_order(array, source), data)
    if times:
        np.testing.assert_array_equal(to_file_order(array[1], source), data[..., 1])
        np.testing.assert_array_equal(from_file_order(data[..., 1], source), array[1])
    for wrong in (data[:2], data[None, None]):
        with pytest.raises(SpadError, match="grid"):
            from_file_order(wrong, source)
    with pytest.raises(SpadError, match="grid"):
        to_file_order(array[..., :1, :1], source)
    with pytest.raises(SpadError, match="grid"):
        to_file_order(array[0, 0], source)


def test_a_canonical_array_of_another_shape_is_refused():
    volume = body("LPS", 0)
    with pytest.raises(SpadError, match="own grid"):
        from_canonical(np.zeros((2, 2, 2)), volume, depth_first=False)


def test_phantoms_are_upright(ct_phantom, mr_phantom):
    """Head first, front first, the patient's right first; the liver is on the right."""
    for phantom in (ct_phantom, mr_phantom):
        labels, affine = to_canonical(phantom.labels, depth_first=False)
        assert orientation_letters(affine) == "IPL"
        ids = {name: key for key, name in phantom.labels.label_names.items()}

        def middle(name, labels=labels, ids=ids):
            return np.argwhere(labels == ids[name]).mean(0)

        assert middle("liver")[2] < middle("spleen")[2]
        assert middle("right_kidney")[2] < middle("left_kidney")[2]
        assert middle("esophagus")[0] < middle("right_kidney")[0]
        assert middle("stomach")[1] < middle("aorta")[1]


def test_real_scans_are_upright(shared_data):
    for case, liver, spleen in (("btcv/label0005", 6, 1), ("chaos_t2/label10", 1, 4)):
        labels, _ = to_canonical(read(shared_data / f"{case}.nii.gz"), depth_first=False)
        right, left = (np.argwhere(labels == n).mean(0)[2] for n in (liver, spleen))
        assert right < labels.shape[2] / 2 < left
