"""Organ colours are stable, distinct, and a pair shares its hue."""

from __future__ import annotations

import colorsys
import itertools

import numpy as np
import pytest

from napari_spad.colors import code_colormap, label_colormap
from spad.phantoms import LABELS
from spad.volumes.colors import organ_color, readable


def test_organs_are_told_apart():
    colors = [np.array(organ_color(name)) for name in LABELS.values()]
    for one, other in itertools.combinations(colors, 2):
        assert np.abs(one - other).max() > 0.12


@pytest.mark.parametrize("organ", ["kidney", "adrenal_gland", "some_unknown_organ"])
def test_a_pair_shares_its_hue(organ):
    right, left = organ_color(f"right_{organ}"), organ_color(f"left_{organ}")
    hues = [colorsys.rgb_to_hls(*color[:3])[0] for color in (right, left)]
    assert hues[0] == pytest.approx(hues[1], abs=1e-6)
    assert sum(left) > sum(right)


def test_spelling_does_not_matter():
    assert organ_color("Right Kidney") == organ_color("right_kidney") == organ_color("kidney_right")


def test_background_is_transparent_and_new_labels_are_not():
    colormap = label_colormap({1: "spleen"})
    assert colormap.map(0)[3] == 0
    assert colormap.map(5)[3] == 1


def test_code_zero_has_a_colour():
    assert code_colormap(64).map(0)[3] == 1


def test_readable():
    assert readable("inferior_vena_cava") == "inferior vena cava"
