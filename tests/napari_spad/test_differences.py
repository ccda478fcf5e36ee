"""Differences of labels and a reference, matched by name."""

from __future__ import annotations

import numpy as np
from napari.layers import Labels

from napari_spad.differences import AGREED, EXTRA, MISSED, OTHER, differences


def labels(values, names=None):
    features = None
    if names:
        features = {"index": [0, *names], "name": ["background", *names.values()]}
    return Labels(np.array([[values]], np.uint8), features=features)


def test_every_voxel_is_agreed_missed_too_much_or_another_organ():
    organs = labels([0, 1, 1, 0, 2, 0], {1: "liver", 2: "spleen"})
    reference = labels([0, 7, 0, 7, 7, 8], {7: "liver", 8: "kidney"})
    found = differences(organs, reference)[0, 0].tolist()
    assert found == [0, AGREED, EXTRA, MISSED, OTHER, MISSED]


def test_hidden_organs_are_left_out_on_both_sides():
    organs = labels([0, 1, 2], {1: "liver", 2: "spleen"})
    reference = labels([7, 7, 8], {7: "liver", 8: "spleen"})
    assert differences(organs, reference, ["liver"])[0, 0].tolist() == [0, 0, AGREED]


def test_without_names_ids_match():
    organs, reference = labels([1, 2, 3], {1: "liver"}), labels([1, 3, 3])
    assert differences(organs, reference)[0, 0].tolist() == [AGREED, OTHER, AGREED]
