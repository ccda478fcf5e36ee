"""Scans that lie truly over each other, and those that have to be resampled first."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Layer

from napari_spad import layers, overlap
from spad.errors import SpadError
from spad.volumes.volume import Volume


def affine_of(degrees=0.0, shear=0.0, spacing=(5.0, 1.5, 1.5), origin=(10.0, 20.0, 30.0), axis=0):
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *spacing, 1
    affine[1, 0] += shear * spacing[0]
    angle = np.radians(degrees)
    first, second = (n for n in range(3) if n != axis)
    turn = np.eye(4)
    turn[[first, first, second, second], [first, second, first, second]] = (
        np.cos(angle),
        -np.sin(angle),
        np.sin(angle),
        np.cos(angle),
    )
    affine = turn @ affine
    affine[:3, 3] = origin
    return affine


def layer_of(affine, shape=(20, 64, 64), name="scan", **kwargs):
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) % 977
    volume = Volume.from_array(array, affine, modality_hint="MR", **kwargs)
    return Layer.create(*layers.to_layer(volume, name))


def grid(*args, **kwargs):
    return layers.grid_of_layer(layer_of(*args, **kwargs))


def test_straight_scans_of_any_grid_fit():
    one = grid(affine_of())
    for other in (
        grid(affine_of(spacing=(1.0, 3.0, 2.0), origin=(1.0, 2.0, 3.0)), (64, 40, 40)),
        grid(affine_of() @ np.diag([-1, 1, -1, 1])),
        grid(affine_of()[:, [1, 2, 0, 3]], (64, 64, 20)),
    ):
        assert overlap.misfit(one, other) < 1e-3
        assert overlap.fits(one, other)


@pytest.mark.parametrize("kwargs", [{"degrees": 10.0}, {"shear": 0.3}, {"degrees": 5.0, "axis": 2}])
def test_a_tilted_scan_does_not_fit_a_straight_one(kwargs):
    straight, tilted = grid(affine_of()), grid(affine_of(**kwargs))
    assert overlap.misfit(straight, tilted) > 2
    assert not overlap.fits(straight, tilted)
    assert overlap.misfit(straight, tilted) == pytest.approx(overlap.misfit(tilted, straight))


def test_equal_tilts_fit_if_they_lie_on_each_other():
    one = grid(affine_of(degrees=12))
    assert overlap.fits(one, grid(affine_of(degrees=12)))
    half = affine_of(degrees=12, spacing=(5.0, 3.0, 3.0))
    half[:3, 3] += affine_of(degrees=12)[:3, :3] @ [0, 0.5, 0.5]
    assert overlap.fits(one, grid(half, (20, 32, 32)))


def test_the_misfit_is_the_true_distance():
    """Two voxels that are drawn at the same place, and where they truly are."""
    layers_ = [layer_of(affine_of()), layer_of(affine_of(degrees=10.0, origin=(10.0, 25.0, 28.0)))]
    one, other = (layers.grid_of_layer(layer) for layer in layers_)
    largest = 0.0
    for index in np.ndindex(2, 2, 2):
        place = layers_[0].data_to_world(np.array(index) * (np.array(one.placement.shape) - 1))
        there = layers_[1].world_to_data(place)
        if np.any(there < 0) or np.any(there > np.array(other.placement.shape) - 1):
            continue
        from napari_spad.cursor import place_under

        found = [place_under(layer, layers.scan_volume(layer), place).mm for layer in layers_]
        largest = max(largest, float(np.linalg.norm(np.subtract(*found))))
    assert overlap.misfit(one, other) >= largest - 2.5


def test_scans_far_apart_are_no_concern():
    far = affine_of(degrees=20, origin=(900.0, 900.0, 900.0))
    assert overlap.fits(grid(affine_of()), grid(far))


def test_only_visible_scans_count():
    one, other = layer_of(affine_of()), layer_of(affine_of(degrees=10), name="other")
    stranger = Image(np.zeros((3, 4, 5)))
    assert overlap.misfits(one, [one, other, stranger]) == [other]
    other.visible = False
    assert overlap.misfits(one, [one, other]) == []


def test_scans_on_the_same_voxels_are_named_once():
    one, tilted = layer_of(affine_of()), layer_of(affine_of(degrees=10), name="tilted")
    again = layer_of(affine_of(), name="again")
    assert overlap.misfits(tilted, [one, tilted, again]) == [one]


def test_after_resampling_it_fits():
    one, other = layer_of(affine_of()), layer_of(affine_of(degrees=10), name="other")
    made = overlap.resampler(other, one)()
    layer = Layer.create(*layers.to_layer(made, "other on scan"))
    assert layer.data.shape == one.data.shape
    assert np.array_equal(layer.translate, one.translate)
    assert overlap.misfits(layer, [one]) == []
    assert layers.scan_volume(layer).modality == "MR"


def test_onto_a_stranger_is_refused():
    with pytest.raises(SpadError, match="'stranger'"):
        overlap.resampler(layer_of(affine_of()), Image(np.zeros((3, 4, 5)), name="stranger"))
