"""A folder of scans to work through, and how far each of them is; no Qt."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spad import jsonfile
from spad.errors import SpadError
from spad.volumes.files import stem_of, suffix_of
from spad.volumes.files.labels import named_as_labels

FILE = "queue.json"
OPEN, DOUBTFUL, DONE = STATES = ("open", "doubtful", "done")
NAME, UNCERTAINTY = ORDERS = ("name", "uncertainty")

_SCANS = (".nii", ".nii.gz", ".hdr", ".hdr.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
_DICOM = (".dcm", ".dicom", ".ima")


@dataclass(frozen=True)
class Case:
    """A scan of the folder.

    Attributes:
        name: of the file or folder.
        path: where it lies.
        state: "open", "doubtful" or "done".
        uncertainty: how unsure a model was of it, larger is less sure; None if nobody knows.
        rater: which model that was.
    """

    name: str
    path: Path
    state: str = OPEN
    uncertainty: float | None = None
    rater: str | None = None

    @property
    def labels_path(self) -> Path:
        """Where its labels go: `<stem>_labels.nii.gz` beside it."""
        stem = self.name if self.path.is_dir() else stem_of(self.path)
        return self.path.with_name(f"{stem}_labels.nii.gz")


class CaseQueue:
    """The scans of a folder, with states that are kept in its `queue.json`.

    Scans are NIfTI, NRRD and MetaImage files, except those named as labels, and folders of DICOM
    files. `queue.json` is `{"cases": {NAME: {"state": ..., "uncertainty": ..., "rater": ...}}}`;
    what else stands in it stays. It is first written when a case is marked or rated.

    Args:
        folder: the folder.
        raters: the models whose figures count; those of others are as good as unknown.

    Raises:
        SpadError: it cannot be read, holds no scan, or has a `queue.json` that is broken.
    """

    def __init__(self, folder: str | Path, raters: Collection[str] = ()) -> None:
        self.folder = Path(folder)
        self.raters = raters
        self.order = NAME
        self._cases: dict[str, Case] = {}
        self.refresh()

    @property
    def cases(self) -> list[Case]:
        """All cases: by name, or the least sure first and those of unknown uncertainty last."""
        names = sorted(self._cases, key=lambda name: (name.lower(), name))
        cases = [self[name] for name in names]
        if self.order == UNCERTAINTY:
            cases.sort(key=_sureness)
        return cases

    def __getitem__(self, name: str) -> Case:
        case = self._cases[name]
        return case if case.rater in self.raters else replace(case, uncertainty=None)

    def counts(self) -> dict[str, int]:
        """Give how many cases are in each state."""
        states = [case.state for case in self._cases.values()]
        return {state: states.count(state) for state in STATES}

    def refresh(self) -> None:
        """Read the folder and its `queue.json` again.

        Raises:
            SpadError: as for a new queue; the cases stay as they were.
        """
        entries = _cases_in(self._read())
        paths = _scans_in(self.folder)
        if not paths:
            raise SpadError(
                f"{self.folder} holds no scan; expected NIfTI, NRRD or MetaImage files, or folders "
                "of DICOM files; choose another folder."
            )
        self._cases = {path.name: _case(path, entries.get(path.name)) for path in paths}

    def next(self, after: str | None = None) -> Case | None:
        """Give the next open case in the order of `cases`.

        Args:
            after: the name of the case to start behind; after the last comes the first. None
                starts at the first.

        Returns:
            An open case that is not `after`; None if there is none.
        """
        cases = self.cases
        names = [case.name for case in cases]
        start = names.index(after) + 1 if after in names else 0
        around = cases[start:] + cases[:start]
        return next((one for one in around if one.state == OPEN and one.name != after), None)

    def mark(self, name: str, state: str) -> None:
        """Note the state of a case down.

        Raises:
            SpadError: `queue.json` cannot be written, or has been broken meanwhile; the case stays
                in its state.
        """
        assert state in STATES
        self._note(name, {"state": state})

    def set_uncertainty(self, name: str, uncertainty: float, rater: str) -> None:
        """Note down how unsure a model was of a case.

        Args:
            name: of the case.
            uncertainty: larger is less sure.
            rater: the model, by a word that changes with its file.

        Raises:
            SpadError: as for `mark`.
        """
        self._note(name, {"uncertainty": float(uncertainty), "rater": rater})

    def _note(self, name: str, notes: Mapping[str, Any]) -> None:
        case = self._cases[name]
        # somebody else may have marked other cases since
        found = self._read()
        entries = _cases_in(found)
        known = entries.get(name)
        entry = {**(known if isinstance(known, Mapping) else {}), **notes}
        jsonfile.write(self._file, {**found, "cases": {**entries, name: entry}})
        self._cases[name] = _case(case.path, entry)

    @property
    def _file(self) -> Path:
        return self.folder / FILE

    def _read(self) -> dict[str, Any]:
        """Read `queue.json`; {} if there is none yet."""
        try:
            found = json.loads(self._file.read_text("utf-8"))
            _check(found)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise SpadError(
                f"{self._file} cannot be read ({error.strerror or error}); expected a file that "
                "may be read; check its permissions."
            ) from error
        except ValueError as error:
            raise SpadError(
                f"{self._file} holds no list of cases ({error}); expected JSON like "
                '{"cases": {"scan.nii.gz": {"state": "done"}}}; mend it, or move it away to begin '
                "anew; it was left as it is."
            ) from error
        return found


def _sureness(case: Case) -> float:
    return math.inf if case.uncertainty is None else -case.uncertainty


def _check(found: Any) -> None:
    """Raise a ValueError where a file is JSON and yet no queue."""
    cases = found.get("cases", {}) if isinstance(found, dict) else None
    if not isinstance(cases, dict):
        raise ValueError('it has no "cases"')
    for name, entry in cases.items():
        state = entry.get("state", OPEN) if isinstance(entry, dict) else None
        if state not in STATES:
            raise ValueError(f"{name!r} is none of {', '.join(STATES)}")
        doubt = entry.get("uncertainty")
        if doubt is not None and (isinstance(doubt, bool) or not isinstance(doubt, int | float)):
            raise ValueError(f"the uncertainty of {name!r} is no number")
        if not isinstance(entry.get("rater", ""), str):
            raise ValueError(f"the rater of {name!r} is no text")


def _cases_in(found: Mapping[str, Any]) -> dict[str, Any]:
    return dict(found.get("cases", {}))


def _case(path: Path, entry: Mapping[str, Any] | None) -> Case:
    entry = entry or {}
    doubt = entry.get("uncertainty")
    doubt = None if doubt is None else float(doubt)
    return Case(path.name, path, entry.get("state", OPEN), doubt, entry.get("rater"))


def _scans_in(folder: Path) -> list[Path]:
    """List the scans that lie in a folder itself, and its folders of DICOM files."""
    try:
        return [path for path in folder.iterdir() if _is_scan(path)]
    except OSError as error:
        raise SpadError(
            f"{folder} cannot be read ({error.strerror or error}); expected a folder of scans; "
            "check the path and its permissions."
        ) from error


def _is_scan(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    if path.is_dir():
        try:
            with os.scandir(path) as inside:
                return any(suffix_of(one.name) in _DICOM for one in inside)
        except OSError:
            return False
    return suffix_of(path) in _SCANS and not named_as_labels(path)
