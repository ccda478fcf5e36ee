"""The Segment dock's table: eyes, locks, sorting, comparison; and the box."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from napari_spad import layers, locks

from .conftest import ORGANS, click, color_at, inside, picture, run, settle, wait_for

LIVER, SPLEEN = 6, 1


@pytest.fixture
def widget(truth, dock):
    """The dock with the true organs measured."""
    made = dock("Segment")
    wait_for(lambda: made.table.rowCount() > 0)
    return made


def row_of(widget, label):
    return [widget.table._id(n) for n in range(widget.table.rowCount())].index(label)


def cell(widget, label, title):
    table = widget.table
    titles = [table.horizontalHeaderItem(n).text() for n in range(table.columnCount())]
    return table.item(row_of(widget, label), titles.index(title)).text().replace("\u2009", "")


def click_cell(widget, label, column):
    """Click with the mouse on a cell of the table."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    table = widget.table
    item = table.item(row_of(widget, label), column)
    table.scrollToItem(item)
    settle(0.05)
    place = table.visualItemRect(item).center()
    QTest.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=place)
    settle(0.1)


def look_at(viewer, scan, truth, label):
    """Show the slice through the middle of a label; give the place there."""
    world = scan.data_to_world(inside(np.asarray(truth.data), label))
    viewer.dims.set_point(0, world[0])
    settle()
    return world


def test_every_organ_has_its_measures(truth, widget):
    assert cell(widget, LIVER, "mL") == f"{widget._figures['liver']['volume_ml']:.1f}"
    data = np.asarray(truth.data) == LIVER
    assert cell(widget, LIVER, "slices") == str(int(data.any(axis=(1, 2)).sum()))
    corners = np.argwhere(data) * truth.scale
    assert float(cell(widget, LIVER, "Ø mm")) <= np.linalg.norm(np.ptp(corners, axis=0)) + 1
    assert float(cell(widget, LIVER, "Ø mm")) >= np.ptp(corners, axis=0).max() - 1
    assert widget.table.horizontalScrollBar().maximum() == 0, "all columns are seen"


def test_a_click_on_an_eye_hides_an_organ_and_another_shows_it(viewer, scan, truth, widget):
    world = look_at(viewer, scan, truth, LIVER)
    shown = color_at(viewer, world)
    low, high = scan.contrast_limits
    gray = np.clip((scan.get_value(world, world=True) - low) / (high - low), 0, 1)
    click_cell(widget, LIVER, 1)
    assert color_at(viewer, world) == pytest.approx([gray] * 3, abs=0.02)
    assert (truth.data == LIVER).any()
    click(viewer, world)
    assert "No organ there" in widget.selection.text(), "what is hidden cannot be clicked"
    click_cell(widget, LIVER, 1)
    assert color_at(viewer, world) == pytest.approx(shown, abs=0.02)


def test_only_the_selected_organ_is_shown_in_3d(viewer, truth, widget):
    widget.solid_button.click()
    widget.select(LIVER)
    everything = picture(viewer)[..., :3].astype(int)
    widget.only_button.click()
    alone = picture(viewer)[..., :3].astype(int)
    colored = alone.max(axis=-1) - alone.min(axis=-1) > 40
    red, green, blue = np.moveaxis(alone[colored], -1, 0)
    assert colored.any()
    assert np.all((red > green) & (green >= blue)), "all that is left is liver"
    widget.all_button.click()
    assert np.abs(picture(viewer)[..., :3].astype(int) - everything).mean() < 0.5


def test_3d_shows_the_organs_alone_and_then_all_as_it_was(viewer, scan, truth, widget):
    widget.solid_button.click()
    settle()
    assert not scan.visible
    assert truth.opacity == 1
    widget.solid_button.click()
    settle()
    assert scan.visible
    assert truth.opacity == pytest.approx(0.6)


def test_a_locked_organ_cannot_be_painted_over(viewer, scan, truth, widget):
    world = look_at(viewer, scan, truth, LIVER)
    before = np.array(truth.data)
    click_cell(widget, LIVER, 2)
    assert locks.locked(truth) == {LIVER}
    viewer.layers.selection.active = truth
    truth.mode, truth.selected_label = "paint", SPLEEN
    click(viewer, world)
    assert np.array_equal(truth.data, before)
    assert "liver is locked" in widget.selection.text()
    click_cell(widget, LIVER, 2)
    click(viewer, world)
    assert not np.array_equal(truth.data, before)


def test_undoing_a_stroke_is_measured_too(viewer, scan, truth, widget):
    world = look_at(viewer, scan, truth, LIVER)
    before = cell(widget, LIVER, "mL")
    truth.paint(truth.world_to_data(world), SPLEEN)
    wait_for(lambda: cell(widget, LIVER, "mL") != before, 30)
    truth.undo()
    wait_for(lambda: cell(widget, LIVER, "mL") == before, 30)


def test_columns_sort_as_numbers_and_names(widget):
    from qtpy.QtCore import Qt

    table = widget.table
    table.sortItems(3, Qt.SortOrder.DescendingOrder)
    volumes = [
        float(table.item(n, 3).text().replace("\u2009", "")) for n in range(table.rowCount())
    ]
    assert volumes == sorted(volumes, reverse=True)
    assert max(volumes) > 1000
    widget.select(SPLEEN)
    assert table.selected == SPLEEN
    table.sortItems(0, Qt.SortOrder.AscendingOrder)
    names = [table.item(n, 0).text() for n in range(table.rowCount())]
    assert names == sorted(names)
    assert table.selected == SPLEEN


def test_the_table_is_saved_with_all_its_digits_and_copied(widget, tmp_path, monkeypatch):
    from qtpy.QtWidgets import QFileDialog

    path = tmp_path / "organs.csv"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))
    widget.table_button.click()
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    liver = next(row for row in rows if row["organ"] == "liver")
    figures = widget._figures["liver"]
    assert float(liver["volume_ml"]) == figures["volume_ml"]
    assert float(liver["mean_hu"]) == figures["mean"]
    assert float(liver["diameter_mm"]) == figures["diameter_mm"]
    assert liver["scan"] == "truth"
    lines = widget.table.text().splitlines()
    assert lines[0].split("\t")[:3] == ["Organ", "mL", "HU"]
    assert len(lines) == len(rows) + 1


def test_organs_are_compared_with_a_reference(viewer, scan, truth, widget, ct_phantom):
    """The liver is shifted by a slice, the spleen is missing, everything else is right."""
    made = np.array(ct_phantom.labels.array)
    made[ct_phantom.labels.array == LIVER] = 0
    made[1:][ct_phantom.labels.array[:-1] == LIVER] = LIVER
    made[made == SPLEEN] = 0
    answer = ct_phantom.labels.with_array(made, label_names=ct_phantom.labels.label_names)
    data, kwargs, _ = layers.to_layer(answer, "ct - organs", role="organs")
    organs = viewer.add_labels(data, **kwargs)
    wait_for(lambda: widget.table.rowCount() > 0)
    assert widget.organs.layer == organs
    assert widget.comparison.chooser.layer == truth
    widget.comparison.check.click()
    wait_for(lambda: widget.comparison.on, 60)
    found, true = np.asarray(organs.data) == LIVER, np.asarray(truth.data) == LIVER
    dice = 2 * (found & true).sum() / (found.sum() + true.sum())
    assert float(cell(widget, LIVER, "Dice")) == pytest.approx(dice, abs=6e-4)
    assert 0 < float(cell(widget, LIVER, "HD95 mm")) <= 9
    missing = next(n for n in range(widget.table.rowCount()) if widget.table._id(n) == 0)
    assert widget.table.item(missing, 0).text() == "spleen"
    spleen_ml = np.count_nonzero(truth.data == SPLEEN) * np.prod(truth.scale) / 1000
    assert float(widget.table.item(missing, 10).text()) == pytest.approx(-spleen_ml, abs=0.06)
    assert truth.contour > 0, "the reference is lines"
    widget.comparison.differences.click()
    shown = viewer.layers["ct - organs - differences"]
    assert not organs.visible
    assert np.all(np.asarray(shown.data)[np.asarray(truth.data) == SPLEEN] > 1)
    assert np.all(np.asarray(shown.data)[found & true] == 1)
    widget.comparison.check.click()
    assert "ct - organs - differences" not in viewer.layers
    assert organs.visible
    assert truth.contour == 0
    assert widget.table.isColumnHidden(8)


def test_a_box_is_segmented_and_all_else_stays(viewer, scan, dock):
    widget = dock("Segment")
    run(widget)
    organs = viewer.layers["ct - organs"]
    before = np.array(organs.data)
    organs.data = np.full_like(before, 4)
    widget.part.chooser.setCurrentText("a box")
    assert "box" in viewer.layers
    widget.part.first.setValue(9)
    widget.part.last.setValue(20)
    box = widget.part.box
    assert box[0] == (8, 20)
    run(widget)
    inside_box = np.zeros(before.shape, bool)
    inside_box[tuple(slice(*pair) for pair in box)] = True
    made = np.asarray(widget.organs.layer.data)
    assert np.all(made[~inside_box] == 4)
    assert np.any(made[inside_box] != 4)
    assert "in the box" in widget.run_row.status.text()
    wait_for(lambda: not widget._measuring.pending, 30)
    measured = {one["id"]: one["voxels"] for one in widget._figures.values()}
    assert measured[4] == np.count_nonzero(made == 4), "the table is of what is shown"
    viewer.layers.remove("box")
    settle()
    assert widget.part.chooser.currentText() == "whole scan"


def test_a_locked_organ_stays_when_the_model_runs_again(viewer, scan, dock):
    widget = dock("Segment")
    run(widget)
    organs = viewer.layers["ct - organs"]
    label = next(n for n in ORGANS if (np.asarray(organs.data) == n).any())
    organs.data[:2] = label
    organs.refresh()
    kept = np.asarray(organs.data) == label
    locks.lock(organs, {label})
    run(widget)
    now = widget.organs.layer
    assert np.array_equal(np.asarray(now.data) == label, kept)
    assert locks.locked(now) == {label}


def test_confidence_is_a_layer_in_percent(viewer, scan, dock):
    widget = dock("Segment")
    widget.confidence.click()
    run(widget)
    layer = viewer.layers["ct - confidence"]
    assert layer.data.shape == scan.data.shape
    assert np.allclose(layer.translate, scan.translate)
    assert tuple(layer.contrast_limits) == (0, 100)
    assert 10 < layer.data.max() <= 100
    assert widget.run_row.use.text().startswith("On the CPU: ")
    widget.confidence.click()
    assert not layer.visible
    run(widget)
    assert "ct - confidence" not in viewer.layers


def test_the_dock_says_what_to_do_next(viewer, dock, ct_phantom):
    widget = dock("Segment")
    assert "Open a scan first" in widget.run_row.status.text()
    assert not widget.part.chooser.isEnabled()
    data, kwargs, _ = layers.to_layer(ct_phantom.image, "ct")
    viewer.add_image(data, **kwargs)
    assert widget.part.chooser.isEnabled()
    assert "click Segment organs" in widget.selection.text()
    assert not widget.comparison.check.isEnabled()
    assert widget.comparison.chooser.currentText() == "no other labels of this scan"
