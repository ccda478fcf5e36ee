"""Planes and places: where the viewer looks."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Layer

from napari_spad import layers, view

LIVER = 6


@pytest.fixture
def viewer(ct_phantom):
    model = ViewerModel()
    model.add_layer(Layer.create(*layers.to_layer(ct_phantom.image, "ct")))
    model.add_layer(Layer.create(*layers.to_layer(ct_phantom.labels, "organs", role="labels")))
    return model


@pytest.mark.parametrize("plane", view.PLANES)
def test_planes_are_upright(viewer, plane):
    view.show_plane(viewer, plane)
    assert view.plane_of(viewer) == plane
    names = [viewer.dims.axis_labels[axis] for axis in viewer.dims.displayed]
    assert (
        names
        == {
            "Axial": ["A-P", "R-L"],
            "Coronal": ["S-I", "R-L"],
            "Sagittal": ["S-I", "A-P"],
        }[plane]
    )


def handedness(viewer):
    """+1 if what is seen in 3D is no mirror image, judged by the order and the camera."""
    order = np.array(viewer.dims.order[-3:])
    swapped = np.linalg.det(np.eye(3)[order])
    signs = {"towards": 1, "away": -1, "down": 1, "up": -1, "right": 1, "left": -1}
    return swapped * np.prod([signs[str(one)] for one in viewer.scene.camera.orientation])


@pytest.mark.parametrize("plane", view.PLANES)
def test_3d_is_never_a_mirror_image(viewer, plane):
    assert handedness(viewer) == 1
    view.show_plane(viewer, plane)
    assert handedness(viewer) == 1
    view.show_3d(viewer)
    assert handedness(viewer) == 1


@pytest.mark.parametrize("plane", view.PLANES)
def test_the_slices_stay_while_one_looks_in_3d(viewer, plane):
    view.go_to(viewer, np.array(viewer.dims.point) + 30)
    before = viewer.dims.point
    view.show_3d(viewer)
    view.show_plane(viewer, plane)
    assert viewer.dims.point == before


def test_no_plane_in_3d(viewer):
    viewer.dims.ndisplay = 3
    assert view.plane_of(viewer) is None


def test_going_to_an_organ_shows_it(viewer):
    labels = viewer.layers["organs"]
    viewer.dims.set_point(0, labels.translate[0])
    place = view.organ_place(labels, LIVER)
    view.go_to(viewer, place)
    assert labels.get_value(place, world=True) == LIVER
    assert LIVER in view.shown_slice(viewer, labels)


def test_a_scan_that_lies_elsewhere_is_gone_to_and_others_are_not(viewer):
    scan = viewer.layers["ct"]
    place = np.array(viewer.dims.point[-3:])
    view.come_to(viewer, scan)
    assert viewer.dims.point == pytest.approx(tuple(place))
    far = Layer.create(scan.data, {**scan.as_layer_data_tuple()[1], "name": "far"}, "image")
    far.translate = scan.translate + 5000
    viewer.add_layer(far)
    view.come_to(viewer, viewer.layers["organs"])
    assert viewer.dims.point == pytest.approx(tuple(place))
    view.come_to(viewer, far)
    assert view.shown_slice(viewer, far).size


def test_an_absent_organ_has_no_place(viewer):
    assert view.organ_place(viewer.layers["organs"], 99) is None


def test_shown_slice_outside_is_empty(viewer):
    labels = viewer.layers["organs"]
    labels.translate = np.array(labels.translate) + np.array([10000, 0, 0])
    assert view.shown_slice(viewer, labels).size == 0
    assert not view.shows_any(viewer, labels)


def test_the_phantom_lies_as_a_radiologist_expects(viewer, ct_phantom):
    labels = np.asarray(viewer.layers["organs"].data)
    names = {name: label for label, name in ct_phantom.labels.label_names.items()}

    def centre(name):
        return np.argwhere(labels == names[name]).mean(axis=0)

    assert centre("liver")[2] < centre("spleen")[2]
    assert centre("right_kidney")[2] < centre("left_kidney")[2]
    assert centre("liver")[0] < centre("right_kidney")[0]
    assert centre("stomach")[1] < centre("left_kidney")[1]
