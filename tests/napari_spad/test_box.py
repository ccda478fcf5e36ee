"""A box follows the rectangle that a person draws on any plane, and lies where the scan has it."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_spad import layers, view
from napari_spad.box import Box, in_volume
from spad.volumes.axes import to_canonical
from spad.volumes.volume import Volume

AFFINE = np.array([[0, 0, 2.0, 10], [0, -1.5, 0, 20], [4.0, 0, 0, 30], [0, 0, 0, 1]])


@pytest.fixture
def scan():
    array = np.random.default_rng(0).normal(size=(20, 32, 40)).astype(np.float32)
    return Volume.from_array(array, AFFINE, modality_hint="MR")


@pytest.fixture
def box(scan, qapp):
    viewer = ViewerModel()
    data, kwargs, _ = layers.to_layer(scan, "scan")
    layer = viewer.add_image(data, **kwargs)
    view.show_plane(viewer, "Axial")
    made = Box(viewer, layer)
    made.viewer, made.scan = viewer, layer
    return made


def draw(box, qapp, start, stop, through):
    """Draw a rectangle from one voxel to another, on the slice that is shown."""
    box.draw_another()
    second = 1 if through == 2 else 2
    low, high = (box.scan.data_to_world(np.array(end)) for end in (start, stop))
    corners = np.array([low, low, high, high])
    corners[[1, 2], second] = high[second]
    corners[[0, 3], second] = low[second]
    corners[:, through] = box.viewer.dims.point[through]
    box.layer.add_rectangles([np.array([box.layer.world_to_data(one) for one in corners])])
    qapp.processEvents()


def test_it_begins_in_the_middle_on_all_slices_and_leaves_the_sliders_alone(box):
    assert box.intervals == ((0, 20), (8, 24), (10, 30))
    assert np.allclose([step.step for step in box.viewer.dims.range], box.scan.scale)
    assert len(box.layer.data) == 1
    assert [str(unit) for unit in box.layer.units] == ["millimeter"] * 3


@pytest.mark.parametrize(
    ("plane", "through", "expected"),
    [
        ("Axial", 0, ((0, 20), (5, 12), (8, 31))),
        ("Coronal", 1, ((3, 15), (8, 24), (8, 31))),
        ("Sagittal", 2, ((3, 15), (5, 12), (10, 30))),
    ],
)
def test_a_rectangle_on_a_plane_sets_the_two_other_sides(box, qapp, plane, through, expected):
    view.show_plane(box.viewer, plane)
    told = []
    box.changed.connect(lambda: told.append(1))
    draw(box, qapp, (3 - 0.4, 5 - 0.6, 8 - 0.4), (15 - 0.6, 12 - 0.4, 31 - 0.6), through)
    assert box.intervals == expected
    assert told
    assert len(box.layer.data) == 1
    assert box.layer.mode == "select"


def test_it_reaches_to_a_slice_on_which_it_is_drawn(box, qapp):
    box.set_slices(4, 6)
    assert box.intervals[0] == (4, 7)
    box.viewer.dims.set_point(0, box.scan.data_to_world((11, 0, 0))[0])
    assert box.layer.opacity < 0.5
    draw(box, qapp, (0, 4.5, 7.5), (0, 11.5, 30.5), 0)
    assert box.intervals == ((4, 12), (5, 12), (8, 31))
    assert box.layer.opacity == 1


def test_it_is_cut_at_the_edge_of_the_scan(box, qapp):
    draw(box, qapp, (0, -50, -50), (0, 9.5, 19.5), 0)
    assert box.intervals == ((0, 20), (0, 10), (0, 20))


def test_a_rectangle_beside_the_scan_is_refused_and_changes_nothing(box, qapp):
    told, before = [], box.intervals
    box.outside.connect(lambda: told.append(1))
    draw(box, qapp, (0, -50, -50), (0, -10, 19), 0)
    assert told
    assert box.intervals == before
    assert len(box.layer.data) == 1


def test_its_cross_section_is_shown_on_every_plane_and_slice(box):
    view.show_plane(box.viewer, "Coronal")
    box.viewer.dims.set_point(1, box.scan.data_to_world((0, 10, 0))[1])
    [corners] = box.layer.data
    world = np.array([box.layer.data_to_world(corner) for corner in corners])
    index = np.array([box.scan.world_to_data(one) for one in world])
    assert np.allclose(index[:, 1], 10)
    assert np.allclose(index.min(axis=0)[[0, 2]], (-0.5, 9.5))
    assert np.allclose(index.max(axis=0)[[0, 2]], (19.5, 29.5))


def test_it_marks_the_same_voxels_in_the_volume(box, scan):
    marks = np.zeros(scan.array.shape, np.uint8)
    intervals = ((2, 9), (5, 12), (8, 31))
    marks[tuple(slice(*pair) for pair in in_volume(intervals, scan))] = 1
    view_of_marks, _ = to_canonical(scan.with_array(marks), depth_first=False)
    expected = np.zeros(box.shape, np.uint8)
    expected[tuple(slice(*pair) for pair in intervals)] = 1
    assert np.array_equal(view_of_marks, expected)


def test_closing_it_leaves_no_trace(box):
    viewer = box.viewer
    box.close()
    view.show_plane(viewer, "Sagittal")
    viewer.dims.set_point(2, 3.0)
    assert [layer.name for layer in viewer.layers] == ["scan"]
