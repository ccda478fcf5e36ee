"""Organs without small pieces, and organs without holes."""

from __future__ import annotations

import numpy as np
import pytest

from spad.inference.pieces import drop_small_pieces, fill_holes


def labels() -> np.ndarray:
    """Label 6 in a large and a small box, label 7 in two boxes."""
    array = np.zeros((12, 20, 20), np.uint8)
    array[2:8, 2:8, 2:8] = 6
    array[9:11, 15:18, 15:18] = 6
    array[1:3, 14:16, 2:4] = 7
    array[1:3, 2:4, 16:18] = 7
    return array


class TestSmallPieces:
    def test_what_lies_apart_becomes_background(self) -> None:
        found, confidence = labels(), np.full((12, 20, 20), 90, np.uint8)
        drop_small_pieces(found, {6: 1.0, 200: 1.0}, confidence)
        wanted = labels()
        wanted[9:11, 15:18, 15:18] = 0
        assert np.array_equal(found, wanted)
        assert np.array_equal(confidence == 0, labels() != wanted)

    @pytest.mark.parametrize(("share", "kept"), [(0.0, 18), (0.05, 18), (0.1, 0)])
    def test_a_piece_of_a_twelfth_of_the_largest(self, share: float, kept: int) -> None:
        found = labels()
        drop_small_pieces(found, {6: share})
        assert (found[9:11] == 6).sum() == kept
        assert (found[:9] == 6).sum() == 6**3

    @pytest.mark.parametrize(("share", "kept"), [(0.3, 16), (1.0, 8)])
    def test_of_two_equal_pieces_one_is_the_largest(self, share: float, kept: int) -> None:
        found = labels()
        drop_small_pieces(found, {7: share})
        assert (found == 7).sum() == kept

    def test_other_labels_keep_their_pieces(self) -> None:
        found = labels()
        drop_small_pieces(found, {})
        assert np.array_equal(found, labels())

    def test_in_any_order_of_axes(self) -> None:
        turned = np.ascontiguousarray(labels().transpose(2, 0, 1)).transpose(1, 2, 0)[::-1]
        drop_small_pieces(turned, {6: 1.0})
        assert (turned == 6).sum() == 6**3


class TestHoles:
    def test_an_enclosed_hole_is_filled_and_an_open_one_is_not(self) -> None:
        array = np.zeros((9, 12, 12), np.uint16)
        array[1:8, 1:11, 1:11] = 300
        array[3:5, 3:5, 3:5] = 0
        array[3, 7, 7] = 2
        array[5, 8:, 3] = 0
        wanted = array.copy()
        wanted[3:5, 3:5, 3:5] = 300
        confidence = np.full(array.shape, 80, np.uint8)
        fill_holes(array, [300, 2], confidence)
        assert np.array_equal(array, wanted)
        assert (confidence == 0).sum() == 8

    def test_a_solid_organ_stays(self) -> None:
        array = labels()
        fill_holes(array, [6, 7])
        assert np.array_equal(array, labels())
