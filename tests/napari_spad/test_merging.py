"""An answer is laid into earlier labels: inside its box, and around what is locked."""

from __future__ import annotations

import numpy as np

from napari_spad.merging import merge

NAMES = {1: "spleen", 2: "liver"}


def test_outside_the_box_all_stays():
    old, new = np.ones((4, 4, 4), np.uint8), np.full((4, 4, 4), 2, np.uint8)
    made, names, locked = merge(new, NAMES, old, NAMES, ((1, 3), (0, 2), (2, 4)))
    inside = np.zeros(old.shape, bool)
    inside[1:3, :2, 2:] = True
    assert np.array_equal(made == 2, inside)
    assert np.array_equal(made == 1, ~inside)
    assert names == NAMES
    assert locked == set()


def test_labels_are_matched_by_their_names_and_new_ones_get_free_ids():
    old = np.array([[[1, 2, 5, 9]]], np.uint8)
    names = {1: "liver", 2: "tumour", 5: "spleen"}
    made, after, _ = merge(np.zeros_like(old), NAMES, old, names, ((0, 0), (0, 0), (0, 0)))
    assert [after[label] for label in made[0, 0].tolist()] == ["liver", "tumour", "spleen", "9"]
    assert {**NAMES, **after} == after
    assert len(set(after.values())) == len(after)


def test_locked_labels_stay_and_come_nowhere_else():
    old = np.array([[[3, 3, 0, 1, 0]]], np.uint8)
    new = np.array([[[1, 2, 2, 2, 1]]], np.uint8)
    made, after, locked = merge(new, NAMES, old, {3: "liver", 1: "spleen"}, locked={3})
    assert locked == {2}
    assert made.tolist() == [[[2, 2, 0, 0, 1]]]
    assert after == NAMES
