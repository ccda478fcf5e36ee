"""How unsure the model is of the cases of a queue: found meanwhile, and in nobody's way."""

from __future__ import annotations

import gc
import json
import shutil
from contextlib import suppress

import pytest

from napari_spad import jobs, layers
from napari_spad.case_rating import raters
from spad.checkpoints import zoo
from spad.errors import SpadError
from spad.worker.messages import AutomaticOrgan

from .conftest import settle, wait_for

LEAST_SURE = "Least sure first"


@pytest.fixture
def folder(tmp_path, phantoms):
    """Scans a to d, of three abdomens."""
    from spad.volumes.files import write

    for name, one in zip("abc", phantoms, strict=True):
        write(one.image, tmp_path / f"{name}.nii.gz")
    shutil.copy(tmp_path / "a.nii.gz", tmp_path / "d.nii.gz")
    return tmp_path


def opened(viewer):
    return layers.scan_volume(viewer.layers[0])


def figures(widget):
    return {case.name[0]: case.uncertainty for case in widget.queue.cases}


def is_ready(volume):
    """Whether a click on a scan finds its features there."""
    model = str(zoo.default("clicker", "CT").path)
    request = AutomaticOrgan(volume, model, volume.modality, name="liver")
    with suppress(SpadError):
        jobs.client().submit(request).result(60)
        return True
    return False


def column(widget, at):
    return [widget.table.item(line, at).text() for line in range(widget.table.rowCount())]


@pytest.fixture
def no_collector():
    """Python does not look for things that hold each other."""
    gc.disable()
    yield
    gc.enable()


def sent_scans():
    return [file for path in jobs.client().folders for file in path.glob("in*")]


def test_the_next_case_is_ready_for_clicks_when_it_is_opened(viewer, dock, folder):
    widget = dock("Case queue")
    widget.open_folder(folder)
    wait_for(lambda: figures(widget)["b"] is not None)
    assert 0 < figures(widget)["a"] < 3
    assert (figures(widget)["c"], figures(widget)["d"]) == (None, None)
    assert is_ready(opened(viewer))
    assert column(widget, 2) == [f"{figures(widget)[n]:.3f}" for n in "ab"] + ["", ""]
    widget.next()
    wait_for(lambda: viewer.layers[0].name == "b")
    assert is_ready(opened(viewer))
    wait_for(lambda: figures(widget)["c"] is not None)
    assert is_ready(opened(viewer)), "the open case stays ready while the next is looked at"
    noted = json.loads((folder / "queue.json").read_text())["cases"]["b.nii.gz"]
    assert noted["rater"].startswith("organs-tiny ")
    assert noted["uncertainty"] == figures(widget)["b"]


def test_marks_that_go_with_their_labels_do_not_keep_the_next_case_out(viewer, dock, folder):
    widget = dock("Case queue")
    widget.open_folder(folder)
    wait_for(lambda: widget.case is not None)
    scan = viewer.layers[0]
    made = viewer.add_labels((scan.data > 1e6).astype("u1"), scale=scan.scale, name="objects")
    made.translate = scan.translate
    marks = viewer.add_points(ndim=3, name="marks")
    viewer.layers.events.removed.connect(
        lambda event: viewer.layers.remove(marks) if event.value.name == "objects" else None
    )
    widget.next()
    wait_for(lambda: [layer.name for layer in viewer.layers] == ["b"], 20)


def test_the_next_of_the_least_sure_is_at_the_top(viewer, dock, folder):
    widget = dock("Case queue")
    widget.open_folder(folder)
    wait_for(lambda: widget.case is not None)
    for name, figure in zip("abcd", (0.2, 0.1, 0.4, 0.3), strict=True):
        rater = next(iter(raters()))
        widget.queue.set_uncertainty(f"{name}.nii.gz", figure, rater)
    widget.order.setCurrentText(LEAST_SURE)
    assert column(widget, 2)[0] == "0.400"
    for name in "cda":
        widget.next()
        wait_for(lambda name=name: widget.case.name == f"{name}.nii.gz")


def test_least_sure_first_rates_all_and_says_which_cannot_be(viewer, dock, folder, no_collector):
    (folder / "x.nii.gz").write_bytes(b"\x1f\x8b nothing")
    widget = dock("Case queue")
    widget.open_folder(folder)
    wait_for(lambda: widget.case is not None)
    said = []
    ready = []

    def opened_is_ready():
        return is_ready(opened(viewer))

    widget._doubts.said.connect(said.append)
    # once, at the last: asking uses the open scan, which keeps it
    widget._doubts.said.connect(lambda words: "x.nii" in words and ready.append(opened_is_ready()))
    widget.order.setCurrentText(LEAST_SURE)
    wait_for(lambda: widget.status.text().startswith("Rated"))
    assert said[-1] == "Rating 5 of 5: x.nii.gz ... 'By name' stops this."
    assert "except 1 of them" in widget.status.text()
    known = [figures(widget)[name[0]] for name in column(widget, 0)]
    assert known[-1] is None
    assert known[:-1] == sorted(known[:-1], reverse=True)
    assert column(widget, 0)[-1] == "x.nii.gz"
    assert column(widget, 2)[-1] == "?"
    assert "x.nii.gz" in widget.table.item(4, 2).toolTip()
    assert figures(widget)["a"] == figures(widget)["d"]
    wait_for(lambda: widget._doubts._at is None)
    assert ready == [True], "what is rated does not push the open case out"
    settle()
    assert len(sent_scans()) <= 2, "what was only rated is kept nowhere"


def test_the_scan_of_another_folder_is_not_rated_under_a_name_that_is_the_same(
    viewer, dock, folder
):
    other, done = folder / "other", folder / "done"
    for made in (other, done):
        made.mkdir()
    shutil.copy(folder / "b.nii.gz", other / "a.nii.gz")
    shutil.copy(folder / "c.nii.gz", done / "only.nii.gz")
    (done / "queue.json").write_text('{"cases": {"only.nii.gz": {"state": "done"}}}')
    widget = dock("Case queue")
    widget.order.setCurrentText(LEAST_SURE)
    widget.open_folder(folder)
    wait_for(lambda: widget.status.text() == "All open cases are rated.")
    first = figures(widget)
    assert widget.case.name == "a.nii.gz"
    widget.open_folder(other)
    wait_for(lambda: widget.status.text() == "All open cases are rated.")
    assert figures(widget) == {"a": first["b"]}
    assert widget.case.path.parent == other
    # where nothing is open, nothing of another folder can be marked
    widget.open_folder(done)
    settle(0.5)
    assert widget.case is None
    assert not widget.done_button.isEnabled()
    assert not viewer.layers


def test_a_case_that_is_opened_during_the_rating_costs_no_other_its_turn(viewer, dock, folder):
    widget = dock("Case queue")
    widget.order.setCurrentText(LEAST_SURE)
    widget.open_folder(folder)
    opened = set()
    for name in "bcd":
        wait_for(lambda: widget.case is not None and not widget._busy)
        widget.open(widget.queue[f"{name}.nii.gz"])
        opened.add(name)
    wait_for(lambda: widget.status.text().endswith("rated."))
    assert None not in figures(widget).values()


def test_choosing_by_name_stops_the_rating(viewer, dock, folder):
    widget = dock("Case queue")
    widget.order.setCurrentText(LEAST_SURE)
    widget.open_folder(folder)
    wait_for(lambda: widget.status.text().startswith("Rating"))
    widget.order.setCurrentText("By name")
    assert widget.status.text() == "Rating stopped."
    wait_for(lambda: widget._doubts._at is None and widget.case is not None)
    assert figures(widget)["d"] is None
    assert column(widget, 0)[0] == "a.nii.gz"


def test_a_modality_that_a_person_says_later_counts_for_all(viewer, dock, tmp_path, ct_phantom):
    from napari_spad import grids
    from napari_spad.widgets.notices import notices
    from spad.volumes.files import write

    values = ct_phantom.image.values()
    dim = ct_phantom.image.with_array((values.clip(-100, 300) + 100).astype("u1"))
    for name in "ab":
        write(dim.with_modality(None), tmp_path / f"{name}.nii.gz")
    widget = dock("Case queue")
    widget.open_folder(tmp_path)
    wait_for(lambda: len(widget._doubts.reasons) == 2)
    settle()
    assert column(widget, 2) == ["?", "?"]
    assert "CT or MR" in widget.table.item(1, 2).toolTip()
    uuid = opened(viewer).source.uuid
    grids.change(uuid, lambda one: one.with_modality("CT"))
    notices.scan_changed.emit(uuid)
    wait_for(lambda: None not in figures(widget).values())
    assert "?" not in column(widget, 2)


def test_the_dock_may_be_closed_while_it_rates(viewer, dock, folder):
    widget = dock("Case queue")
    widget.order.setCurrentText(LEAST_SURE)
    widget.open_folder(folder)
    wait_for(lambda: widget._doubts._job is not None)
    job = widget._doubts._job
    viewer.window.remove_dock_widget(widget)
    settle(1)
    assert job not in jobs._shared.running
