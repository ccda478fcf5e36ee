"""Who rates a case, and what comes before it."""

from __future__ import annotations

import numpy as np
import pytest

from napari_spad.case_rating import raters, rating
from spad.checkpoints import zoo
from spad.errors import SpadError
from spad.volumes.volume import Volume
from spad.worker import messages


def scan(modality):
    array = np.zeros((4, 8, 8), np.uint8)
    return Volume.from_array(array, np.eye(4), modality_hint=modality)


def test_whatever_a_person_starts_comes_first():
    for name in ("Segment", "Click", "Encode", "Tokenize", "Mask", "Describe", "Compare", "Doubts"):
        assert getattr(messages, name).priority > messages.Rate.priority


def test_it_is_asked_as_a_click_will_be():
    request, rater = rating(scan("MR"), "CT")
    assert request.modality == "MR"
    assert request.model == str(zoo.default("clicker", "MR").path)
    assert (request.device, request.phase) == ("auto", 0)
    assert rater in raters()


def test_a_scan_that_tells_no_modality_has_that_of_the_open_case():
    assert rating(scan(None), "CT")[0].modality == "CT"
    with pytest.raises(SpadError, match="Nothing tells whether this scan is CT or MR"):
        rating(scan(None), None)


def test_the_rater_is_another_when_its_file_is(tmp_path, monkeypatch):
    clicker = zoo.default("clicker", "CT")
    segmenter = zoo.find(clicker.card.segmenter)
    other = tmp_path / segmenter.path.name
    other.write_bytes(segmenter.path.read_bytes() + b" ")
    before = raters()
    entry = zoo.Entry(segmenter.name, segmenter.kind, other, "trained", segmenter.card)
    monkeypatch.setattr(zoo, "find", lambda name: entry)
    after = raters()
    assert len(before) == len(after) == 1
    assert before != after
    assert {word.split()[0] for word in (*before, *after)} == {segmenter.name}
