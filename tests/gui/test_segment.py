"""The Segment dock: run, colours, table, clicks, edits, saving, cancelling."""

from __future__ import annotations

import nibabel
import numpy as np
import psutil
import pytest

from napari_spad import jobs, layers

from .conftest import ORGANS, alive, click, color_at, inside, run, said, settle, wait_for


def test_run_without_a_scan_says_why(dock):
    widget = dock("Segment")
    assert not widget.run_row.run_button.isEnabled()
    assert "Open a scan first" in widget.run_row.status.text()
    assert widget.run_row.run_button.toolTip()


def test_segmentation_ends_in_named_organs_and_a_table(viewer, scan, dock):
    widget = dock("Segment")
    run(widget)
    organs = viewer.layers["ct - organs"]
    assert organs.data.shape == scan.data.shape
    assert np.allclose(organs.scale, scan.scale)
    assert np.allclose(organs.translate, scan.translate)
    assert layers.label_names({"features": organs.features}) == ORGANS
    found = set(np.unique(organs.data)) - {0}
    assert widget.table.rowCount() == len(found) > 0
    label = int(next(iter(found)))
    row = [widget.table.item(n, 0).text() for n in range(widget.table.rowCount())].index(
        ORGANS[label].replace("_", " ")
    )
    ml = np.count_nonzero(organs.data == label) * np.prod(organs.scale) / 1000
    shown = widget.table.item(row, 3).text().replace("\u2009", "")
    assert float(shown) == pytest.approx(ml, abs=0.06)
    mean = float(widget.table.item(row, 4).text().replace("\u2009", ""))
    assert mean == pytest.approx(scan.data[organs.data == label].mean(), abs=0.51)


def test_results_of_other_docks_make_way(viewer, scan, dock, ct_phantom):
    data, kwargs, _ = layers.to_layer(ct_phantom.labels, "ct - mask", role="mask")
    mask = viewer.add_labels(data, **kwargs)
    viewer.canvas.grid.enabled = True
    run(dock("Segment"))
    assert not mask.visible
    assert not viewer.canvas.grid.enabled
    assert scan.visible


@pytest.mark.parametrize("name", ["liver", "spleen", "right_kidney", "left_kidney"])
def test_organs_are_drawn_in_their_colour_where_they_are(viewer, scan, truth, dock, name):
    label = next(
        n for n, one in layers.label_names({"features": truth.features}).items() if one == name
    )
    index = inside(np.asarray(truth.data), label)
    world = scan.data_to_world(index)
    viewer.dims.set_point(0, world[0])
    low, high = scan.contrast_limits
    gray = np.clip((scan.data[tuple(index)] - low) / (high - low), 0, 1)
    expected = 0.4 * gray + 0.6 * np.array(truth.get_color(label)[:3])
    assert color_at(viewer, world) == pytest.approx(expected, abs=0.07)


def test_a_click_selects_an_organ(viewer, scan, truth, dock):
    widget = dock("Segment")
    wait_for(lambda: widget.table.rowCount() > 0)
    index = inside(np.asarray(truth.data), 6)
    world = scan.data_to_world(index)
    viewer.dims.set_point(0, world[0])
    settle()
    click(viewer, world)
    assert widget.selection.text().startswith("liver: ")
    assert " mL, mean " in widget.selection.text()
    assert widget.selection.text().endswith("HU")
    assert widget.table.selected == 6
    assert truth.selected_label == 6


def test_a_click_beside_the_organs_selects_nothing(viewer, scan, truth, dock):
    widget = dock("Segment")
    wait_for(lambda: widget.table.rowCount() > 0)
    widget.select(6)
    click(viewer, scan.data_to_world([*np.array(scan.data.shape[:1]) // 2, 1, 1]))
    assert widget.table.selected is None
    assert "No organ there" in widget.selection.text()


def test_a_click_paints_when_painting(viewer, scan, truth, dock):
    widget = dock("Segment")
    wait_for(lambda: widget.table.rowCount() > 0)
    viewer.layers.selection.active = truth
    truth.mode = "paint"
    truth.selected_label = 1
    index = inside(np.asarray(truth.data), 6)
    world = scan.data_to_world(index)
    viewer.dims.set_point(0, world[0])
    settle()
    before = float(widget.table.item(0, 3).text().replace("\u2009", ""))
    click(viewer, world)
    assert truth.data[tuple(index)] == 1
    assert not widget.selection.text().startswith("liver")

    def grown():
        item = widget.table.item(0, 3)
        return item is not None and float(item.text().replace("\u2009", "")) > before

    wait_for(grown, 30)


def test_a_row_moves_the_view_to_its_organ(viewer, scan, truth, dock):
    widget = dock("Segment")
    wait_for(lambda: widget.table.rowCount() > 0)
    viewer.dims.set_point(0, scan.translate[0])
    names = [widget.table.item(n, 0).text() for n in range(widget.table.rowCount())]
    widget.table.selectRow(names.index("spleen"))
    settle()
    at = round((viewer.dims.point[0] - truth.translate[0]) / truth.scale[0])
    assert (np.asarray(truth.data)[at] == 1).any()
    assert widget.selection.text().startswith("spleen: ")


def test_3d_is_seen_from_the_front_and_back_again(viewer, scan, truth, dock):
    widget = dock("Segment")
    widget.solid_button.click()
    settle()
    assert viewer.dims.ndisplay == 3
    shot = viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(float) / 255
    red, green, blue = np.moveaxis(shot, -1, 0)
    liver = (red - blue > 0.2) & (red - green > 0.12) & (green - blue > 0.03)
    purple = (blue - green > 0.12) & (red - green > 0.05)
    assert np.argwhere(liver)[:, 1].mean() < shot.shape[1] / 2
    assert np.argwhere(purple)[:, 1].mean() > shot.shape[1] / 2
    widget.solid_button.click()
    settle()
    assert viewer.dims.ndisplay == 2


def test_view_moves_to_the_organs_if_it_shows_none(viewer, scan, ct_phantom, dock):
    widget = dock("Segment")
    viewer.dims.set_point(0, scan.translate[0])
    only = np.where(ct_phantom.labels.array == 1, 1, 0).astype(np.uint8)
    first = int(np.flatnonzero(only.any(axis=(1, 2)))[-1])
    assert first < only.shape[0] - 1
    figures = {"spleen": {"id": 1, "voxels": 5, "volume_ml": 5.0, "mean": 1.0, "sd": 1.0}}
    answer = ct_phantom.image.with_array(
        only, label_names={1: "spleen"}, report={"labels": figures}
    )
    widget.show_result(answer, scan)
    at = round((viewer.dims.point[0] - scan.translate[0]) / scan.scale[0])
    assert (np.asarray(viewer.layers["ct - organs"].data)[at] == 1).any()


def test_organs_are_found_anew_in_place_unless_somebody_changed_them(viewer, scan, dock):
    def names():
        return [layer.name for layer in viewer.layers]

    widget = dock("Segment")
    run(widget)
    assert names() == ["ct", "ct - organs"]
    organs = viewer.layers["ct - organs"]
    first = np.array(organs.data)
    organs.visible = False
    run(widget)
    assert names() == ["ct", "ct - organs"]
    assert organs.visible
    assert np.array_equal(organs.data, first)
    assert widget.table.rowCount() == len(widget._figures)
    organs.paint((3, 3, 3), 2)
    painted = np.array(organs.data)
    run(widget)
    assert names() == ["ct", "ct - organs", "ct - organs [1]"]
    assert np.array_equal(organs.data, painted), "a person's work is kept"
    assert not organs.visible
    assert np.array_equal(viewer.layers[-1].data, first)


def test_labels_are_saved_on_their_scan(viewer, dock, tmp_path, ct_phantom, monkeypatch):
    from qtpy.QtWidgets import QFileDialog

    from spad.volumes.files import write

    source = write(ct_phantom.image, tmp_path / "ct.nii.gz")
    viewer.open(source, plugin="napari-spad")
    widget = dock("Segment")
    run(widget)
    answer = str(tmp_path / "out"), "NIfTI (*.nii.gz *.nii)"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: answer)
    widget.save_button.click()
    one, other = nibabel.load(source), nibabel.load(tmp_path / "out.nii.gz")
    assert one.shape == other.shape
    assert np.allclose(one.affine, other.affine)
    names = {"spleen": 1, "liver": 2, "right_kidney": 3, "left_kidney": 4}
    for name, label in names.items():
        figures = widget._figures.get(name)
        count = np.count_nonzero(np.asarray(other.dataobj) == label)
        assert count == (figures["voxels"] if figures else 0)


def test_a_job_can_be_cancelled(viewer, dock):
    viewer.open_sample("napari-spad", "ct_phantom")
    widget = dock("Segment")
    widget.run_row.run_button.click()
    settle(0.5)
    assert widget.run_row.running
    widget.run_row.cancel_button.click()
    wait_for(lambda: not widget.run_row.running, 5)
    assert widget.run_row.status.text() == "Cancelled."
    assert "CT phantom - organs" not in viewer.layers
    assert widget.run_row.run_button.isEnabled()


def test_a_failing_job_is_a_sentence(viewer, scan, dock, monkeypatch):
    widget = dock("Segment")
    entry = widget.models.entry
    gone = entry.path.with_name("gone.safetensors")
    monkeypatch.setattr(type(widget.models), "entry", property(lambda self: _moved(entry, gone)))
    run(widget)
    assert "gone" in said()
    assert widget.run_row.status.text() == said()
    assert widget.run_row.run_button.isEnabled()


def test_a_job_whose_worker_dies_is_offered_again(viewer, dock):
    """All that is in the viewer stays."""
    import os
    import signal
    import time

    from napari.utils.notifications import notification_manager

    viewer.open_sample("napari-spad", "ct_phantom")
    before = [layer.name for layer in viewer.layers]
    widget = dock("Segment")
    widget.run_row.run_button.click()
    job = widget._job._job
    while not job._is_begun:
        time.sleep(0.001)
    os.kill(jobs.client().pid, signal.SIGKILL)
    wait_for(lambda: not widget.run_row.running, 30)
    record = notification_manager.records[-1]
    assert "The worker process ended (SIGKILL" in record.message
    assert "while it was segmenting a scan" in record.message
    assert [layer.name for layer in viewer.layers] == before
    [(words, call)] = record.actions
    assert words == "Segment organs again"
    call(None)
    assert widget.run_row.running
    wait_for(lambda: not widget.run_row.running, 60)
    assert "CT phantom - organs" in viewer.layers
    assert widget.run_row.use.text().startswith("On the CPU: ")


def _moved(entry, path):
    import dataclasses

    return dataclasses.replace(entry, path=path)


def test_closing_the_viewer_ends_the_worker(viewer, scan, dock):
    widget = dock("Segment")
    run(widget)
    pid = jobs.client().pid
    assert psutil.pid_exists(pid)
    viewer.close()
    wait_for(lambda: not alive(pid))


def test_closing_a_dock_leaves_no_trace(viewer, scan, truth, dock):
    widget = dock("Segment")
    viewer.window.remove_dock_widget(widget)
    settle()
    index = inside(np.asarray(truth.data), 6)
    viewer.dims.set_point(0, scan.data_to_world(index)[0])
    click(viewer, scan.data_to_world(index))
    viewer.layers.remove(truth)
    settle()
    assert list(viewer.layers) == [scan]
