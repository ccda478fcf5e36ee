"""Locked labels survive every way of painting, and undo works as if nobody had touched them."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Labels

from napari_spad import locks


@pytest.fixture
def layer():
    data = np.zeros((6, 20, 20), np.uint8)
    data[:, 2:10, 2:10] = 1
    data[:, 12:18, 12:18] = 2
    made = Labels(data)
    locks.lock(made, {1})
    return made


@pytest.fixture(autouse=True)
def window(qapp):
    """Strokes that do not come from the mouse are mended when Qt's turn comes."""


def settled(change):
    def call(layer, label):
        from qtpy.QtWidgets import QApplication

        change(layer, label)
        QApplication.processEvents()

    call.__name__ = change.__name__
    return call


@settled
def paint(layer, label):
    layer.brush_size = 10
    layer.paint((3, 10, 10), label)


@settled
def paint_with_the_mouse(layer, label):
    """Do as napari does while the button is held."""
    layer.brush_size = 10
    with layer.block_history():
        layer.paint((3, 10, 10), label)
        layer.paint((3, 10, 12), label)


@settled
def fill(layer, label):
    layer.fill((3, 5, 5), label)


@settled
def polygon(layer, label):
    layer.paint_polygon([(3, 5, 5), (3, 5, 15), (3, 15, 15), (3, 15, 5)], label)


@settled
def set_items(layer, label):
    layer.data_setitem(tuple(np.array([[3, 3], [5, 15], [5, 15]])), label)


@pytest.mark.parametrize("how", [paint, paint_with_the_mouse, polygon, set_items])
@pytest.mark.parametrize("label", [0, 2, 3])
def test_a_stroke_changes_all_but_the_locked_label(layer, how, label):
    before = np.array(layer.data)
    free = Labels(np.array(before))
    how(free, label)
    how(layer, label)
    expected = np.where(before == 1, 1, free.data)
    assert np.array_equal(layer.data, expected)
    assert (free.data != expected).any(), "the stroke went over the locked label"
    layer.undo()
    assert np.array_equal(layer.data, before)
    layer.redo()
    assert np.array_equal(layer.data, expected)


def test_a_stroke_over_locked_voxels_alone_leaves_nothing_to_undo(layer):
    before = np.array(layer.data)
    paint(layer, 3)
    painted = np.array(layer.data)
    fill(layer, 3)
    assert np.array_equal(layer.data, painted)
    layer.undo()
    assert np.array_equal(layer.data, before)


def test_a_locked_label_does_not_grow_either(layer):
    before = np.array(layer.data)
    paint(layer, 1)
    assert np.array_equal(layer.data, before)


def test_strokes_of_several_steps_are_one_step_to_undo(layer):
    before = np.array(layer.data)
    with layer.block_history():
        for column in (6, 10, 14):
            layer.paint((3, 10, column), 3)
    assert np.array_equal(layer.data == 1, before == 1)
    assert (layer.data == 3).any()
    layer.undo()
    assert np.array_equal(layer.data, before)


def test_it_is_told_which_labels_were_locked(layer):
    told = []
    locks.refusals.refused.connect(told.append)
    try:
        paint(layer, 3)
        layer.paint((0, 19, 0), 3)
    finally:
        locks.refusals.refused.disconnect(told.append)
    assert told == [(layer, {1})]


def test_an_unlocked_label_can_be_painted_on_again(layer):
    locks.lock(layer, set())
    assert locks.locked(layer) == set()
    fill(layer, 3)
    assert not (layer.data[3] == 1).any()
