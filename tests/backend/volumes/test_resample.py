"""Resampling onto another grid: right in world space, for tilted and sheared grids too."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from spad.errors import SpadError
from spad.volumes.resample import background, resample
from spad.volumes.volume import Volume


def grid(shape, spacing, degrees=0.0, shear=0.0, origin=None):
    """Index (z, y, x) to RAS+ mm: axial, tilted about R-L, and with slices shifted along A."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *spacing, 1
    affine[1, 0] += shear * spacing[0]
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ affine
    if origin is None:
        middle = affine[:3, :3] @ ((np.array(shape) - 1) / 2)
        origin = np.array([4.0, -7.0, 11.0]) - middle
    affine[:3, 3] = origin
    return affine


def world(affine, shape):
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    return np.tensordot(affine[:3, :3], index, 1) + affine[:3, 3].reshape(3, 1, 1, 1)


def plane(place):
    """A function of R, A, S that linear interpolation reproduces exactly."""
    return 3.0 * place[0] - 2.0 * place[1] + 5.0 * place[2] + 100.0


def scan(shape, affine, dtype=np.float32, **kwargs):
    return Volume.from_array(plane(world(affine, shape)).astype(dtype), affine, **kwargs)


def inside(volume, onto, margin=0.0):
    """Which voxels of `onto` lie between voxels of `volume`."""
    index = np.linalg.inv(volume.affine)[:3] @ np.vstack(
        [world(onto.affine, onto.spatial_shape).reshape(3, -1), np.ones(onto.array.size)]
    )
    last = np.array(volume.spatial_shape)[:, None] - 1
    good = np.all((index >= margin) & (index <= last - margin), axis=0)
    return good.reshape(onto.spatial_shape)


GRIDS = {
    "straight": grid((24, 30, 28), (2.0, 1.5, 1.5)),
    "tilted": grid((18, 26, 24), (3.0, 1.7, 1.6), degrees=23),
    "gantry tilt": grid((20, 26, 26), (2.5, 1.6, 1.6), shear=np.tan(np.radians(15))),
    "both": grid((20, 26, 26), (2.5, 1.6, 1.6), degrees=-11, shear=0.3),
    "mirrored": grid((24, 30, 28), (2.0, 1.5, 1.5)) @ np.diag([-1, 1, -1, 1]),
}
SHAPES = {
    "straight": (24, 30, 28),
    "tilted": (18, 26, 24),
    "gantry tilt": (20, 26, 26),
    "both": (20, 26, 26),
    "mirrored": (24, 30, 28),
}
GRIDS["mirrored"][:3, 3] = (
    np.array([4.0, -7.0, 11.0]) - GRIDS["mirrored"][:3, :3] @ (np.array(SHAPES["mirrored"]) - 1) / 2
)


@pytest.mark.parametrize("source", GRIDS)
@pytest.mark.parametrize("target", GRIDS)
def test_values_lie_where_they_lay_in_the_world(source, target):
    volume = scan(SHAPES[source], GRIDS[source])
    onto = scan(SHAPES[target], GRIDS[target])
    made = resample(volume, onto)
    assert made.array.shape == onto.array.shape
    assert np.allclose(made.affine, onto.affine)
    assert np.allclose(made.source.affine, onto.source.affine)
    assert made.source.uuid != onto.source.uuid
    good = inside(volume, onto)
    assert good.mean() > 0.2
    assert np.allclose(made.array[good], onto.array[good], atol=1e-2)


def test_integers_are_rounded_and_keep_slope_and_unit():
    volume = scan(SHAPES["tilted"], GRIDS["tilted"], np.int16, slope=2.0, intercept=-7.0)
    onto = scan(SHAPES["straight"], GRIDS["straight"])
    made = resample(volume, onto)
    assert made.array.dtype == np.int16
    assert (made.slope, made.intercept) == (2.0, -7.0)
    good = inside(volume, onto)
    errors = made.array[good] - np.trunc(onto.array[good])
    assert abs(errors.mean()) < 0.3
    assert np.abs(errors).max() <= 1


def test_outside_is_air_in_ct_and_the_lowest_value_elsewhere():
    shape, affine = SHAPES["tilted"], GRIDS["tilted"]
    onto = scan(SHAPES["straight"], GRIDS["straight"])
    ct = Volume.from_array(
        np.full(shape, 1074, np.int16), affine, intercept=-1024, modality_hint="CT"
    )
    mr = Volume.from_array(np.full(shape, 55, np.uint16), affine, modality_hint="MR")
    outside = ~inside(ct, onto, margin=-0.6)
    assert outside.any()
    assert np.all(resample(ct, onto).values()[outside] == -1024)
    assert np.all(resample(mr, onto).values()[outside] == 55)
    assert background(Volume.from_array(np.ones(shape, np.uint8), affine, label_names={})) == 0


def test_labels_take_the_nearest_and_keep_names_and_colours():
    shape, affine = SHAPES["tilted"], GRIDS["tilted"]
    array = np.zeros(shape, np.uint16)
    array[5:12, 8:18, 6:18] = 700
    array[5:12, 8:18, 18:20] = 3
    names = {3: "spleen", 700: "liver"}
    labels = Volume.from_array(array, affine, label_names=names)
    onto = scan(SHAPES["straight"], GRIDS["straight"], modality_hint="MR")
    made = resample(labels, onto)
    assert set(np.unique(made.array)) == {0, 3, 700}
    assert made.is_labels
    assert made.label_names == names
    assert made.source is onto.source
    assert made.array.dtype == np.uint16
    ml = np.count_nonzero(array == 700) * abs(np.linalg.det(affine[:3, :3]))
    found = np.count_nonzero(made.array == 700) * abs(np.linalg.det(onto.affine[:3, :3]))
    assert found == pytest.approx(ml, rel=0.1)


def test_nan_does_not_spread():
    volume = scan(SHAPES["tilted"], GRIDS["tilted"])
    volume.array[3, 4, 5] = np.nan
    made = resample(volume, scan(SHAPES["straight"], GRIDS["straight"]))
    assert np.count_nonzero(np.isnan(made.array)) < 10


@pytest.mark.parametrize("axes", ["tzyx", "czyx", "tczyx"])
def test_each_time_and_channel_by_itself(axes):
    shape, affine = SHAPES["tilted"], GRIDS["tilted"]
    leading = (3,) if len(axes) == 4 else (3, 2)
    base = plane(world(affine, shape)).astype(np.float32)
    array = np.zeros((*leading, *shape), np.float32)
    for place in np.ndindex(*leading):
        array[place] = base + 1000 * sum(place)
    onto = scan(SHAPES["straight"], GRIDS["straight"])
    volume = Volume.from_array(array, affine, axes=axes)
    made = resample(volume, onto)
    assert made.axes == axes
    assert made.array.shape == (*leading, *onto.spatial_shape)
    assert made.source.uuid != onto.source.uuid
    assert made.source.shape == (*onto.source.shape, *leading)
    good = inside(Volume.from_array(base, affine), onto)
    for place in np.ndindex(*leading):
        assert np.allclose(made.array[place][good], onto.array[good] + 1000 * sum(place), atol=0.02)


def test_as_simpleitk_does_with_its_own_geometry():
    """For grids without shear, ITK resamples by origin, spacing and direction alike."""
    import SimpleITK as sitk

    def image_of(volume):
        image = sitk.GetImageFromArray(np.ascontiguousarray(volume.array, np.float32))
        lps = np.diag([-1.0, -1, 1, 1]) @ volume.affine
        spacing = np.linalg.norm(lps[:3, :3], axis=0)[::-1]
        image.SetSpacing(spacing.tolist())
        image.SetDirection((lps[:3, :3][:, ::-1] / spacing).ravel().tolist())
        image.SetOrigin(lps[:3, 3].tolist())
        return image

    rng = np.random.default_rng(0)
    volume = Volume.from_array(
        rng.random(SHAPES["tilted"], dtype=np.float32), GRIDS["tilted"], modality_hint="MR"
    )
    onto = scan(SHAPES["straight"], GRIDS["straight"])
    reference = sitk.GetArrayFromImage(
        sitk.Resample(image_of(volume), image_of(onto), sitk.Transform(), sitk.sitkLinear, -9.0)
    )
    made = resample(volume, onto).array
    good = reference != -9.0
    assert good.mean() > 0.2
    assert np.quantile(np.abs(made[good] - reference[good]), 0.999) < 1e-4


def test_scans_without_a_common_place_are_refused():
    volume = scan(SHAPES["tilted"], GRIDS["tilted"])
    far = GRIDS["straight"].copy()
    far[0, 3] += 500
    with pytest.raises(SpadError, match="no place in common"):
        resample(volume, scan(SHAPES["straight"], far))


def test_it_can_be_stopped():
    volume = scan(SHAPES["tilted"], GRIDS["tilted"])
    onto = scan(SHAPES["straight"], GRIDS["straight"])

    def stop(fraction):
        raise SpadError("Stopped.")

    with pytest.raises(SpadError, match="Stopped"):
        resample(volume, onto, progress=stop)


def test_importing_it_is_light():
    code = (
        "import sys, spad.volumes.resample; "
        "assert not {'torch', 'SimpleITK', 'napari'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
