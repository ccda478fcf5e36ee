"""Recipes of small models, and three small phantoms to train them on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from spad.checkpoints import file
from spad.checkpoints.card import Card
from spad.data.cohort import model_contracts
from spad.models.segmenter import Segmenter
from spad.phantoms import LABELS, phantom
from spad.volumes.files import write

SMALL = {
    "tokenizer": {
        "model.channels": "[8, 8, 16]",
        "model.codes": "32",
        "data.tokens": "[2, 2]",
    },
    "mim": {
        "model.codes": "32",
        "model.vit": "{in_channels: 1, dim: 32, depth: 2, heads: 2, position_grid: [2, 4, 4]}",
        "data.tokens": "[2, 4]",
        "data.batch": "2",
    },
    "segmentation": {
        "model.vit": "{dim: 32, depth: 4, heads: 2}",
        "model.blocks": "[0, 1, 2, 3]",
        "model.decoder_channels": "[8, 8, 16, 16]",
        "model.encoder_channels": "[8, 8, 8]",
        "data.window": "[32, 32, 32]",
        "data.in_plane_mm": "8.0",
        "data.phantoms": "1",
    },
    "clicks": {
        "model.channels": "[4, 4, 8, 8]",
        "data.batch": "1",
        "data.phantoms": "0",
    },
}

CRITIC = {
    "loss.adversarial": "3e-3",
    "loss.adversarial_gate": "10",
    "loss.critic_channels": "[16, 16, 16]",
}
"""A discriminator for the small tokenizer, whose term counts from the first step on."""


@pytest.fixture(scope="session", autouse=True)
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small, untrained segmenter, on whose features the small recipe for clicks stands."""
    torch.manual_seed(0)
    model = Segmenter(
        1, 3, {"dim": 32, "depth": 4, "heads": 2}, (0, 1, 2, 3), (8, 8, 16, 16), (8, 8, 8)
    )
    card = Card(
        "segmenter",
        "features",
        {},
        model_contracts(),
        working_spacing={"in_plane": 8.0},
        window=[32, 32, 32],
        labels={1: "liver", 2: "spleen"},
    )
    path = tmp_path_factory.mktemp("features") / "features.safetensors"
    file.save(path, model, card)
    SMALL["clicks"]["segmenter"] = str(path)
    return path


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "phantoms"
    path.mkdir()
    for seed in range(3):
        made = phantom(seed, "CT", spacing=(9.0, 5.8, 5.8), shape=(32, 64, 64))
        write(made.image, path / f"img{seed}.nii.gz")
        write(made.labels, path / f"label{seed}.nii.gz")
    (path / "labels.json").write_text(json.dumps({str(k): name for k, name in LABELS.items()}))
    (path / "split.json").write_text('{"train": ["0", "1"], "validation": ["2"]}')
    return path
