"""Several real processes train one run: as one process with the larger batch would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from spad.errors import SpadError
from spad.training import runs
from spad.training.ranks import Ranks
from spad.training.recipe import TrainerOptions, resolve

from .conftest import CRITIC, SMALL

REGULARISED = {"loss.prior_start": "0", "loss.prior_full": "0.2"}
"""So that the tokenizer's regulariser, which is over all processes, counts from the start."""

TASKS = {
    "tokenizer": {**SMALL["tokenizer"], **REGULARISED},
    "critic": {**SMALL["tokenizer"], **CRITIC},
    "segmentation": SMALL["segmentation"],
}
OFTEN = {
    "precision": "float32",
    "trainer.accelerator": "cpu",
    "schedule.log_every": "1",
    "schedule.validate_every": "3",
    "schedule.checkpoint_every": "2",
    "schedule.validation_batches": "1",
}
UNLIKE = ("time", "seconds_per_step", "waiting_for_data")


def arguments(task: str, folder: Path, out: Path, steps: int, **more: str) -> list[str]:
    options = {**TASKS[task], **OFTEN, **more}
    keys = [word for key, value in options.items() for word in (f"--{key}", value)]
    where = ["--data", str(folder), "--out", str(out), "--steps", str(steps)]
    recipe = "tokenizer" if task == "critic" else task
    return ["-m", "spad", "train", recipe, *where, *keys]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def spad(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        env=environment(),
    )


def metrics(run: Path) -> list[dict[str, Any]]:
    return runs.read_metrics(run).records


def assert_alike(one: list[dict[str, Any]], two: list[dict[str, Any]]) -> None:
    assert [(r["step"], r["phase"]) for r in one] == [(r["step"], r["phase"]) for r in two]
    for left, right in zip(one, two, strict=True):
        assert left.keys() == right.keys()
        for name in left.keys() - set(UNLIKE):
            # a few voxels between two labels may go either way in a model that knows nothing yet
            near = 1e-3 if "dice" in name else 1e-4
            assert left[name] == pytest.approx(right[name], abs=near), name


@pytest.fixture(scope="module")
def alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of one process with twice the batch."""
    found = {}
    for task in TASKS:
        found[task] = tmp_path_factory.mktemp("alone") / task
        done = spad(arguments(task, folder, found[task], 4, **{"data.batch": "2"}))
        assert done.returncode == 0, done.stderr
    return found


TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--local_addr", "127.0.0.1"]
TORCHRUN += ["--nproc_per_node", "2"]
TWO = {"data.batch": "1", "trainer.devices": "2"}


@pytest.mark.parametrize(
    ("task", "strategy"),
    [("tokenizer", "ddp"), ("critic", "ddp"), ("segmentation", "ddp"), ("segmentation", "fsdp")],
)
def test_two_processes_learn_as_one_with_the_double_batch(task, strategy, folder, alone, tmp_path):
    run = tmp_path / "run"
    done = spad(arguments(task, folder, run, 4, **TWO, **{"trainer.strategy": strategy}))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(run)]
    assert_alike(metrics(run), metrics(alone[task]))
    assert runs.read_state(run).state == "finished"
    assert runs.sample_pictures(run).keys() == {3, 4}


def test_a_critic_is_not_shared_out(folder, tmp_path):
    words = arguments("critic", folder, tmp_path / "run", 1, **{"trainer.strategy": "fsdp"})
    done = spad(words)
    assert done.returncode == 2
    assert "--trainer.strategy ddp" in done.stderr


def test_an_interrupt_of_the_leader_stops_all_and_they_go_on(folder, alone, tmp_path):
    run = tmp_path / "run"
    words = arguments("tokenizer", folder, run, 4, **TWO)
    leader = subprocess.Popen(
        [sys.executable, *words], stderr=subprocess.PIPE, text=True, env=environment()
    )
    for line in leader.stderr:
        if "step 2" in line:
            leader.send_signal(signal.SIGINT)
            break
    leader.stderr.read()
    assert leader.wait(60) == 130
    assert runs.read_state(run).state == "stopped"
    done = spad(["-m", "spad", "resume", str(run)])
    assert done.returncode == 0, done.stderr
    assert_alike(metrics(run), metrics(alone["tokenizer"]))


def test_torchrun_starts_them(folder, alone, tmp_path):
    run = tmp_path / "run"
    words = arguments("tokenizer", folder, run, 4, **TWO)
    done = spad([*TORCHRUN, *words])
    assert done.returncode == 0, done.stderr
    assert_alike(metrics(run), metrics(alone["tokenizer"]))


@pytest.mark.skipif(sys.platform == "win32", reason="SLURM runs on Linux")
def test_slurm_starts_them(folder, alone, tmp_path):
    run = tmp_path / "run"
    words = arguments("tokenizer", folder, run, 4, **TWO)
    job = {"SLURM_NTASKS": "2", "SLURM_JOB_ID": str(10000 + os.getpid() % 9000)}
    job |= {"SLURM_JOB_NAME": "train", "SLURM_NODELIST": "127.0.0.1", "SLURM_NODEID": "0"}
    job |= {"SLURM_NTASKS_PER_NODE": "2"}
    tasks = [
        subprocess.Popen(
            [sys.executable, *words],
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**job, SLURM_PROCID=str(n), SLURM_LOCALID=str(n)),
        )
        for n in range(2)
    ]
    said = [task.communicate(timeout=150)[1] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    assert_alike(metrics(run), metrics(alone["tokenizer"]))


def test_followers_hear_what_the_leader_met(folder, tmp_path):
    run = tmp_path / "run"
    words = arguments("tokenizer", folder, run, 4, **TWO)
    run.write_text("in the way")
    (tmp_path / "run-2").write_text("in the way")
    words[words.index(str(run))] = str(run / "below-a-file")
    done = spad([*TORCHRUN, *words])
    assert done.returncode != 0
    assert "cannot be written" in done.stderr


class TestBadInput:
    def test_several_machines_need_a_starter(self):
        with pytest.raises(SpadError, match="torchrun or srun"):
            Ranks.of(TrainerOptions(num_nodes=2))

    def test_other_processes_than_the_recipe_says(self, monkeypatch):
        for name, value in {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
        with pytest.raises(SpadError, match=r"4 processes were started.*2 devices on 1"):
            Ranks.of(TrainerOptions(devices=2))

    @pytest.mark.parametrize(
        ("key", "value"),
        [("devices", "0"), ("num_nodes", "-1"), ("strategy", "deepspeed"), ("accelerator", "tpu")],
    )
    def test_options_that_cannot_be(self, key, value):
        with pytest.raises(SpadError, match=f"trainer.{key}"):
            resolve("tokenizer", overrides={f"trainer.{key}": value})


def test_one_process_alone_leads():
    ranks = Ranks.of(TrainerOptions())
    assert (ranks.number, ranks.count, ranks.leads) == (0, 1, True)


def test_it_waits_while_the_viewer_has_a_job(folder, tmp_path, monkeypatch):
    """A run that leaves room stands still between two steps; its minutes do not run on."""
    from spad import turns

    home = tmp_path / "home"
    monkeypatch.setenv("SPAD_HOME", str(home))
    run = tmp_path / "run"
    more = {"trainer.leave_room": "true", "schedule.validate_every": "1000"}
    words = arguments("tokenizer", folder, run, 10_000, **more)
    with turns.taken():
        process = subprocess.Popen([sys.executable, *words], env=environment())
        end = time.monotonic() + 120
        while not (runs.is_run(run) and "Waiting" in runs.read_state(run).message):
            assert time.monotonic() < end
            time.sleep(0.1)
        time.sleep(0.5)
        assert metrics(run) == []
    while len(metrics(run)) < 5:
        assert time.monotonic() < end
        time.sleep(0.05)
    with turns.taken():
        time.sleep(0.5)
        before = len(metrics(run))
        time.sleep(1.0)
        assert len(metrics(run)) <= before + 1
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130


def test_a_dead_worker_keeps_nobody_waiting(tmp_path, monkeypatch):
    from spad import turns
    from spad.processes import this_process

    monkeypatch.setenv("SPAD_HOME", str(tmp_path))
    assert not turns.is_taken()
    me = this_process()
    stale = tmp_path / "busy" / f"{me.pid}_{me.start[:-1]}0x_0_{me.host}"
    stale.parent.mkdir()
    stale.touch()
    assert not turns.is_taken()
    assert not stale.exists()
    with turns.taken():
        assert turns.is_taken()
    assert not turns.is_taken()
