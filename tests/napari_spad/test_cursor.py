"""The place under the mouse, against nibabel's affine, in every order of axes and tilt."""

from __future__ import annotations

import dataclasses
import itertools

import nibabel
import numpy as np
import pytest
from napari.layers import Layer

from napari_spad import layers
from napari_spad.cursor import Place, knows_orientation, place_under, unit_of
from spad.volumes.files import read
from spad.volumes.volume import Volume

SHAPE = (5, 7, 9)


def affine_of(permutation, flips, degrees=0.0, shear=0.0):
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(zip(permutation, flips, strict=True)):
        affine[world, axis] = sign * (0.8, 1.5, 4.0)[axis]
    affine[:3, 2] += shear * affine[:3, 1]
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[:3, :3] = [
        [np.cos(angle), 0, np.sin(angle)],
        [0, 1, 0],
        [-np.sin(angle), 0, np.cos(angle)],
    ]
    affine = turn @ affine
    affine[:3, 3] = (11.0, -23.0, 37.0)
    return affine


def opened(tmp_path, affine, data=None):
    if data is None:
        data = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    path = tmp_path / "scan.nii"
    image = nibabel.Nifti1Image(data, None)
    # a sheared affine fits the sform only
    image.header.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(nibabel.Nifti1Image(data, None, image.header), path)
    volume = read(path)
    return volume, Layer.create(*layers.to_layer(volume, "scan")), nibabel.load(path)


@pytest.mark.parametrize(("degrees", "shear"), [(0, 0), (17, 0), (0, 0.4), (-9, 0.3)], ids=str)
@pytest.mark.parametrize(
    ("permutation", "flips"),
    list(
        itertools.product(itertools.permutations(range(3)), [(1, 1, 1), (-1, 1, -1), (-1, -1, 1)])
    ),
)
def test_place_is_that_of_the_files_affine(tmp_path, permutation, flips, degrees, shear):
    volume, layer, file = opened(tmp_path, affine_of(permutation, flips, degrees, shear))
    data = np.asarray(file.dataobj)
    for canonical in ((0, 0, 0), (1, 2, 3), tuple(np.array(layer.data.shape) - 1)):
        place = place_under(layer, volume, layer.data_to_world(canonical))
        assert place.value == layer.data[canonical] == data[place.voxel]
        assert place.mm == pytest.approx(tuple((file.affine @ [*place.voxel, 1])[:3]), abs=1e-3)


def test_the_nearest_voxel_counts_and_nothing_outside(tmp_path):
    volume, layer, _ = opened(tmp_path, affine_of((0, 1, 2), (-1, 1, 1)))
    scale = np.array(layer.scale)
    middle = np.array(layer.data_to_world((2, 3, 1)))
    inside = place_under(layer, volume, middle + 0.49 * scale)
    assert inside == place_under(layer, volume, middle)
    first = np.array(layer.data_to_world((0, 0, 0)))
    assert place_under(layer, volume, first - 0.49 * scale) is not None
    for axis in range(3):
        step = np.zeros(3)
        step[axis] = 0.51 * scale[axis]
        assert place_under(layer, volume, first - step) is None
    last = np.array(layer.data_to_world(np.array(layer.data.shape) - 1))
    assert place_under(layer, volume, last + 0.51 * scale) is None
    assert place_under(layer, volume, (np.nan, 0, 0)) is None


def test_time_is_told(tmp_path):
    data = np.arange(np.prod(SHAPE) * 3, dtype=np.int16).reshape(*SHAPE, 3)
    volume, layer, _ = opened(tmp_path, affine_of((0, 1, 2), (-1, 1, 1)), data)
    place = place_under(layer, volume, layer.data_to_world((2, 8, 6, 0)))
    assert place.leading == (("time", 2),)
    assert place.value == data[(*place.voxel, 2)]
    assert ", time 2: " in place.voxel_words


def test_words_keep_their_letters():
    place = Place((12.0, -3.14, -0.04), (120, 88, 45), (), 54.0, "HU")
    assert place.mm_words == "R 12.0 A -3.1 S 0.0 mm"
    assert place.voxel_words == "voxel 120, 88, 45: 54 HU"


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (1.23456, "SUV", "1.235 SUV"),
        (-1024.0, "HU", "-1024 HU"),
        ((1.0, 2.0, 255.0), "", "(1, 2, 255)"),
        (np.nan, "", "no number"),
    ],
)
def test_values_are_short(value, unit, words):
    assert Place((0, 0, 0), (0, 0, 0), (), value, unit).voxel_words.endswith(f": {words}")


def test_a_place_without_a_value_says_nothing_of_it():
    assert Place((0, 0, 0), (1, 2, 3), (), None, "HU").voxel_words == "voxel 1, 2, 3"


def test_pictures_have_no_right_and_left():
    volume = Volume.from_array(np.zeros((1, 4, 5), np.uint8), np.diag([3.0, 0.5, 0.5, 1.0]))
    source = dataclasses.replace(volume.source, format="image")
    volume = dataclasses.replace(volume, source=source)
    layer = Layer.create(*layers.to_layer(volume, "picture"))
    place = place_under(layer, volume, layer.data_to_world((0, 0, 0)))
    assert place.mm_words.startswith("x ")
    steps = np.linalg.norm(source.affine[:3, :3], axis=0)
    assert place.mm == pytest.approx(tuple(steps * place.voxel))


def test_the_unit_is_the_files_else_that_of_ct():
    volume = Volume.from_array(np.zeros((2, 4, 5), np.int16), np.eye(4), modality_hint="CT")
    assert unit_of(volume) == "HU"
    assert unit_of(volume.with_modality("MR")) == ""
    assert unit_of(dataclasses.replace(volume, unit="SUV")) == "SUV"
    assert unit_of(volume.with_array(volume.array, label_names={})) == ""


def test_a_nifti_file_without_codes_has_no_right_and_left(tmp_path):
    image = nibabel.Nifti1Image(np.zeros(SHAPE, np.int16), None)
    image.header.set_zooms((0.8, 1.5, 4.0))
    nibabel.save(image, tmp_path / "scan.nii")
    header = nibabel.load(tmp_path / "scan.nii").header
    assert int(header["qform_code"]) == int(header["sform_code"]) == 0
    volume = read(tmp_path / "scan.nii")
    assert not knows_orientation(volume)
    layer = Layer.create(*layers.to_layer(volume, "scan"))
    assert place_under(layer, volume, layer.data_to_world((0, 0, 0))).mm_words.startswith("x ")
    assert not knows_orientation(layers.grid_of_layer(layer).volume)
    coded, _, _ = opened(tmp_path, affine_of((0, 1, 2), (-1, 1, 1)))
    assert knows_orientation(coded)
