"""Cards: complete ones survive JSON, incomplete ones are refused."""

from __future__ import annotations

import json

import pytest

from spad.checkpoints.card import Card
from spad.errors import SpadError
from spad.volumes.intensity import CT, MR


def full_card() -> Card:
    return Card(
        kind="segmenter",
        name="organs",
        architecture={"classes": 3, "vit": {"dim": 32}},
        intensity={"CT": CT, "MR": MR},
        working_spacing={"in_plane": 1.5},
        window=[64, 96, 96],
        channels=["in phase", "out phase"],
        labels={1: "spleen", 2: "liver"},
        modality_labels={"MR": [2]},
        least_piece={1: 0.1, 2: 1.0},
        provenance={"data": "phantoms"},
        licence="Apache-2.0",
        validation={"dice": 0.9},
    )


def test_a_card_survives_json():
    card = full_card()
    assert Card.from_json(json.loads(json.dumps(card.to_json()))) == card


def test_keys_of_later_versions_are_passed_over():
    assert Card.from_json(full_card().to_json() | {"mood": "good"}) == full_card()


def test_organs_of_one_piece_in_older_cards():
    old = full_card().to_json() | {"one_piece": [2]}
    del old["least_piece"]
    assert Card.from_json(old).least_piece == {2: 1.0}
    del old["one_piece"]
    assert Card.from_json(old).least_piece == {}


def without(key: str) -> dict[str, object]:
    plain = full_card().to_json()
    del plain[key]
    return plain


BAD = {
    "no contract": (without("intensity"), "no intensity contract"),
    "empty contract": (full_card().to_json() | {"intensity": {}}, "no intensity contract"),
    "no orientation": (without("orientation"), "does not state the orientation"),
    "null orientation": (full_card().to_json() | {"orientation": None}, "does not state"),
    "other orientation": (full_card().to_json() | {"orientation": "RAS"}, "expected 'IPL'"),
    "no kind": (without("kind"), "calls itself a ''"),
    "other kind": (full_card().to_json() | {"kind": "diffuser"}, "'diffuser'; expected one of"),
    "no name": (without("name"), "without a name"),
    "no object": ([1, 2], "without a name"),
    "label ids": (full_card().to_json() | {"labels": {"liver": 1}}, "wrong type"),
    "unnamed labels": (full_card().to_json() | {"modality_labels": {"MR": [7]}}, r"labels \[7\]"),
    "pieces": (full_card().to_json() | {"least_piece": {"1": "few"}}, "wrong type"),
    "contract": (full_card().to_json() | {"intensity": {"CT": 7}}, "intensity contract has int"),
    "contracts": (full_card().to_json() | {"intensity": 7}, "wrong type"),
}


@pytest.mark.parametrize(("plain", "sentence"), BAD.values(), ids=list(BAD))
def test_an_incomplete_card_is_refused(plain, sentence: str):
    with pytest.raises(SpadError, match=sentence):
        Card.from_json(plain)


def test_a_contract_is_found_by_modality():
    card = full_card()
    assert card.contract("CT") == CT
    assert not card.covers("PT")
    assert card.covers(None)
    with pytest.raises(SpadError, match="a PT scan, but was made for CT, MR"):
        card.contract("PT")
    with pytest.raises(SpadError, match="unknown modality"):
        card.contract(None)
    card.intensity["*"] = MR
    assert card.contract("PT") == card.contract(None) == MR
    assert card.covers("PT")


def test_labels_count_by_modality():
    assert full_card().label_names("MR") == {2: "liver"}
    assert full_card().label_names("CT") == full_card().label_names() == full_card().labels
