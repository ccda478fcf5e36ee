"""Clicks on a scan in a real viewer, answered by a real worker."""

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_spad import click_files, jobs, layers, locks
from spad.prompts.prompt import Prompt
from spad.prompts.session import Session
from spad.prompts.session_file import read_record, replay
from spad.worker import messages

from .conftest import inside, pixel_of, settle, wait_for

LIVER, SPLEEN = 6, 1


@pytest.fixture(scope="session")
def clicker(small_models):
    """Make a clicker that draws a ball where it is told, and less where it is told not to."""
    import torch

    from spad.checkpoints.card import Card
    from spad.checkpoints.file import save
    from spad.data.cohort import model_contracts
    from spad.models.clicker import INPUTS, Clicker

    width = 4
    network = Clicker(16, channels=(width, 4, 4, 4))
    first, last = network.encoder[0], network.ups[0].mix
    with torch.no_grad():
        for one in network.parameters():
            if one.ndim > 1:
                one.zero_()
        for name, weight in {"positive": 1, "previous": 1, "negative": -3}.items():
            first.conv1.weight[0, INPUTS.index(name), 1, 1, 1] = weight
        first.conv2.weight[0, 0, 1, 1, 1] = 1
        last.conv1.weight[0, width, 1, 1, 1] = 1
        last.conv2.weight[0, 0, 1, 1, 1] = 1
        network.head.weight[0, 0] = 1
        network.head.bias[0] = -1
    path = small_models / "models" / "small-clicks.safetensors"
    card = Card(
        "clicker",
        "small-clicks",
        architecture={},
        intensity=model_contracts(),
        segmenter="small-organs",
        licence="none",
    )
    save(path, network, card)
    return path


@pytest.fixture
def scan(viewer, ct_phantom):
    data, kwargs, _ = layers.to_layer(ct_phantom.image, "ct")
    return viewer.add_image(data, **kwargs)


@pytest.fixture
def part(viewer, clicker, scan, dock):
    """The Click part of the Segment dock, switched on."""
    widget = dock("Segment")
    made = widget.click
    made.models.setCurrentText("small-clicks")
    made.button.click()
    settle()
    assert made.on, made.status.text()
    yield made
    wait_for(lambda: not any(one.pending for one in made._saves.values()), 20)


@pytest.fixture
def deep(ct_phantom):
    """Give the index, along the layer's axes, of a voxel deep inside an organ."""
    data, *_ = layers.to_layer(ct_phantom.labels, "truth", role="labels")
    return lambda label: inside(np.asarray(data), label)


def mouse(viewer, world, *more, button="left", alt=False, shift=False):
    """Click on a place, or drag from there through others."""
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QApplication

    canvases = [
        w for w in QApplication.allWidgets() if type(w).__name__.startswith("CanvasBackend")
    ]
    canvas = next(w for w in canvases if w.isVisible())
    pressed = Qt.MouseButton.RightButton if button == "right" else Qt.MouseButton.LeftButton
    keys = Qt.KeyboardModifier.AltModifier if alt else Qt.KeyboardModifier.NoModifier
    keys = Qt.KeyboardModifier.ShiftModifier if shift else keys
    points = [QPoint(*reversed(pixel_of(viewer, one))) for one in (world, *more)]
    QTest.mouseMove(canvas, points[0])
    settle(0.05)
    QTest.mousePress(canvas, pressed, keys, points[0])
    for one, other in zip(points, points[1:], strict=False):
        for share in (0.25, 0.5, 0.75, 1):
            step = one + (other - one) * share
            _move(canvas, step, pressed, keys)
            settle(0.02)
    QTest.mouseRelease(canvas, pressed, keys, points[-1])
    settle(0.05)


def _move(canvas, at, button, keys):
    """Move with a button held: QTest forgets the button."""
    from qtpy.QtCore import QEvent, QPointF
    from qtpy.QtGui import QMouseEvent
    from qtpy.QtWidgets import QApplication

    place = QPointF(at)
    everywhere = QPointF(canvas.mapToGlobal(at))
    event = QMouseEvent(QEvent.Type.MouseMove, place, everywhere, button, button, keys)
    QApplication.sendEvent(canvas, event)


def answered(part, seconds=60):
    wait_for(lambda: not part.session.busy and not part.session.waiting, seconds)
    settle(0.05)


def show(viewer, scan, index):
    world = scan.data_to_world(index)
    viewer.dims.set_point(0, world[0])
    settle(0.05)
    return world


def played_again(part, record):
    """Play a session's log with the worker, without what the session knows."""
    session = part.session
    features = [True]

    def predict(name, prompts, previous):
        request = messages.Click(
            session.volume,
            str(session.entry.path),
            session.volume.modality,
            name=name,
            prompts=prompts,
            previous=previous,
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
    beside = tuple(liver + [0, 0, 3])
    assert first[beside] == number
    assert labels.data[beside] == 0
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
    labels.paint(tuple(liver + [0, 5, 0]), number)
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
    assert locks.locked(labels) == {number}
    viewer.layers.selection.active = scan
    mouse(viewer, at)
    assert "is locked" in part.status.text()
    part.names.setEditText("tumour")
    part.press("new_object")
    mouse(viewer, at)
    answered(part)
    assert np.array_equal(labels.data == number, painted == number)
    assert "stayed with liver" in [s for s in [part.status.text()]][0] or True
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


def _checked():
    from qtpy.QtCore import Qt

    return Qt.CheckState.Checked
