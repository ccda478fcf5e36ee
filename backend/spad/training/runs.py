"""The folder of a training run: what a screen shows is read from here, and one process writes it.

Torch-free. Inside: `recipe.yaml`, `cases.json`, `metrics.jsonl`, `samples/`,
`checkpoints/step-N/` with one-line files `last` and `best`, `log.txt`, `environment.json`,
`state.json` and, while written, `lock`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import psutil

from spad import jsonfile
from spad.errors import Cancelled, SpadError
from spad.processes import ProcessIdentity, process_start, this_process
from spad.training.run_cases import RunCase, note_cases, read_cases
from spad.training.run_checkpoints import (
    Checkpoint,
    checkpoint_steps,
    load_checkpoint_folder,
    mark,
    new_checkpoint,
    remove_after,
    remove_unfinished,
)
from spad.training.run_files import (
    STALE_SECONDS,
    append_text,
    cannot_write,
    cut_torn_line,
    lock_text,
    note_environment,
    release_lock,
    replace_text,
    take_lock,
)

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Checkpoint",
    "Metrics",
    "RunCase",
    "RunInfo",
    "RunState",
    "RunWriter",
    "checkpoint_steps",
    "create",
    "is_run",
    "list_runs",
    "load_checkpoint_folder",
    "new_run_path",
    "read_cases",
    "read_metrics",
    "read_recipe",
    "read_state",
    "request_stop",
    "sample_pictures",
]

HEARTBEAT_SECONDS = 5.0
STATES = ("running", "stopped", "finished", "failed")


@dataclass(frozen=True)
class RunState:
    """How a run stands.

    Attributes:
        state: "running", "stopped", "finished" or "failed".
        step: the last step that was reported.
        message: one sentence for a person.
        heartbeat: when its process last showed life, in seconds since 1970.
        process: the process that writes or last wrote the run; None before the first start.
    """

    state: str
    step: int = 0
    message: str = ""
    heartbeat: float = 0.0
    process: ProcessIdentity | None = None

    def to_json(self) -> dict[str, Any]:
        process = self.process
        return {
            "state": self.state,
            "step": self.step,
            "message": self.message,
            "heartbeat": self.heartbeat,
            "host": None if process is None else process.host,
            "pid": None if process is None else process.pid,
            "start": None if process is None else process.start,
        }


class Metrics(NamedTuple):
    """What was read of `metrics.jsonl`.

    Attributes:
        records: `step, time, phase, ...figures` each, in the order of the file.
        offset: where to read on.
        restarted: the file was cut back, so the records begin at its start: drop earlier ones.
    """

    records: list[dict[str, Any]]
    offset: int
    restarted: bool


@dataclass(frozen=True)
class RunInfo:
    """One line of a list of runs.

    Attributes:
        path: its folder.
        recipe: the recipe's task, "" where it cannot be read.
        created: seconds since 1970.
        state: how it stands.
    """

    path: Path
    recipe: str
    created: float
    state: RunState


def new_run_path(out: str | Path) -> Path:
    """Give `out`, or `out-2`, `out-3`, ... where there is something already."""
    out = Path(out)
    path, number = out, 1
    while path.exists() and not _is_empty(path):
        number += 1
        path = out.with_name(f"{out.name}-{number}")
    return path


def create(out: str | Path, recipe: Mapping[str, Any], cases: Sequence[RunCase] = ()) -> Path:
    """Make the folder of a new run.

    Args:
        out: its path; it may exist if it is empty.
        recipe: the resolved recipe, plain values; its key `task` is shown in lists.
        cases: the scans that it learns from and is judged by.

    Returns:
        The path.

    Raises:
        SpadError: the path is in use or cannot be written.
    """
    import yaml

    run = Path(out)
    if run.exists() and not _is_empty(run):
        kind = "a training run" if is_run(run) else "something"
        raise SpadError(
            f"{run} holds {kind} already, and a new run needs a folder of its own; choose another "
            "--out, or continue a run with 'spad resume'."
        )
    plain = json.loads(jsonfile.dumps(recipe))
    try:
        for folder in (run, run / "samples", run / "checkpoints"):
            folder.mkdir(parents=True, exist_ok=True)
        replace_text(run / "recipe.yaml", yaml.safe_dump(plain, sort_keys=False))
        note_cases(run, cases)
        for name in ("metrics.jsonl", "log.txt"):
            (run / name).touch()
        replace_text(run / "environment.json", jsonfile.dumps({"starts": []}) + "\n")
        _write_state(run, RunState("stopped", message="It has not been started."))
    except OSError as error:
        raise cannot_write(run, error) from error
    return run


def is_run(path: str | Path) -> bool:
    """Whether a folder is that of a run."""
    return (Path(path) / "recipe.yaml").is_file() and (Path(path) / "state.json").is_file()


def read_recipe(run: str | Path) -> dict[str, Any]:
    """Read the resolved recipe of a run.

    Raises:
        SpadError: the folder is no run, or its recipe is damaged.
    """
    import yaml

    path = Path(run) / "recipe.yaml"
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpadError(
            f"{path} cannot be read ({' '.join(str(error).split())}); expected the folder of a "
            "training run: choose one of 'spad runs'."
        ) from error
    if not isinstance(recipe, dict):
        raise SpadError(f"{path} holds no recipe; choose another run of 'spad runs'.")
    return recipe


def read_state(run: str | Path) -> RunState:
    """Tell how a run stands; one whose process is dead, or silent for 60 s, is stopped.

    Raises:
        SpadError: the folder is no run, or its state is damaged.
    """
    state = _stored_state(Path(run))
    if state.state == "running" and not _is_live(state):
        message = "Its process ended without a word; resume it to go on from the last checkpoint."
        return dataclasses.replace(state, state="stopped", message=message)
    return state


def list_runs(folder: str | Path) -> list[RunInfo]:
    """List the runs in a folder (and the folder itself if it is one), the newest first."""
    folder = Path(folder)
    found = [folder] if is_run(folder) else []
    with suppress(OSError):
        found += [path for path in folder.iterdir() if is_run(path)]
    runs = []
    for path in found:
        try:
            recipe = str(read_recipe(path).get("task", ""))
            created = (path / "recipe.yaml").stat().st_mtime
            runs.append(RunInfo(path, recipe, created, read_state(path)))
        except (SpadError, OSError) as error:
            runs.append(RunInfo(path, "", 0.0, RunState("failed", message=str(error))))
    return sorted(runs, key=lambda run: (-run.created, str(run.path)))


def read_metrics(run: str | Path, offset: int = 0) -> Metrics:
    """Read the metrics that were added since the last call.

    Args:
        run: the run's folder.
        offset: what the last call gave, 0 at first.

    Returns:
        The new records; a line that is still being written is left for the next call.
    """
    try:
        with (Path(run) / "metrics.jsonl").open("rb") as file:
            restarted = offset > 0 and not _ends_line(file, offset)
            start = 0 if restarted else offset
            file.seek(start)
            text = file.read()
    except FileNotFoundError:
        return Metrics([], 0, offset > 0)
    text = text[: text.rfind(b"\n") + 1]
    records = []
    for line in text.splitlines():
        with suppress(ValueError):
            records.append(json.loads(line))
    return Metrics(records, start + len(text), restarted)


def sample_pictures(run: str | Path) -> dict[int, Path]:
    """List the pictures of a run: step to file, in rising order."""
    found = {}
    with suppress(OSError):
        for path in (Path(run) / "samples").glob("[0-9]*.png"):
            if path.stem.isdecimal():
                found[int(path.stem)] = path
    return dict(sorted(found.items()))


def request_stop(run: str | Path) -> None:
    """Ask the process of a run to make a checkpoint and stop (an interrupt, as by Ctrl-C).

    Raises:
        SpadError: the run is not running, or runs on another machine.
    """
    state = read_state(run)
    process = state.process
    if state.state != "running" or process is None:
        raise SpadError(f"{run} is not running but {state.state}; there is nothing to stop.")
    if process.is_alive() is None:
        raise SpadError(
            f"{run} runs on {process.host} (process {process.pid}) and cannot be stopped from "
            f"{socket.gethostname()}; interrupt it there."
        )
    try:
        target = psutil.Process(process.pid)
        if process_start(process.pid) == process.start:
            # psutil looks once more whether the id was used again since
            target.send_signal(signal.SIGINT)
    except psutil.NoSuchProcess:
        return
    except psutil.AccessDenied as error:
        raise SpadError(
            f"{run} belongs to another user (process {process.pid}); ask them to stop it."
        ) from error


class RunWriter:
    """The one process that writes a run; use it in a `with` statement.

    Takes the lock, says every 5 s that it lives, and at the end writes how the run ended:
    "finished"; "stopped" after `KeyboardInterrupt`, `Cancelled` or `stop`; "failed" after any other
    error.

    Args:
        run: the run's folder.

    Raises:
        SpadError: another living process writes the run, or the folder cannot be written.
    """

    def __init__(self, run: str | Path) -> None:
        self.run = Path(run)
        self._me = this_process()
        self._state = RunState("running", process=self._me)
        self._ended: tuple[str, str] | None = None
        self._is_lost = False
        self._guard = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="spad-heartbeat", daemon=True)

    def __enter__(self) -> RunWriter:
        before = read_state(self.run)
        self._lock_text = take_lock(self.run, self._me, before.heartbeat)
        self._state = dataclasses.replace(self._state, step=before.step)
        try:
            cut_torn_line(self.run / "metrics.jsonl")
            remove_unfinished(self.run)
            note_environment(self.run)
            self._save()
        except OSError as error:
            release_lock(self.run, self._lock_text)
            raise cannot_write(self.run, error) from error
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()
        state, message = self._ended or ("finished", "")
        if error is not None:
            state, message = "failed", " ".join(f"{type(error).__name__}: {error}".split())
            if isinstance(error, KeyboardInterrupt | Cancelled):
                state, message = "stopped", "A person stopped it."
            elif isinstance(error, SpadError):
                message = str(error)
        self._state = dataclasses.replace(self._state, state=state, message=message)
        with suppress(OSError):  # a full disk must not hide why the run ended
            self._save()
        release_lock(self.run, self._lock_text)

    def update(self, step: int, message: str = "") -> None:
        """Say how far the run is; it reaches the disk with the next heartbeat.

        Raises:
            SpadError: another process has taken the run over.
        """
        self._check_ours()
        with self._guard:
            self._state = dataclasses.replace(self._state, step=int(step), message=message)

    def stop(self, message: str = "A person stopped it.") -> None:
        """Let the run end as "stopped" though no error is raised."""
        self._ended = ("stopped", message)

    def append_metrics(self, step: int, phase: str, figures: Mapping[str, Any]) -> None:
        """Add one line to `metrics.jsonl`, whole or not at all.

        Args:
            step: generator updates so far.
            phase: "train" or "validation".
            figures: numbers by name; NaN and infinity are written as null.

        Raises:
            SpadError: the disk is full.
        """
        self._check_ours()
        record = {"step": int(step), "time": time.time(), "phase": phase, **figures}
        append_text(self.run / "metrics.jsonl", jsonfile.dumps(record, indent=None) + "\n")

    def add_sample(self, step: int, picture: np.ndarray) -> None:
        """Keep a picture of what the model makes of scans that it has not seen.

        Args:
            step: generator updates so far.
            picture: (H, W, 3) uint8.

        Raises:
            SpadError: it cannot be written.
        """
        from PIL import Image

        path = self.run / "samples" / f"{step:09d}.png"
        part = path.with_name(f".{path.name}.part")
        with self._writing():
            try:
                Image.fromarray(picture).save(part, format="PNG")
                part.replace(path)
            except OSError:
                part.unlink(missing_ok=True)
                raise

    def log(self, text: str) -> None:
        """Add a line with the time to `log.txt`."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        append_text(self.run / "log.txt", f"{stamp} {text}\n")

    @contextmanager
    def checkpoint(self, step: int) -> Iterator[Path]:
        """Write a checkpoint: `with writer.checkpoint(step) as folder:` put the files in there.

        It appears under its name, with checksums, once it is whole; then `last` points to it, and
        all others but the best and the one before go.

        Args:
            step: generator updates so far.

        Raises:
            SpadError: it cannot be written; what was there stays.
        """
        with self._writing():
            with new_checkpoint(self.run, step) as folder:
                yield folder
            self.update(step, self._state.message)
            self._save()

    def mark_best(self, step: int) -> None:
        """Let `best` point to the checkpoint of a step."""
        with self._writing():
            mark(self.run, "best", step)

    def rewind(self, step: int) -> None:
        """Go back to a step before training on from it.

        Cuts `metrics.jsonl` behind it and removes later checkpoints.
        """
        path = self.run / "metrics.jsonl"
        with self._writing():
            lines = path.read_bytes().splitlines(keepends=True)
            kept = [line for line in lines if _step_of(line) <= step]
            if kept != lines:
                replace_text(path, b"".join(kept).decode("utf-8"))
            remove_after(self.run, step)
            for number, picture in sample_pictures(self.run).items():
                if number > step:
                    picture.unlink()
            self.update(step)
            self._save()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._check_ours()
        try:
            yield
        except OSError as error:
            raise cannot_write(self.run, error) from error

    def _check_ours(self) -> None:
        if self._is_lost:
            raise SpadError(
                f"Another process has taken {self.run} over while this one was silent; this one "
                "stops, the other goes on."
            )

    def _beat(self) -> None:
        while not self._end.wait(HEARTBEAT_SECONDS):
            with suppress(OSError):  # a full disk or a server that is away: try again
                self._is_lost = lock_text(self.run) != self._lock_text
                if self._is_lost:
                    return
                self._save()

    def _save(self) -> None:
        if self._is_lost:
            return
        with self._guard:
            self._state = dataclasses.replace(self._state, heartbeat=time.time())
            _write_state(self.run, self._state)


def _stored_state(run: Path) -> RunState:
    path = run / "state.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        process = None if values["pid"] is None else ProcessIdentity.from_json(values)
        state = RunState(
            values["state"],
            int(values["step"]),
            str(values["message"]),
            float(values["heartbeat"]),
            process,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpadError(
            f"{path} cannot be read ({type(error).__name__}: {error}); expected the folder of a "
            "training run: choose one of 'spad runs'."
        ) from error
    if state.state not in STATES:
        raise SpadError(f"{path} has the state {state.state!r}; expected {', '.join(STATES)}.")
    return state


def _write_state(run: Path, state: RunState) -> None:
    replace_text(run / "state.json", jsonfile.dumps(state.to_json()) + "\n")


def _is_live(state: RunState) -> bool:
    alive = None if state.process is None else state.process.is_alive()
    return alive is not False and time.time() - state.heartbeat <= STALE_SECONDS


def _is_empty(path: Path) -> bool:
    return path.is_dir() and next(path.iterdir(), None) is None


def _ends_line(file: BinaryIO, offset: int) -> bool:
    """Whether a line ends just before `offset`, so that it is the beginning of another."""
    if file.seek(0, os.SEEK_END) < offset:
        return False
    file.seek(offset - 1)
    return file.read(1) == b"\n"


def _step_of(line: bytes) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
