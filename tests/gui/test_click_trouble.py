"""Clicks where something is in the way: one clear sentence, nothing lost, and on with the next."""

from __future__ import annotations

import dataclasses
import os
import signal
import time

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QFileDialog

from napari_spad import jobs, layers
from spad.prompts.session_file import read_record

from .conftest import answered, beside, given, mouse, said, settle, show, wait_for

LIVER, SPLEEN = 6, 1


def clicked(viewer, scan, part, index, **how):
    mouse(viewer, show(viewer, scan, index), **how)
    answered(part)


def places(part):
    """Where the active object's points are, as indices of the layer."""
    return [place for place, _ in given(part)]


def test_another_time_of_a_series(viewer, part, ct_phantom, deep):
    array = np.stack([ct_phantom.image.array] * 3)
    volume = dataclasses.replace(ct_phantom.image, array=array, axes="tzyx")
    data, kwargs, _ = layers.to_layer(volume, "series")
    series = viewer.add_image(data, **kwargs)
    settle()
    assert not part.on
    part.button.click()
    viewer.dims.set_point(0, 0)
    liver = deep(LIVER)
    world = np.array(series.data_to_world((0, *liver)))
    viewer.dims.set_point(1, world[1])
    settle()
    mouse(viewer, world)
    answered(part)
    session, [place] = part.session, places(part)
    assert place == tuple(liver)
    labels, steps = np.array(session.layer.data), len(session.log)
    viewer.dims.set_current_step(0, 2)
    settle(0.1)
    later = np.array(series.data_to_world((2, *beside(liver, 0, 3, 4))))
    for way in ([later], [np.array([2, *world[1:]]), later]):
        mouse(viewer, *way)
        assert said() == (
            "The session is on time 0 of the series, but time 2 is shown; go back to time 0, or "
            "switch Click off and on to begin on this one."
        )
        notification_manager.records.clear()
        assert not session.busy
        assert len(viewer.layers["prompts"].data) == 1
    assert np.array_equal(session.layer.data, labels)
    assert len(session.log) == steps
    # both sessions live on, each on its own time and with its own labels
    for phase, count in ((2, 2), (0, 3)):
        viewer.dims.set_current_step(0, phase)
        part.button.click()
        part.button.click()
        assert part.session.phase == phase
        assert (part.session is session) == (phase == 0)
        part._choose("object_1")
        mouse(viewer, np.array(series.data_to_world((phase, *beside(liver, 0, 3, 2 * count)))))
        answered(part)
        assert "object_1" in part.session.objects
        assert part.session.layer.visible
        if phase:
            assert part.session.layer.name == "series - objects, time 2"
            assert not session.layer.visible
            assert places(part) == [beside(liver, 0, 3, 4)]
            part.press("undo")
            part.press("redo")
            assert np.array_equal(session.layer.data, labels)
    assert np.count_nonzero(session.layer.data) > np.count_nonzero(labels)
    assert not viewer.layers["series - objects, time 2"].visible
    assert places(part) == [tuple(liver), beside(liver, 0, 3, 6)]


def test_layers_of_another_grid_and_3d(viewer, scan, part, mr_phantom, deep):
    liver = deep(LIVER)
    clicked(viewer, scan, part, liver)
    session = part.session
    data, kwargs, _ = layers.to_layer(mr_phantom.image, "other")
    other = viewer.add_image(data, **kwargs)
    data, kwargs, _ = layers.to_layer(mr_phantom.labels, "other labels", role="labels")
    viewer.add_labels(data, **kwargs)
    settle()
    assert not part.on
    dock = part
    while not hasattr(dock, "scans"):
        dock = dock.parentWidget()
    dock.scans.choose(scan)
    settle(0.1)
    count = len(viewer.layers)
    part.button.click()
    assert part.session is session
    assert len(viewer.layers) == count + 2  # the marks
    # what is clicked on is the place, whatever layer is selected
    viewer.layers.selection.active = other
    clicked(viewer, scan, part, beside(liver, 0, 2, 3))
    assert places(part) == [tuple(liver), beside(liver, 0, 2, 3)]
    part.prompts.give(
        "point", [np.array(scan.data_to_world(np.add(liver, (500, 0, 0))))], True, set()
    )
    assert "outside the scan" in said()
    viewer.dims.ndisplay = 3
    settle()
    before = np.array(session.layer.data)
    widgets = (w for w in QApplication.allWidgets() if w.isVisible())
    canvas = next(w for w in widgets if type(w).__name__.startswith("CanvasBackend"))
    QTest.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=canvas.rect().center())
    settle(0.1)
    assert said() == "Click in a slice, not in 3D: Ctrl+Y goes back to slices."
    assert not session.busy
    viewer.dims.ndisplay = 2
    settle()
    assert np.array_equal(session.layer.data, before)
    clicked(viewer, scan, part, beside(liver, 0, 2, -3))
    assert len(places(part)) == 3


def test_a_box_may_be_the_first_of_all_prompts(viewer, scan, part, deep):
    liver = deep(LIVER)
    part.press("box")
    at = show(viewer, scan, liver)
    mouse(viewer, at, np.array(scan.data_to_world(beside(liver, 0, 4, 5))))
    answered(part)
    [box] = part.session.objects["object_1"].prompts
    assert np.array_equal(part.session.turned.index(box.voxels), [liver, beside(liver, 0, 4, 5)])
    assert [step["step"] for step in part.session.log] == ["prompt"]


@pytest.fixture
def more_models(clicker):
    """Give names of two more clickers: one like the other, one whose segmenter is not here."""
    from spad.checkpoints.file import load, save

    network, card = load(clicker)
    made = {"other-clicks": card.segmenter, "lonely-clicks": "not-here"}
    for name, segmenter in made.items():
        told = dataclasses.replace(card, name=name, segmenter=segmenter)
        save(clicker.with_name(f"{name}.safetensors"), network, told)
    yield list(made)
    for name in made:
        clicker.with_name(f"{name}.safetensors").unlink()


def test_one_session_has_one_model(viewer, more_models, scan, part, deep):
    other, lonely = more_models
    liver = deep(LIVER)
    part.models.setCurrentText(other)
    clicked(viewer, scan, part, liver)
    session = part.session
    assert session.entry.name == other
    labels = np.array(session.layer.data)
    part.models.setCurrentText("small-clicks")
    assert said() == (
        "This session was made with 'other-clicks', and one session has one model; save it, and "
        "start 'small-clicks' on other labels."
    )
    assert part.models.currentText() == other
    assert part.session is session
    clicked(viewer, scan, part, beside(liver, 0, 3, 3))
    assert len(places(part)) == 2
    assert (session.layer.data[labels > 0] > 0).all()
    # other labels, other model; this one's segmenter is absent
    made = viewer.add_labels(
        np.zeros_like(labels), scale=scan.scale, translate=scan.translate, units="mm", name="more"
    )
    settle()
    assert part.session is not session
    known = part.models.currentText()
    part.models.setCurrentText(lonely)
    assert said() == (
        "'lonely-clicks' works with the segmenter 'not-here', which is not here; import it with "
        "'spad models import', or choose another model for clicks."
    )
    assert part.models.currentText() == known
    part.models.setCurrentText("small-clicks")
    clicked(viewer, scan, part, liver)
    assert made.data[tuple(liver)]
    assert part.session.entry.name == "small-clicks"
    assert len(session.objects["object_1"].prompts) == 2


def test_a_worker_that_dies_during_a_click(viewer, scan, part, deep):
    session, liver = part.session, deep(LIVER)
    clicked(viewer, scan, part, liver)
    wait_for(lambda: session.features_ready, 60)
    before = np.array(session.layer.data)
    part.prompts.give("point", [show(viewer, scan, beside(liver, 0, 3, 3))], True, set())
    job = session.answers._work.job._job
    while not job._is_begun:
        time.sleep(0.001)
    os.kill(jobs.client().pid, signal.SIGKILL)
    wait_for(lambda: not session.busy, 60)
    record = notification_manager.records[-1]
    assert "The worker process ended (SIGKILL" in record.message
    assert np.array_equal(session.layer.data, before)
    assert places(part) == [tuple(liver)]
    # the next click is answered by another worker, and so is the one that was lost
    clicked(viewer, scan, part, beside(liver, 0, 3, -3))
    assert places(part) == [tuple(liver), beside(liver, 0, 3, -3)]
    [(words, call)] = record.actions
    assert words == "Click again"
    call(None)
    answered(part)
    assert places(part) == [tuple(liver), *(beside(liver, 0, 3, n) for n in (-3, 3))]
    assert (session.layer.data[before > 0] > 0).all()
    part.press("undo")
    part.press("undo")
    assert np.array_equal(session.layer.data, before)
    wait_for(lambda: session.features_ready and session._ahead is None, 60)


def test_an_object_is_emptied_and_a_session_is_saved_and_opened(
    viewer, scan, part, deep, tmp_path, monkeypatch
):
    session, liver, spleen = part.session, deep(LIVER), deep(SPLEEN)
    clicked(viewer, scan, part, liver)
    part._choose("spleen")
    clicked(viewer, scan, part, spleen)
    part.press("box")
    low, high = beside(spleen, -1, -2, -2), beside(spleen, 1, 3, 3)
    flat = (scan.data_to_world(beside(low, 0, 5, 5)), scan.data_to_world(beside(high, 0, 0, 0)))
    first = show(viewer, scan, low)
    mouse(viewer, first, np.array(flat[0]))
    answered(part)
    show(viewer, scan, high)
    mouse(
        viewer, np.array(scan.data_to_world(beside(high, 0, -2, -2))), np.array(flat[1]), shift=True
    )
    answered(part)
    boxes = session.objects["spleen"].prompts
    assert [one.kind for one in boxes] == ["point", "box", "box"]
    assert np.array_equal(session.turned.index(boxes[2].voxels), [low, high])
    # Delete in the list empties the object, as one step
    before = np.array(session.layer.data)
    label = session.objects["spleen"].label
    assert (before == label).any()
    part.objects.setCurrentItem(part.objects.row("spleen"))
    QTest.keyClick(part.objects, Qt.Key.Key_Delete)
    settle(0.1)
    assert not (session.layer.data == label).any()
    assert np.array_equal(session.layer.data == 1, before == 1)
    assert session.objects["spleen"].prompts == ()
    part.press("undo")
    assert np.array_equal(session.layer.data, before)
    assert session.objects["spleen"].prompts == boxes
    # saved and opened again
    wait_for(lambda: part.saving.record() is not None, 20)
    path = tmp_path / "mine.session.json"
    for name in ("getSaveFileName", "getOpenFileName"):
        monkeypatch.setattr(QFileDialog, name, lambda *_: (str(path), ""))
    part.save_button.click()
    assert said() == f"Saved {path}; 'spad replay' makes its labels again."
    assert [one["step"] for one in read_record(path).steps][-2:] == ["start", "undo"]
    part.press("point")
    clicked(viewer, scan, part, spleen)
    part.open_button.click()
    wait_for(lambda: part.session is not session, 20)
    settle(0.1)
    again = part.session
    assert part.on
    assert np.array_equal(again.layer.data, before)
    assert {n: o.prompts for n, o in again.objects.items()} == {
        "object_1": session.objects["object_1"].prompts,
        "spleen": boxes,
    }
    (tmp_path / "mine.labels.npz").unlink()
    part.open_button.click()
    wait_for(lambda: "are not beside it" in said(), 20)
    assert part.session is again
