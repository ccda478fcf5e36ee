"""Training of the click decoder: it learns, names its segmenter, can leave labels out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from spad.checkpoints import file, zoo
from spad.errors import SpadError
from spad.phantoms import LABELS
from spad.training import runs
from spad.training.clicks import click_loss
from spad.training.start import train

from .conftest import SMALL


def few(**more: str) -> dict[str, str]:
    return {
        **SMALL["clicks"],
        "schedule.validation_batches": "2",
        "schedule.validate_every": "50",
        **more,
    }


def test_a_run_learns_and_its_card_names_the_segmenter(folder: Path, tmp_path: Path) -> None:
    overrides = few(**{"model.channels": "[8, 8, 16, 16]", "optimiser.lr": "5e-3"})
    run = train("clicks", [folder], tmp_path / "run", steps=30, overrides=overrides)
    records = runs.read_metrics(run).records
    losses = [r["loss"] for r in records if r["phase"] == "train"]
    assert losses[-1] < losses[0]
    judged = [r for r in records if r["phase"] == "validation"]
    assert {"dice_1", "dice_3"} <= set(judged[-1])
    model, card = file.load(zoo.find(run).path)
    assert card.kind == "clicker"
    assert card.segmenter == SMALL["clicks"]["segmenter"]
    assert len(card.provenance["segmenter_sha256"]) == 64
    assert model.features == 8
    assert any((run / "samples").iterdir())


def test_labels_can_be_left_out_but_not_all(folder: Path, tmp_path: Path) -> None:
    overrides = few(**{"data.without": str(list(LABELS.values()))})
    with pytest.raises(SpadError, match="label to click on"):
        train("clicks", [folder], tmp_path / "none", steps=1, overrides=overrides)
    run = train(
        "clicks",
        [folder],
        tmp_path / "run",
        steps=1,
        overrides=few(**{"data.without": "[pancreas, spleen]"}),
    )
    card = file.load(zoo.find(run).path)[1]
    assert card.provenance["without"] == ["pancreas", "spleen"]


def test_a_recipe_without_a_segmenter_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SpadError, match="names no segmenter"):
        train(
            "clicks",
            [folder],
            tmp_path / "run",
            steps=1,
            overrides=few(segmenter="null"),
        )


def test_the_loss_is_lowest_where_all_is_right() -> None:
    wanted = torch.zeros(2, 4, 4, 4, dtype=torch.bool)
    wanted[:, 1:3] = True
    right = torch.where(wanted, 9.0, -9.0)
    nowhere = torch.zeros(wanted.shape)

    def loss(x: torch.Tensor, clicked: torch.Tensor, before: torch.Tensor) -> float:
        return float(click_loss(x, wanted, clicked, before))

    losses = [loss(x, nowhere, wanted.float()) for x in (right, right * 0, -right)]
    assert losses[0] < 0.01 < losses[1] < losses[2]
    assert np.isfinite(float(click_loss(right, torch.zeros_like(wanted), nowhere, nowhere)))
    wrong = right.clone()
    wrong[:, 1, 1, 1] *= -1
    here, before = nowhere.clone(), wanted.float()
    here[:, 1, 1, 1] = 1
    before[:, 1, 1, 1] = 0
    anywhere = loss(wrong, nowhere, wanted.float())
    assert loss(wrong, here, wanted.float()) > anywhere + 1
    assert loss(wrong, nowhere, before) > anywhere + 1
