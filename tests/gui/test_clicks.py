"""Clicks on a scan in a real viewer, answered by a real worker."""

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_spad import click_files, jobs, layers, locks
from spad.prompts.session import Session
from spad.prompts.session_file import read_record, replay
from spad.worker import messages

from .conftest import answered, beside, mouse, said, settle, show, wait_for

LIVER, SPLEEN = 6, 1


def played_again(part, record):
    """Play a session's log with the worker, without what the session knows."""
    session = part.session
    features = [True]

    def predict(thing, previous):
        request = messages.Click(
            session.volume,
            str(session.entry.path),
            session.volume.modality,
            name=thing.name,
            prompts=thing.prompts,
            previous=previous,
            by_prompts=thing.by_prompts,
            features=features[0],
        )
        return jobs.client().submit(request).result(60).part

    def configure(step):
        features[0] = bool(step.get("features", True))

    again = Session(np.zeros(session.volume.spatial_shape, np.uint8), predict)
    done = replay(record, again, configure)
    return again, done


def test_clicks_strokes_and_locks_are_one_story(viewer, scan, part, deep):
    """Add, take away, paint, lock, undo and redo; the log makes the same labels again."""
    session = part.session
    labels = viewer.layers["ct - objects"]
    part.names.setEditText("liver")
    part.new_button.click()
    assert session.active == "liver"
    liver = deep(LIVER)
    at = show(viewer, scan, liver)
    mouse(viewer, at)
    answered(part)
    number = session.objects["liver"].label
    assert labels.data[tuple(liver)] == number
    first = np.array(labels.data)
    step = np.array([0, 0, 3]) * scan.scale
    mouse(viewer, at + step, button="right")
    answered(part)
    taken = beside(liver, 0, 0, 3)
    assert first[taken] == number
    assert labels.data[taken] == 0
    assert [one.positive for one in session.objects["liver"].prompts] == [True, False]
    mouse(viewer, at - step, alt=True)
    answered(part)
    assert not session.objects["liver"].prompts[-1].positive
    assert part.status.text().startswith("Click answered in ")
    clicked = np.array(labels.data)
    # a stroke with napari's brush on the same object
    viewer.layers.selection.active = labels
    labels.selected_label = number
    labels.brush_size = 2
    free = int(np.flatnonzero(labels.data[liver[0], liver[1] :, liver[2]] == 0)[0])
    labels.paint(beside(liver, 0, free, 0), number)
    assert session.objects["liver"].prompts[-1].kind == "scribble"
    assert session.history.undo_text == "Paint liver"
    painted = np.array(labels.data)
    for _ in range(2):
        part.undo_button.click()
    assert len(session.objects["liver"].prompts) == 2
    part.redo_button.click()
    assert np.array_equal(labels.data, clicked)
    labels.redo()
    assert np.array_equal(labels.data, painted)
    assert len(session.objects["liver"].prompts) == 4
    # a locked object keeps its voxels
    part.objects.row("liver").setCheckState(3, _checked())
    settle(0.05)
    assert locks.locked(labels) == {number}
    viewer.layers.selection.active = scan
    mouse(viewer, at)
    assert "is locked" in part.status.text()
    part.names.setEditText("tumour")
    part.press("new_object")
    mouse(viewer, at)
    answered(part)
    assert np.array_equal(labels.data == number, painted == number)

    other = session.objects["tumour"].label
    assert (labels.data == other).any()
    wait_for(lambda: part.saving.path is not None and not part.saving.pending, 20)
    record = read_record(part.saving.path)
    again, done = played_again(part, record)
    assert not done.differing
    assert np.array_equal(again.labels, session.session.labels)
    assert {n: o.prompts for n, o in again.objects.items()} == {
        n: o.prompts for n, o in session.objects.items()
    }
    kinds = [step["step"] for step in record.steps]
    assert kinds == ["prompt"] * 3 + ["voxels", "undo", "undo", "redo", "redo", "prompt"]


def test_a_newer_click_overtakes_an_older_one(viewer, scan, part, deep):
    """Both prompts become one step."""
    session = part.session
    at = show(viewer, scan, deep(LIVER))
    part.prompts.give("point", [at], True, set())
    assert session.active == "object_1"
    assert session.busy
    viewer.dims.set_point(0, at[0] + scan.scale[0])
    part.prompts.give("point", [at + np.array([0, 0, 4]) * scan.scale], True, set())
    assert len(session.prompts_of("object_1")) == 2
    answered(part)
    assert [step["step"] for step in session.log] == ["dropped", "prompt"]
    assert len(session.objects["object_1"].prompts) == 2
    assert session.history.undo_text == "2 prompts for object 1"
    part.undo_button.click()
    assert not session.layer.data.any()
    assert session.objects["object_1"].prompts == ()
    # what is not answered yet is taken back first
    part.prompts.give("point", [at], True, set())
    part.undo_button.click()
    assert not session.busy
    settle(0.5)
    assert not session.layer.data.any()


def test_prompts_are_drawn_dragged_and_deleted(viewer, scan, part, deep):
    session = part.session
    liver = deep(LIVER)
    at = show(viewer, scan, liver)
    step = np.array([0, 0, 6]) * scan.scale
    camera = np.array(viewer.scene.camera.center)
    part.press("scribble")
    mouse(viewer, at, at + step)
    answered(part)
    [drawn] = session.objects["object_1"].prompts
    assert drawn.kind == "scribble"
    places = session.turned.index(drawn.voxels)
    assert set(map(tuple, places)) == {beside(liver, 0, 0, n) for n in range(7)}
    assert (session.layer.data[tuple(places.T)] > 0).all()
    part.press("box")
    mouse(viewer, at, at + step + [0, 3 * scan.scale[1], 0])
    answered(part)
    box = session.objects["object_1"].prompts[1]
    assert box.kind == "box"
    assert np.array_equal(session.turned.index(box.voxels), [liver, beside(liver, 0, 3, 6)])
    part.press("lasso")
    down = np.array([0, 4, 0]) * scan.scale
    mouse(viewer, at, at + step, at + step + down, at + down)
    answered(part)
    assert [one.kind for one in session.objects["object_1"].prompts][2] == "lasso"
    assert np.array_equal(viewer.scene.camera.center, camera)
    part.press("point")
    assert part.on
    part.press("new_object")
    mouse(viewer, at)
    answered(part)
    [_] = session.objects["object_2"].prompts
    mouse(viewer, at, at + step)
    answered(part)
    [moved] = session.objects["object_2"].prompts
    assert np.array_equal(session.turned.index(moved.voxels)[0], beside(liver, 0, 0, 6))
    assert session.layer.data[beside(liver, 0, 0, 6)] == session.objects["object_2"].label
    assert session.log[-1]["step"] == "again"
    # a drag beside the marks moves the picture, and adds nothing
    mouse(viewer, at + 3 * down, at + 3 * down + step)
    assert not np.array_equal(viewer.scene.camera.center, camera)
    assert not session.busy
    part.objects.removed.emit("object_2", 0)
    answered(part)
    assert session.objects["object_2"].prompts == ()
    assert not (session.layer.data == session.objects["object_2"].label).any()
    part.undo_button.click()
    assert session.objects["object_2"].prompts == (moved,)
    # with napari's own tool, too
    points = viewer.layers["prompts"]
    points.selected_data = {0}
    points.remove_selected()
    settle(0.1)
    answered(part)
    assert session.objects["object_2"].prompts == ()


def test_a_session_comes_back_after_a_crash(viewer, scan, part, deep):
    session = part.session
    at = show(viewer, scan, deep(SPLEEN))
    part.names.setEditText("spleen")
    part.new_button.click()
    mouse(viewer, at)
    answered(part)
    labels = np.array(session.layer.data)
    prompts = session.objects["spleen"].prompts
    wait_for(lambda: part.saving.path is not None and not part.saving.pending, 20)
    path = part.saving.path
    assert path.parent.name == "sessions"
    assert session.layer.name == "ct - objects"
    # as another start of napari would find it
    part.button.click()
    viewer.layers.remove(session.layer)
    assert part.session is None
    part.button.click()
    wait_for(part.go_on_button.isVisible, 20)
    assert part.go_on_button.text().startswith("Go on with the session of ")
    part.go_on_button.click()
    wait_for(lambda: bool(part.session.objects), 20)
    settle(0.1)
    again = part.session
    assert again is not session
    assert np.array_equal(again.layer.data, labels)
    assert again.objects["spleen"].prompts == prompts
    assert layers.label_names({"features": again.layer.features}) == {
        again.objects["spleen"].label: "spleen"
    }
    assert part.on
    assert again.active == "spleen"
    mouse(viewer, at + np.array([0, 0, 4]) * scan.scale, button="right")
    answered(part)
    assert len(again.objects["spleen"].prompts) == 2
    wait_for(lambda: not part.saving.pending, 20)
    assert part.saving.path == path
    record = read_record(path)
    assert [step["step"] for step in record.steps] == ["prompt", "prompt"]
    played, done = played_again(part, record)
    assert not done.differing
    assert np.array_equal(played.labels, again.session.labels)
    # the session of another scan is refused, and nothing changes
    content = json.loads(path.read_text())
    content["scan"]["sha256"] = "0" * 64
    foreign = path.with_name("foreign" + click_files.SUFFIX)
    foreign.write_text(json.dumps(content))
    part.open_session(foreign)
    wait_for(lambda: "other voxels or geometry" in part.status.text(), 20)
    assert part.session is again


def test_what_cannot_be_done_is_said_in_a_sentence(viewer, scan, part, deep):
    session = part.session
    at = show(viewer, scan, deep(LIVER))
    part.prompts.give("point", [at + 500], True, set())
    assert "outside the scan" in said()
    corner = scan.data_to_world([deep(LIVER)[0], 0, 0])
    part.prompts.give("point", [corner], True, set())
    assert "air around the body" in said()
    part.prompts.give("point", [at], False, set())
    assert "begin with a positive prompt" in said()
    part.prompts.give("box", [at, at + 20], False, set())
    assert "cannot take away" in said()
    assert not session.busy
    assert [step["step"] for step in session.log] == []
    part._choose("livver")
    assert "did you mean liver?" in part.status.text()
    scan.data = np.array(scan.data)
    part.prompts.give("point", [at], True, set())
    assert "has other voxels" in said()
    assert not session.layer.data.any()


def test_odd_objects_are_told_and_repaired(viewer, scan, part, deep):
    session, label = part.session, 0
    part._choose("left_kidney")
    label = session.objects["left_kidney"].label
    right = deep(2)
    data = np.zeros(scan.data.shape, np.uint8)
    data[tuple(slice(a - 2, a + 3) for a in right)] = label
    data[right[0], right[1] - 8, right[2]] = label
    session.history.change("Draw", tuple(slice(0, n) for n in data.shape), data)
    wait_for(lambda: "2 pieces" in part.odd.words.text(), 20)
    assert "on the patient's right, but called left" in part.odd.words.text()
    part.press("repair")
    assert not session.layer.data[right[0], right[1] - 8, right[2]]
    wait_for(lambda: "pieces" not in part.odd.words.text(), 20)
    part.press("repair")
    assert session.active == "right_kidney"
    assert session.layer.data[tuple(right)] == session.objects["right_kidney"].label != label
    wait_for(lambda: not part.odd.isVisible(), 20)
    part.press("undo")
    part.press("undo")
    assert session.layer.data[right[0], right[1] - 8, right[2]] == label
    # the log makes it again
    wait_for(lambda: part.saving.path is not None and not part.saving.pending, 20)
    again, done = played_again(part, read_record(part.saving.path))
    assert not done.differing
    assert np.array_equal(again.labels, session.session.labels)


def test_organs_of_the_model_become_objects(viewer, scan, part, deep, ct_phantom):
    """A click on the organs layer goes on with them; a closed dock leaves no marks."""
    data, kwargs, _ = layers.to_layer(ct_phantom.labels, "truth", role="labels")
    truth = viewer.add_labels(data, **kwargs)
    settle()
    session = part.session
    assert session.layer is getattr(truth, "__wrapped__", truth)
    assert session.objects["liver"].label == LIVER
    ml = np.count_nonzero(data == LIVER) * np.prod(scan.scale) / 1000
    assert session.ml("liver") == pytest.approx(ml)
    part._choose("liver")
    liver = deep(LIVER)
    before = np.array(truth.data)
    part.prompts.give("point", [np.array(scan.data_to_world(liver))], False, set())
    answered(part)
    assert truth.data[tuple(liver)] == 0
    assert np.array_equal(truth.data[before == SPLEEN], before[before == SPLEEN])
    part.press("undo")
    assert np.array_equal(truth.data, before)
    dock = part
    while not hasattr(dock, "click"):
        dock = dock.parentWidget()
    viewer.window.remove_dock_widget(dock)
    settle()
    assert "prompts" not in viewer.layers
    truth.paint(tuple(liver), 0)


def _checked():
    from qtpy.QtCore import Qt

    return Qt.CheckState.Checked
