"""The list of objects and prompts, names, repair and locks, by mouse and keys, in a hurry too."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_spad import click_files, layers, locks
from napari_spad.naming import name_label
from spad.prompts.session_file import read_record

from .conftest import answered, beside, mouse, said, settle, show, wait_for
from .test_click_trouble import LIVER, SPLEEN, clicked, places
from .test_clicks import played_again


def press_row(part, item, column=0):
    """Click on a row of the list."""
    tree = part.objects
    tree.scrollToItem(item)
    settle(0.05)
    middle = tree.visualItemRect(item).center()
    QTest.mouseClick(tree.viewport(), Qt.MouseButton.LeftButton, pos=middle)
    settle(0.1)


def seen(part):
    """Make the Click part visible, as the person has it, and unfold the active object."""
    dock = part
    while not hasattr(dock, "click_section"):
        dock = dock.parentWidget()
    dock.click_section.heading.setChecked(True)
    settle(0.1)
    part.objects.row(part.session.active).setExpanded(True)


def test_delete_takes_the_prompt_that_was_clicked_and_no_more(viewer, scan, part, deep):
    liver = deep(LIVER)
    spots = [beside(liver, 0, 0, 3 * n) for n in range(4)]
    for spot in spots:
        clicked(viewer, scan, part, spot)
    seen(part)
    press_row(part, part.objects.row("object_1").child(0))
    QTest.keyClick(part.objects, Qt.Key.Key_Delete)
    # the next one before the first deletion is done
    QApplication.processEvents()
    assert part.session.busy
    QTest.keyClick(part.objects, Qt.Key.Key_Delete)
    answered(part)
    assert places(part) == spots[2:]
    assert part.objects.currentItem() is part.objects.row("object_1").child(0)
    for _ in range(4):
        QTest.keyClick(part.objects, Qt.Key.Key_Delete)
        settle(0.05)
        answered(part)
    assert places(part) == []
    # the object was not emptied on top of that
    assert [step["step"] for step in part.session.log if step["step"] == "start"] == []
    part.press("undo")
    assert places(part) == spots[-1:]
    assert part.status.text() == "Undone: Prompts of object 1 changed."


def test_prompts_that_wait_are_listed_and_can_be_deleted(viewer, scan, part, deep):
    liver = deep(LIVER)
    at = [np.array(scan.data_to_world(beside(liver, 0, 0, 3 * n))) for n in range(3)]
    show(viewer, scan, liver)
    for one in at:
        part.prompts.give("point", [one], True, set())
    assert part.session.busy
    assert part.objects.row("object_1").childCount() == 3
    part.prompts.delete([1])
    # a prompt that comes now is not lost either
    part.prompts.give("point", [np.array(scan.data_to_world(beside(liver, 0, 4, 0)))], True, set())
    answered(part)
    wanted = [beside(liver, 0, 0, 0), beside(liver, 0, 0, 6), beside(liver, 0, 4, 0)]
    assert places(part) == wanted
    assert part.status.text().startswith("Object 1 was found anew by 3 prompts.")
    part.prompts.give("point", [np.array(scan.data_to_world(beside(liver, 0, 8, 0)))], False, set())
    answered(part)
    part.prompts.delete([0, 1, 2])
    answered(part)
    assert part.status.text() == "Object 1 is empty, since nothing positive says where it is."


def test_an_object_whose_name_has_spaces_is_taken_up_again(viewer, scan, part, truth, deep):
    session = part.session
    kidney = next(name for name in session.objects if "kidney" in name)
    label = session.objects[kidney].label
    part.button.click()
    name_label(truth, label, "Left Kidney")
    viewer.layers.remove(truth)
    data, kwargs, _ = truth.as_layer_data_tuple()
    viewer.add_labels(data, **kwargs)
    settle()
    part.button.click()
    assert "Left Kidney" in part.session.objects
    part.objects.picked.emit("Left Kidney")
    assert part.session.active == "Left Kidney"
    assert "Left_Kidney" not in part.session.objects
    part.names.setEditText("Left Kidney")
    part._name_given()
    assert part.session.active == "Left Kidney"


def test_a_name_that_is_chosen_is_where_clicks_go(viewer, scan, part, deep):
    clicked(viewer, scan, part, deep(SPLEEN))
    part.names.setEditText("tumour")
    part.names.activated.emit(0)
    assert part.session.active == "tumour"
    clicked(viewer, scan, part, deep(LIVER))
    assert len(part.session.objects["tumour"].prompts) == 1
    assert len(part.session.objects["object_1"].prompts) == 1


def test_a_repair_is_for_what_was_judged(viewer, scan, part, deep):
    session, (z, y, x) = part.session, deep(LIVER)
    part._choose("liver")
    liver = session.objects["liver"].label
    part._choose("spleen")
    data = np.zeros(scan.data.shape, np.uint8)
    data[z - 2 : z + 3, y - 2 : y + 3, x - 2 : x + 3] = liver
    data[z, y, x + 6] = liver
    data[z, y, x + 5] = session.objects["spleen"].label
    part._choose("liver")
    session.history.change("Draw", tuple(slice(0, n) for n in data.shape), data)
    wait_for(lambda: "2 pieces" in part.odd.words.text(), 20)
    assert part.odd.repair_button.isEnabled()
    part._choose("spleen")
    part.press("repair")
    assert np.array_equal(session.layer.data, data)
    part._choose("liver")
    wait_for(part.odd.repair_button.isEnabled, 20)
    session.layer.data_setitem((np.array([z]), np.array([y]), np.array([x + 7])), liver)
    session.layer.paint((z, y + 8, x), liver)
    part.press("repair")
    assert session.layer.data[z, y, x + 6] == liver
    wait_for(part.odd.repair_button.isEnabled, 20)
    part.press("repair")
    assert session.layer.data[z, y, x + 6] == 0


def test_an_object_that_is_locked_while_a_click_is_under_way_stays(viewer, scan, part, deep):
    liver = deep(LIVER)
    clicked(viewer, scan, part, liver)
    session = part.session
    before = np.array(session.layer.data)
    show(viewer, scan, liver)
    more = np.array(scan.data_to_world(beside(liver, 0, 4, 4)))
    part.prompts.give("point", [more], True, set())
    locks.lock(session.layer, {session.objects["object_1"].label})
    answered(part)
    assert "is locked" in said()
    assert np.array_equal(session.layer.data, before)
    assert [step["step"] for step in session.log] == ["prompt", "dropped"]
    wait_for(lambda: part.saving.path is not None and not part.saving.pending, 20)
    again, done = played_again(part, read_record(part.saving.path))
    assert not done.differing
    assert np.array_equal(again.labels, session.session.labels)


def test_what_stays_with_a_locked_object_is_said(viewer, scan, part, deep):
    liver = deep(LIVER)
    clicked(viewer, scan, part, liver)
    session = part.session
    locks.lock(session.layer, {session.objects["object_1"].label})
    part.press("new_object")
    clicked(viewer, scan, part, liver)
    assert "mL stayed with object 1, which is locked." in part.status.text()


def test_the_click_on_an_island_is_no_prompt(viewer, scan, part, deep):
    liver = deep(LIVER)
    clicked(viewer, scan, part, liver)
    session = part.session
    dock = part
    while not hasattr(dock, "edit"):
        dock = dock.parentWidget()
    viewer.layers.selection.active = session.layer
    dock.edit.remove_button.setChecked(True)
    mouse(viewer, show(viewer, scan, liver))
    wait_for(lambda: not session.layer.data.any(), 20)
    assert not session.busy
    assert places(part) == [tuple(liver)]
    # the one after that is a prompt again
    viewer.layers.selection.active = scan
    clicked(viewer, scan, part, liver)
    assert session.layer.data[tuple(liver)]


def test_a_second_click_on_the_air_counts(viewer, scan, part, deep):
    corner = np.array(scan.data_to_world([deep(LIVER)[0], 1, 1]))
    show(viewer, scan, deep(LIVER))
    part.prompts.give("point", [corner], True, set())
    assert "there once more" in said()
    assert not part.session.busy
    part.prompts.give("point", [corner + np.array([0, 1, 0])], True, set())
    assert part.session.busy
    answered(part)


def test_labels_have_one_session_at_a_time(viewer, scan, part, deep, ct_phantom):
    """What one scan's session did is undone without touching the prompts of the other's."""
    liver = deep(LIVER)
    clicked(viewer, scan, part, liver)
    clicked(viewer, scan, part, beside(liver, 0, 4, 4))
    first, made = part.session, part.session.layer
    wait_for(lambda: part.saving.path is not None and not part.saving.pending, 20)
    path = part.saving.path
    second = dataclasses.replace(ct_phantom.image, array=ct_phantom.image.array + 1)
    data, kwargs, _ = layers.to_layer(second, "second")
    other = viewer.add_image(data, **kwargs)
    dock = part
    while not hasattr(dock, "scans"):
        dock = dock.parentWidget()
    dock.scans.setCurrentText("second")
    dock.organs.setCurrentText(made.name)
    settle()
    part.button.click()
    assert part.session is not first
    assert part.session.layer is made
    clicked(viewer, other, part, beside(liver, 0, -3, 0))
    name = part.session.active
    for _ in range(3):
        part.press("undo")
    assert not made.data.any()
    for _ in range(3):
        part.press("redo")
    assert len(part.session.objects[name].prompts) == 1
    assert [step["step"] for step in read_record(path).steps] == ["prompt", "prompt"]
    wait_for(lambda: part.saving.path is not None and not part.saving.pending, 20)
    again, done = played_again(part, read_record(part.saving.path))
    assert not done.differing
    assert np.array_equal(again.labels, part.session.session.labels)


def test_a_session_is_not_opened_on_a_scan_that_was_chosen_meanwhile(
    viewer, scan, part, deep, ct_phantom, monkeypatch
):
    clicked(viewer, scan, part, deep(LIVER))
    wait_for(lambda: part.saving.path is not None and not part.saving.pending, 20)
    path, content = part.saving.path, part.saving.path.read_bytes()
    data, kwargs, _ = layers.to_layer(
        dataclasses.replace(ct_phantom.image, array=ct_phantom.image.array + 1), "second"
    )
    viewer.add_image(data, **kwargs)
    dock = part
    while not hasattr(dock, "scans"):
        dock = dock.parentWidget()
    dock.scans.setCurrentText("ct")
    settle()
    part.open_session(path)
    dock.scans.setCurrentText("second")
    settle(1)
    assert part.session is None
    assert path.read_bytes() == content
    assert path.parent == click_files.folder()


@pytest.mark.parametrize("closes", [True, False])
def test_an_automatic_organ_that_comes_late_changes_nothing(viewer, scan, part, deep, closes):
    session = part.session
    wait_for(lambda: session.features_ready, 60)
    part._choose("liver")
    before = np.array(session.layer.data)
    session.start_automatic()
    if closes:
        part.button.click()
        part.sessions.drop(session)
    else:
        locks.lock(session.layer, {session.objects["liver"].label})
    settle(2)
    assert np.array_equal(session.layer.data, before)
    if not closes:
        assert "changed or locked meanwhile" in said() or "finds no liver" in said()


def test_the_scan_is_seen_once_the_click_part_is(viewer, clicker, scan, dock):
    shutil.rmtree(click_files.folder(), ignore_errors=True)
    widget = dock("Segment")
    part = widget.click
    part.models.setCurrentText("small-clicks")
    settle()
    assert part._early._job is None
    widget.click_section.heading.setChecked(True)
    wait_for(part.ahead.isVisible, 30)
    wait_for(lambda: part._early._job is None, 60)
    assert not part.ahead.text()
    assert part.session is None
    assert list(viewer.layers) == [scan]
    part.button.click()
    wait_for(lambda: part.session.features_ready, 30)


def test_labels_that_no_longer_fit_are_refused(viewer, scan, part, deep):
    liver = deep(LIVER)
    clicked(viewer, scan, part, liver)
    session, good = part.session, part.session.layer.data
    session.layer.data = np.zeros((4, 5, 6), np.uint8)
    part.prompts.give("point", [np.array(scan.data_to_world(liver))], True, set())
    assert "have (4, 5, 6) voxels now, and the scan has (32, 64, 64)" in said()
    assert not session.busy
    session.layer.data = good
    clicked(viewer, scan, part, beside(liver, 0, 3, 3))
    assert len(places(part)) == 2


def test_each_channel_of_a_scan_has_objects_of_its_own(viewer, part, ct_phantom, deep):
    array = np.stack([ct_phantom.image.array] * 2)
    volume = dataclasses.replace(ct_phantom.image, array=array, axes="czyx")
    data, kwargs, _ = layers.to_layer(volume, "channels")
    scan = viewer.add_image(data, **kwargs)
    settle()
    part.button.click()
    viewer.dims.set_current_step(0, 0)
    liver = deep(LIVER)
    part.prompts.give("point", [np.array(scan.data_to_world((0, *liver)))], True, set())
    answered(part)
    first = part.session
    viewer.dims.set_current_step(0, 1)
    part.prompts.give("point", [np.array(scan.data_to_world((1, *liver)))], True, set())
    assert said().startswith("The session is on channel 0 of the scan, but channel 1 is shown")
    part.button.click()
    part.button.click()
    assert part.session is not first
    assert part.session.layer.name == "channels - objects, channel 1"


def test_clicks_count_again_once_no_island_is_awaited(viewer, scan, part, deep):
    dock = part
    while not hasattr(dock, "edit"):
        dock = dock.parentWidget()
    liver = deep(LIVER)
    clicked(viewer, scan, part, liver)
    viewer.layers.selection.active = part.session.layer
    dock.edit.keep_button.setChecked(True)
    part.press("point")
    part.press("point")
    assert part.on
    clicked(viewer, scan, part, beside(liver, 0, 3, 3))
    assert len(places(part)) == 2


def test_a_row_leads_to_the_prompt_that_it_names(viewer, scan, part, deep):
    liver = deep(LIVER)
    spots = [beside(liver, n, 0, 3 * n) for n in range(3)]
    for spot in spots:
        clicked(viewer, scan, part, spot)
    part.prompts.delete([0])
    assert part.session.busy
    part.objects.shown.emit("object_1", 0)
    assert viewer.dims.point[0] == pytest.approx(scan.data_to_world(spots[1])[0])
    answered(part)


def test_labels_of_a_series_have_a_session_for_each_time(viewer, part, ct_phantom, deep):
    array = np.stack([ct_phantom.image.array] * 2)
    volume = dataclasses.replace(ct_phantom.image, array=array, axes="tzyx")
    data, kwargs, _ = layers.to_layer(volume, "series")
    scan = viewer.add_image(data, **kwargs)
    labels = viewer.add_labels(
        np.zeros(data.shape, np.uint8),
        name="all times",
        **{name: kwargs[name] for name in ("scale", "translate") if name in kwargs},
    )
    dock = part
    while not hasattr(dock, "organs"):
        dock = dock.parentWidget()
    settle()
    dock.organs.setCurrentText("all times")
    assert dock.organs.layer.name == "all times"
    part.button.click()
    liver, sessions = deep(LIVER), []
    for time in range(2):
        viewer.dims.set_current_step(0, time)
        if time:
            part.button.click()
            part.button.click()
        sessions.append(part.session)
        place = beside(liver, 0, 0, 3 * time)
        part.prompts.give("point", [np.array(scan.data_to_world((time, *place)))], True, set())
        answered(part)
    assert labels.visible
    assert sessions[0] is not sessions[1]
    assert part.sessions.saving(sessions[0]) is not None
    assert [len(one.objects["object_1"].prompts) for one in sessions] == [1, 1]
    before = np.array(labels.data)
    part.press("undo")
    assert not labels.data[1].any()
    assert np.array_equal(labels.data[0], before[0])
    assert len(sessions[0].objects["object_1"].prompts) == 1
