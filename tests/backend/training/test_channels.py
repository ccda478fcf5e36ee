"""Scans of two channels make a segmenter of two, whose card names them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from spad.data.folder import read_source
from spad.progress import silent
from spad.training import start
from spad.training.planning import with_channels
from spad.training.recipe import resolve
from spad.volumes.files import write
from spad.volumes.volume import Volume


@pytest.fixture
def two_channels(tmp_path: Path) -> Path:
    """Give a datalist of two cases, each a CT and a PET file."""
    labels = np.zeros((8, 16, 16), np.uint8)
    labels[2:6, 4:9, 4:9] = 1
    entries = []
    for case in range(2):
        values = np.random.default_rng(case).integers(-200, 0, labels.shape).astype(np.int16)
        for name, array in (("ct", values), ("pet", values + 400), ("label", labels)):
            write(Volume.from_array(array, np.diag([3.0, 2, 2, 1])), tmp_path / f"{name}{case}.nii")
        images = [f"ct{case}.nii", f"pet{case}.nii"]
        entries.append({"image": images, "label": f"label{case}.nii"})
    listed = {"training": entries[:1], "validation": entries[1:], "labels": {"1": "liver"}}
    listed["modality"] = {"0": "CT", "1": "PET"}
    (tmp_path / "list.json").write_text(json.dumps(listed))
    return tmp_path / "list.json"


def test_recipe_and_card(two_channels: Path) -> None:
    source = read_source(two_channels)
    recipe = with_channels(resolve("segmentation", "tiny", {"data.phantoms": "0"}), [source])
    assert recipe.model["in_channels"] == 2
    card = start._card(recipe, start.cohort(recipe, [source], silent))
    assert card.channels == ["CT", "PET"]
    assert sorted(card.intensity) == ["CT", "PT"]
    assert card.modality_labels == {"CT": [1]}


def test_a_tokenizer_takes_channels_one_by_one(two_channels: Path) -> None:
    recipe = resolve("tokenizer", "tiny", {"data.phantoms": "0"})
    source = read_source(two_channels)
    assert with_channels(recipe, [source]) == recipe
    scans = start.cohort(recipe, [source], silent).scans
    assert [scan.modality for scan in scans] == ["CT", "PT", "CT", "PT"]
