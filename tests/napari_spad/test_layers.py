"""Volumes as layers: upright, radiological, in mm, and exactly back."""

from __future__ import annotations

import itertools

import nibabel
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer

from napari_spad import layers
from napari_spad.reader import read_layer
from spad.errors import SpadError
from spad.volumes.volume import Volume

SHAPE = (5, 7, 9)
SPACING = (0.8, 1.5, 4.0)
ORIENTATIONS = [
    (permutation, flips)
    for permutation in itertools.permutations(range(3))
    for flips in ((1, 1, 1), (-1, 1, -1), (-1, -1, 1))
]


def affine_of(permutation, flips, origin=(11.0, -23.0, 37.0)):
    """File axis n runs along world axis permutation[n], backwards if flips[n] is -1."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(zip(permutation, flips, strict=True)):
        affine[world, axis] = sign * SPACING[axis]
    affine[:3, 3] = origin
    return affine


def tilted(degrees=12.0):
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ affine_of((0, 1, 2), (-1, 1, 1))


def saved(tmp_path, affine, data=None, name="scan.nii"):
    if data is None:
        data = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    image = nibabel.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm", "sec")
    path = tmp_path / name
    nibabel.save(image, path)
    return path


def opened(path) -> Layer:
    return Layer.create(*read_layer(path))


def value_at(layer, world):
    index = np.rint(layer.world_to_data(world)).astype(int)
    assert np.allclose(index, layer.world_to_data(world), atol=1e-6)
    return layer.data[tuple(index)]


@pytest.mark.parametrize(("permutation", "flips"), ORIENTATIONS)
def test_world_is_minus_s_a_r(tmp_path, permutation, flips):
    path = saved(tmp_path, affine_of(permutation, flips))
    layer = opened(path)
    assert (layer.scale > 0).all()
    assert np.allclose(np.asarray(layer.affine), np.eye(4))
    reference = nibabel.load(path)
    for index in ((0, 0, 0), (1, 2, 3), (4, 6, 8)):
        value = reference.get_fdata()[index]
        r, a, s = (reference.affine @ [*index, 1])[:3]
        assert value_at(layer, (-s, -a, -r)) == value


def test_units_and_axis_labels(tmp_path):
    layer = opened(saved(tmp_path, affine_of((0, 1, 2), (-1, 1, 1))))
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert layer.axis_labels == ("S-I", "A-P", "R-L")
    assert np.allclose(layer.scale, (4.0, 1.5, 0.8))


def test_acquisition_planes_of_one_body_overlay(tmp_path):
    planes = [
        opened(saved(tmp_path, affine_of(permutation, flips), name=f"{n}.nii"))
        for n, (permutation, flips) in enumerate(ORIENTATIONS)
    ]
    viewer = ViewerModel()
    for layer in planes:
        viewer.add_layer(layer)
    for layer in planes:
        r, a, s = 11.0, -23.0, 37.0
        assert value_at(layer, (-s, -a, -r)) == 0


def test_oblique_keeps_its_voxel_grid_and_its_centre(tmp_path):
    affine = tilted()
    layer = opened(saved(tmp_path, affine))
    assert np.allclose(layer.scale, (4.0, 1.5, 0.8))
    assert np.allclose(np.asarray(layer.affine), np.eye(4))
    centre = affine @ [*((np.array(SHAPE) - 1) / 2), 1]
    middle = layer.data_to_world((np.array(layer.data.shape) - 1) / 2)
    assert np.allclose(middle, -centre[:3][::-1])


def test_time_comes_first_with_its_step(tmp_path):
    data = np.arange(np.prod(SHAPE) * 3, dtype=np.int16).reshape(*SHAPE, 3)
    image = nibabel.Nifti1Image(data, affine_of((0, 1, 2), (-1, 1, 1)))
    image.header.set_zooms((*SPACING, 2.5))
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, tmp_path / "series.nii")
    layer = opened(tmp_path / "series.nii")
    assert layer.data.shape == (3, 9, 7, 5)
    assert layer.axis_labels[0] == "time"
    assert str(layer.units[0]) == "second"
    assert layer.scale[0] == pytest.approx(2.5)
    assert layer.data[1, 8, 6, 0] == data[0, 0, 0, 1]


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"),
    [(1, 0, np.int16), (1, -1024, np.int16), (2, 0, np.int16), (0.5, 1, np.float32)],
)
def test_status_bar_reads_the_unit(tmp_path, slope, intercept, dtype):
    data = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    image = nibabel.Nifti1Image(data, affine_of((0, 1, 2), (1, 1, 1)))
    image.header.set_slope_inter(slope, intercept)
    nibabel.save(image, tmp_path / "scan.nii")
    layer = opened(tmp_path / "scan.nii")
    assert layer.data.dtype == dtype
    assert layer.data.min() == intercept
    assert layer.data.max() == (data.size - 1) * slope + intercept


def test_large_scaled_values_do_not_wrap():
    stored = np.array([[[0, 30000]]], dtype=np.int16)
    values = layers.scan_values(stored, 4.0, 0.0)
    assert values.max() == 120000
    assert values.dtype == np.int32


def test_contrast_of_ct_is_the_window(ct_phantom):
    _, kwargs, kind = layers.to_layer(ct_phantom.image, "ct")
    assert kind == "image"
    assert kwargs["contrast_limits"] == (-125.0, 275.0)


def test_contrast_of_mr_is_by_percentiles(mr_phantom):
    _, kwargs, _ = layers.to_layer(mr_phantom.image, "mr")
    low, high = kwargs["contrast_limits"]
    assert 0 <= low < high < mr_phantom.image.array.max() + 1


def test_a_constant_scan_has_contrast():
    holes = np.zeros((3, 4, 5), np.float32)
    holes[0, 0, 0] = np.nan
    for array in (np.full((3, 4, 5), 7, np.int16), holes):
        low, high = layers.display_limits(Volume.from_array(array, np.eye(4)))
        assert np.isfinite([low, high]).all()
        assert low < high


def test_a_scan_without_a_finite_voxel_is_refused():
    volume = Volume.from_array(np.full((3, 4, 5), np.nan, np.float32), np.eye(4))
    with pytest.raises(SpadError, match="no finite voxel"):
        layers.to_layer(volume, "nothing")


def test_labels_have_names_and_distinct_colours(ct_phantom):
    layer = Layer.create(*layers.to_layer(ct_phantom.labels, "organs", role="labels"))
    assert isinstance(layer, Labels)
    names = ct_phantom.labels.label_names
    assert layers.label_names({"features": layer.features}) == names
    colors = {tuple(np.round(layer.get_color(label), 3)) for label in names}
    assert len(colors) == len(names)
    assert layer.get_color(0) is None
    viewer = ViewerModel()
    viewer.add_layer(layer)
    place = layer.data_to_world(np.argwhere(np.asarray(layer.data) == 6)[0])
    viewer.dims.point = place
    status = layer.get_status(place, world=True)
    assert "liver" in status["value"]


def test_labels_can_be_painted_without_touching_the_volume(ct_phantom):
    layer = Layer.create(*layers.to_layer(ct_phantom.labels, "organs", role="labels"))
    before = np.array(ct_phantom.labels.array)
    layer.data[:] = 0
    assert np.array_equal(ct_phantom.labels.array, before)


def test_volume_of_a_scan_is_the_scan_as_stored(tmp_path):
    data = np.arange(np.prod(SHAPE), dtype=np.uint8).reshape(SHAPE) % 200
    image = nibabel.Nifti1Image(data, affine_of((2, 0, 1), (-1, 1, 1)))
    image.header.set_slope_inter(1.5686, -125)
    nibabel.save(image, tmp_path / "scan.nii")
    volume = layers.volume_of(opened(tmp_path / "scan.nii"))
    assert volume.array.dtype == np.uint8
    assert volume.slope == pytest.approx(1.5686)


def test_volume_of_an_edited_copy_holds_the_edit(ct_phantom):
    data, kwargs, _ = layers.to_layer(ct_phantom.image, "ct")
    copy = Image(np.array(data), **kwargs)
    copy.data[0, 0, 0] = 77
    volume = layers.volume_of(copy)
    assert np.count_nonzero(volume.values() != ct_phantom.image.values()) <= 1
    assert 77 in volume.array
    assert volume.affine == pytest.approx(ct_phantom.image.affine)


def test_volume_of_a_stranger_is_refused():
    with pytest.raises(SpadError, match="grid of no open scan"):
        layers.volume_of(Image(np.zeros((3, 4, 5)), scale=(9, 8, 7), name="stranger"))


def test_coarser_grid_lies_over_its_scan(ct_phantom):
    scan = layers.to_layer(ct_phantom.image, "ct")
    grid = layers.grid_of_layer(Layer.create(*scan))
    affine = ct_phantom.image.affine.copy()
    factors = np.array([2, 16, 16])
    coarse_affine = affine.copy()
    coarse_affine[:3, :3] = affine[:3, :3] * factors
    coarse_affine[:3, 3] += affine[:3, :3] @ ((factors - 1) / 2)
    shape = [n // f for n, f in zip(ct_phantom.image.spatial_shape, factors, strict=True)]
    coarse = Volume.from_array(np.ones(shape, np.uint8), coarse_affine, label_names={1: "masked"})
    layer = Layer.create(*layers.to_layer(coarse, "mask", role="mask", on=grid))
    fine = Layer.create(*scan)
    assert np.allclose(layer.extent.world, fine.extent.world, atol=layer.scale.max())
    corner = np.array(layer.translate) - np.array(layer.scale) / 2
    assert np.allclose(corner, np.array(fine.translate) - np.array(fine.scale) / 2)


def test_coarser_grid_of_an_oblique_scan_fits_its_voxels(mr_phantom):
    scan = Layer.create(*layers.to_layer(mr_phantom.image, "mr"))
    grid = layers.grid_of_layer(scan)
    affine = mr_phantom.image.affine
    coarse_affine = affine.copy()
    coarse_affine[:3, :3] = affine[:3, :3] * 8
    coarse_affine[:3, 3] += affine[:3, :3] @ np.full(3, 3.5)
    coarse = Volume.from_array(np.ones((4, 9, 9), np.uint8), coarse_affine, label_names={})
    layer = Layer.create(*layers.to_layer(coarse, "codes", role="codes", on=grid))
    corners = [np.array(one.translate) - np.array(one.scale) / 2 for one in (layer, scan)]
    ends = [
        corner + np.array(one.scale) * one.data.shape
        for one, corner in zip((layer, scan), corners, strict=True)
    ]
    for axis in range(3):
        starts_together = np.isclose(corners[0][axis], corners[1][axis], atol=1e-6)
        ends_together = np.isclose(ends[0][axis], ends[1][axis], atol=1e-6)
        assert starts_together or ends_together
