"""A fine-tuned model beside the one that it began with, on a held-out scan; no Qt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spad.checkpoints import zoo
from spad.errors import SpadError
from spad.training import runs
from spad.volumes.volume import Volume

SIDES = ("before", "after")


@dataclass(frozen=True)
class Trial:
    """What can be compared: a run that began with a model, and a scan that it holds out.

    Attributes:
        run: the run's folder.
        before: the model that it began with.
        case: the held-out scan.
    """

    run: Path
    before: str
    case: runs.RunCase

    @property
    def scan_name(self) -> str:
        """What the held-out scan's layer was called; the number in front of a file is ours."""
        name = self.case.name.rpartition("/")[2]
        parts = name.split("_", 2)
        ours = len(parts) == 3 and parts[0].isdecimal() and len(parts[0]) == 4
        return parts[2] if ours else name

    def model(self, side: str) -> str:
        """Name the model before or after, as a request for the worker takes it."""
        return self.before if side == "before" else str(self.run)


@dataclass(frozen=True)
class Row:
    """One label: Dice with what the person drew; None where a model does not know it."""

    name: str
    before: float | None
    after: float | None

    @property
    def change(self) -> str:
        """Say by how much it rose, "-" where that is not known."""
        if self.before is None or self.after is None:
            return "-"
        rise = round(self.after - self.before, 2)
        return f"{rise:+.2f}" if rise else "0.00"


@dataclass(eq=False)
class Comparison:
    """The held-out scan with what was drawn and what both models find.

    Attributes:
        trial: what is compared.
        scan: the scan.
        drawn: the person's labels on it.
        found: "before" or "after" to that model's labels.
        reports: "before" or "after" to the answer of `Compare`.
        step: of the checkpoint that "after" stands for.
    """

    trial: Trial
    scan: Volume
    drawn: Volume
    found: dict[str, Volume] = field(default_factory=dict)
    reports: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    step: int | None = None

    def rows(self) -> list[Row]:
        """Give the labels that a person drew on the scan, in the order of their numbers."""
        drawn = (self.drawn.label_names or {}).values()
        compared = {name for side in SIDES for name in self.reports[side]["labels"]}
        dice = {side: self._dice(side) for side in SIDES}
        return [
            Row(name, dice["before"].get(name), dice["after"].get(name))
            for name in drawn
            if name in compared
        ]

    def alike(self) -> dict[str, float]:
        """Give the Dice between both models' labels of each organ that the person did not draw.

        Both models number their labels alike.
        """
        before, after = (np.ravel(self.found[side].array) for side in SIDES)
        most = 1 + max(self.found[SIDES[0]].label_names or {0: ""})
        both = np.bincount(before[before == after], minlength=most)
        either = np.bincount(before, minlength=most) + np.bincount(after, minlength=most)
        drawn = set((self.drawn.label_names or {}).values())
        return {
            name: float(2 * both[label] / either[label])
            for label, name in (self.found[SIDES[0]].label_names or {}).items()
            if name not in drawn and either[label]
        }

    def _dice(self, side: str) -> dict[str, float]:
        """Give the Dice of each label that a model knows."""
        known = set(_known(self.trial.model(side), self.scan.modality))
        figures = self.reports[side]["labels"]
        return {name: one["dice"] for name, one in figures.items() if name in known}


def trials(run: Path) -> list[Trial]:
    """List what can be compared of a run; none before its first checkpoint."""
    try:
        recipe = runs.read_recipe(run)
        cases = runs.read_cases(run)
    except SpadError:
        return []
    before = recipe.get("init")
    if recipe.get("task") != "segmentation" or not before or not runs.checkpoint_steps(run):
        return []
    return [
        Trial(run, str(before), case) for case in cases if case.held_out and case.labels is not None
    ]


def load(trial: Trial) -> Comparison:
    """Read the held-out scan and the labels that a person drew on it.

    Raises:
        SpadError: a file is gone or cannot be read.
    """
    from dataclasses import replace

    from spad.volumes.files import read

    scan = read(trial.case.image, labels=False)
    assert trial.case.labels is not None
    drawn = read(trial.case.labels, labels=True)
    names = drawn.label_names or trial.case.label_names
    return Comparison(trial, scan, replace(drawn, label_names=names), step=best_step(trial.run))


def mean_rows(comparisons: Sequence[Comparison]) -> list[Row]:
    """Give each label's mean Dice over the scans on which a person drew it, before and after."""
    found: dict[str, list[Row]] = {}
    for comparison in comparisons:
        for row in comparison.rows():
            found.setdefault(row.name, []).append(row)
    return [
        Row(name, mean([row.before for row in rows]), mean([row.after for row in rows]))
        for name, rows in found.items()
    ]


def best_step(run: Path) -> int | None:
    """Give the step of the checkpoint that a run's model stands for; None where there is none."""
    try:
        return int(zoo.find(run).path.parent.name.removeprefix("step-"))
    except (SpadError, ValueError):
        return None


def mean(values: Sequence[float | None]) -> float | None:
    """Give the mean, None where there is nothing or something is missing."""
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found and len(found) == len(values) else None


def _known(model: str, modality: str | None) -> list[str]:
    return list(zoo.find(model).card.label_names(modality).values())
