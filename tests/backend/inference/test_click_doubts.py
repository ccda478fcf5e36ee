"""Doubtful places: where the decoder would have an object otherwise, away from what was clicked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from spad.checkpoints.card import Card
from spad.checkpoints.file import save
from spad.data.patches import patch_at
from spad.errors import Cancelled, SpadError
from spad.inference import click_model
from spad.inference.click_doubts import at_edge_of, of_automatic, worst
from spad.inference.click_scans import OpenScan, open_scan
from spad.inference.features import Features
from spad.prompts.part import Part
from spad.prompts.prompt import Prompt
from spad.volumes.volume import Volume

from .conftest import CT, MR, affine_of
from .test_clicks import alike_clicker

BLOCK = ((12, 26), (20, 45), (15, 38))
MIDDLE = Prompt("point", ((18, 30, 20),))
SPACING = np.array([3.0, 2.0, 2.0])


@pytest.fixture(scope="module")
def alone(home: Path) -> str:
    """A clicker that no segmenter belongs to."""
    card = Card("clicker", "alone", {}, {"CT": CT, "*": MR}, licence="none")
    save(home / "models" / "alone.safetensors", alike_clicker(), card)
    return "alone"


@pytest.fixture(scope="module")
def advised(home: Path) -> str:
    """The same with a segmenter, which knows an organ called block."""
    card = Card("clicker", "advised", {}, {"CT": CT}, segmenter="block", licence="none")
    save(home / "models" / "advised.safetensors", alike_clicker(), card)
    return "advised"


def opened(clicker: str, modality: str = "CT", box=BLOCK, shape=(40, 60, 60)) -> OpenScan:
    """A soft body with a bright block, which is what the decoder draws."""
    array = np.full(shape, -60, np.int16)
    array[tuple(slice(*pair) for pair in box)] = 200
    scan = Volume.from_array(array, affine_of(spacing=SPACING), modality_hint=modality)
    return open_scan(scan, clicker, None, "cpu", 0)


def part_of_box(box) -> Part:
    return Part(tuple(a for a, _ in box), np.ones([b - a for a, b in box], bool))


def away(place, box) -> np.ndarray:
    """How far a place lies outside a box, in mm."""
    low, high = (np.array([pair[n] for pair in box]) for n in (0, 1))
    return np.linalg.norm(np.maximum(0, np.maximum(low - place, place - high + 1)) * SPACING)


SHORT = (*BLOCK[:2], (15, 30))
"""The block without its last eight columns ..."""
LONG = (*BLOCK[:2], (15, 46))
"""... and with eight more."""


@pytest.mark.parametrize(("drawn", "columns"), [(SHORT, (30, 38)), (LONG, (38, 46))])
def test_the_worst_lies_where_the_decoder_disagrees(alone: str, drawn, columns) -> None:
    scan = opened(alone)
    places = scan.doubts(part_of_box(drawn), 3, [MIDDLE], "thing")
    assert places
    assert places == scan.doubts(part_of_box(drawn), 3, [MIDDLE], "thing")
    for place in places:
        assert away(place, (*BLOCK[:2], columns)) <= 3
        assert away(place, drawn) <= 6
    gaps = [
        np.linalg.norm(np.subtract(a, b) * SPACING)
        for n, a in enumerate(places)
        for b in places[:n]
    ]
    assert min(gaps, default=15) >= 15


def test_what_was_clicked_is_no_place_to_go(alone: str) -> None:
    scan = opened(alone)
    [first, *_] = scan.doubts(part_of_box(SHORT), 1, [MIDDLE])
    for positive in (True, False):
        clicked = [MIDDLE, Prompt("point", (first,), positive)]
        for place in scan.doubts(part_of_box(SHORT), 20, clicked):
            assert np.linalg.norm(np.subtract(place, first) * SPACING) >= 10


def test_a_large_object_is_looked_at_in_a_few_patches(alone: str, monkeypatch) -> None:
    box = ((4, 76), (10, 190), (10, 190))
    scan = opened(alone, box=box, shape=(80, 200, 200))
    looked = []
    take = click_model._Work._look
    monkeypatch.setattr(click_model._Work, "_look", lambda *given: looked.append(1) or take(*given))
    drawn = (box[0], box[1], (30, 170))
    middle = Prompt("point", ((40, 100, 100),))
    columns = [place[2] for place in scan.doubts(part_of_box(drawn), 20, [middle])]
    assert 2 <= len(looked) <= click_model.MOST_LOOKS
    assert any(abs(one - 30) <= 3 for one in columns)
    assert any(abs(one - 170) <= 3 for one in columns)


def test_the_segmenter_s_doubt_counts_where_its_organ_is_meant(advised: str) -> None:
    """The decoder agrees with the whole block; the automatic result is unsure of one side."""
    scan = opened(advised)
    scan.encode((0.5, 0.5, 0.5), "cpu", lambda fraction, text: None)
    organs = scan.features.organs
    organs[:] = torch.tensor([255, 0], dtype=torch.uint8).view(2, 1, 1, 1)
    size = np.array(organs.shape[1:]) / np.array([40, 60, 60])
    low, high = np.rint(np.array([[12, 20, 34], [26, 45, 42]]) * size).astype(int)
    organs[:, low[0] : high[0], low[1] : high[1], low[2] : high[2]] = 127
    part = part_of_box(BLOCK)
    [first] = scan.doubts(part, 1, [MIDDLE], "block")
    assert away(first, (*BLOCK[:2], (34, 42))) <= 4
    assert scan.doubts(part, 1, [MIDDLE], "thing") != [first]


def test_looking_for_them_can_be_cancelled(alone: str) -> None:
    def check() -> None:
        raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        opened(alone).doubts(part_of_box(SHORT), 3, [MIDDLE], None, check)


@pytest.mark.parametrize(("modality", "word"), [("PT", "PET"), ("MR", "MR")])
def test_without_a_segmenter_only_objects_have_doubts(alone: str, modality, word: str) -> None:
    scan = opened(alone, modality)
    with pytest.raises(SpadError, match="not ready yet"):
        scan.doubts(None, 3)
    scan.encode((0.5, 0.5, 0.5), "cpu", lambda fraction, text: None)
    for ask in (lambda: scan.doubts(None, 3), lambda: scan.organ("liver")):
        with pytest.raises(SpadError, match=f"^No automatic model knows {word} scans, so "):
            ask()
    assert scan.doubts(part_of_box(SHORT), 3, [MIDDLE])


def test_only_the_edge_counts() -> None:
    shape = np.array([64, 64, 64])
    patch = patch_at([31.5] * 3, [1.0] * 3, 1.0)
    inside = torch.zeros(64, 64, 64, dtype=torch.bool)
    inside[10:54, 10:54, 10:54] = True
    voxels, doubts = at_edge_of(patch, inside, torch.ones(64, 64, 64), shape)
    depth = np.minimum(voxels - 9.5, 53.5 - voxels).min(1)
    assert depth.max() <= 4
    assert depth.min() >= -4
    assert doubts == pytest.approx(1)
    # a patch says nothing about its own border where the scan goes on
    voxels, _ = at_edge_of(
        patch_at([40.0] * 3, [1.0] * 3, 1.0), inside, torch.ones(64, 64, 64), shape + 40
    )
    assert voxels.min() >= 40 - 31.5 + 3


def test_one_doubtful_voxel_weighs_less_than_several() -> None:
    patch = patch_at([31.5] * 3, [1.0] * 3, 1.0)
    inside = torch.zeros(64, 64, 64, dtype=torch.bool)
    inside[:, :, :32] = True
    doubt = torch.zeros(64, 64, 64)
    doubt[10, 10, 32] = 1
    doubt[40:48, 40:48, 31:33] = 0.6
    voxels, doubts = at_edge_of(patch, inside, doubt, np.array([64, 64, 64]))
    [best] = worst(voxels, doubts, np.ones(3), np.zeros((0, 3)), 1)
    assert np.abs(best - [43.5, 43.5, 31.5]).max() <= 4


def test_places_come_worst_first_and_apart() -> None:
    voxels = np.array([[0, 0, 0], [0, 0, 7], [0, 0, 8], [9, 0, 0], [0, 30, 0]])
    doubts = np.array([0.5, 0.9, 0.6, 0.7, 0.01])
    spacing = np.array([1.0, 1.0, 2.0])
    none = np.zeros((0, 3))
    found = worst(voxels, doubts, spacing, none, 9)
    assert [one.tolist() for one in found] == [[0, 0, 7], [9, 0, 0]]
    assert len(worst(voxels, doubts, spacing, none, 1)) == 1
    found = worst(voxels, doubts, spacing, np.array([[0, 0, 5]]), 9)
    assert [one.tolist() for one in found] == [[9, 0, 0]]
    assert worst(none, np.zeros(0), spacing, none, 3) == []


def test_doubts_of_the_whole_result_lie_where_classes_are_mixed() -> None:
    organs = torch.zeros(2, 20, 20, 20, dtype=torch.uint8)
    organs[0] = 255
    for at, share in (((4, 4, 4), 128), ((15, 15, 15), 200)):
        for offset in np.ndindex(3, 3, 3):
            z, y, x = np.add(at, offset) - 1
            organs[:, z, y, x] = torch.tensor([share, 255 - share])
    seen = torch.ones(20, 20, 20, dtype=torch.bool)
    known = Features(torch.zeros(1, 5, 10, 10), organs, [0, 7], {7: "block"}, seen)
    found = of_automatic(known, (20, 40, 40), (3.0, 1.5, 1.5), 5)
    assert [(one // [1, 2, 2]).tolist() for one in found] == [[4, 4, 4], [15, 15, 15]]
