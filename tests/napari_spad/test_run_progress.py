"""How far a run is, by its recipe and its figures."""

from __future__ import annotations

import json

import pytest

from napari_spad.run_progress import progress_of
from napari_spad.training_jobs import Curves


@pytest.fixture
def curves(tmp_path):
    """A run that took 2 s for each of its first 10 steps and 1 s for each of the next 20."""
    records = [
        {"step": 10, "time": 1000.0, "phase": "train", "loss": 1.0, "seconds_per_step": 2.0},
        {"step": 30, "time": 1020.0, "phase": "train", "loss": 1.0, "seconds_per_step": 1.0},
    ]
    text = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "metrics.jsonl").write_text(text)
    curves = Curves(tmp_path)
    curves.update()
    return curves


def test_steps_tell_how_far_it_is(curves):
    found = progress_of({"steps": 120, "minutes": None}, curves, now=1020.0)
    assert found.fraction == pytest.approx(0.25)
    assert found.words == "step 30, 25 % done, about 2 min left"


def test_minutes_end_a_run_before_its_steps(curves):
    found = progress_of({"steps": 20000, "minutes": 1}, curves, now=1025.0)
    assert found.fraction == pytest.approx(45 / 60)
    assert found.words == "step 30, 75 % done, about 15 s left"
    assert "judging" in progress_of({"steps": 20000, "minutes": 1}, curves, now=1045.0).words


def test_before_the_first_figures_it_reads(tmp_path):
    found = progress_of({"steps": 10}, Curves(tmp_path), now=1.0)
    assert found.fraction == 0
    assert found.words.startswith("Reading the scans")
