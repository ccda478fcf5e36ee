"""Recipes of small models, and three small phantoms to train them on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
}

CRITIC = {
    "loss.adversarial": "3e-3",
    "loss.adversarial_gate": "10",
    "loss.critic_channels": "[16, 16, 16]",
}
"""A discriminator for the small tokenizer, whose term counts from the first step on."""


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
