"""Training from the viewer, without a screen: data, arguments, curves, failures."""

from __future__ import annotations

import json
import shutil
import sys
import time

import numpy as np
import pytest

from napari_spad import training_jobs
from napari_spad.training_jobs import Curves, Plan
from spad.checkpoints import zoo
from spad.errors import SpadError
from spad.training import runs


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SPAD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_arguments_are_those_of_the_command_line(tmp_path):
    plan = Plan("mim", ("a", "b"), preset="small", steps=7, init="organs")
    assert plan.arguments(tmp_path) == [
        *("train", "mim", "--data", "a", "--data", "b", "--out", str(tmp_path)),
        *("--preset", "small", "--steps", "7", "--init", "organs"),
        *("--trainer.leave_room", "true"),
    ]


def test_a_start_that_fails_is_told_in_a_sentence(home, tmp_path):
    started = training_jobs.start(Plan("tokenizer", (str(tmp_path / "nowhere"),), steps=1))
    started.process.wait(120)
    assert started.failure().startswith("Training did not start: ")
    assert "nowhere" in started.failure()


def write_metrics(run, records, mode="a"):
    run.mkdir(exist_ok=True)
    with (run / "metrics.jsonl").open(mode) as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def test_curves_grow_with_the_run(tmp_path):
    run = tmp_path / "run"
    curves = Curves(run)
    assert not curves.update()
    write_metrics(run, [{"step": 1, "time": 1.0, "phase": "train", "loss": 3.0, "lr": 0.1}])
    assert curves.update()
    write_metrics(run, [{"step": 2, "time": 2.0, "phase": "validation", "loss": None, "dice": 0.5}])
    assert curves.update()
    assert not curves.update()
    assert curves.names == ["loss", "lr", "dice"]
    found = curves.curves("loss")
    assert found["train"] == ([1.0], [3.0])
    assert np.isnan(found["validation"][1][0])
    assert curves.favourite("segmentation") == "dice"


def test_curves_follow_a_run_that_was_cut_back(tmp_path):
    run = tmp_path / "run"
    curves = Curves(run)
    records = [{"step": n, "time": time.time(), "phase": "train", "loss": n} for n in range(4)]
    write_metrics(run, records)
    curves.update()
    write_metrics(run, records[:2], mode="w")
    curves.update()
    assert curves.curves("loss")["train"][0] == [0.0, 1.0]


def test_a_new_model_gets_a_name_that_is_free(home):
    assert training_jobs.free_name("segmenter") == "my-organs"
    assert training_jobs.free_name("tokenizer") == "my-tokenizer"
    taken = zoo.place_for("My-Organs")
    shutil.copy(zoo.find("organs-tiny").path, taken)
    assert training_jobs.free_name("segmenter") == "my-organs-2"


def test_a_run_goes_to_the_trash_and_one_under_way_stays(home, trash):
    run = runs.create(home / "runs" / "mine", {"task": "mim"})
    with runs.RunWriter(run), pytest.raises(SpadError, match="mine is running; stop it first"):
        training_jobs.discard(run)
    training_jobs.discard(run)
    assert not run.exists()
    if sys.platform == "linux":
        assert [path.parent.name for path in trash.rglob("recipe.yaml")] == ["mine"]


def test_what_ended_a_resumed_run_is_told(home):
    """Two viewers resume one run: the second is told by whom it is written."""
    run = runs.create(home / "runs" / "mine", {"task": "mim"})
    with runs.RunWriter(run):
        started = training_jobs.resume(run)
        end = time.monotonic() + 60
        while started.process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.1)
    assert "Training of mine did not go on: spad resume:" in started.failure()
    assert "mine is running" in started.failure()
