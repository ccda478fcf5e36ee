"""Training from the viewer, without Qt: data from open layers, processes that outlive napari."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spad.checkpoints.zoo import make_folder, models, spad_home
from spad.errors import SpadError
from spad.training import runs

RECIPES = {
    "folder": ("labels, by fine-tuning", "A model for organs goes on with labels of your own"),
    "segmentation": ("labels, from scratch", "Learns labels from scans, and from phantoms beside"),
    "tokenizer": ("tokens", "Learns to compress scans and give them back"),
    "mim": ("masks", "Learns to fill in hidden tokens"),
}
"""Recipe to a short name and what it does."""

FINE_TUNE = "folder"
"""The recipe that goes on from a model, on a person's own labels."""

KINDS = {
    "folder": "segmenter",
    "segmentation": "segmenter",
    "tokenizer": "tokenizer",
    "mim": "mim",
}
"""Recipe or task, and the kind of model that it makes."""

PRESETS = ("tiny", "small", "base")
FAVOURITES = {
    "segmentation": ("dice", "loss"),
    "tokenizer": ("psnr", "loss"),
    "mim": ("cross_entropy", "loss"),
}
_SHARED = ("step", "time", "phase")
_LOG = "start.log"


@dataclass(frozen=True)
class Plan:
    """What to train.

    Attributes:
        recipe: the name of one.
        data: folders of scans.
        preset: the model's size.
        minutes: how long, or None.
        steps: how many steps, or None.
        init: a model to start from, or None.
        name: of the run's folder.
    """

    recipe: str
    data: tuple[str, ...]
    preset: str = "tiny"
    minutes: float | None = None
    steps: int | None = None
    init: str | None = None
    name: str = "run"

    def arguments(self, out: Path) -> list[str]:
        """Give the arguments of `spad train`."""
        words = ["train", self.recipe]
        for folder in self.data:
            words += ["--data", folder]
        words += ["--out", str(out), "--preset", self.preset]
        if self.minutes is not None:
            words += ["--minutes", f"{self.minutes:g}"]
        if self.steps is not None:
            words += ["--steps", str(self.steps)]
        if self.init:
            words += ["--init", self.init]
        # clicks in the viewer go first
        return [*words, "--trainer.leave_room", "true"]


@dataclass
class Started:
    """A training process that this napari started.

    Attributes:
        run: the run's folder.
        process: the process.
        log: where it writes what it would say on a terminal.
    """

    run: Path
    process: subprocess.Popen[bytes]
    log: Path

    def failure(self) -> str:
        """Say why it ended, if it did so by no person's will; "" while it works."""
        code = self.process.poll()
        if code in (None, 0, 130):
            return ""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        said = lines[-1] if lines else f"it ended with exit code {code}"
        what = f"of {self.run.name} did not go on" if runs.is_run(self.run) else "did not start"
        return f"Training {what}: {said}"


@dataclass
class Curves:
    """The figures of a run by name, phase and step, read as the run goes on.

    Attributes:
        run: the run's folder.
    """

    run: Path
    _offset: int = 0
    _records: list[dict[str, Any]] = field(default_factory=list)

    def update(self) -> bool:
        """Read what was added; tell whether there was anything."""
        found = runs.read_metrics(self.run, self._offset)
        if found.restarted:
            self._records = []
        self._offset = found.offset
        self._records += found.records
        return bool(found.records) or found.restarted

    @property
    def names(self) -> list[str]:
        """The figures that there are, in the order of their first appearance."""
        found: dict[str, None] = {}
        for record in self._records:
            found |= {
                name: None
                for name, value in record.items()
                if name not in _SHARED and not isinstance(value, str | bool | dict | list)
            }
        return list(found)

    @property
    def last_step(self) -> int:
        """The step of the last figures; 0 before the first."""
        return int(self._records[-1]["step"]) if self._records else 0

    @property
    def last_time(self) -> float | None:
        """When the last figures came, in seconds since 1970; None before the first."""
        return float(self._records[-1]["time"]) if self._records else None

    def curves(self, name: str) -> dict[str, tuple[list[float], list[float]]]:
        """Give one figure's curves: phase to steps and values."""
        curves: dict[str, tuple[list[float], list[float]]] = {}
        for record in self._records:
            if name in record:
                steps, values = curves.setdefault(str(record.get("phase")), ([], []))
                value = record[name]
                steps.append(float(record["step"]))
                values.append(float("nan") if value is None else float(value))
        return curves

    def newest(self, name: str) -> float | None:
        """Give the last value of a figure, that of validation first; None where it has none."""
        found = self.curves(name)
        for phase in ("validation", "train"):
            if found.get(phase, ([], []))[1]:
                return found[phase][1][-1]
        return None

    def favourite(self, recipe: str) -> str:
        """Name the figure to show first."""
        names = self.names
        wanted = [name for name in FAVOURITES.get(recipe, ("loss",)) if name in names]
        return (wanted or names or [""])[0]


def free_name(kind: str) -> str:
    """Suggest a name for a new model that no model has yet.

    Args:
        kind: "segmenter", "tokenizer" or "mim".
    """
    stem = {"segmenter": "my-organs"}.get(kind, f"my-{kind}")
    taken = {entry.name.lower() for entry in models()}
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    return next(name for name in names if name not in taken)


def runs_folder() -> Path:
    """Give the folder in which runs are made."""
    return spad_home() / "runs"


def start(plan: Plan) -> Started:
    """Start `spad train` as a process that outlives this one.

    Raises:
        SpadError: the folder for runs cannot be made, or the process cannot be started.
    """
    folder = runs_folder()
    make_folder(folder)
    run = runs.new_run_path(folder / plan.name)
    return _launch(run, plan.arguments(run))


def resume(run: Path) -> Started:
    """Start `spad resume` as a process that outlives this one.

    Raises:
        SpadError: the process cannot be started.
    """
    return _launch(run, ["resume", str(run)])


def discard(run: Path) -> None:
    """Move a run's folder to the trash of this system.

    Raises:
        SpadError: it is running, or there is no trash for its place.
    """
    from send2trash import send2trash

    state = runs.read_state(run).state
    if state == "running":
        raise SpadError(f"{run.name} is running; stop it first, then delete it.")
    try:
        send2trash(run)
    except OSError as error:
        raise SpadError(
            f"{run} cannot be moved to the trash ({error.strerror or error}); delete the folder "
            "by hand if it is not needed."
        ) from error
    (run.parent / f".{run.name}.{_LOG}").unlink(missing_ok=True)


def task_of(run: Path) -> str:
    """Name the recipe of a run; "" where it cannot be read."""
    recipe = _recipe_of(run)
    return str(recipe.get("task") or recipe.get("recipe") or "")


def schedule_of(run: Path) -> dict[str, Any]:
    """Give for how long a run is to last: `steps`, `minutes`; {} where it cannot be read."""
    return dict(_recipe_of(run).get("schedule") or {})


def _recipe_of(run: Path) -> dict[str, Any]:
    try:
        return runs.read_recipe(run)
    except SpadError:
        return {}


def _launch(run: Path, arguments: list[str]) -> Started:
    log = run.parent / f".{run.name}.{_LOG}"
    try:
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "spad", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                **_of_its_own(),
            )
    except OSError as error:
        raise SpadError(
            f"The training process cannot be started ({error.strerror or error}); check that "
            f"{run.parent} may be written."
        ) from error
    return Started(run, process, log)


def _of_its_own() -> dict[str, Any]:
    """Give what keeps a process alive when this one ends, on any system."""
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        return {"creationflags": flags}
    return {"start_new_session": True}
