"""Files of click sessions in SPAD_HOME: written after each change, found again after a crash."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_spad.click_objects import WERE_THERE
from napari_spad.widgets import threads
from spad.checkpoints import zoo
from spad.data.channels import one_phase
from spad.errors import SpadError
from spad.prompts import kept
from spad.prompts.kept import SUFFIX, Kept, write
from spad.prompts.made_with import made_with
from spad.prompts.session import Object
from spad.prompts.session_file import Record, scan_entry

if TYPE_CHECKING:
    from napari_spad.click_session import ClickSession
    from spad.volumes.volume import Volume

_SAVE_MS = 700
_Facts = tuple[dict[str, Any], dict[str, Any]]
"""The scan and the models as a session file names them."""


def date_of(path: Path) -> str:
    """Say when a session was written last."""
    return datetime.fromtimestamp(path.stat().st_mtime).strftime("%d %B %Y, %H:%M")


class Autosave(QObject):
    """Writes a session within a second of each change, in a thread.

    Args:
        session: what is written.
        path: where an earlier session that goes on lies; None finds a new place.
        taken: gives the files of other sessions that are open.
    """

    ready = Signal(str)
    """The scan's hash is known."""
    saved = Signal(str)
    refused = Signal(str)

    def __init__(
        self,
        session: ClickSession,
        path: Path | None = None,
        taken: Callable[[], Collection[Path]] = tuple,
    ) -> None:
        super().__init__()
        self._session, self.path, self._taken = session, path, taken
        self._facts: _Facts | None = None
        self._writer = _Writer()
        self._changed = self._closed = False
        self._flying: _State | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._save)
        session.logged.connect(self._soon)
        volume, phase, entry = session.volume, session.phase, session.entry

        def facts() -> _Facts:
            models = {"clicker": _file_of(entry), "segmenter": _segmenter_of(entry)}
            return scan_entry(one_phase(volume, phase), phase), models

        self._find_facts = facts
        threads.run(facts, self._know, self.refused.emit)

    @property
    def pending(self) -> bool:
        """Whether something is not written yet."""
        return self._changed or self._flying is not None

    def record(self) -> Record | None:
        """Give what is written; None while the scan's hash is not known."""
        if self._facts is None:
            return None
        session = self._session
        scan, models = self._facts
        return Record(
            scan=scan,
            models=models,
            settings={
                "modality": session.volume.modality,
                "features": True,
                "organs": True,
                "active": session.active,
                **made_with(session.answers.device),
            },
            steps=list(session.log),
            names={one.label: one.name for one in session.objects.values()},
        )

    def close(self) -> None:
        """Write at once what is not written yet, and no more after that."""
        if self._closed:
            return
        self._closed = True
        self._timer.stop()
        self._session.logged.disconnect(self._soon)
        state = self._flying
        try:
            if self._changed and by_person(self._session.log):
                self._facts = self._facts or self._find_facts()
                state = self._state() or state
            if state is not None:
                self._writer.write(state)
        except (SpadError, OSError) as error:
            self._refuse(str(error))
        self._changed, self._flying = False, None

    def save_to(self, path: Path) -> None:
        """Write the session and its labels to files of one's own.

        Raises:
            SpadError: the scan's hash is not known yet, or the place cannot be written.
        """
        record = self.record()
        if record is None:
            raise SpadError("The scan's hash is not known yet; try again in a few seconds.")
        write(path, record, self._session.objects, np.array(self._session.session.labels))

    def _know(self, facts: _Facts) -> None:
        if self._closed:
            return
        self._facts = facts
        self.ready.emit(facts[0]["sha256"])
        self._soon()

    def _soon(self) -> None:
        self._changed = True
        if not self._timer.isActive():
            self._timer.start(_SAVE_MS)

    def _save(self) -> None:
        if self._flying is not None or self._facts is None:
            return
        self._changed = False
        state = self._flying = self._state()
        if state is not None:
            threads.run(lambda: self._writer.write(state), self._written, self._not_written)

    def _state(self) -> _State | None:
        """Give what is to be written now; None where a person has done nothing."""
        record = self.record()
        if record is None or not by_person(record.steps):
            return None
        if self.path is None:
            self.path = new_path(record.scan, self._taken())
        labels = np.array(self._session.session.labels)
        return self._writer.state(self.path, record, dict(self._session.objects), labels)

    def _written(self, path: Path) -> None:
        if self._closed:
            return
        self._flying = None
        self.saved.emit(str(path))
        if self._changed and not self._timer.isActive():
            self._save()

    def _not_written(self, sentence: str) -> None:
        if self._closed:
            # what was not written then was written when it was closed, or that was refused
            return
        self._flying, self._changed = None, True
        self._refuse(sentence)

    def _refuse(self, sentence: str) -> None:
        self.refused.emit(f"The session could not be kept: {sentence}")


@dataclass(frozen=True, eq=False)
class _State:
    """A session at one time, by its number."""

    number: int
    path: Path
    record: Record
    objects: Mapping[str, Object]
    labels: np.ndarray


class _Writer:
    """Writes the states of a session, one at a time, and none after a newer one."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._given = self._written = 0

    def state(
        self, path: Path, record: Record, objects: Mapping[str, Object], labels: np.ndarray
    ) -> _State:
        """Number a state."""
        self._given += 1
        return _State(self._given, path, record, objects, labels)

    def write(self, state: _State) -> Path:
        """Write a state, unless it or a newer one is written already.

        Raises:
            SpadError: the place cannot be written.
        """
        with self._lock:
            if state.number > self._written:
                write(state.path, state.record, state.objects, state.labels)
                self._written = state.number
        return state.path


def folder() -> Path:
    """Give the folder of kept sessions."""
    return zoo.spad_home() / "sessions"


def new_path(scan: Mapping[str, Any], taken: Collection[Path] = ()) -> Path:
    """Give the next free place for a session of a scan.

    Args:
        scan: as `scan_entry` describes it.
        taken: places that are not free although no file may lie there yet.
    """
    zoo.make_folder(folder())
    name = Path(str(scan.get("path") or "scan")).name.split(".")[0]
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[:60] or "scan"
    base = f"{name}-{str(scan['sha256'])[:12]}"
    number = 1
    while True:
        path = folder() / (base + (f"-{number}" if number > 1 else "") + SUFFIX)
        if not path.exists() and path not in taken:
            return path
        number += 1


def latest(sha256: str, without: Collection[Path] = ()) -> Path | None:
    """Find the kept session of a scan that was written last, some files left out."""
    files = folder().glob(f"*-{sha256[:12]}*{SUFFIX}")
    found = [one for one in files if one.is_file() and one not in without]
    return max(found, key=lambda one: one.stat().st_mtime, default=None)


def read(path: Path, scan: Volume | None = None) -> Kept:
    """Read a session with its objects and labels.

    Args:
        path: of the session file.
        scan: the 3D scan that it has to be of; None checks neither scan nor models.

    Raises:
        SpadError: it is none, damaged, of another scan, or made with other files of its models.
    """
    found = kept.read(path, scan)
    if scan is not None:
        _check_models(found.record)
    return found


def by_person(steps: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a person did anything; labels that were there at first are no step of theirs."""
    return any(step["step"] != "start" or step.get("source") != WERE_THERE for step in steps)


def _check_models(record: Record) -> None:
    for role, told in record.models.items():
        try:
            entry = zoo.find(str(told["name"])) if told else None
        except SpadError:
            continue  # whoever needs it says that it is not here
        wanted = str((told or {}).get("sha256"))
        if entry is not None and (found := entry.sha256()) != wanted:
            raise SpadError(
                f"The session was made with another file of the {role} '{entry.name}' (hash "
                f"{wanted[:12]}) than the one that is here ({found[:12]}), which would answer "
                "differently; import the session's own ('spad models import'), or make its labels "
                "with this one ('spad replay')."
            )


def _file_of(entry: zoo.Entry) -> dict[str, str]:
    return {"name": entry.name, "sha256": entry.sha256()}


def _segmenter_of(entry: zoo.Entry) -> dict[str, str] | None:
    if entry.card.segmenter is None:
        return None
    try:
        return _file_of(zoo.find(entry.card.segmenter))
    except SpadError:
        return None
