"""Kill the worker during jobs and trainings as they go, at random instants; count what survives."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from spad.errors import SpadError
from spad.phantoms import LABELS, phantom
from spad.training import runs
from spad.volumes.files import write
from spad.volumes.volume import Volume
from spad.worker import messages
from spad.worker.client import WorkerClient, WorkerDied

STEPS = 60
TRAINING = {
    "precision": "float32",
    "trainer.accelerator": "cpu",
    "model.channels": "[8, 8, 16]",
    "model.codes": "32",
    "data.tokens": "[2, 2]",
    "schedule.log_every": "1",
    "schedule.validate_every": "5",
    "schedule.checkpoint_every": "1",
    "schedule.validation_batches": "1",
}
_UNLIKE = ("time", "seconds_per_step", "waiting_for_data")
_PATIENCE = 180.0


@dataclass
class Outcome:
    """What became of a number of kills.

    Attributes:
        kills: processes that were killed.
        faults: what went wrong, a sentence each.
        where: how many kills by what the process was doing.
    """

    kills: int = 0
    faults: list[str] = field(default_factory=list)
    where: dict[str, int] = field(default_factory=dict)

    def count(self, where: str) -> None:
        """Note one kill."""
        self.kills += 1
        self.where[where] = self.where.get(where, 0) + 1


# The worker ---------------------------------------------------------------------------------


def kill_workers(kills: int, seed: int) -> Outcome:
    """Kill the worker in the middle of jobs; every next job must be answered rightly.

    Args:
        kills: how many.
        seed: draws jobs, instants and signals.
    """
    draw, outcome = random.Random(seed), Outcome()
    made = phantom(1, "CT", spacing=(6.0, 3.0, 3.0), shape=(40, 96, 96))
    scan, strokes = made.image, _strokes(made.image)
    kept = [np.array(volume.array) for volume in (scan, strokes)]
    requests: list[messages.Request] = [
        messages.Segment(scan, device="cpu"),
        messages.Tokenize(scan, device="cpu"),
        messages.Mask(scan, paint=strokes, device="cpu"),
        messages.Describe(scan, strokes),
    ]
    with WorkerClient() as client:
        expected = [client.submit(request).result(_PATIENCE) for request in requests]
        longest = [_seconds(client, request) for request in requests]
        while outcome.kills < kills:
            which = draw.randrange(len(requests))
            said: list[str] = []
            job = client.submit(requests[which], lambda _, text, said=said: said.append(text))
            time.sleep(draw.uniform(0, longest[which]))
            pid = client.pid
            if pid is None:
                job.result(_PATIENCE)
                continue
            number = draw.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT))
            os.kill(pid, number)
            outcome.count(said[-1].split()[0] if said else "starting")
            outcome.faults += _after(client, job, requests, which, expected)
            if not all(map(np.array_equal, kept, (scan.array, strokes.array))):
                outcome.faults.append("a scan or strokes of the client changed")
            if psutil.pid_exists(pid):
                outcome.faults.append(f"process {pid} is left")
        folders, last = client.folders, client.pid
    outcome.faults += [f"{path} is left" for path in folders if path.exists()]
    if last is not None and psutil.pid_exists(last):
        outcome.faults.append(f"process {last} is left")
    return outcome


def _strokes(scan: Volume) -> Volume:
    """What a person painted: a prompt, which must survive."""
    painted = np.zeros(scan.array.shape, np.uint8)
    painted[10:20, 30:60, 30:60] = 1
    return scan.with_array(painted, label_names={})


def _seconds(client: WorkerClient, request: messages.Request) -> float:
    began = time.monotonic()
    client.submit(request).result(_PATIENCE)
    return time.monotonic() - began


def _after(
    client: WorkerClient,
    job: Any,
    requests: list[messages.Request],
    which: int,
    expected: list[Any],
) -> list[str]:
    """What is wrong after a kill: with the job that was hit, the next one, or the files."""
    faults = []
    try:
        answer = job.result(_PATIENCE)
        if not _same(answer, expected[which]):
            faults.append("a job that was hit gave a wrong answer")
    except WorkerDied as error:
        if "\n" in str(error) or requests[which].doing not in str(error):
            faults.append(f"not told in a sentence: {error}")
    except SpadError as error:
        faults.append(f"another error: {error}")
    if not _same(client.submit(requests[which]).result(_PATIENCE), expected[which]):
        faults.append("the job after a kill gave a wrong answer")
    left = [path.name for folder in client.folders for path in folder.glob("out*")]
    return faults + [f"the answer {name} is left" for name in left]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return bool(one == other)
    volumes = [("array",)] if isinstance(one, Volume) else [("reconstruction", "array")]
    for path in volumes:
        left, right = one, other
        for name in path:
            left, right = getattr(left, name), getattr(right, name)
        if not np.allclose(left, right, rtol=1e-4, atol=1e-2):
            return False
    return True


# Trainings ----------------------------------------------------------------------------------


def kill_trainings(kills: int, seed: int, folder: Path) -> Outcome:
    """Kill trainings as they go and resume them; each must end as one that nobody touched.

    Args:
        kills: how many.
        seed: draws the instants.
        folder: an empty folder.
    """
    draw, outcome = random.Random(seed), Outcome()
    os.environ["SPAD_HOME"] = str(folder / "home")
    data = training_data(folder / "data")
    whole = folder / "whole"
    began = time.monotonic()
    _wait(_train(data, whole))
    seconds = time.monotonic() - began
    number = 0
    while outcome.kills < kills:
        run = folder / f"run-{number}"
        number += 1
        process = _train(data, run)
        while outcome.kills < kills:
            deadline = time.monotonic() + draw.uniform(0.1, 1.0) * seconds
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.005)
            if process.poll() is not None:
                break
            process.send_signal(signal.SIGKILL)
            process.wait()
            outcome.count(_where(run))
            outcome.faults += _damage(run)
            process = _resume(run) if runs.is_run(run) else _train(data, run)
        _wait(process)
        outcome.faults += _differences(run, whole)
    return outcome


def training_data(path: Path) -> Path:
    """Write three small phantoms to train from."""
    path.mkdir(parents=True)
    for seed in range(3):
        made = phantom(seed, "CT", spacing=(9.0, 5.8, 5.8), shape=(32, 64, 64))
        write(made.image, path / f"img{seed}.nii.gz")
        write(made.labels, path / f"label{seed}.nii.gz")
    (path / "labels.json").write_text(json.dumps({str(k): name for k, name in LABELS.items()}))
    (path / "split.json").write_text('{"train": ["0", "1"], "validation": ["2"]}')
    return path


def metrics(run: Path) -> list[dict[str, Any]]:
    """The figures of a run without times."""
    return [
        {key: value for key, value in record.items() if key not in _UNLIKE}
        for record in runs.read_metrics(run).records
    ]


def train_words(data: Path, run: Path, steps: int) -> list[str]:
    """The words of `spad` that start a training."""
    keys = [word for key, value in TRAINING.items() for word in (f"--{key}", value)]
    where = ["--data", str(data), "--out", str(run), "--steps", str(steps)]
    return ["train", "tokenizer", *where, *keys]


def environment() -> dict[str, str]:
    """That of trainings: equality of two runs takes equal threads."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def _train(data: Path, run: Path) -> subprocess.Popen[bytes]:
    return _spad(train_words(data, run, STEPS))


def _resume(run: Path) -> subprocess.Popen[bytes]:
    return _spad(["resume", str(run)])


def _spad(words: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "spad", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )


def _wait(process: subprocess.Popen[bytes]) -> None:
    code = process.wait(timeout=_PATIENCE)
    if code not in (0, 2):  # 2: a run that was finished already
        raise RuntimeError(f"a training ended with exit code {code}")


def _where(run: Path) -> str:
    if not runs.is_run(run):
        return "before the run"
    if list((run / "checkpoints").glob(".step-*")):
        return "while a checkpoint was written"
    return "training" if metrics(run) else "reading scans"


def _damage(run: Path) -> list[str]:
    """What is broken in the folder of a run whose process was killed."""
    if not runs.is_run(run):
        return []
    faults = []
    if runs.read_state(run).state == "running":
        faults.append(f"{run.name} counts as running")
    if runs.checkpoint_steps(run):
        try:
            runs.load_checkpoint_folder(run)
        except SpadError as error:
            faults.append(str(error))
    steps = [record["step"] for record in metrics(run)]
    if steps != sorted(steps):
        faults.append(f"{run.name} has steps in disorder")
    return faults


def _differences(run: Path, whole: Path) -> list[str]:
    """How a run that was killed and resumed differs from one that nobody touched."""
    from spad.checkpoints.file import load

    faults = []
    if runs.read_state(run).state != "finished":
        faults.append(f"{run.name} is {runs.read_state(run).state}")
    if metrics(run) != metrics(whole):
        faults.append(f"{run.name} has other metrics")
    one, other = (
        load(runs.load_checkpoint_folder(path).path / "model.safetensors")[0].state_dict()
        for path in (run, whole)
    )
    if any(not bool((one[name] == other[name]).all()) for name in one):
        faults.append(f"{run.name} has other weights")
    if runs.sample_pictures(run).keys() != runs.sample_pictures(whole).keys():
        faults.append(f"{run.name} has other pictures")
    left = [path.name for path in (run / "checkpoints").glob(".*")]
    return faults + [f"{run.name} is left with {name}" for name in left]


def main() -> None:
    """Kill and print what survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="of each kind (default: 100)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("worker", "training"))
    options = parser.parse_args()
    print("| what | killed | survived | when |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("worker", "training"):
            if options.only not in (None, name):
                continue
            if name == "worker":
                outcome = kill_workers(options.kills, options.seed)
            else:
                outcome = kill_trainings(options.kills, options.seed, Path(folder))
            when = ", ".join(f"{where} {count}" for where, count in sorted(outcome.where.items()))
            survived = max(0, outcome.kills - len(outcome.faults))
            print(f"| {name} | {outcome.kills} | {survived} | {when} |", flush=True)
            for fault in outcome.faults:
                print(f"\n{fault}")


if __name__ == "__main__":
    main()
