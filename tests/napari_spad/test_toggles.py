"""One key between image and labels: voxels, place, grid, name and names stay."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Points

from napari_spad import layers, toggles
from spad.errors import SpadError
from spad.volumes.files import read, write


@pytest.fixture
def viewer(ct_phantom):
    viewer = ViewerModel()
    viewer.add_layer(Layer.create(*layers.to_layer(ct_phantom.image, "ct")))
    viewer.add_layer(Layer.create(*layers.to_layer(ct_phantom.labels, "organs", role="labels")))
    viewer.add_layer(Points(np.zeros((1, 3)), name="points"))
    return viewer


def test_there_and_back(viewer, ct_phantom):
    before = viewer.layers["organs"]
    names = layers.label_names({"features": before.features})
    image = toggles.toggle(viewer, before)
    assert isinstance(image, Image)
    assert [layer.name for layer in viewer.layers] == ["ct", "organs", "points"]
    assert viewer.layers.selection.active is image
    assert np.array_equal(image.data, before.data)
    labels = toggles.toggle(viewer, image)
    assert isinstance(labels, Labels)
    assert [layer.name for layer in viewer.layers] == ["ct", "organs", "points"]
    assert np.array_equal(labels.data, before.data)
    assert layers.label_names({"features": labels.features}) == names
    assert layers.role_of(labels) == "labels"
    for label in names:
        assert labels.get_color(label) == pytest.approx(before.get_color(label))
    for layer in (image, labels):
        for key in ("scale", "translate"):
            assert np.array_equal(getattr(layer, key), getattr(before, key))
        assert layer.units == before.units
        assert layer.axis_labels == before.axis_labels
        assert layers.grid_of_layer(layer).uuid == ct_phantom.labels.source.uuid


def test_a_scan_becomes_labels_and_looks_as_before_when_back(viewer):
    scan = viewer.layers["ct"]
    scan.contrast_limits = (-50, 200)
    scan.colormap = "magma"
    labels = toggles.toggle(viewer, scan)
    assert isinstance(labels, Labels)
    assert labels.data.min() == scan.data.min() < 0
    image = toggles.toggle(viewer, labels)
    assert tuple(image.contrast_limits) == (-50, 200)
    assert image.colormap.name == "magma"
    assert layers.role_of(image) == "scan"
    assert layers.scan_volume(image) is not None


def test_labels_of_a_file_that_was_taken_for_an_image_are_saved_on_its_grid(tmp_path):
    data = np.zeros((5, 6, 7), np.float32)
    data[1:3, 2:4, 3:5] = 3
    affine = np.array([[-2.0, 0, 0, 9], [0, 0, 3, 8], [0, 1.5, 0, 7], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(data, affine), tmp_path / "what.nii")
    viewer = ViewerModel()
    volume = read(tmp_path / "what.nii")
    layer = viewer.add_layer(Layer.create(*layers.to_layer(volume, "what")))
    assert isinstance(layer, Image)
    labels = toggles.toggle(viewer, layer)
    assert labels.data.dtype == np.uint8
    labels.data[tuple(n // 2 for n in labels.data.shape)] = 9
    write(layers.volume_of(labels), tmp_path / "labels.nii")
    saved = nibabel.load(tmp_path / "labels.nii")
    assert np.allclose(saved.affine, affine)
    assert saved.get_data_dtype() == np.uint8
    assert np.count_nonzero(np.asarray(saved.dataobj) != data) == 1


def test_labels_can_be_painted_without_touching_the_scan(viewer):
    scan = viewer.layers["ct"]
    before = np.array(scan.data)
    labels = toggles.switched(scan)
    labels.data[:] = 0
    assert np.array_equal(scan.data, before)


@pytest.mark.parametrize(
    ("value", "words"), [(12.5, "12.5"), (np.nan, "no number"), (np.inf, "infinite")]
)
def test_numbers_that_are_not_whole_are_refused(value, words):
    data = np.zeros((4, 5, 6), np.float32)
    data[1, 2, 3] = value
    layer = Image(data, name="scan")
    viewer = ViewerModel()
    viewer.add_layer(layer)
    with pytest.raises(SpadError, match=words):
        toggles.toggle(viewer, layer)
    assert list(viewer.layers) == [layer]


def test_other_layers_are_refused(viewer):
    with pytest.raises(SpadError, match="'points'"):
        toggles.switched(viewer.layers["points"])
    with pytest.raises(SpadError, match="colours"):
        toggles.switched(Image(np.zeros((4, 5, 3), np.uint8), rgb=True, name="colours"))


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ((0, 255), np.uint8),
        ((0, 256), np.int16),
        ((0, 40000), np.uint16),
        ((-1, 5), np.int16),
        ((0, 70000), np.int32),
        ((-1024, 3071), np.int16),
    ],
)
def test_the_smallest_type_is_taken(values, dtype):
    for source in (np.int64, np.float64):
        made = toggles.whole(np.array([[values]], source), "x")
        assert made.dtype == dtype
        assert made.ravel().tolist() == list(values)


def test_ids_beyond_32_bits_are_refused():
    with pytest.raises(SpadError, match="32 bits"):
        toggles.whole(np.array([0, 2**40]), "x")


def test_it_works_for_layers_of_no_scan():
    viewer = ViewerModel()
    layer = viewer.add_image(np.arange(24).reshape(2, 3, 4), scale=(3, 2, 1), name="mine")
    labels = toggles.toggle(viewer, layer)
    assert isinstance(labels, Labels)
    assert tuple(labels.scale) == (3, 2, 1)
