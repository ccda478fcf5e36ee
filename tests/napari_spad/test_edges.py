"""Letters at the canvas's edges: right for every plane, camera and tilt."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Layer

from napari_spad import edges, layers, view
from spad.volumes.volume import Volume


def volume_of(degrees=0.0, axis=0, turned=False, shape=(8, 9, 10)):
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = 4, 1.5, 1.5, 1
    if turned:
        affine = affine @ np.diag([-1, 1, -1, 1])[:, [2, 0, 1, 3]]
    first, second = (n for n in range(3) if n != axis)
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[first, [first, second]] = np.cos(angle), -np.sin(angle)
    turn[second, [first, second]] = np.sin(angle), np.cos(angle)
    array = np.zeros(shape, np.int16)
    array[0, 0, 0] = 7
    return Volume.from_array(array, turn @ affine, modality_hint="MR")


@pytest.fixture
def viewer():
    viewer = ViewerModel()
    edges.install(viewer)
    return viewer


def add(viewer, volume, name="scan"):
    return viewer.add_layer(Layer.create(*layers.to_layer(volume, name)))


def shown(viewer):
    """What is written on the canvas: left, right, top, bottom."""
    overlays = [viewer.canvas.overlays[edges.name_of(edge)] for edge in edges.EDGES]
    assert all(overlay.box == bool(overlay.text) for overlay in overlays)
    return tuple(overlay.text if overlay.visible else None for overlay in overlays)


NOTHING = ("", "", "", "")


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("plane", "expected"),
    [
        ("Axial", ("R", "L", "A", "P")),
        ("Coronal", ("R", "L", "S", "I")),
        ("Sagittal", ("A", "P", "S", "I")),
    ],
)
def test_each_plane_as_radiologists_have_it(viewer, plane, expected, turned):
    add(viewer, volume_of(turned=turned))
    view.show_plane(viewer, plane)
    assert shown(viewer) == expected


def test_the_letter_is_where_the_voxels_lie(viewer):
    """Against the affine itself: walk along the picture and see which way R, A, S change."""
    volume = volume_of(turned=True)
    layer = add(viewer, volume)
    inverse = np.linalg.inv(layer.affine.affine_matrix)
    assert np.allclose(inverse, np.eye(4))
    for plane in view.PLANES:
        view.show_plane(viewer, plane)
        right = np.zeros(3)
        right[viewer.dims.displayed[1]] = 1
        index = layer.world_to_data(layer.data_to_world((2, 2, 2)) + right * layer.scale)
        step = np.array(index) - 2
        ras = np.array([-step[2], -step[1], -step[0]])
        axis = int(np.argmax(np.abs(ras)))
        letter = "RAS"[axis] if ras[axis] > 0 else "LPI"[axis]
        assert shown(viewer)[1] == letter


def test_the_camera_turned_over(viewer):
    add(viewer, volume_of())
    viewer.scene.camera.orientation2d = ("up", "right")
    assert shown(viewer) == ("R", "L", "P", "A")
    viewer.scene.camera.orientation2d = ("up", "left")
    assert shown(viewer) == ("L", "R", "P", "A")


def test_axes_rolled_by_hand(viewer):
    add(viewer, volume_of())
    viewer.dims.order = (0, 2, 1)
    assert shown(viewer) == ("A", "P", "R", "L")
    viewer.dims.order = (2, 0, 1)
    assert shown(viewer) == ("A", "P", "S", "I")


def test_tilted_scans_have_two_letters(viewer):
    add(viewer, volume_of(degrees=12))
    assert shown(viewer) == ("R", "L", "AS", "PI")


def test_a_little_tilt_has_one(viewer):
    add(viewer, volume_of(degrees=4))
    assert shown(viewer) == ("R", "L", "A", "P")


def test_toward_names_the_dominant_first():
    assert edges.toward(np.array([0.1, -3.0, 0.1])) == "P"
    assert edges.toward(np.array([-2.0, 1.0, 0.5])) == "LAS"
    assert edges.toward(np.array([0.0, 0.0, -9.0])) == "I"


def test_none_in_3d_and_without_scans(viewer):
    assert shown(viewer) == NOTHING
    layer = add(viewer, volume_of())
    view.show_3d(viewer)
    assert shown(viewer) == NOTHING
    view.show_plane(viewer, "Axial")
    assert shown(viewer) == ("R", "L", "A", "P")
    layer.visible = False
    assert shown(viewer) == NOTHING
    layer.visible = True
    assert shown(viewer) == ("R", "L", "A", "P")
    viewer.layers.remove(layer)
    assert shown(viewer) == NOTHING


def test_a_strangers_image_has_none(viewer):
    viewer.add_image(np.zeros((4, 5, 6)))
    assert shown(viewer) == NOTHING


def test_pictures_and_arrays_have_none(viewer):
    for format in ("image", "numpy"):
        volume = volume_of()
        source = dataclasses.replace(volume.source, format=format)
        layer = add(viewer, dataclasses.replace(volume, source=source), format)
        assert shown(viewer) == NOTHING
        viewer.layers.remove(layer)


def test_the_selected_scan_rules(viewer):
    straight = add(viewer, volume_of(), "straight")
    tilted = add(viewer, volume_of(degrees=12), "tilted")
    viewer.layers.selection.active = straight
    assert shown(viewer)[2] == "A"
    viewer.layers.selection.active = tilted
    assert shown(viewer)[2] == "AS"
    viewer.layers.selection.active = None
    assert shown(viewer)[2] == "AS"
    tilted.visible = False
    assert shown(viewer)[2] == "A"


def test_time_stands_before_space(viewer):
    volume = Volume.from_array(
        np.arange(480, dtype=np.int16).reshape(4, 4, 5, 6), volume_of().affine, axes="tzyx"
    )
    add(viewer, volume)
    assert shown(viewer) == ("R", "L", "A", "P")
    viewer.dims.order = (1, 0, 2, 3)
    assert shown(viewer) == ("R", "L", "A", "P")
    viewer.dims.order = (2, 3, 0, 1)
    assert shown(viewer) == NOTHING


def test_a_person_hides_them(viewer):
    add(viewer, volume_of())
    edges.show(viewer, False)
    assert not edges.are_shown(viewer)
    view.show_plane(viewer, "Coronal")
    assert shown(viewer) == (None,) * 4
    edges.install(viewer)
    assert shown(viewer) == (None,) * 4
    edges.show(viewer, True)
    assert shown(viewer) == ("R", "L", "S", "I")


def test_a_viewer_goes_with_its_letters():
    import gc
    import weakref

    viewer = ViewerModel()
    edges.install(viewer)
    gone = weakref.ref(viewer)
    del viewer
    gc.collect()
    assert gone() is None
