"""Alarms: each collapse gets its sentence, a healthy tokenizer none, and a hopeless run ends."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from spad.errors import SpadError
from spad.training import runs
from spad.training.alarms import collapse
from spad.training.start import train

from .conftest import SMALL

HEALTHY = {
    "codes_used": 1000.0,
    "usage_entropy": 6.9,
    "mean_entropy": 2.8,
    "position_information": 3.0,
}


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({}, None),
        ({"usage_entropy": 0.1, "mean_entropy": 0.05, "codes_used": 1}, "uses few codes"),
        ({"mean_entropy": math.log(1024) - 1e-3, "usage_entropy": 6.931}, "tell nothing"),
        ({"position_information": 0.01, "codes_used": 16}, "only tell where they are"),
        ({"codes_used": 20}, "Only 20 of 1024 codes"),
    ],
)
def test_each_collapse_has_its_sentence(figures: dict[str, float], words: str | None) -> None:
    found = collapse(HEALTHY | figures, 1024, 4096)
    assert found is None if words is None else words in str(found)


def test_a_hopeless_run_ends_early_with_a_sentence_and_a_checkpoint(
    folder: Path, tmp_path: Path
) -> None:
    """The weights on the authors' command line, from the first step on: one code is left."""
    swapped = {
        "loss.divergence": "0.03",
        "loss.entropy": "1.0",
        "loss.prior_start": "0",
        "loss.prior_full": "0.01",
        "optimiser.lr": "1e-2",
        "schedule.validate_every": "10",
    }
    out = tmp_path / "run"
    with pytest.raises(SpadError, match=r"Stopped at step \d+, since going on is hopeless"):
        train("tokenizer", [folder], out, steps=400, overrides=SMALL["tokenizer"] | swapped)
    state = runs.read_state(out)
    assert state.state == "failed"
    assert "uses few codes" in state.message
    assert 40 < max(runs.checkpoint_steps(out)) < 400


def test_alarms_can_be_switched_off(folder: Path, tmp_path: Path) -> None:
    given = SMALL["tokenizer"] | {
        "loss.divergence": "0.03",
        "loss.entropy": "1.0",
        "loss.prior_start": "0",
        "loss.prior_full": "0.01",
        "schedule.validate_every": "5",
        "schedule.alarms": "false",
    }
    run = train("tokenizer", [folder], tmp_path / "run", steps=30, overrides=given)
    assert runs.read_state(run).state == "finished"
