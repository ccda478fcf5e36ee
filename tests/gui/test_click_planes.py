"""Clicks in the three planes: prompts at the right voxels, all of it shown, and still a cross."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from .conftest import answered, beside, given, mouse, settle
from .test_three_planes import wheel

LIVER = 6
PLANES = {"Axial": 0, "Coronal": 1, "Sagittal": 2}


@pytest.fixture
def planes(part, scan, deep, dock):
    """The dock, with its cross deep in the liver; closed before napari looks for leaks."""
    widget = dock("Three planes")
    widget.planes.move_cross(world(scan, deep(LIVER)))
    settle()
    yield widget
    widget.shut()


def world(scan, index):
    return np.array(scan.data_to_world(index))


def drawn(view, place):
    """The colour, 0..1, with which a plane draws a place."""
    settle(0.1)
    at = view.pixel_of(place)
    return view.canvas.screenshot(flash=False)[round(at.y()), round(at.x()), :3] / 255


def cross_of(planes, scan):
    return tuple(np.round(scan.world_to_data(planes.planes.cross)).astype(int).tolist())


def test_a_click_in_each_plane_adds_and_takes_away(viewer, scan, part, planes, deep):
    session, liver = part.session, deep(LIVER)
    labels = session.layer
    steps = {"Axial": (0, 1, 2), "Coronal": (1, 0, 2), "Sagittal": (1, 2, 0)}
    for name, step in steps.items():
        planes.planes.move_cross(world(scan, liver))
        settle(0.1)
        view = planes.views[name]
        added, taken = beside(liver, *step), beside(liver, *-np.array(step))
        part.press("new_object")
        mouse(viewer, world(scan, added), view=view)
        answered(part)
        assert given(part) == [(added, True)]
        assert cross_of(planes, scan) == added
        label = session.objects[session.active].label
        assert labels.data[added] == labels.data[taken] == label
        how = {"alt": True} if name == "Axial" else {"button": "right"}
        mouse(viewer, world(scan, taken), view=view, **how)
        answered(part)
        assert given(part) == [(added, True), (taken, False)]
        assert labels.data[taken] == 0
        red, green, blue = drawn(view, world(scan, taken))
        assert red > max(green, blue) + 0.3
    part.press("undo")
    planes.planes.move_cross(world(scan, added))
    settle()
    for view in planes.views.values():
        assert len(view.model.layers["prompts"].data) == 1
        red, green, blue = drawn(view, world(scan, added))
        assert green > max(red, blue) + 0.3
    # napari's dot for a slice without points is out of sight
    corner = planes.views["Axial"].pixel_of(world(scan, (0, 0, 0)))
    planes.planes.move_cross(world(scan, beside(added, 4, 0, 0)))
    settle()
    shot = planes.views["Axial"].canvas.screenshot(flash=False)
    assert shot[round(corner.y()), round(corner.x()), :3].max() < 100
    planes.planes.move_cross(world(scan, added))
    # the object's voxels are drawn in each plane
    inside = np.argwhere(labels.data == label)
    for view in planes.views.values():
        on_slice = inside[inside[:, PLANES[view.plane]] == added[PLANES[view.plane]]]
        far = on_slice[np.abs(on_slice - added).sum(axis=1).argmax()]
        labels.visible = True
        shown = drawn(view, world(scan, far))
        labels.visible = False
        assert np.abs(shown - drawn(view, world(scan, far))).max() > 0.1


def test_looking_around_goes_on_while_clicking(viewer, scan, part, planes, deep):
    session, view = part.session, planes.views["Coronal"]
    liver = deep(LIVER)
    start, end = world(scan, liver), world(scan, beside(liver, 3, 0, 5))
    mouse(viewer, start, end, view=view)
    assert cross_of(planes, scan) == beside(liver, 3, 0, 5)
    mouse(viewer, start, view=view, ctrl=True)
    assert cross_of(planes, scan) == tuple(liver)
    wheel(view, -1)
    assert cross_of(planes, scan) == beside(liver, 0, 1, 0)
    centre = view.model.scene.camera.center
    mouse(viewer, start, end, view=view, shift=True)
    assert view.model.scene.camera.center != centre
    assert cross_of(planes, scan) == beside(liver, 0, 1, 0)
    assert not session.busy
    assert not session.objects
    # two quick clicks are clicks
    control = Qt.KeyboardModifier.ControlModifier
    for keys, enlarged in ((Qt.KeyboardModifier.NoModifier, False), (control, True)):
        QTest.mouseDClick(view.native, Qt.MouseButton.LeftButton, keys, QPoint(20, 20))
        settle(0.1)
        assert planes.views["Axial"].isVisible() != enlarged
    QTest.mouseDClick(view.native, Qt.MouseButton.LeftButton, control, QPoint(20, 20))
    # with clicking off, the right button does nothing here
    part.button.click()
    mouse(viewer, start, view=view, button="right")
    mouse(viewer, start, view=view)
    assert cross_of(planes, scan) == beside(liver, 0, 1, 0)
    assert not session.objects
    assert not session.busy


def test_marks_are_dragged_and_shapes_drawn_in_a_plane(viewer, scan, part, planes, deep):
    session, view = part.session, planes.views["Coronal"]
    liver = deep(LIVER)
    first, second, third = (beside(liver, n, 0, 4 * n) for n in (0, 1, 3))
    for index in (first, second):
        mouse(viewer, world(scan, index), view=view)
        answered(part)
    mouse(viewer, world(scan, second), world(scan, third), view=view)
    answered(part)
    assert given(part) == [(first, True), (third, True)]
    assert cross_of(planes, scan) == second
    points = viewer.layers["prompts"]
    viewer.layers.selection.active = points
    points.mode = "select"
    settle(0.1)
    mouse(viewer, world(scan, third), world(scan, second), view=view)
    settle(0.1)
    answered(part)
    assert given(part) == [(first, True), (second, True)]
    copy = view.model.layers["prompts"]
    copy.selected_data = {0}
    copy.remove_selected()
    settle(0.1)
    answered(part)
    assert given(part) == [(second, True)]
    assert session.layer.data[second]
    viewer.layers.selection.active = scan
    planes.planes.move_cross(world(scan, liver))
    settle(0.1)
    view = planes.views["Sagittal"]
    before = planes.planes.cross
    corners = [world(scan, beside(liver, *step)) for step in ((0, 0, 0), (0, 4, 0), (3, 4, 0))]
    part.press("new_object")
    for tool, path in (("scribble", corners[:2]), ("box", corners[::2]), ("lasso", corners)):
        part.press(tool)
        mouse(viewer, *path, view=view)
        answered(part)
    assert planes.planes.cross == before
    line, box, lasso = session.objects[session.active].prompts
    assert [line.kind, box.kind, lasso.kind] == ["scribble", "box", "lasso"]
    assert set(map(tuple, session.turned.index(line.voxels))) == {
        beside(liver, 0, n, 0) for n in range(5)
    }
    assert np.array_equal(session.turned.index(box.voxels), [liver, beside(liver, 3, 4, 0)])
    assert {tuple(one[2:]) for one in session.turned.index(lasso.voxels)} == {(liver[2],)}
    # Shift makes a box reach from the slice of the one before to this
    part.press("box")
    wheel(view, -4)
    low, high = (world(scan, beside(liver, *step)) for step in ((1, 1, 4), (4, 5, 4)))
    mouse(viewer, low, high, view=view, shift=True)
    answered(part)
    box = session.objects[session.active].prompts[-1]
    assert np.array_equal(session.turned.index(box.voxels), [liver, beside(liver, 4, 5, 4)])
