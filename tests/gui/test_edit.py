"""The Edit part and the Case queue in a real viewer."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

from napari_spad import locks
from napari_spad.history import history_of

from .conftest import click, said, settle, wait_for

ORGAN = (slice(10, 22), slice(20, 40), slice(20, 40))
ISLAND = (slice(12, 18), slice(50, 56), slice(50, 56))


@pytest.fixture
def labels(viewer, scan):
    data = np.zeros(scan.data.shape, np.uint8)
    data[ORGAN] = data[ISLAND] = 6
    features = {"index": [0, 6], "name": ["background", "liver"]}
    made = viewer.add_labels(
        data, name="mine", scale=scan.scale, translate=scan.translate, features=features
    )
    made.selected_label = 6
    return made


@pytest.fixture
def edit(viewer, labels):
    from napari_spad.widgets.edit_row import EditRow

    widget = EditRow(viewer)
    viewer.window.add_dock_widget(widget, name="Edit")
    viewer.layers.selection.active = labels
    settle()
    return widget


def test_edits_are_steps_to_undo_and_redo(viewer, labels, edit):
    """Smooth and fill between slices, by their buttons."""
    before = np.array(labels.data)
    assert not edit.undo_button.isEnabled()
    edit.radius.setValue(20)
    edit.smooth_button.click()
    assert edit.busy
    assert edit.smooth_button.toolTip() == "An edit is under way."
    wait_for(lambda: not edit.busy)
    smoothed = np.array(labels.data)
    assert (smoothed != before).any()
    assert edit.undo_button.toolTip() == "Undo: Smooth liver by 20 mm"
    edit.undo_button.click()
    assert np.array_equal(labels.data, before)
    assert edit.redo_button.toolTip() == "Redo: Smooth liver by 20 mm"
    edit.redo_button.click()
    assert np.array_equal(labels.data, smoothed)
    edit.undo_button.click()
    labels.data[13:20, ORGAN[1], ORGAN[2]] = 0
    labels.data[15, 25, 25] = 3  # another label keeps its voxel
    labels.data[ISLAND] = 0
    edit.fill_button.click()
    wait_for(lambda: not edit.busy)
    filled = np.array(labels.data[ORGAN])
    assert filled[5, 5, 5] == 3
    filled[5, 5, 5] = 6
    assert (filled == 6).all()
    labels.undo()
    assert not labels.data[14].any()


def test_islands_are_clicked_on(viewer, scan, labels, edit):
    before = np.array(labels.data)
    index = np.array([15, 53, 53])
    viewer.dims.set_point(0, scan.data_to_world(index)[0])
    labels.mode = "paint"
    edit.remove_button.click()
    assert labels.mode == "pan_zoom"
    click(viewer, scan.data_to_world([15, 5, 5]))
    assert edit.status.text() == "There is no label; click on an island."
    click(viewer, scan.data_to_world(index))
    wait_for(lambda: not edit.busy and not edit.remove_button.isChecked())
    assert not labels.data[ISLAND].any()
    assert (labels.data[ORGAN] == 6).all()
    assert edit.undo_button.toolTip() == "Undo: Remove island of liver"
    edit.undo_button.click()
    assert np.array_equal(labels.data, before)
    edit.keep_button.click()
    click(viewer, scan.data_to_world(index))
    wait_for(lambda: not edit.busy and not edit.keep_button.isChecked())
    assert (labels.data[ISLAND] == 6).all()
    assert not labels.data[ORGAN].any()


def test_strokes_stay_within_the_range(viewer, scan, labels, edit):
    from .conftest import inside

    index = np.array([5, *np.array(scan.data.shape[1:]) // 2])
    values = np.asarray(scan.data)
    middle = float(np.median(values[5, 22:43, 22:43]))
    labels.mode, labels.selected_label, labels.brush_size = "paint", 3, 20
    viewer.dims.set_point(0, scan.data_to_world(index)[0])
    assert edit.unit.text() == "HU"
    assert edit.low.value() == pytest.approx(scan.contrast_limits[0], abs=0.01)
    edit.low.setValue(middle)
    edit.high.setValue(3000)
    edit.within.click()
    before = np.array(labels.data)
    click(viewer, scan.data_to_world(index))
    painted = labels.data == 3
    assert painted.any()
    assert values[painted].min() >= middle
    assert "Painted only within" in edit.status.text()
    edit.undo_button.click()
    assert np.array_equal(labels.data, before)
    edit.within.click()
    click(viewer, scan.data_to_world(index))
    assert values[labels.data == 3].min() < middle
    assert inside(np.asarray(labels.data), 3)[0] == 5


def test_seeds_grow_and_locked_labels_stay(viewer, scan, labels, edit):
    labels.data[ISLAND] = 0
    labels.data[2] = 4
    labels.data[ORGAN[0], 45:47, 20:40] = 2
    locks.lock(labels, {2})
    labels.refresh()
    before = np.array(labels.data)
    edit.grow_button.click()
    wait_for(lambda: not edit.busy)
    after = np.array(labels.data)
    assert np.array_equal(after[before > 0], before[before > 0])
    assert np.array_equal(after == 2, before == 2)
    assert (after == 6).sum() > (before == 6).sum()
    assert edit.status.text().endswith("locked and left as it was: label 2.")
    labels.selected_label = 2
    edit.smooth_button.click()
    assert edit.status.text() == "label 2 is locked: unlock it to change it."


def test_what_changes_meanwhile_is_not_overwritten(viewer, labels, edit):
    edit.radius.setValue(20)
    edit.smooth_button.click()
    labels.paint((0, 3, 3), 5)
    painted = np.array(labels.data)
    wait_for(lambda: not edit.busy)
    assert "have changed meanwhile" in edit.status.text()
    assert np.array_equal(labels.data, painted)


def test_without_labels_it_says_why(viewer, scan, labels, edit):
    viewer.layers.selection.active = scan
    assert edit.smooth_button.toolTip() == "Select a layer of labels first."
    assert not edit.fill_button.isEnabled()
    viewer.layers.remove(scan)
    viewer.layers.selection.active = labels
    assert not edit.grow_button.isEnabled()
    assert "No scan lies under" in edit.within.toolTip()
    assert edit.smooth_button.isEnabled()


@pytest.fixture
def folder(tmp_path, ct_phantom):
    """Three scans of one geometry, of which the second has labels already."""
    from spad.volumes.files import write

    for name in ("a.nii.gz", "b.nii.gz", "c.nii.gz"):
        write(ct_phantom.image, tmp_path / name)
    write(ct_phantom.labels, tmp_path / "b_labels.nii.gz")
    return tmp_path


def here(viewer):
    return [layer.name for layer in viewer.layers]


def draw(viewer):
    scan = viewer.layers[0]
    data = np.zeros(scan.data.shape, np.uint8)
    data[3:5, 4:9, 5:8] = 2
    return viewer.add_labels(data, scale=scan.scale, translate=scan.translate, name="drawn")


def test_a_folder_is_worked_through(viewer, dock, folder):
    widget = dock("Case queue")
    widget.open_folder(folder)
    wait_for(lambda: here(viewer) == ["a"])
    widget.done_button.click()
    assert "has no labels on its grid" in said()
    assert widget.queue["a.nii.gz"].state == "open"
    drawn = draw(viewer)
    history_of(drawn).change("Edit", (slice(0, 1), slice(0, 1), slice(0, 1)), 1)
    widget.done_button.click()
    wait_for(lambda: here(viewer) == ["b", "b_labels"])
    saved = nibabel.load(folder / "a_labels.nii.gz")
    assert np.allclose(saved.affine, nibabel.load(folder / "a.nii.gz").affine)
    assert np.count_nonzero(np.asarray(saved.dataobj) == 2) == 2 * 5 * 3
    assert json.loads((folder / "queue.json").read_text())["cases"]["a.nii.gz"]["state"] == "done"
    assert viewer.layers.selection.active.name == "b_labels"
    bold = [widget.table.item(n, 0).font().bold() for n in range(3)]
    assert bold == [False, True, False]

    unchanged = (folder / "b_labels.nii.gz").read_bytes()
    viewer.layers["b_labels"].paint((1, 1, 1), 7)
    widget.doubtful_button.click()
    wait_for(lambda: here(viewer) == ["c"])
    assert (folder / "b_labels.nii.gz").read_bytes() != unchanged
    assert widget.queue.counts() == {"open": 1, "doubtful": 1, "done": 1}

    draw(viewer)  # of the same geometry as the scans before
    widget.done_button.click()
    assert widget.queue.counts() == {"open": 0, "doubtful": 1, "done": 2}
    assert (folder / "c_labels.nii.gz").exists()
    assert widget.status.text() == "No other case is open."


def test_labels_that_cannot_be_saved_keep_their_case_open(viewer, dock, folder):
    from napari_spad.widgets.queue import open_next

    widget = dock("Case queue")
    widget.open_folder(folder)
    wait_for(lambda: here(viewer) == ["a"])
    assert open_next(viewer)
    wait_for(lambda: here(viewer) == ["b", "b_labels"])
    before = (folder / "b_labels.nii.gz").read_bytes()
    draw(viewer)
    widget.next()
    assert "holds other labels of this case" in said()
    assert here(viewer) == ["b", "b_labels", "drawn"]
    viewer.layers.remove("drawn")
    (folder / "c_labels.nii.gz").mkdir()
    widget.next()
    wait_for(lambda: widget.status.text() != "Opening c.nii.gz ...")
    assert "c_labels.nii.gz" in said()
    assert here(viewer) == ["b", "b_labels"], "what cannot be read leaves the case in the viewer"
    assert (folder / "b_labels.nii.gz").read_bytes() == before
    widget.next()
    wait_for(lambda: here(viewer) == ["a"])
