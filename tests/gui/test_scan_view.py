"""What helps in the viewer: letters, the place under the mouse, windows, keys, tilted scans."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from napari_spad import edges, layers, view

from .conftest import inside, picture, pixel_of, said, settle, wait_for

LIVER = 6


@pytest.fixture
def ct(viewer, ct_phantom):
    data, kwargs, _ = layers.to_layer(ct_phantom.image, "ct")
    return viewer.add_image(data, **kwargs)


@pytest.fixture
def mr(viewer, mr_phantom):
    """A tilted scan."""
    data, kwargs, _ = layers.to_layer(mr_phantom.image, "mr")
    return viewer.add_image(data, **kwargs)


def canvas():
    from qtpy.QtWidgets import QApplication

    found = [w for w in QApplication.allWidgets() if type(w).__name__.startswith("CanvasBackend")]
    return next(w for w in found if w.isVisible())


def hover(viewer, world):
    """Move the mouse over a place of the slice that is shown."""
    from qtpy.QtCore import QPoint
    from qtpy.QtTest import QTest

    row, column = pixel_of(viewer, world)
    QTest.mouseMove(canvas(), QPoint(column + 2, row + 2))
    settle(0.05)
    QTest.mouseMove(canvas(), QPoint(column, row))
    settle(0.1)


def press(letter, modifier="Control"):
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    key = getattr(Qt.Key, f"Key_{letter}")
    QTest.keyClick(canvas(), key, getattr(Qt.KeyboardModifier, f"{modifier}Modifier"))
    settle(0.1)


def letters_in(shot, edge):
    """How many pixels of the letters' yellow lie at an edge of the canvas."""
    height, width = shot.shape[:2]
    part = {
        "left": shot[height // 2 - 30 : height // 2 + 30, :60],
        "right": shot[height // 2 - 30 : height // 2 + 30, width - 60 :],
        "top": shot[:60, width // 2 - 30 : width // 2 + 30],
        "bottom": shot[height - 60 :, width // 2 - 30 : width // 2 + 30],
    }[edge][..., :3].astype(int)
    red, green, blue = np.moveaxis(part, -1, 0)
    return int(np.count_nonzero((red > 200) & (green > 160) & (blue < 150)))


def test_letters_are_drawn_at_all_edges_and_go(viewer, ct, dock):
    widget = dock("Scan")
    shot = picture(viewer)
    for edge in edges.EDGES:
        assert letters_in(shot, edge) > 20, edge
    widget.planes.button(1).click()
    settle()
    texts = [viewer.canvas.overlays[edges.name_of(edge)].text for edge in edges.EDGES]
    assert texts == ["R", "L", "S", "I"]
    widget.letters.setChecked(False)
    shot = picture(viewer)
    assert [letters_in(shot, edge) for edge in edges.EDGES] == [0, 0, 0, 0]
    widget.letters.setChecked(True)
    assert letters_in(picture(viewer), "left") > 20
    widget.planes.button(3).click()
    assert letters_in(picture(viewer), "left") == 0


def test_the_right_of_the_patient_is_at_the_letter_r(viewer, ct, dock, ct_phantom):
    """The liver is on the patient's right: the mouse near the letter R reads a larger R."""
    widget = dock("Scan")
    labels = layers.to_layer(ct_phantom.labels, "truth")[0]
    index = inside(np.asarray(labels), LIVER)
    world = ct.data_to_world(index)
    viewer.dims.set_point(0, world[0])
    settle()
    hover(viewer, world)
    assert pixel_of(viewer, world)[1] < viewer.canvas.size[1] / 2
    assert viewer.canvas.overlays[edges.name_of("left")].text == "R"
    assert float(widget.readout.place.text().split()[1]) > 0


@pytest.mark.parametrize("name", ["ct", "mr"])
def test_true_millimetres_in_every_plane(viewer, dock, request, name):
    layer = request.getfixturevalue(name)
    volume = layers.scan_volume(layer)
    widget = dock("Scan")
    index = np.array(layer.data.shape) * 2 // 5
    world = np.array(layer.data_to_world(index))
    viewer.dims.point = world
    for plane in view.PLANES:
        view.show_plane(viewer, plane)
        settle()
        hover(viewer, world)
        words = widget.readout.place.text().split()
        assert words[0::2] == ["R", "A", "S", "mm"]
        voxel, value = widget.readout.voxel.text().removeprefix("voxel ").split(": ")
        ijk = [int(n) for n in voxel.split(", ")]
        true = (volume.source.affine @ [*ijk, 1])[:3]
        assert [float(one) for one in words[1::2]] == pytest.approx(true, abs=0.06)
        assert float(value.split()[0]) == layer.data[tuple(index)]
        assert value.endswith("HU") == (name == "ct")


def test_the_place_goes_outside_and_in_3d_and_follows_scrolling(viewer, ct, dock):
    widget = dock("Scan")
    middle = np.array(ct.data_to_world(np.array(ct.data.shape) // 2))
    hover(viewer, middle)
    assert widget.readout.place.text().startswith("R ")
    height = widget.readout.height()
    corner = np.array(ct.data_to_world((middle[0], -2, -2)))
    hover(viewer, corner)
    assert widget.readout.place.text() == "Move the mouse over a slice."
    assert widget.readout.voxel.text().strip() == ""
    assert widget.readout.height() == height
    hover(viewer, middle)
    widget.planes.button(3).click()
    settle()
    assert widget.readout.place.text() == "Move the mouse over a slice."
    widget.planes.button(0).click()
    settle()
    hover(viewer, middle)
    before = widget.readout.place.text().split()
    viewer.dims.set_point(0, viewer.dims.point[0] + 2 * ct.scale[0])
    settle()
    after = widget.readout.place.text().split()
    assert before[:4] == after[:4]
    assert float(before[5]) - float(after[5]) == pytest.approx(2 * ct.scale[0], abs=0.11)


def test_a_window_is_chosen_in_the_dock_and_by_keys(viewer, ct, dock):
    widget = dock("Scan")
    assert widget.windows.currentText() == "Abdomen  W 400 L 75"
    names = [widget.windows.itemText(n) for n in range(widget.windows.count())]
    index = names.index("Bone  W 1800 L 400")
    widget.windows.setCurrentIndex(index)
    widget.windows.activated.emit(index)
    assert tuple(ct.contrast_limits) == (-500, 1300)
    assert widget.windows.currentText() == "Bone  W 1800 L 400"
    assert "Ctrl+4" in widget.windows.toolTip()
    ct.contrast_limits = (0, 55)
    assert widget.windows.currentText() == "By hand  W 55 L 28"
    press("2")
    assert tuple(ct.contrast_limits) == (-45, 105)
    assert widget.windows.currentText() == "Liver  W 150 L 30"
    press("3")
    assert tuple(ct.contrast_limits) == (-1350, 150)


def test_keys_work_after_a_choice_with_the_mouse(viewer, ct, dock):
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    widget = dock("Scan")
    for chooser, key, limits in (
        (widget.windows, Qt.Key.Key_3, [-1350, 150]),
        (widget.scans, Qt.Key.Key_2, [-45, 105]),
    ):
        chooser.setFocus()
        QTest.keyClick(chooser, key, Qt.KeyboardModifier.ControlModifier)
        settle()
        assert list(ct.contrast_limits) == limits


def test_keys_work_without_any_dock(viewer):
    viewer.open_sample("napari-spad", "ct_phantom")
    settle()
    layer = viewer.layers["CT phantom"]
    press("5")
    assert tuple(layer.contrast_limits) == (0, 80)
    assert letters_in(picture(viewer), "left") > 20


def test_the_window_of_a_tiny_file_own(viewer, dock, ct_phantom):
    volume = dataclasses.replace(ct_phantom.image, window=(-33.0, 67.0))
    data, kwargs, _ = layers.to_layer(volume, "own")
    layer = viewer.add_image(data, **kwargs)
    widget = dock("Scan")
    press("1")
    assert tuple(layer.contrast_limits) == (-160, 240)
    press("9")
    assert tuple(layer.contrast_limits) == (-33, 67)
    assert widget.windows.currentText() == "The file's own  W 100 L 17"


def test_one_key_and_one_button_between_image_and_labels(viewer, ct, dock, ct_phantom):
    data, kwargs, _ = layers.to_layer(ct_phantom.labels, "organs", role="labels")
    viewer.add_labels(data, **kwargs)
    widget = dock("Scan")
    assert widget.switch.button.text() == "Show “organs” as an image"
    assert "Ctrl+L" in widget.switch.button.toolTip()
    widget.switch.button.click()
    settle()
    assert not layers.is_labels(viewer.layers["organs"])
    assert widget.switch.button.text() == "Show “organs” as labels"
    press("L")
    assert layers.is_labels(viewer.layers["organs"])
    names = layers.label_names({"features": viewer.layers["organs"].features})
    assert names == ct_phantom.labels.label_names
    assert [layer.name for layer in viewer.layers] == ["ct", "organs"]


def test_the_dock_and_the_layer_list_agree_about_the_scan(viewer, ct, mr, dock):
    widget = dock("Scan")
    viewer.layers.selection.active = ct
    settle()
    assert widget.scans.layer == ct
    index = [widget.scans.itemText(n) for n in range(widget.scans.count())].index("mr")
    widget.scans.setCurrentIndex(index)
    widget.scans.activated.emit(index)
    assert viewer.layers.selection.active == mr
    assert widget.modality.currentText() == "MR"


def test_tilted_scans_are_resampled_on_request(viewer, ct, mr, dock):
    widget = dock("Scan")
    mr.visible = False
    widget.scans.choose(ct)
    settle()
    assert not widget.fit.isVisible()
    mr.visible = True
    widget.scans.choose(mr)
    settle()
    assert widget.fit.isVisible()
    assert widget.fit.sentence.text().startswith("“mr” is tilted against “ct”")
    assert widget.fit.button.text() == "Resample mr onto ct"
    widget.fit.button.click()
    wait_for(lambda: "mr on ct" in viewer.layers, 30)
    settle()
    made = viewer.layers["mr on ct"]
    assert made.data.shape == ct.data.shape
    assert np.allclose(made.translate, ct.translate)
    assert not mr.visible
    assert tuple(made.contrast_limits) == tuple(mr.contrast_limits)
    assert widget.scans.layer == made
    assert not widget.fit.isVisible()
    assert widget.fields["Tilt"].text() == "none"
    volume = layers.scan_volume(made)
    original = layers.scan_volume(mr)
    middle = np.array(volume.spatial_shape) // 2
    place = np.linalg.inv(original.affine) @ volume.affine @ [*middle, 1]
    near = original.values()[tuple(slice(int(n), int(n) + 2) for n in place[:3])]
    assert near.min() - 1 <= volume.values()[tuple(middle)] <= near.max() + 1


def test_the_selected_layer_is_saved_in_the_format_that_is_chosen(
    viewer, dock, tmp_path, monkeypatch
):
    import SimpleITK
    from qtpy.QtWidgets import QFileDialog

    viewer.open_sample("napari-spad", "ct_phantom")
    widget = dock("Scan")
    viewer.layers.selection.active = viewer.layers["CT phantom - true organs"]
    offered = []

    def ask(parent, title, name, formats):
        offered.append(formats)
        return str(tmp_path / "organs"), "3D Slicer segmentation (*.seg.nrrd)"

    monkeypatch.setattr(QFileDialog, "getSaveFileName", ask)
    widget.switch.save_button.click()
    image = SimpleITK.ReadImage(str(tmp_path / "organs.seg.nrrd"))
    assert "liver" in {image.GetMetaData(key) for key in image.GetMetaDataKeys()}
    assert "DICOM SEG" in offered[0]
    viewer.layers.selection.active = viewer.layers["CT phantom"]
    widget.switch.save_button.click()
    assert "DICOM SEG" not in offered[1]


def test_the_format_that_is_chosen_rules_over_the_name_that_is_offered(
    viewer, dock, tmp_path, monkeypatch
):
    from qtpy.QtWidgets import QFileDialog

    viewer.open_sample("napari-spad", "ct_phantom")
    widget = dock("Scan")
    viewer.layers.selection.active = viewer.layers["CT phantom"]
    offered = []

    def ask(parent, title, name, formats):
        offered.append(name)
        return str(tmp_path / name), "NRRD (*.nrrd *.nhdr)"

    monkeypatch.setattr(QFileDialog, "getSaveFileName", ask)
    widget.switch.save_button.click()
    assert offered == ["CT_phantom.nii.gz"]
    assert [path.name for path in tmp_path.iterdir()] == ["CT_phantom.nrrd"]
    before = (tmp_path / "CT_phantom.nrrd").stat().st_mtime_ns
    widget.switch.save_button.click()
    assert (tmp_path / "CT_phantom.nrrd").stat().st_mtime_ns == before
    assert "there already" in said()


def test_long_names_leave_the_buttons_readable(viewer, ct, mr, dock):
    ct.name, mr.name = "CT_of_the_abdomen_and_pelvis_0001", "MR_of_the_abdomen_and_pelvis_0001"
    widget = dock("Scan")
    for button in (widget.switch.button, widget.fit.button):
        assert button.isVisible()
        assert button.fontMetrics().horizontalAdvance(button.text()) <= button.width() - 8
