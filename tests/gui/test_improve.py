"""Learning from corrections in the Segment dock: keep, improve, compare, use, go back."""

from __future__ import annotations

import shutil
from dataclasses import asdict

import numpy as np
import pytest

import spad
from napari_spad import improving, layers, locks
from napari_spad.before_after import Row
from napari_spad.improving import Improvement
from napari_spad.widgets.segment import SegmentDock
from spad import jsonfile
from spad.checkpoints import zoo
from spad.evaluation.metrics import evaluate
from spad.training import runs

from .conftest import answered, inside, mouse, run, settle, show, wait_for

LIVER = 2
"""Of the small model."""


@pytest.fixture
def phantoms(phantoms):
    """Two of them: one to learn from, one to judge by."""
    return phantoms[:2]


@pytest.fixture
def segment(viewer, own_home, dock):
    widget = dock("Segment")
    widget.click.models.setCurrentText("small-clicks")
    return widget


@pytest.fixture
def open_scan(viewer, phantoms, segment):
    """Open a phantom's scan alone, and give its layer and the truth's array."""

    def open_one(number):
        viewer.layers.clear()
        made = phantoms[number]
        data, kwargs, _ = layers.to_layer(made.image, f"scan{number}")
        scan = viewer.add_image(data, **kwargs)
        segment.models.setCurrentText("small-organs")
        truth, *_ = layers.to_layer(made.labels, "truth", role="labels")
        return scan, np.asarray(truth) == 6

    return open_one


def looked(segment):
    """Wait until the dock has looked at what was corrected."""
    settle(0.4)
    return segment.improve


def kept(segment):
    part = looked(segment)
    assert part.keep_button.isEnabled(), part.words.text()
    part.keep_button.click()
    wait_for(lambda: not part.busy, 30)
    assert part.status.text().startswith("Kept: liver of "), part.status.text()
    return part


def draw_liver(segment, liver):
    """Give the labels of the dock the true liver, as an edit by hand."""
    from napari_spad.history import history_of
    from napari_spad.organ_layers import itself

    layer = itself(segment.organs.layer)
    values = np.where(liver, LIVER, np.where(layer.data == LIVER, 0, layer.data))
    history_of(layer).change("Edit liver", (slice(None),) * 3, values)


@pytest.mark.slow
def test_two_corrected_scans_improve_the_model(
    viewer, own_home, segment, open_scan, phantoms, monkeypatch
):
    monkeypatch.setattr(improving, "STEPS", 3)
    untouched = zoo.find("small-organs").path.read_bytes()
    part = segment.improve
    assert not segment.improve_section.unfolded
    assert not part.keep_button.isEnabled()
    assert part.count.text().startswith("0 corrected scans kept; two are needed, since")

    # by clicks, without any automatic organ
    scan, liver = open_scan(0)
    segment.click.button.click()
    settle()
    segment.click.names.setEditText("liver")
    segment.click.new_button.click()
    mouse(viewer, show(viewer, scan, inside(liver, 1)))
    answered(segment.click)
    looked(segment)
    assert segment.improve_section.unfolded
    assert part.words.text() == "Corrected or locked here: liver."
    kept(segment)
    assert not part.keep_button.isEnabled()
    assert part.words.text() == "All corrections of this scan are kept."
    assert not part.improve_button.isEnabled()
    assert part.count.text() == (
        "1 corrected scan kept; one more is needed, since one is held out to judge the result."
    )
    mouse(viewer, show(viewer, scan, inside(liver, 1)) + np.array([0, 0, 30]))
    answered(segment.click)
    kept(segment)
    assert part.count.text().startswith("1 corrected scan kept")
    segment.click.button.click()

    # by hand, on automatic organs
    _, liver = open_scan(1)
    run(segment)
    looked(segment)
    assert not part.keep_button.isEnabled()
    draw_liver(segment, liver)
    kept(segment)
    assert part.count.text() == "2 corrected scans kept; scan1 is held out to judge the result."

    assert part.improve_button.isEnabled(), part.improve_button.toolTip()
    part.improve_button.click()
    wait_for(lambda: part.stop_button.isVisible(), 20)
    assert not part.improve_button.isEnabled()
    wait_for(lambda: part.result is not None or not part.busy, 240)
    assert part.result is not None, part.status.text()
    made = part.run
    assert [case.held_out for case in runs.read_cases(made)] == [False, True]

    # the same figures, computed without the viewer
    result = part.result
    assert (result.scans, [row.name for row in result.rows]) == (("scan1",), ["liver"])
    drawn = phantoms[1].labels
    drawn = drawn.with_array((drawn.array == 6).astype(np.uint8), label_names={1: "liver"})
    for side, model in (("before", "small-organs"), ("after", made)):
        found = evaluate(spad.segment(phantoms[1].image, model=model), drawn)
        assert getattr(result.rows[0], side) == pytest.approx(
            found["labels"]["liver"]["dice"], abs=0.005
        )
    assert part.table.item(0, 0).text() == "liver"
    assert part.verdict.text().startswith("Better: " if result.is_better else "Not better: ")

    part.use_button.click()
    name = "small-organs-improved-1"
    assert segment.models.currentText() == name
    assert zoo.find(name).card.labels == zoo.find("small-organs").card.labels
    assert not part.use_button.isVisible()
    run(segment)
    assert segment.organs.layer.data.any()

    # clicks stand on the model that they were made for
    scan = segment.scans.layer
    segment.click.button.click()
    settle()
    segment.click.names.setEditText("spleen")
    segment.click.new_button.click()
    mouse(viewer, show(viewer, scan, inside(liver, 1)))
    answered(segment.click)
    assert segment.click.session.objects["spleen"].prompts
    assert segment.click.models.entry.card.segmenter == "small-organs"
    assert zoo.find("small-organs").path.read_bytes() == untouched
    segment.click.button.click()

    assert part.back_button.text() == "Go back to small-organs"
    part.back_button.click()
    assert segment.models.currentText() == "small-organs"
    assert name not in {segment.models.itemText(n) for n in range(segment.models.count())}
    assert part.use_button.isVisible()
    assert not part.back_button.isVisible()
    part.use_button.click()
    assert segment.models.currentText() == name


@pytest.fixture
def judged(own_home):
    """A run that improved a model; its checkpoint is that model."""

    def make(model, before, after):
        place = own_home / "runs" / f"improve-{model}-20260101-120000"
        made = runs.create(place, {"task": "segmentation", "init": model})
        with runs.RunWriter(made) as writer, writer.checkpoint(5) as folder:
            shutil.copy(zoo.find(model).path, folder / zoo.MODEL_FILE)
        result = Improvement(("scan1",), (Row("liver", before, after),), 5)
        jsonfile.write(made / "improvement.json", asdict(result))

    return make


def test_a_worse_model_is_not_the_first_choice(viewer, own_home, judged, dock):
    judged("small-organs", 0.8, 0.75)
    part = looked(dock("Segment"))
    assert part.verdict.text().startswith("Not better: mean Dice 0.800 before and 0.750 after")
    assert part.use_button.text() == "Use the new model all the same"
    assert not part.use_button.styleSheet()
    assert part.table.item(0, 3).text() == "-0.05"


def test_a_better_model_is_used_again_when_napari_starts_anew(
    viewer, own_home, judged, dock, qtbot
):
    judged("organs-tiny", 0.75, 0.8)
    segment = dock("Segment")
    segment.models.setCurrentText("organs-tiny")
    part = looked(segment)
    assert part.verdict.text().startswith("Better: ")
    assert part.use_button.styleSheet()
    part.use_button.click()
    other = SegmentDock(viewer)
    qtbot.addWidget(other)
    assert other.models.currentText() == "organs-tiny-improved-1"
    looked(other).back_button.click()
    other = SegmentDock(viewer)
    qtbot.addWidget(other)
    assert other.models.currentText() == "organs-tiny"


def test_what_is_no_organ_of_the_model_cannot_be_kept(segment, open_scan):
    open_scan(0)
    segment.click.button.click()
    settle()
    segment.click.names.setEditText("tumour")
    segment.click.new_button.click()
    locks.lock(segment.organs.layer, {segment.click.session.objects["tumour"].label})
    segment.improve.look()
    assert segment.improve.words.text() == (
        "small-organs has no organ called tumour; Train learns new labels."
    )
    assert not segment.improve.keep_button.isEnabled()


def test_a_kept_scan_is_left_out_and_taken_again(segment, open_scan, phantoms):
    for number, made in enumerate(phantoms):
        labels = improving.only(made.labels, {6: "liver"})
        improving.keep("small-organs", f"scan{number}", made.image, labels)
    open_scan(0)
    segment.improve_section.unfold()
    part = looked(segment)
    actions = part.kept_menu.actions
    assert part.kept_button.isVisible()
    assert [one.text() for one in actions()] == ["scan0: liver", "scan1: liver"]
    assert part.improve_button.isEnabled()
    actions()[1].trigger()
    assert part.count.text().startswith("1 corrected scan kept; one more is needed")
    assert part.status.text().startswith("scan1 is left out from now on; its corrections stay")
    assert not part.improve_button.isEnabled()
    assert [one.isChecked() for one in actions()] == [True, False]
    actions()[1].trigger()
    assert part.status.text() == "scan1 judges the result again."
    assert part.improve_button.isEnabled()


@pytest.mark.slow
def test_a_run_is_stopped(own_home, segment, open_scan, phantoms):
    for number, made in enumerate(phantoms):
        labels = made.labels.with_array((made.labels.array == 6).astype(np.uint8))
        labels = labels.with_array(labels.array, label_names={1: "liver"})
        improving.keep("small-organs", f"scan{number}", made.image, labels)
    open_scan(0)
    segment.improve_section.unfold()
    part = looked(segment)
    part.improve_button.click()
    wait_for(lambda: part.stop_button.isVisible() and part.run is not None, 20)
    part.stop_button.click()
    wait_for(lambda: not part.busy, 60)
    assert part.status.text().startswith("Stopped"), part.status.text()
    assert part.improve_button.isEnabled()
