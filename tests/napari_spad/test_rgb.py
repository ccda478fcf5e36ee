"""Pictures in colours and channels: one layer, upright, in mm, and exactly back."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels, Layer
from napari.layers import _layer_actions as actions

from napari_spad import layers
from napari_spad.reader import read_layer
from napari_spad.writer import write_image, write_labels
from spad.errors import SpadError
from spad.volumes.files import read
from spad.volumes.volume import Volume

AFFINE = np.array([[0, 0, -0.5, 60], [0, -0.7, 0, 40], [3.0, 0, 0, -20], [0, 0, 0, 1]])


def colours(channels=3, times=None, shape=(5, 40, 50)):
    lead = (channels,) if times is None else (times, channels)
    array = np.random.default_rng(0).integers(0, 255, (*lead, *shape)).astype(np.uint8)
    axes = "czyx" if times is None else "tczyx"
    return Volume.from_array(array, AFFINE, axes=axes, rgb=True)


def shown(volume, name="picture"):
    return Layer.create(*layers.to_layer(volume, name))


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_are_last_and_the_places_are_true(channels):
    volume = colours(channels)
    layer = shown(volume)
    assert layer.rgb
    assert layer.ndim == 3
    assert layer.data.shape == (5, 40, 50, channels)
    assert np.allclose(layer.scale, (3, 0.7, 0.5))
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert layer.axis_labels == ("S-I", "A-P", "R-L")
    for index in ((0, 0, 0), (2, 7, 11), (4, 39, 49)):
        r, a, s = (volume.affine @ [*index, 1])[:3]
        place = np.rint(layer.world_to_data((-s, -a, -r))).astype(int)
        assert layer.data[tuple(place)].tolist() == volume.array[(slice(None), *index)].tolist()
    assert layers.volume_of(layer) is volume


def test_times_and_colours():
    volume = colours(times=2)
    layer = shown(volume)
    assert layer.rgb
    assert layer.data.shape == (2, 5, 40, 50, 3)
    assert layer.axis_labels[0] == "time"
    copy = Layer.create(np.array(layer.data), *layer.as_layer_data_tuple()[1:])
    again = layers.volume_of(copy)
    assert (again.axes, again.rgb) == ("tczyx", True)
    assert np.array_equal(again.array, volume.array)


def test_channels_lead_and_can_be_scrolled():
    array = np.random.default_rng(0).normal(size=(2, 6, 5, 4, 3)).astype(np.float32)
    volume = Volume.from_array(array, AFFINE, axes="tczyx")
    layer = shown(volume)
    assert not layer.rgb
    assert layer.axis_labels == ("time", "channel", "S-I", "A-P", "R-L")
    assert layer.data.shape == (2, 6, 5, 4, 3)
    copy = Layer.create(np.array(layer.data), *layer.as_layer_data_tuple()[1:])
    again = layers.volume_of(copy)
    assert again.axes == "tczyx"
    assert np.array_equal(again.array, array)
    viewer = ViewerModel()
    viewer.add_layer(layer)
    actions._split_stack(viewer.layers, 0)
    one = layers.volume_of(viewer.layers["picture layer 1"])
    assert one.axes == "czyx"
    assert np.array_equal(one.array, array[1])


def test_three_sagittal_slices_are_no_colours():
    layer = shown(Volume.from_array(np.zeros((40, 50, 3), np.int16), AFFINE))
    assert not layer.rgb
    assert layer.ndim == 3


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_colours_are_written_and_read(tmp_path, suffix):
    volume = colours()
    data, meta, _ = shown(volume).as_layer_data_tuple()
    assert write_image(str(tmp_path / f"picture{suffix}"), data, meta) == [
        str(tmp_path / f"picture{suffix}")
    ]
    again = Layer.create(*read_layer(tmp_path / f"picture{suffix}"))
    assert again.rgb
    assert np.array_equal(again.data, data)
    assert np.allclose(again.scale, meta["scale"])
    assert np.allclose(again.translate, meta["translate"], atol=1e-4)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_labels_of_a_picture(tmp_path, suffix):
    viewer = ViewerModel()
    viewer.add_layer(shown(colours()))
    viewer._new_labels()
    labels = viewer.layers[-1]
    assert isinstance(labels, Labels)
    labels.data[1, 2, 3] = 4
    data, meta, _ = labels.as_layer_data_tuple()
    write_labels(str(tmp_path / f"spots_labels{suffix}"), data, meta)
    again = read(tmp_path / f"spots_labels{suffix}")
    assert again.is_labels
    assert again.spatial_shape == (5, 50, 40)
    layer = shown(again, "again")
    assert np.array_equal(layer.data, data)


def test_split_into_colours_and_merged(tmp_path):
    volume = colours()
    viewer = ViewerModel()
    viewer.add_layer(shown(volume))
    actions._duplicate_layer(viewer.layers)
    viewer.layers.selection.active = viewer.layers[0]
    actions._split_rgb(viewer.layers)
    parts = list(viewer.layers)[-3:]
    for channel, part in enumerate(parts):
        one = layers.volume_of(part)
        assert (one.axes, one.rgb) == ("zyx", False)
        assert np.array_equal(one.array, volume.array[channel])
    viewer.layers.selection = set(parts)
    actions._merge_stack(viewer.layers, rgb=True)
    again = layers.volume_of(viewer.layers[-1])
    assert (again.axes, again.rgb) == ("czyx", True)
    assert np.array_equal(again.array, volume.array)


def test_projected_picture_keeps_its_colours():
    volume = colours()
    viewer = ViewerModel()
    viewer.add_layer(shown(volume))
    actions._project(viewer.layers, axis=0, mode="max")
    flat = layers.volume_of(viewer.layers[-1])
    assert (flat.axes, flat.rgb) == ("czyx", True)
    assert np.array_equal(flat.array, volume.array.max(1, keepdims=True))
    assert flat.spacing[0] == pytest.approx(15)


def test_a_picture_file_is_upright(tmp_path):
    imageio = pytest.importorskip("imageio.v3")
    picture = np.zeros((30, 40, 3), np.uint8)
    picture[0, 1] = (255, 0, 0)
    picture[-1, -1] = (0, 0, 255)
    imageio.imwrite(tmp_path / "photo.png", picture)
    layer = Layer.create(*read_layer(tmp_path / "photo.png", spacing=(0.5, 0.25)))
    assert layer.name == "photo"
    assert np.array_equal(layer.data[0], picture)
    assert np.allclose(layer.scale[1:], (0.25, 0.5))


def test_a_grey_picture_is_shown_as_it_is(tmp_path):
    imageio = pytest.importorskip("imageio.v3")
    grey = np.random.default_rng(0).integers(40, 60, (30, 40)).astype(np.uint8)
    imageio.imwrite(tmp_path / "grey.png", grey)
    _, kwargs, _ = read_layer(tmp_path / "grey.png", spacing=(0.5, 0.5))
    assert kwargs["contrast_limits"] == (0, 255)


def test_too_many_axes_are_refused():
    volume = colours()
    layer = shown(volume)
    stack = np.zeros((2, 2, 2, *layer.data.shape[:-1]))
    place = {
        "scale": (1, 1, 1, *layer.scale),
        "translate": (0, 0, 0, *layer.translate),
        "metadata": layer.metadata,
    }
    with pytest.raises(SpadError, match="at most one of times"):
        layers.volume_of(Layer.create(stack, {"name": "many", **place}, "image"))
