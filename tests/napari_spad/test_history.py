"""One history for strokes, edits and clicks: exact, without limit, with locks and payloads."""

from __future__ import annotations

import gc
import time
import weakref

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels

from napari_spad import locks, strokes
from napari_spad.history import history_of
from napari_spad.mirrors import Mirror
from spad.errors import SpadError


@pytest.fixture(autouse=True)
def window(qapp):
    """Strokes that do not come from the mouse are mended when Qt's turn comes."""


@pytest.fixture
def layer():
    data = np.zeros((6, 20, 20), np.uint8)
    data[:, 2:10, 2:10] = 1
    data[:, 12:18, 12:18] = 2
    features = {"index": [0, 1, 2], "name": ["background", "liver", "right_kidney"]}
    return Labels(data, features=features)


def box(*bounds):
    return tuple(slice(*one) for one in bounds)


def random_change(layer, history, rng):
    starts = rng.integers(0, 12, 3)
    region = box(
        *(
            (int(min(one, n - 1)), int(min(one + 7, n)))
            for one, n in zip(starts, layer.data.shape, strict=True)
        )
    )
    shape = layer.data[region].shape
    history.change("Something", region, rng.integers(0, 5, shape))


def random_stroke(layer, history, rng):
    layer.brush_size = int(rng.integers(1, 9))
    with layer.block_history():
        for _ in range(4):
            layer.paint(
                tuple(rng.integers(0, 6, 1)) + tuple(rng.integers(0, 20, 2)),
                int(rng.integers(0, 5)),
            )


def test_all_is_undone_and_redone_exactly_in_any_mixture(layer):
    rng = np.random.default_rng(0)
    history = history_of(layer)
    states = [np.array(layer.data)]
    for _ in range(150):  # napari's own history ends after 100
        before = history.version
        rng.choice([random_change, random_stroke])(layer, history, rng)
        if history.version != before:
            states.append(np.array(layer.data))
    for state in reversed(states[:-1]):
        history.undo()
        assert np.array_equal(layer.data, state)
    assert not history.can_undo
    for state in states[1:]:
        layer.redo()
        assert np.array_equal(layer.data, state)
    assert not history.can_redo


def test_steps_have_words(layer):
    history = history_of(layer)
    assert (history.undo_text, history.redo_text) == ("", "")
    layer.paint((3, 10, 10), 2)
    assert history.undo_text == "Paint right kidney"
    layer.paint((3, 10, 10), 0)
    assert history.undo_text == "Erase"
    history.change("Smooth liver", box((0, 2), (0, 2), (0, 2)), 7)
    assert history.undo_text == "Smooth liver"
    history.undo()
    assert (history.undo_text, history.redo_text) == ("Erase", "Smooth liver")


def test_a_new_step_ends_what_could_be_redone(layer):
    history = history_of(layer)
    layer.paint((3, 10, 10), 2)
    layer.undo()
    assert history.can_redo
    history.change("Edit", box((0, 1), (0, 1), (0, 1)), 3)
    assert not history.can_redo
    history.undo()
    layer.paint((3, 10, 10), 2)
    assert not history.can_redo


def test_ctrl_z_and_napari_s_own_history_are_ours(layer):
    before = np.array(layer.data)
    layer.paint((3, 10, 10), 2)  # before anybody asks for a history
    history = history_of(layer)
    assert history is history_of(layer)
    assert history.undo_text == "Paint right kidney"
    history.change("Edit", box((0, 2), (0, 5), (0, 5)), 4)
    layer.paint((3, 2, 2), 3)
    assert not layer._undo_history
    for _ in range(3):
        layer.undo()
    assert np.array_equal(layer.data, before)


def polygon(layer):
    layer.paint_polygon([(3, 5, 5), (3, 5, 15), (3, 15, 15), (3, 15, 5)], 3)


def fill(layer):
    layer.fill((3, 5, 5), 3)


def set_items(layer):
    layer.data_setitem((np.array([5, 0, 3]), np.array([7, 1, 1]), np.array([2, 8, 8])), [3, 4, 5])


def whole_brush(layer):
    layer.brush_size, layer.n_edit_dimensions = 60, 3
    layer.paint((3, 10, 10), 3)


@pytest.mark.parametrize("how", [polygon, fill, set_items, whole_brush])
def test_every_tool_is_one_step(layer, how):
    history, before = history_of(layer), np.array(layer.data)
    how(layer)
    after = np.array(layer.data)
    assert (after != before).any()
    history.undo()
    assert np.array_equal(layer.data, before)
    assert not history.can_undo
    history.redo()
    assert np.array_equal(layer.data, after)


def test_payloads_come_back(layer):
    history, told = history_of(layer), []
    history.restored.connect(told.append)
    history.change("Click", box((0, 2), (0, 2), (0, 2)), 3, payload=((), ("a",)))
    history.change("Click", box((0, 2), (0, 2), (0, 2)), 3, payload=(("a",), ("a", "b")))
    assert told == [], "whoever makes a step knows its payload"
    layer.paint((3, 15, 15), 3)
    history.undo()
    assert told == []
    history.undo()
    history.undo()
    history.redo()
    assert told == [("a",), (), ("a",)]


def test_what_changes_nothing_is_no_step(layer):
    history, told = history_of(layer), []
    history.changed.connect(lambda: told.append(1))
    assert history.change("Nothing", box((0, 2), (2, 4), (2, 4)), 1) == set()
    assert history.change("Outside", box((9, 12), (2, 4), (2, 4)), 1) == set()
    assert not history.can_undo
    assert not told


def test_locked_labels_stay_and_are_told(layer):
    history = history_of(layer)
    locks.lock(layer, {2})
    before = np.array(layer.data)
    met = history.change("Edit", box((1, 3), (5, 15), (5, 15)), 3)
    assert met == {2}
    expected = before.copy()
    expected[1:3, 5:15, 5:15] = 3
    expected[before == 2] = 2
    assert np.array_equal(layer.data, expected)
    history.undo()
    assert np.array_equal(layer.data, before)
    assert history.change("Grow", box((0, 1), (0, 2), (0, 2)), 2) == {2}, "nor do they grow"
    assert np.array_equal(layer.data, before)
    assert history.change("Beside", box((0, 1), (0, 2), (0, 2)), 3) == set()


def test_what_locks_leave_of_a_stroke_is_the_step(layer):
    """Locks are set after the history has begun to listen."""
    history, before = history_of(layer), np.array(layer.data)
    locks.lock(layer, {1})
    layer.brush_size = 10
    with layer.block_history():
        layer.paint((3, 10, 10), 3)
    after = np.array(layer.data)
    assert np.array_equal(after == 1, before == 1)
    assert (after == 3).any()
    history.undo()
    assert np.array_equal(layer.data, before)
    history.redo()
    assert np.array_equal(layer.data, after)
    layer.undo()
    layer.fill((3, 5, 5), 3)
    assert not history.can_undo, "all of it was locked"


def test_cut_strokes_are_undone_as_they_were_cut(layer):
    history, before = history_of(layer), np.array(layer.data)
    allowed = np.indices(layer.data.shape)[2] % 2 == 0
    layer.events.paint.connect(
        lambda event: strokes.cut(layer, event.value, lambda change: ~allowed[change.where]),
        position="first",
    )
    layer.brush_size = 7
    with layer.block_history():
        layer.paint((3, 9, 9), 3)
        layer.paint((3, 9, 11), 4)
    assert set(np.unique(np.nonzero(layer.data != before)[2] % 2)) == {0}
    after = np.array(layer.data)
    history.undo()
    assert np.array_equal(layer.data, before)
    history.redo()
    assert np.array_equal(layer.data, after)


def test_a_label_that_the_type_cannot_hold_is_refused(layer):
    history, before = history_of(layer), np.array(layer.data)
    with pytest.raises(SpadError, match=r"Label 300 .* uint8"):
        history.change("Edit", box((0, 2), (0, 2), (0, 2)), 300)
    assert np.array_equal(layer.data, before)
    assert not history.can_undo


def test_another_array_begins_anew(layer):
    history = history_of(layer)
    layer.paint((3, 10, 10), 2)
    layer.data = layer.data
    assert history.can_undo
    layer.data = np.zeros((3, 4, 5), np.uint8)
    assert not history.can_undo
    layer.undo()
    layer.paint((1, 1, 1), 2)
    layer.undo()
    assert not layer.data.any()


def test_others_hear_of_edits_as_of_strokes(layer):
    history, told = history_of(layer), []
    layer.events.paint.connect(lambda event: told.append(list(event.value)))
    history.change("Edit", box((0, 2), (0, 2), (0, 2)), 3)
    history.undo()
    assert told == [[], []]


@pytest.mark.parametrize("first", ["history", "mirror"])
def test_copies_in_other_views_share_it(layer, first):
    viewer = ViewerModel()
    viewer.add_layer(layer)
    before = np.array(layer.data)
    history = history_of(layer) if first == "history" else None
    mirror = Mirror(layer, viewer, 2, lambda: None)
    history = history or history_of(layer)
    mirror.copies[0].paint((3, 10, 10), 3)
    history.change("Edit", box((0, 2), (0, 2), (0, 2)), 3)
    layer.paint((3, 15, 3), 3)
    after = np.array(layer.data)
    for _ in range(3):
        mirror.copies[1].undo()
    assert np.array_equal(layer.data, before)
    for _ in range(3):
        mirror.copies[0].redo()
    assert np.array_equal(layer.data, after)
    mirror.end()


def test_layers_and_histories_are_let_go():
    layer = Labels(np.zeros((3, 4, 5), np.uint8))
    history_of(layer).change("Edit", box((0, 1), (0, 1), (0, 1)), 1)
    seen = [weakref.ref(layer), weakref.ref(history_of(layer))]
    del layer
    gc.collect()
    assert [one() for one in seen] == [None, None]


def test_a_large_layer_is_written_in_a_moment():
    """A stroke of a model's answer on a CT of 512 x 512 x 300: 10 ms here, bounded with room."""
    layer = Labels(np.zeros((300, 512, 512), np.uint8))
    history = history_of(layer)
    region = box((100, 160), (200, 280), (200, 280))
    organ = np.zeros((60, 80, 80), np.uint8)
    organ[5:55, 10:70, 10:70] = 1
    seconds = []
    for label in (1, 2, 3):
        start = time.perf_counter()
        history.change("Click", region, organ * label)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.1
    start = time.perf_counter()
    history.undo()
    assert time.perf_counter() - start < 0.1
    assert layer.data[130, 240, 240] == 2
