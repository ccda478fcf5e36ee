"""The Three planes dock: upright and true, one cross, layers in step, real clicks and strokes."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_spad import layers

from .conftest import inside, picture, settle, wait_for

LIVER, SPLEEN = 6, 1
NO_KEY, LEFT = Qt.KeyboardModifier.NoModifier, Qt.MouseButton.LeftButton
PLANES = ("Axial", "Coronal", "Sagittal")


@pytest.fixture
def planes(scan, truth, dock):
    """The dock, with its cross in the middle of the liver; closed before napari looks for leaks."""
    widget = dock("Three planes")
    widget.planes.move_cross(place_in(truth, LIVER))
    settle()
    yield widget
    widget.shut()


def place_in(labels, label):
    return np.asarray(labels.data_to_world(inside(np.asarray(labels.data), label)))


def beside(place, *mm):
    return np.asarray(place) + np.array(mm)


def pixel(view, place):
    at = view.pixel_of(place[-3:])
    return QPoint(round(at.x()), round(at.y()))


def click(view, place, button=LEFT, keys=NO_KEY):
    QTest.mouseMove(view.native, pixel(view, place))
    settle(0.05)
    QTest.mouseClick(view.native, button, keys, pixel(view, place))
    settle()


def stroke(view, start, end):
    QTest.mousePress(view.native, LEFT, NO_KEY, pixel(view, start))
    for part in np.linspace(0, 1, 6):
        QTest.mouseMove(view.native, pixel(view, start + part * (end - start)))
        settle(0.03)
    QTest.mouseRelease(view.native, LEFT, NO_KEY, pixel(view, end))
    settle()


def wheel(view, notches, keys=NO_KEY, at=None):
    at = QPointF(view.native.rect().center()) if at is None else QPointF(at)
    event = QWheelEvent(
        at,
        QPointF(view.native.mapToGlobal(at.toPoint())),
        QPoint(0, 0),
        QPoint(0, 120 * notches),
        Qt.MouseButton.NoButton,
        keys,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(view.native, event)
    settle(0.1)


def drawn(view, place):
    """The colour, 0..1, with which a plane draws a place."""
    settle()
    shot = view.canvas.screenshot(flash=False)
    at = pixel(view, place)
    return shot[at.y(), at.x(), :3] / 255


def copies_of(widget, layer):
    return [view.model.layers[layer.name] for view in widget.views.values()]


def gray(scan, index):
    low, high = scan.contrast_limits
    return float(np.clip((scan.data[tuple(index)] - low) / (high - low), 0, 1))


def test_each_plane_draws_the_anatomy_where_the_letters_say(planes, scan, truth):
    truth.visible = False
    liver, spleen = place_in(truth, LIVER), place_in(truth, SPLEEN)
    for place in (liver, spleen):
        planes.planes.move_cross(place)
        settle()
        index = np.round(scan.world_to_data(place)).astype(int)
        for view in planes.views.values():
            assert drawn(view, place)[0] == pytest.approx(gray(scan, index), abs=0.08)
    for name in ("Axial", "Coronal"):
        view = planes.views[name]
        assert view.pixel_of(liver).x() < view.native.width() / 2 < view.pixel_of(spleen).x()
        assert planes.planes.ends(name)[:2] == ("R", "L")
    shape, high = np.array(scan.data.shape), (0, 0, 0)
    head, feet = scan.data_to_world(high), scan.data_to_world(shape - 1)
    for name in ("Coronal", "Sagittal"):
        view = planes.views[name]
        assert view.pixel_of(head).y() < view.pixel_of(feet).y()
        assert planes.planes.ends(name)[2:] == ("S", "I")
    sagittal = planes.views["Sagittal"]
    assert sagittal.pixel_of(head).x() < sagittal.pixel_of(feet).x()
    assert planes.planes.ends("Sagittal")[:2] == ("A", "P")
    assert planes.planes.ends("Axial")[2:] == ("A", "P")


def test_a_mm_is_as_long_in_every_direction_and_plane(planes, scan, truth):
    truth.visible, scan.interpolation2d = False, "nearest"
    low, high, shape = np.array([5, 12, 20]), np.array([25, 40, 59]), scan.data.shape
    box = np.zeros(shape, np.int16)
    box[tuple(slice(*ends) for ends in zip(low, high, strict=True))] = 10_000
    scan.data = box
    assert all(copy.data is box for copy in copies_of(planes, scan))
    planes.planes.move_cross(scan.data_to_world((low + high) / 2))
    settle()
    zooms = {view.model.scene.camera.zoom for view in planes.views.values()}
    assert len(zooms) == 1
    size = (high - low) * np.asarray(scan.scale) * zooms.pop()
    assert len(set(np.round(scan.scale, 3))) > 1
    for axis, view in enumerate(planes.views.values()):
        shot = view.canvas.screenshot(flash=False)[..., 0] > 128
        shown = [other for other in range(3) if other != axis]
        for one, other in enumerate(shown):
            across = np.flatnonzero(shot.any(axis=1 - one))
            assert np.ptp(across) + 1 == pytest.approx(size[other], abs=1.5)
        start = np.argwhere(shot).min(axis=0)
        corner = view.pixel_of(scan.data_to_world(low - 0.5))
        assert start == pytest.approx((corner.y(), corner.x()), abs=1.5)


def reach(view, layer):
    """How far the cross may lie from a click: half a pixel and, as it snaps, half a voxel."""
    return 0.51 / view.model.scene.camera.zoom + np.asarray(layer.scale) / 2


def test_a_stroke_in_a_plane_paints_that_plane_everywhere_and_can_be_undone(viewer, planes, truth):
    viewer.layers.selection.active = truth
    truth.mode, truth.selected_label, truth.brush_size = "paint", SPLEEN, 5
    settle()
    coronal, cross = planes.views["Coronal"], np.array(planes.planes.cross)
    before, told = truth.data.copy(), []
    truth.events.paint.connect(lambda event: told.append(event.value))
    stroke(coronal, cross, beside(cross, 20, 0, 0))
    changed = np.argwhere(truth.data != before)
    assert len(changed) > 10
    index = np.round(truth.world_to_data(cross)).astype(int)
    assert set(changed[:, 1]) == {index[1]}
    assert truth.data[tuple(index)] == SPLEEN
    assert len(told) == 1
    assert viewer.dims.point == pytest.approx(tuple(cross))
    expected = np.array(truth.get_color(SPLEEN)[:3])
    for view in planes.views.values():
        assert np.argmax(drawn(view, cross)) == np.argmax(expected)
    shot = picture(viewer)
    size, camera = np.array(viewer.canvas.size), viewer.scene.camera
    at = (cross[1:] - np.array(camera.center)[-2:]) * camera.zoom + size / 2
    assert np.argmax(shot[round(at[0]), round(at[1]), :3]) == np.argmax(expected)
    QTest.keyClick(coronal.native, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    settle()
    assert np.array_equal(truth.data, before)
    liver = np.array(truth.get_color(LIVER)[:3])
    for view in planes.views.values():
        assert np.argmax(drawn(view, cross)) == np.argmax(liver)
    truth.redo()
    assert np.array_equal(np.argwhere(truth.data != before), changed)


def test_a_polygon_in_a_plane_is_completed_and_given_up_by_keys(viewer, planes, truth):
    viewer.layers.selection.active = truth
    truth.mode, truth.selected_label = "polygon", SPLEEN
    settle()
    coronal, cross = planes.views["Coronal"], np.array(planes.planes.cross)
    before = truth.data.copy()
    for key, is_painted in ((Qt.Key.Key_Escape, False), (Qt.Key.Key_Return, True)):
        for down, across in ((-20, -20), (-20, 20), (20, 20), (20, -20)):
            click(coronal, beside(cross, down, 0, across))
        QTest.keyClick(coronal.native, key)
        settle()
        assert (truth.data != before).any() == is_painted
    changed = np.argwhere(truth.data != before)
    assert set(changed[:, 1]) == {round(truth.world_to_data(cross)[1])}
    assert truth.data[tuple(np.round(truth.world_to_data(cross)).astype(int))] == SPLEEN


def test_layers_are_in_step(viewer, planes, scan, truth):
    for copy in copies_of(planes, scan) + copies_of(planes, truth):
        assert copy.data is (scan if copy.name == "ct" else truth).data
    scan.contrast_limits, scan.gamma, scan.opacity = (-5000, 200), 0.7, 0.5
    scan.colormap, scan.blending, scan.name = "magma", "additive", "other name"
    scan.interpolation2d, scan.visible = "nearest", False
    truth.contour, truth.n_edit_dimensions, truth.contiguous = 2, 3, False
    truth.brush_size, truth.preserve_labels, truth.show_selected_label = 7, True, True
    viewer.layers.selection.active = truth
    truth.mode = "fill"
    settle()
    for copy in copies_of(planes, scan):
        assert list(copy.contrast_limits) == [-5000, 200]
        assert (copy.gamma, copy.opacity, copy.colormap.name) == (0.7, 0.5, "magma")
        assert (copy.blending, copy.interpolation2d, copy.visible) == ("additive", "nearest", False)
    for copy in copies_of(planes, truth):
        assert (copy.contour, copy.n_edit_dimensions, copy.contiguous) == (2, 3, False)
        assert (copy.brush_size, copy.preserve_labels, copy.mode) == (7, True, "fill")
        assert copy.show_selected_label
    assert all(view.model.layers.selection.active.name == "truth" for view in planes.views.values())
    viewer.layers.move(0, 2)
    viewer.add_points([planes.planes.cross], name="here", units="mm")
    settle()
    names = [layer.name for layer in viewer.layers]
    assert names == ["truth", "other name", "here"]
    for view in planes.views.values():
        assert [layer.name for layer in view.model.layers] == names
    viewer.layers.remove("other name")
    settle()
    assert [layer.name for layer in planes.views["Axial"].model.layers] == ["truth", "here"]


def listeners(viewer):
    """How many callbacks hang on the viewer and its layers."""
    groups = [viewer.events, viewer.dims.events, viewer.layers.events, viewer.cursor.events]
    groups += [viewer.layers.selection.events, *(layer.events for layer in viewer.layers)]
    emitters = [one for group in groups for one in group.emitters.values()]
    lists = [viewer.mouse_move_callbacks, viewer.mouse_drag_callbacks]
    return sum(len(one.callbacks) for one in emitters) + sum(map(len, lists))


def test_closing_leaves_no_trace_and_it_opens_again(viewer, scan, truth, dock):
    from napari.qt import QtViewer

    settle()
    gc.collect()
    before = listeners(viewer)
    widget = dock("Three planes")
    assert listeners(viewer) > before
    viewer.window.remove_dock_widget(widget)
    settle()
    assert listeners(viewer) == before
    del widget
    gc.collect()
    settle()
    assert len(QtViewer._instances) == 1
    scan.contrast_limits = (0, 50)
    viewer.dims.set_point(0, place_in(truth, SPLEEN)[0])
    viewer.layers.remove(truth)
    settle()
    widget = dock("Three planes")
    assert [layer.name for layer in widget.views["Axial"].model.layers] == ["ct"]
    assert dock("Three planes") is widget


@pytest.mark.parametrize("kind", ["image", "labels"])
def test_the_voxels_of_a_layer_that_goes_are_let_go(viewer, dock, kind):
    widget = dock("Three planes")
    layer = getattr(viewer, f"add_{kind}")(np.zeros((8, 9, 10), np.uint8))
    settle()
    voxels = weakref.ref(layer.data)
    assert widget.views["Axial"].model.layers[0].data is layer.data
    viewer.layers.remove(layer)
    del layer
    settle()
    gc.collect()
    assert voxels() is None
    widget.shut()


def test_clicks_and_drags_move_the_cross_and_not_the_picture(viewer, planes, scan, truth):
    target = place_in(truth, SPLEEN)
    coronal = planes.views["Coronal"]
    before = planes.planes.cross
    click(coronal, np.array([target[0], before[1], target[2]]))
    half = reach(coronal, scan)
    assert abs(viewer.dims.point[0] - target[0]) <= half[0]
    assert viewer.dims.point[1] == pytest.approx(before[1])
    assert abs(viewer.dims.point[2] - target[2]) <= half[2]
    for name, axis in zip(PLANES, range(3), strict=True):
        shown = planes.views[name].model.dims.point[axis]
        assert shown == pytest.approx(viewer.dims.point[axis])
    axial = planes.views["Axial"]
    start = np.array(planes.planes.cross)
    centre = axial.model.scene.camera.center
    end = beside(start, 0, 20, 30)
    stroke(axial, start, end)
    assert np.all(np.abs(np.array(viewer.dims.point) - end) <= reach(axial, truth))
    assert axial.model.scene.camera.center == pytest.approx(centre)
    viewer.layers.selection.active = truth
    truth.mode = "paint"
    before = truth.data.copy()
    target = beside(planes.planes.cross, 0, 10, 10)
    click(planes.views["Axial"], target, keys=Qt.KeyboardModifier.ControlModifier)
    assert np.array_equal(truth.data, before)
    away = np.abs(np.array(viewer.dims.point) - target)
    assert np.all(away <= reach(planes.views["Axial"], truth))


def test_the_cross_is_one_in_all_views(viewer, planes, scan, truth):
    for view in planes.views.values():
        at = view.pixel_of(planes.planes.cross)
        image = view.marks.grab().toImage()
        ratio = view.marks.devicePixelRatioF()
        column, row = int(at.x() * ratio), int((at.y() - 30) * ratio)
        around = [image.pixelColor(column + step, row).saturation() for step in (-6, 0, 6)]
        assert around[1] > 60
        assert max(around[0], around[2]) < around[1]
    place = place_in(truth, SPLEEN)
    for axis in range(3):
        viewer.dims.set_point(axis, place[axis])
    settle()
    for axis, view in enumerate(planes.views.values()):
        assert view.model.dims.point[axis] == pytest.approx(place[axis])
        assert view.native.rect().contains(pixel(view, place))
    sliced = dict.fromkeys(PLANES, 0)

    def count(name):
        def add(event):
            sliced[name] += 1

        return add

    for name, copy in zip(PLANES, copies_of(planes, scan), strict=True):
        copy.events.set_data.connect(count(name))
    planes.planes.move_cross(beside(planes.planes.cross, 0, 12, 12))
    settle()
    assert sliced == {"Axial": 0, "Coronal": 1, "Sagittal": 1}
    planes.show_cross.setChecked(False)
    assert not any(view.marks.shows_cross for view in planes.views.values())


def test_the_wheel_leafs_through_a_plane(viewer, planes):
    for axis, name in enumerate(PLANES):
        before = list(viewer.dims.current_step)
        wheel(planes.views[name], -1)
        wheel(planes.views[name], -1)
        before[axis] += 2
        assert list(viewer.dims.current_step) == before
        wheel(planes.views[name], 1)
        before[axis] -= 1
        assert list(viewer.dims.current_step) == before
    QTest.keyClick(planes.views["Axial"].native, Qt.Key.Key_Down)
    before[0] += 1
    assert list(viewer.dims.current_step) == before


def test_zoom_is_shared_and_pan_is_not_and_a_plane_can_be_enlarged(viewer, planes):
    view = planes.views["Coronal"]
    at = QPointF(40, 60)
    place, zoom = view.place_at(at), view.model.scene.camera.zoom
    wheel(view, 2, Qt.KeyboardModifier.ControlModifier, at)
    assert view.model.scene.camera.zoom > 1.2 * zoom
    assert view.place_at(at) == pytest.approx(place, abs=1e-6)
    zooms = {round(one.model.scene.camera.zoom, 6) for one in planes.views.values()}
    assert len(zooms) == 1
    planes.fit_button.click()
    assert view.model.scene.camera.zoom == pytest.approx(zoom, rel=1e-3)
    view = planes.views["Axial"]
    before, cross = view.place_at(QPointF(50, 50)), viewer.dims.point
    keys = Qt.KeyboardModifier.ShiftModifier
    QTest.mousePress(view.native, LEFT, keys, QPoint(50, 50))
    QTest.mouseMove(view.native, QPoint(80, 90))
    QTest.mouseRelease(view.native, LEFT, keys, QPoint(80, 90))
    settle()
    assert view.place_at(QPointF(80, 90)) == pytest.approx(before, abs=1e-6)
    assert viewer.dims.point == cross
    view = planes.views["Coronal"]
    for shown in (["Coronal"], list(PLANES)):
        QTest.mouseDClick(view.native, LEFT, NO_KEY, QPoint(20, 20))
        settle()
        assert [name for name, one in planes.views.items() if one.isVisible()] == shown


def test_painting_in_the_main_view_shows_in_the_planes(viewer, planes, truth):
    cross = np.array(planes.planes.cross)
    index = np.round(truth.world_to_data(cross)).astype(int)
    truth.brush_size = 9
    truth.paint(index, SPLEEN)
    expected = np.argmax(truth.get_color(SPLEEN)[:3])
    assert all(np.argmax(drawn(view, cross)) == expected for view in planes.views.values())
    truth.data[tuple(slice(at - 5, at + 6) for at in index)] = LIVER
    truth.refresh()
    expected = np.argmax(truth.get_color(LIVER)[:3])
    assert all(np.argmax(drawn(view, cross)) == expected for view in planes.views.values())


def test_the_main_picture_survives_a_layer_that_goes(viewer, planes, scan, truth):
    """The layer's textures are deleted in its own canvas only."""
    for view in planes.views.values():
        drawn(view, planes.planes.cross)
    viewer.layers.remove(truth)
    settle()
    index = np.round(scan.world_to_data(planes.planes.cross)).astype(int)
    for view in planes.views.values():
        assert drawn(view, planes.planes.cross)[0] == pytest.approx(gray(scan, index), abs=0.08)
    assert picture(viewer)[..., :3].std() > 20


def test_points_and_shapes_are_edited_in_a_plane(viewer, planes):
    points = viewer.add_points(np.empty((0, 3)), name="marks", size=6, units="mm")
    settle()
    points.mode = "add"
    settle()
    cross = np.array(planes.planes.cross)
    click(planes.views["Sagittal"], beside(cross, 10, 10, 0))
    assert len(points.data) == 1
    assert points.data[0] == pytest.approx(beside(cross, 10, 10, 0), abs=1)
    points.face_color = "lime"
    for copy in copies_of(planes, points):
        assert np.array_equal(copy.data, points.data)
        assert copy.face_color[0] == pytest.approx([0, 1, 0, 1])
    points.mode = "select"
    stroke(planes.views["Sagittal"], points.data[0].copy(), cross)
    assert points.data[0] == pytest.approx(cross, abs=1.5)
    points.remove_selected()
    assert len(points.data) == 0
    assert all(len(copy.data) == 0 for copy in copies_of(planes, points))
    cross = np.array(planes.planes.cross)
    corners = np.array([beside(cross, 0, row, column) for row, column in ((0, 0), (0, 9), (9, 9))])
    shapes = viewer.add_shapes([corners], shape_type="polygon", name="outline", units="mm")
    settle()
    copies_of(planes, shapes)[0].add_polygons([corners + 5], edge_color="red")
    assert shapes.nshapes == 2
    for copy in copies_of(planes, shapes):
        assert copy.shape_type == ["polygon"] * 2
        assert np.allclose(copy.data[1], corners + 5)
        assert copy.edge_color[1] == pytest.approx([1, 0, 0, 1])


def test_a_click_picks_an_organ(viewer, planes, truth, dock):
    segment = dock("Segment")
    wait_for(lambda: segment.table.rowCount() > 0)
    place, cross = place_in(truth, SPLEEN), np.array(planes.planes.cross)
    viewer.dims.set_point(1, place[1])
    settle()
    assert abs(place[0] - cross[0]) > 0.9 * truth.scale[0]
    click(planes.views["Coronal"], place)
    assert segment.table.selected == SPLEEN
    assert segment.selection.text().startswith("spleen: ")


def test_readouts_follow_the_mouse(viewer, planes, scan, truth, dock):
    seen, heard = [], []
    readout = dock("Scan").readout
    settle(0.5)
    viewer.cursor.events.position.connect(lambda event: seen.append(viewer.cursor.position))
    viewer.mouse_move_callbacks.append(lambda _, event: heard.append(event.position))
    viewer.layers.selection.active = truth
    view = planes.views["Coronal"]
    QTest.mouseMove(view.native, QPoint(3, 3))
    settle(0.1)
    place = np.array(planes.planes.cross)
    QTest.mouseMove(view.native, pixel(view, place))
    settle(0.1)
    pointed = np.array(seen[-1])
    assert np.all(np.abs(pointed - place) <= 0.51 / view.model.scene.camera.zoom)
    assert heard[-1] == pytest.approx(pointed)
    status = viewer.status
    number, letters = readout.place.text().removesuffix(" mm").split()[1::2], "RAS"
    assert readout.place.text().split()[:6:2] == list(letters)
    half = np.asarray(scan.scale) / 2 + 0.1
    assert np.all(np.abs(np.array(number, float)[::-1] + pointed) <= half)
    assert "liver" in (status if isinstance(status, str) else " ".join(map(str, status.values())))


def test_it_opens_before_any_layer_and_fits_the_first(viewer, dock, ct_phantom):
    widget = dock("Three planes")
    assert not widget.planes.ready
    widget.planes.move_cross((1, 2, 3))
    widget.fit_button.click()
    data, kwargs, _ = layers.to_layer(ct_phantom.image, "ct")
    viewer.add_image(data, **kwargs)
    settle()
    for view in widget.views.values():
        assert len(view.model.layers) == 1
        for corner in (0, np.array(data.shape) - 1):
            at = view.pixel_of(viewer.layers[0].data_to_world(np.broadcast_to(corner, 3)))
            assert view.native.rect().adjusted(-2, -2, 2, 2).contains(at.toPoint())
    viewer.layers.clear()
    settle()
    assert not widget.planes.ready
    viewer.add_image(np.zeros((20, 30)))
    settle()
    assert not widget.planes.ready
    viewer.layers.clear()
    series = np.zeros((3, 10, 20, 30), np.uint8)
    series[2] = 255
    viewer.add_image(series, contrast_limits=(0, 255))
    settle()
    assert widget.planes.ready
    assert widget.planes.ends("Axial") == ("", "", "", "")
    place = widget.planes.cross
    for time, light in ((0, 0), (2, 1)):
        viewer.dims.set_point(0, time)
        for view in widget.views.values():
            assert drawn(view, np.array(place) + 1)[0] == pytest.approx(light, abs=0.05)


def test_floating_and_docking_again_keeps_all_pictures(viewer, planes, scan, truth):
    truth.visible = False
    place = planes.planes.cross
    index = np.round(scan.world_to_data(place)).astype(int)
    holder = planes.parentWidget()
    for floats in (True, False):
        holder.setFloating(floats)
        settle(0.4)
        for view in planes.views.values():
            assert drawn(view, place)[0] == pytest.approx(gray(scan, index), abs=0.08)
        assert picture(viewer)[..., :3].std() > 20
    axial, target = planes.views["Axial"], beside(place, 0, 8, 8)
    click(axial, target)
    assert np.all(np.abs(np.array(viewer.dims.point) - target) <= reach(axial, scan))


@pytest.mark.parametrize("names", [("Scan", "Three planes"), ("Three planes", "Scan")])
def test_docks_above_each_other_share_the_height(viewer, scan, dock, names):
    first, second = (dock(name) for name in names)
    settle()
    heights = [widget.height() for widget in (first, second)]
    assert min(heights) > 0.4 * sum(heights)
