"""Five random kills of the worker and of trainings; benchmarks/faults.py does a hundred of each."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import faults

posix_only = pytest.mark.skipif(os.name != "posix", reason="kills processes with signals")
KILLS = 5


@posix_only
def test_the_worker_is_killed_during_jobs():
    outcome = faults.kill_workers(KILLS, seed=1)
    assert outcome.kills == KILLS
    assert outcome.faults == []


@posix_only
def test_trainings_are_killed_and_resumed(tmp_path, monkeypatch):
    monkeypatch.setenv("SPAD_HOME", str(tmp_path / "home"))
    outcome = faults.kill_trainings(KILLS, seed=1, folder=tmp_path / "runs")
    assert outcome.kills == KILLS
    assert outcome.faults == []


def test_what_is_wrong_is_found(tmp_path):
    """A run with a line too many, and an answer that is off, are told."""
    from spad.training import runs

    whole, run = (runs.create(tmp_path / name, {"task": "tokenizer"}) for name in ("whole", "run"))
    with runs.RunWriter(run) as writer:
        writer.append_metrics(2, "train", {"loss": 1.0})
        writer.append_metrics(1, "train", {"loss": 1.0})
    assert faults.metrics(run) != faults.metrics(whole)
    assert faults._damage(run) == ["run has steps in disorder"]
    assert not faults._same({"mean": 1.0}, {"mean": 2.0})
