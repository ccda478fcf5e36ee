"""Docks that napari closes: they are gone, and so is what they would have gone on doing."""

from __future__ import annotations

import pytest
from napari.utils.notifications import notification_manager

from napari_spad import jobs, layers
from napari_spad.widgets.notices import notices

from .conftest import alive, run, settle, wait_for

DOCKS = ("Scan", "Three planes", "Segment", "Tokenizer", "Masking", "Train", "Case queue")


def close(viewer, widget):
    """Close a dock and wait until its widget is gone."""
    gone = []
    widget.destroyed.connect(lambda: gone.append(True))
    viewer.window.remove_dock_widget(widget)
    wait_for(lambda: gone, 60)


@pytest.mark.parametrize("name", DOCKS)
def test_a_closed_dock_hears_of_nothing(viewer, clicker, scan, truth, dock, name):
    close(viewer, dock(name))
    truth.paint((3, 3, 3), 2)
    viewer.dims.ndisplay = 3
    viewer.dims.ndisplay = 2
    notices.models_changed.emit()
    notices.scan_changed.emit(layers.volume_of(scan).source.uuid)
    viewer.layers.remove(truth)
    viewer.layers.remove(scan)
    settle(1)
    assert not jobs._shared.running


def test_a_job_ends_with_its_dock_unless_a_person_waits_for_it(viewer, scan, truth, dock):
    widget = dock("Segment")
    widget.run_row.run_button.click()
    close(viewer, widget)
    assert "ct - organs" in viewer.layers
    widget = dock("Segment")
    wait_for(lambda: not widget._measuring.pending)
    truth.paint((3, 3, 3), 2)
    widget._measuring._start()
    assert jobs._shared.running
    close(viewer, widget)
    assert not jobs._shared.running


def test_a_closed_dock_does_not_keep_the_worker(viewer, scan, truth, dock):
    widget = dock("Segment")
    run(widget)
    pid = jobs.client().pid
    truth.paint((3, 3, 3), 2)
    close(viewer, widget)
    truth.paint((3, 3, 3), 0)
    settle(1)
    viewer.close()
    wait_for(lambda: not alive(pid))


def test_an_offer_outlives_its_dock_and_says_so(viewer, clicker, scan, truth, dock):
    widget = dock("Segment")
    part = widget.click
    part.button.setChecked(True)
    session = part.session
    session.failed.emit("The worker process ended.", lambda: pytest.fail("asked a dead session"))
    widget._died("The worker process ended.")
    offers = [one.actions for one in notification_manager.records[-2:]]
    close(viewer, widget)
    for [(_, call)] in offers:
        call(None)
    ended, closed = (one.message for one in notification_manager.records[-2:])
    assert ended.startswith("That session has ended meanwhile")
    assert closed.startswith("That dock was closed meanwhile")
