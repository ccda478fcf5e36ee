"""Layers without our metadata find their scan again, or say why they cannot."""

from __future__ import annotations

import copy
import gc

import nibabel
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels, Layer

from napari_spad import grids, layers
from napari_spad.reader import read_layer
from spad.errors import SpadError


def write(path, affine, shape=(6, 7, 8), codes=(1, 1)):
    image = nibabel.Nifti1Image(np.ones(shape, np.int16), affine)
    image.set_qform(affine, codes[0])
    image.set_sform(affine, codes[1])
    nibabel.save(image, path)
    return path


def drawn_on(layer, **changes):
    options = {
        "scale": layer.scale,
        "translate": layer.translate,
        "units": layer.units,
        "affine": layer.affine,
        "name": "drawn",
    }
    return Labels(np.zeros(layer.data.shape, np.uint8), **(options | changes))


@pytest.fixture
def scan(tmp_path):
    return Layer.create(*read_layer(write(tmp_path / "one.nii", np.diag([-2.0, 3, 4, 1]))))


def test_drawn_layer_gets_the_grid_of_its_scan(scan):
    volume = layers.volume_of(drawn_on(scan))
    assert volume.source.path.endswith("one.nii")
    assert volume.is_labels


def test_napari_s_own_new_labels_button(scan):
    viewer = ViewerModel()
    viewer.add_layer(scan)
    viewer.layers.selection.active = scan
    viewer._new_labels()
    assert viewer.layers[-1].metadata == {}
    assert layers.volume_of(viewer.layers[-1]).source.path.endswith("one.nii")


def test_duplicate_belongs_to_the_scan(scan):
    data, state, kind = scan.as_layer_data_tuple()
    twin = Layer.create(copy.deepcopy(data), state, kind)
    assert layers.volume_of(twin).source.path.endswith("one.nii")


def test_the_very_array_is_known_without_metadata(scan):
    meta = {"name": "x", "scale": scan.scale, "translate": scan.translate}
    assert grids.grid_of(scan.data, meta).name == "one"


def test_two_files_on_one_grid_count_as_one(scan, tmp_path):
    other = Layer.create(*read_layer(write(tmp_path / "two.nii", np.diag([-2.0, 3, 4, 1]))))
    volume = layers.volume_of(drawn_on(scan))
    assert volume.source.shape == other.data.shape[::-1]


def test_several_different_grids_are_named(scan, tmp_path):
    # the same voxels in space, stored in another order: either file could be meant
    affine = np.array([[2.0, 0, 0, -10], [0, 3, 0, 0], [0, 0, 4, 0], [0, 0, 0, 1]])
    other = Layer.create(*read_layer(write(tmp_path / "flipped.nii", affine)))
    assert np.allclose(other.translate, scan.translate)
    with pytest.raises(SpadError, match="'one' and 'flipped'"):
        layers.volume_of(drawn_on(scan))


def test_a_closed_scan_does_not_stand_in_the_way(scan, tmp_path):
    affine = np.array([[2.0, 0, 0, -10], [0, 3, 0, 0], [0, 0, 4, 0], [0, 0, 0, 1]])
    other = Layer.create(*read_layer(write(tmp_path / "flipped.nii", affine)))
    del other
    gc.collect()
    assert layers.volume_of(drawn_on(scan)).source.path.endswith("one.nii")


@pytest.mark.parametrize(
    "change",
    [{"scale": (4, 3, 2.5)}, {"translate": (0, 0, 9)}, {"affine": np.diag([2.0, 1, 1, 1])}],
)
def test_a_moved_layer_belongs_nowhere(scan, change):
    with pytest.raises(SpadError, match="'drawn'"):
        layers.volume_of(drawn_on(scan, **change))


def test_a_cropped_layer_says_where_it_came_from(scan):
    tag = {"metadata": scan.metadata}
    cropped = Labels(np.zeros((3, 3, 3), np.uint8), name="cropped", **tag)
    with pytest.raises(SpadError, match=r"'cropped' has shape .* grid of 'one'"):
        layers.volume_of(cropped)


def test_labels_outlive_their_scan(scan):
    labels = drawn_on(scan, metadata=scan.metadata)
    uuid = scan.metadata[grids.KEY]["uuid"]
    del scan
    gc.collect()
    assert layers.volume_of(labels).source.uuid == uuid


def test_a_closed_scan_is_let_go(tmp_path):
    layer = Layer.create(*read_layer(write(tmp_path / "big.nii", np.eye(4))))
    assert len(grids._registry.volumes) == 1
    del layer
    gc.collect()
    assert grids._registry.volumes == {}


def test_results_on_a_scan_do_not_take_its_place(scan):
    volume = layers.volume_of(scan)
    rebuilt = volume.with_array(np.zeros(volume.array.shape, np.float32))
    organs = volume.with_array(np.ones(volume.array.shape, np.uint8), label_names={1: "liver"})
    others = [
        Layer.create(*layers.to_layer(rebuilt, "rebuilt", role="reconstruction")),
        Layer.create(*layers.to_layer(organs, "organs", role="organs")),
    ]
    assert layers.volume_of(scan) is volume
    assert layers.volume_of(others[0]) is rebuilt
    assert layers.volume_of(others[1]).label_names == {1: "liver"}


def test_depth_and_modality_can_be_corrected(scan):
    volume = layers.volume_of(scan)
    assert volume.source.permutation[0] == 2
    grids.change(volume.source.uuid, lambda one: one.with_depth(0).with_modality("MR"))
    again = layers.volume_of(scan)
    assert again.source.permutation[0] == 0
    assert again.modality == "MR"
    labels = layers.volume_of(drawn_on(scan))
    assert labels.array.shape == again.array.shape


def test_files_of_two_formats_on_one_grid_count_as_one(scan, tmp_path):
    from spad.volumes.files import write

    write(layers.volume_of(scan), tmp_path / "two.nrrd")
    other = Layer.create(*read_layer(tmp_path / "two.nrrd"))
    assert np.allclose(other.translate, scan.translate)
    assert layers.volume_of(drawn_on(scan)).source.shape == (6, 7, 8)


def test_napari_s_name_for_new_labels_tells_their_scan(scan, tmp_path):
    affine = np.array([[2.0, 0, 0, -10], [0, 3, 0, 0], [0, 0, 4, 0], [0, 0, 0, 1]])
    other = Layer.create(*read_layer(write(tmp_path / "flipped.nii", affine)))
    viewer = ViewerModel()
    for layer in (scan, other):
        viewer.add_layer(layer)
    viewer.layers.selection.active = other
    viewer._new_labels()
    assert layers.volume_of(viewer.layers[-1]).source.path.endswith("flipped.nii")


def test_labels_of_another_order_do_not_stand_in_the_way(scan, tmp_path):
    affine = np.array([[2.0, 0, 0, -10], [0, 3, 0, 0], [0, 0, 4, 0], [0, 0, 0, 1]])
    truth = write(tmp_path / "scan_labels.nii", affine)
    opened = Layer.create(*read_layer(truth))
    assert isinstance(opened, Labels)
    assert layers.volume_of(drawn_on(scan)).source.path.endswith("one.nii")


def test_a_part_does_not_take_the_place_of_its_scan(scan):
    step = np.array(scan.scale)
    part = Labels(
        np.ones((3, 4, 5), np.uint8),
        name="part",
        scale=step,
        translate=np.array(scan.translate) + step,
        metadata=scan.metadata,
    )
    volume = layers.volume_of(part)
    layers.to_layer(volume, "again", role="labels")
    assert layers.grid_of_layer(scan).placement.shape == scan.data.shape
    assert layers.volume_of(drawn_on(scan)).source.path.endswith("one.nii")
