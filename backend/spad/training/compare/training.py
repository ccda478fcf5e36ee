"""Training the rows of a comparison: one after the other here, or several at once as processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from spad.errors import SpadError
from spad.progress import Progress
from spad.training import runs, start
from spad.training.compare.rows import finish, is_verdict, part_of

_LOOK_SECONDS = 0.2
_STOP_SECONDS = 120


@dataclass(frozen=True)
class Job:
    """A run to train.

    Attributes:
        run: its folder.
        recipe: a YAML file with all keys.
        sources: folders of scans.
        steps: updates, or None.
        minutes: training time, or None.
        seed: that of the run.
        init: the model to start from, or None.
    """

    run: Path
    recipe: Path
    sources: Sequence[str]
    steps: int | None
    minutes: float | None
    seed: int
    init: str | None

    def words(self) -> list[str]:
        """Give the words of `spad` that train it, or go on with it."""
        if runs.is_run(self.run):
            return ["resume", str(self.run)]
        names = ("steps", "minutes", "seed", "init")
        options = {"out": self.run, **{name: getattr(self, name) for name in names}}
        given = [f"--{key}={value}" for key, value in options.items() if value is not None]
        return ["train", str(self.recipe), *(f"--data={path}" for path in self.sources), *given]


def train_here(job: Job, progress: Progress) -> str:
    """Train a row in this process; results and errors as `rows.finish`."""

    def begin(run: Path) -> None:
        start.train(
            *(str(job.recipe), job.sources, run),
            steps=job.steps,
            minutes=job.minutes,
            seed=job.seed,
            init=job.init,
            progress=progress,
        )

    return finish(job.run, begin, progress)


def train_at_once(
    jobs: Sequence[Job], at_once: int, progress: Progress, done: Callable[[Job, str], None]
) -> None:
    """Train rows as child processes, several at a time.

    Args:
        jobs: what is not finished.
        at_once: how many.
        progress: told how far they are.
        done: called with each job that ended, and the sentence with which it ended early or "".

    Raises:
        SpadError: one could not be trained for reasons that say nothing about the row; the others
            are stopped with a checkpoint.
    """
    waiting, running = list(jobs), dict[Path, tuple[Job, subprocess.Popen[str]]]()
    with _ended_with_us(running):
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                running[job.run] = (job, _started(job, at_once))
            time.sleep(_LOOK_SECONDS)
            ended = [both for both in running.values() if both[1].poll() is not None]
            for job, process in ended:
                del running[job.run]
                done(job, _verdict(job, process))
            _tell(jobs, waiting, running, progress)


@contextmanager
def _ended_with_us(running: Mapping[Path, tuple[Job, subprocess.Popen[str]]]) -> Iterator[None]:
    """Stop what runs when this process is interrupted or asked to end, or anything fails."""
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if in_main else None
    try:
        yield
    finally:
        _stop([process for _, process in running.values()])
        if in_main:
            signal.signal(signal.SIGTERM, before)


def _started(job: Job, at_once: int) -> subprocess.Popen[str]:
    threads = str(max(1, (os.cpu_count() or 1) // at_once))
    job.run.parent.mkdir(parents=True, exist_ok=True)
    with _log(job).open("w", encoding="utf-8") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "spad", *job.words()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": threads},
        )


def _log(job: Job) -> Path:
    return job.run.with_name(job.run.name + ".log")


def _verdict(job: Job, process: subprocess.Popen[str]) -> str:
    """Give the sentence of a run that ended early."""
    lines = _log(job).read_text(encoding="utf-8", errors="replace").splitlines()
    if process.returncode == 0:
        return ""
    sentence = (lines or ["no word"])[-1].partition(": ")[2] or "it ended without a word"
    if is_verdict(sentence):
        return sentence
    raise SpadError(f"{job.run.name} could not be trained ({sentence}); see {_log(job)}.")


def _tell(
    jobs: Sequence[Job],
    waiting: Sequence[Job],
    running: Mapping[Path, tuple[Job, subprocess.Popen[str]]],
    progress: Progress,
) -> None:
    finished = len(jobs) - len(waiting) - len(running)
    for run in running:
        if runs.is_run(run):
            shown = part_of(progress, finished, len(jobs), run.name)
            shown(0.0, runs.read_state(run).message)


def _stop(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Let runs end with a checkpoint."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
