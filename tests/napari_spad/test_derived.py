"""What napari makes of a scan keeps its grid: written, it lies where it lies in the scan."""

from __future__ import annotations

import nibabel
import npe2
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels
from napari.layers import _layer_actions as actions

from napari_spad import layers
from napari_spad.layers import volume_of
from spad.errors import SpadError
from spad.volumes.files import read

SHAPE = (10, 12, 6)
PSR = np.array([[0, 0, 3.0, -20], [-1, 0, 0, 50], [0, 2, 0, -60], [0, 0, 0, 1]])
LAS = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -80], [0, 0, 5, -30], [0, 0, 0, 1]])
TILTED = np.array([[-2.0, 0, 0, 90], [0, 1.96, -1.02, -80], [0, 0.39, 4.9, -30], [0, 0, 0, 1]])
AFFINES = {"LAS": LAS, "PSR": PSR, "tilted": TILTED}
AXIS_OF = {"S-I": 2, "A-P": 1, "R-L": 0}


@pytest.fixture(scope="module", autouse=True)
def plugin():
    npe2.PluginManager.instance().discover()


@pytest.fixture(params=AFFINES)
def source(tmp_path, request):
    return scan_file(tmp_path / "scan.nii", AFFINES[request.param])


def scan_file(path, affine, times=None, slope=1, inter=0):
    shape = SHAPE if times is None else (*SHAPE, times)
    data = np.random.default_rng(1).integers(-1000, 1000, shape).astype(np.int16)
    image = nibabel.Nifti1Image(data, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 2)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_slope_inter(slope, inter)
    nibabel.save(image, path)
    return path


def opened(path):
    viewer = ViewerModel()
    viewer.open(path, plugin="napari-spad")
    viewer.layers.selection.active = viewer.layers[0]
    return viewer


def saved(viewer, layer, path):
    """Save by File > Save and open with nibabel."""
    viewer.layers.selection = {layer}
    assert viewer.layers.save(str(path), selected=True, plugin="napari-spad") == [str(path)]
    return nibabel.load(path)


def same_grid(image, source):
    reference = nibabel.load(source)
    assert image.shape[:3] == reference.shape[:3]
    assert np.allclose(image.affine, reference.affine, atol=1e-5)
    assert [int(image.header[code]) for code in ("qform_code", "sform_code")] == [1, 2]
    return np.asarray(image.dataobj), np.asarray(reference.dataobj)


def lies_over(image, source):
    """Check each voxel of an image against the voxel of the source at the same place in mm."""
    reference = nibabel.load(source)
    values = np.asarray(image.dataobj)
    index = np.argwhere(np.ones(image.shape[:3]))
    world = index @ image.affine[:3, :3].T + image.affine[:3, 3]
    back = np.linalg.inv(reference.affine)
    there = world @ back[:3, :3].T + back[:3, 3]
    assert np.allclose(there, np.rint(there), atol=1e-4)
    there = np.rint(there).astype(int)
    found = np.asarray(reference.dataobj)[tuple(there.T)]
    assert np.array_equal(values.reshape(len(index), -1), found.reshape(len(index), -1))


def test_duplicate(source, tmp_path):
    viewer = opened(source)
    actions._duplicate_layer(viewer.layers)
    copy = viewer.layers[1]
    assert copy.name == "scan copy"
    found, wanted = same_grid(saved(viewer, copy, tmp_path / "out.nii.gz"), source)
    assert np.array_equal(found, wanted)


def test_duplicate_of_a_scaled_scan_has_its_values(tmp_path):
    source = scan_file(tmp_path / "scan.nii", PSR, slope=0.5, inter=-3)
    viewer = opened(source)
    actions._duplicate_layer(viewer.layers)
    image = saved(viewer, viewer.layers[1], tmp_path / "out.nii")
    assert np.allclose(image.get_fdata(), nibabel.load(source).get_fdata())


def test_edited_duplicate_holds_the_edit(source, tmp_path):
    viewer = opened(source)
    actions._duplicate_layer(viewer.layers)
    viewer.layers[1].data[3, 2, 1] = 1234
    found, wanted = same_grid(saved(viewer, viewer.layers[1], tmp_path / "out.nii"), source)
    assert np.argwhere(found != wanted).shape == (1, 3)
    assert found[found != wanted] == 1234


@pytest.mark.parametrize("dtype", ["int64", "uint64", "int32", "uint16"])
def test_converted_to_labels_in_any_type(tmp_path, dtype):
    source = tmp_path / "ids.nii"
    data = np.random.default_rng(1).integers(0, 9, SHAPE).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(data, PSR), source)
    viewer = opened(source)
    actions._convert_to_labels(viewer.layers)
    viewer.layers.selection.active = viewer.layers[0]
    actions._convert_dtype(viewer.layers, dtype)
    labels = viewer.layers[0]
    assert isinstance(labels, Labels)
    assert layers.role_of(labels) == "labels"
    image = saved(viewer, labels, tmp_path / "out_labels.nii.gz")
    assert image.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(image.dataobj), data)
    assert np.allclose(image.affine, PSR)


def test_float_image_converted_to_labels_and_back(tmp_path):
    source = tmp_path / "mask.nii"
    data = np.random.default_rng(1).integers(0, 300, SHAPE).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(data, LAS), source)
    viewer = opened(source)
    actions._convert_to_labels(viewer.layers)
    labels = viewer.layers[1]
    assert labels.data.dtype == np.int64
    image = saved(viewer, labels, tmp_path / "out_labels.nii")
    assert image.get_data_dtype() == np.int16
    assert np.array_equal(np.asarray(image.dataobj), data)
    viewer.layers.selection = {labels}
    actions._convert_to_image(viewer.layers)
    assert isinstance(viewer.layers[1], Image)
    image = saved(viewer, viewer.layers[1], tmp_path / "back.nii")
    assert np.array_equal(np.asarray(image.dataobj), data)
    assert np.allclose(image.affine, LAS)


@pytest.mark.parametrize("kind", [bool, np.int64, np.uint64, np.int8])
def test_labels_layers_of_any_type(source, tmp_path, kind):
    viewer = opened(source)
    scan = viewer.layers[0]
    data = (np.asarray(scan.data) > 0).astype(kind)
    labels = viewer.add_labels(
        data, scale=scan.scale, translate=scan.translate, units=scan.units, name="mask"
    )
    image = saved(viewer, labels, tmp_path / "mask.nii.gz")
    assert image.get_data_dtype() == np.uint8
    found, wanted = same_grid(image, source)
    assert np.array_equal(found, wanted > 0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_projection_is_one_slice_as_thick_as_the_scan(source, tmp_path, axis):
    viewer = opened(source)
    actions._project(viewer.layers, axis=axis, mode="max")
    projection = viewer.layers[-1]
    assert projection.ndim == 2
    image = saved(viewer, projection, tmp_path / "flat.nii")
    reference = nibabel.load(source)
    values = np.asarray(reference.dataobj)
    along = int(np.argmax(np.abs(nearest(reference.affine)[AXIS_OF[layers.AXIS_LABELS[axis]]])))
    count = SHAPE[along]
    assert np.array_equal(np.asarray(image.dataobj), values.max(axis=along, keepdims=True))
    # the corners of the whole grid are the same, so it covers what it was made of
    for corner in np.ndindex(2, 2, 2):
        one, other = (
            np.array(corner) * np.array(shape) - 0.5 for shape in (image.shape, values.shape)
        )
        first = image.affine[:3, :3] @ one + image.affine[:3, 3]
        second = reference.affine[:3, :3] @ other + reference.affine[:3, 3]
        assert np.allclose(first, second, atol=1e-4)
    thickness = np.linalg.norm(image.affine[:3, along])
    assert thickness == pytest.approx(count * np.linalg.norm(reference.affine[:3, along]))


def nearest(affine):
    """Rows R, A, S; 1 where a file axis is nearest to it."""
    matrix = np.abs(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))
    return matrix == matrix.max(axis=0)


def test_labels_drawn_on_a_projection(source, tmp_path):
    viewer = opened(source)
    actions._project(viewer.layers, axis=1, mode="mean")
    viewer.layers.selection.active = viewer.layers[-1]
    viewer._new_labels()
    drawn = viewer.layers[-1]
    drawn.data[2, 3] = 7
    image = saved(viewer, drawn, tmp_path / "drawn_labels.nii")
    flat = saved(viewer, viewer.layers[-2], tmp_path / "flat.nii")
    assert np.allclose(image.affine, flat.affine)
    values = np.asarray(flat.dataobj)[np.asarray(image.dataobj) == 7]
    assert values == pytest.approx([viewer.layers[-2].data[2, 3]], rel=1e-6)


def test_split_slices_lie_at_their_places(source, tmp_path):
    viewer = opened(source)
    actions._split_stack(viewer.layers, 0)
    for number in (0, 3, len(viewer.layers) - 1):
        layer = viewer.layers[f"scan layer {number}"]
        assert layer.ndim == 2
        lies_over(saved(viewer, layer, tmp_path / f"{number}.nii"), source)


def test_a_renamed_slice_is_known_by_its_voxels(source, tmp_path):
    viewer = opened(source)
    keep = viewer.layers[0]
    actions._split_stack(viewer.layers, 0)
    viewer.layers.append(keep)
    layer = viewer.layers["scan layer 4"]
    layer.name = "best"
    lies_over(saved(viewer, layer, tmp_path / "best.nii"), source)
    layer.data = layer.data + 1
    with pytest.raises(SpadError, match="nothing says which of its"):
        volume_of(layer)


def test_merged_slices_are_the_scan_again(source, tmp_path):
    viewer = opened(source)
    actions._split_stack(viewer.layers, 0)
    viewer.layers.selection = set(viewer.layers)
    actions._merge_stack(viewer.layers)
    found, wanted = same_grid(saved(viewer, viewer.layers[0], tmp_path / "out.nii"), source)
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("first", [0, 2])
def test_some_merged_slices_are_refused(source, first):
    viewer = opened(source)
    actions._split_stack(viewer.layers, 0)
    viewer.layers.selection = set(list(viewer.layers)[first : first + 2])
    actions._merge_stack(viewer.layers)
    with pytest.raises(SpadError, match="nothing says which"):
        volume_of(viewer.layers[-1])


def test_times_split_and_merged(tmp_path):
    source = scan_file(tmp_path / "series.nii", PSR, times=4)
    wanted = np.asarray(nibabel.load(source).dataobj)
    viewer = opened(source)
    actions._split_stack(viewer.layers, 0)
    assert len(viewer.layers) == 4
    image = saved(viewer, viewer.layers["series layer 2"], tmp_path / "two.nii")
    assert np.array_equal(np.asarray(image.dataobj), wanted[..., 2])
    assert np.allclose(image.affine, PSR)
    viewer.layers.selection = {viewer.layers["series layer 1"], viewer.layers["series layer 3"]}
    actions._merge_stack(viewer.layers)
    image = saved(viewer, viewer.layers[-1], tmp_path / "some.nii")
    assert np.array_equal(np.asarray(image.dataobj), wanted[..., [1, 3]])
    assert np.allclose(image.affine, PSR)


@pytest.mark.parametrize(("axis", "shape"), [(0, SHAPE), (2, (1, 12, 6, 4))])
def test_projection_of_a_series(tmp_path, axis, shape):
    source = scan_file(tmp_path / "series.nii", PSR, times=4)
    wanted = np.asarray(nibabel.load(source).dataobj)
    viewer = opened(source)
    actions._project(viewer.layers, axis=axis, mode="max")
    image = saved(viewer, viewer.layers[-1], tmp_path / "out.nii")
    assert image.shape == shape
    over = 3 if axis == 0 else 0
    assert np.array_equal(np.asarray(image.dataobj), wanted.max(over, keepdims=axis != 0))


@pytest.mark.parametrize("in_time", [True, False])
def test_labels_of_a_series_for_each_time_or_for_all(tmp_path, in_time):
    source = scan_file(tmp_path / "series.nii", PSR, times=4)
    viewer = opened(source)
    scan = viewer.layers[0]
    if in_time:
        viewer._new_labels()
        labels = viewer.layers[-1]
        labels.data[2, 1, 3, 4] = 5
        value = scan.data[2, 1, 3, 4]
    else:
        place = {"scale": scan.scale[1:], "translate": scan.translate[1:]}
        labels = viewer.add_labels(np.zeros(scan.data.shape[1:], np.uint8), **place)
        labels.data[1, 3, 4] = 5
        value = scan.data[0, 1, 3, 4]
    image = saved(viewer, labels, tmp_path / "out_labels.nii.gz")
    assert image.shape == ((*SHAPE, 4) if in_time else SHAPE)
    assert np.allclose(image.affine, PSR)
    mask = np.asarray(image.dataobj) == 5
    wanted = np.asarray(nibabel.load(source).dataobj)
    assert (wanted if in_time else wanted[..., 0])[mask].tolist() == [value]
    again = read(tmp_path / "out_labels.nii.gz")
    assert again.is_labels
    assert again.axes == ("tzyx" if in_time else "zyx")


@pytest.mark.parametrize("tagged", [True, False])
def test_a_crop_by_whole_voxels_lies_inside_its_scan(source, tmp_path, tagged):
    viewer = opened(source)
    scan = viewer.layers[0]
    start = np.array([2, 1, 3])
    part = np.array(scan.data[2:5, 1:4, 3:5])
    place = {
        "scale": scan.scale,
        "translate": np.array(scan.translate) + start * scan.scale,
        "units": scan.units,
    }
    more = {"metadata": scan.metadata} if tagged else {}
    crop = viewer.add_image(part, name="crop", **place, **more)
    lies_over(saved(viewer, crop, tmp_path / "crop.nii"), source)
    assert "begins at its voxel (2, 1, 3)" in volume_of(crop).notes[0]
    assert layers.grid_of_layer(crop) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"translate": (0.4, 0, 0)}, "not whole ones inside it"),
        ({"translate": (500.0, 0, 0)}, "not whole ones inside it"),
        ({"scale": (1.5, 1.0, 1.0)}, "its voxels are"),
        ({"rotate": 20.0}, "rotated"),
    ],
)
def test_what_is_resized_or_moved_is_refused_and_named(source, tmp_path, change, words):
    viewer = opened(source)
    scan = viewer.layers[0]
    options = {
        "scale": np.array(scan.scale) * change.get("scale", 1),
        "translate": np.array(scan.translate)
        + np.array(change.get("translate", (0, 0, 0))) * scan.scale,
        "rotate": (change.get("rotate", 0), 0, 0),
    }
    moved = Image(np.array(scan.data), name="moved", metadata=scan.metadata, **options)
    viewer.layers.append(moved)
    viewer.layers.selection = {moved}
    with pytest.raises(SpadError, match=f"'moved' has shape .*'scan'.*{words}"):
        viewer.layers.save(str(tmp_path / "out.nii"), selected=True, plugin="napari-spad")
    assert not (tmp_path / "out.nii").exists()


def test_larger_than_its_scan_is_refused(source):
    scan = opened(source).layers[0]
    data = np.zeros(np.array(scan.data.shape) + 1, np.uint8)
    place = {"scale": scan.scale, "translate": scan.translate, "metadata": scan.metadata}
    with pytest.raises(SpadError, match="larger than the scan"):
        volume_of(Labels(data, name="large", **place))


def test_a_stranger_that_lies_on_voxels_by_chance_is_refused(tmp_path):
    source = scan_file(tmp_path / "scan.nii", np.diag([1.0, 1, 1, 1]))
    scan = opened(source).layers[0]
    stranger = Image(np.zeros((3, 4, 5)), name="stranger", translate=scan.translate)
    assert np.allclose(stranger.scale, scan.scale)
    with pytest.raises(SpadError, match="no open scan"):
        volume_of(stranger)


def test_save_all_clear_and_restore(source, tmp_path):
    viewer = opened(source)
    viewer._new_labels()
    viewer.layers[-1].data[1, 2, 3] = 3
    viewer.layers[-1].name = "organs_labels"
    actions._duplicate_layer(viewer.layers)
    before = {layer.name: np.array(layer.data) for layer in viewer.layers}
    places = {layer.name: (layer.scale, layer.translate) for layer in viewer.layers}
    folder = tmp_path / "session"
    written = viewer.layers.save(str(folder))
    assert len(written) == len(before) == 3
    viewer.layers.clear()
    for file in sorted(folder.glob("*.nii.gz")):
        viewer.open(file, plugin="napari-spad")
    assert {layer.name for layer in viewer.layers} == set(before)
    for layer in viewer.layers:
        assert np.array_equal(layer.data, before[layer.name])
        assert isinstance(layer, Labels) == ("organs" in layer.name)
        for one, other in zip((layer.scale, layer.translate), places[layer.name], strict=True):
            assert np.allclose(one, other, atol=1e-4)
    for layer in viewer.layers:
        same_grid(nibabel.load(volume_of(layer).source.path), source)


def test_projection_of_one_time_that_was_split_off(tmp_path):
    source = scan_file(tmp_path / "series.nii", PSR, times=4)
    wanted = np.asarray(nibabel.load(source).dataobj)
    viewer = opened(source)
    actions._split_stack(viewer.layers, 0)
    viewer.layers.selection.active = viewer.layers["series layer 2"]
    actions._project(viewer.layers, axis=0, mode="max")
    image = saved(viewer, viewer.layers["series layer 2 max-proj"], tmp_path / "out.nii")
    assert np.array_equal(np.asarray(image.dataobj), wanted[..., 2].max(1, keepdims=True))
