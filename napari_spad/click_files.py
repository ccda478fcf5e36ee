"""Files of click sessions in SPAD_HOME: written after each change, found again after a crash."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_spad.widgets import threads
from spad.checkpoints import zoo
from spad.errors import SpadError
from spad.prompts.session import Object
from spad.prompts.session_file import Record, check_scan, read_record, scan_entry
from spad.volumes.files.disk import replace_files

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_spad.click_session import ClickSession
    from spad.volumes.volume import Volume

SUFFIX = ".session.json"
_LABELS = ".labels.npz"
_SAVE_MS = 700


@dataclass(frozen=True, eq=False)
class Kept:
    """A session as its files have it.

    Attributes:
        path: of the session file.
        record: what it holds.
        objects: by name.
        labels: along `Volume.array`; None where the file with them is absent.
    """

    path: Path
    record: Record
    objects: Mapping[str, Object]
    labels: np.ndarray | None


def date_of(path: Path) -> str:
    """Say when a session was written last."""
    return datetime.fromtimestamp(path.stat().st_mtime).strftime("%d %B %Y, %H:%M")


def one_time(volume: Volume, phase: int) -> Volume:
    """Give one time of a series as a 3D scan; a 3D scan as it is."""
    if volume.array.ndim == 3:
        return volume
    array, slope, intercept = volume.array[phase], volume.slope, volume.intercept
    return volume.with_array(array, slope=slope, intercept=intercept)


class Autosave(QObject):
    """Writes a session within a second of each change, in a thread.

    Args:
        session: what is written.
        path: where an earlier session that goes on lies; None finds a new place.
    """

    ready = Signal(str)
    """The scan's hash is known."""
    saved = Signal(str)
    refused = Signal(str)

    def __init__(self, session: ClickSession, path: Path | None = None) -> None:
        super().__init__()
        self._session, self.path = session, path
        self._facts: tuple[dict[str, Any], dict[str, Any]] | None = None
        self._writing = False
        self._again = False
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._save)
        session.logged.connect(self._soon)
        volume, phase, entry = session.volume, session.phase, session.entry

        def facts() -> tuple[dict[str, Any], dict[str, Any]]:
            models = {"clicker": _file_of(entry), "segmenter": _segmenter_of(entry)}
            return scan_entry(one_time(volume, phase), phase), models

        threads.run(facts, self._know, self.refused.emit)

    @property
    def pending(self) -> bool:
        """Whether something is not written yet."""
        return self._writing or self._again or self._timer.isActive()

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
                "device": session.answers.device,
                "python": platform.python_version(),
                "active": session.active,
            },
            steps=list(session.log),
            names={one.label: one.name for one in session.objects.values()},
        )

    def close(self) -> None:
        """Write at once what is not written yet, and no more after that."""
        late = self._timer.isActive() or self._again
        self._timer.stop()
        self.blockSignals(True)
        self._session.logged.disconnect(self._soon)
        record = self.record()
        if not late or record is None or not _has_steps(record):
            return
        self.path = self.path or new_path(record.scan)
        with suppress(SpadError):
            write(self.path, record, self._session.objects, self._session.session.labels)

    def save_to(self, path: Path) -> None:
        """Write the session and its labels to files of one's own.

        Raises:
            SpadError: the scan's hash is not known yet, or the place cannot be written.
        """
        record = self.record()
        if record is None:
            raise SpadError("The scan's hash is not known yet; try again in a few seconds.")
        write(path, record, self._session.objects, np.array(self._session.session.labels))

    def _know(self, facts: tuple[dict[str, Any], dict[str, Any]]) -> None:
        self._facts = facts
        self.ready.emit(facts[0]["sha256"])
        if self._session.log:
            self._soon()

    def _soon(self) -> None:
        if not self._timer.isActive():
            self._timer.start(_SAVE_MS)

    def _save(self) -> None:
        if self._writing:
            self._again = True
            return
        record = self.record()
        if record is None or not _has_steps(record):
            return
        if self.path is None:
            self.path = new_path(record.scan)
        path, objects = self.path, dict(self._session.objects)
        labels = np.array(self._session.session.labels)
        self._writing = True
        threads.run(lambda: write(path, record, objects, labels), self._written, self._not_written)

    def _written(self, path: Path) -> None:
        self._writing = False
        self.saved.emit(str(path))
        if self._again:
            self._again = False
            self._save()

    def _not_written(self, sentence: str) -> None:
        self._writing = self._again = False
        self.refused.emit(f"The session could not be kept: {sentence}")


def folder() -> Path:
    """Give the folder of kept sessions."""
    return zoo.spad_home() / "sessions"


def new_path(scan: Mapping[str, Any]) -> Path:
    """Give the next free place for a session of a scan."""
    zoo.make_folder(folder())
    name = Path(str(scan.get("path") or "scan")).name.split(".")[0]
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[:60] or "scan"
    base = f"{name}-{str(scan['sha256'])[:12]}"
    number = 1
    while True:
        path = folder() / (base + (f"-{number}" if number > 1 else "") + SUFFIX)
        if not path.exists():
            return path
        number += 1


def latest(sha256: str) -> Path | None:
    """Find the kept session of a scan that was written last."""
    found = [p for p in folder().glob(f"*-{sha256[:12]}*{SUFFIX}") if p.is_file()]
    return max(found, key=lambda one: one.stat().st_mtime, default=None)


def write(path: Path, record: Record, objects: Mapping[str, Object], labels: np.ndarray) -> Path:
    """Write a session and, beside it, its objects and labels.

    Raises:
        SpadError: the place cannot be written.
    """
    import json

    told = json.dumps({name: one.to_json() for name, one in objects.items()})

    def fill(files: Sequence[Path]) -> None:
        with files[0].open("wb") as file:
            np.savez_compressed(file, labels=labels, objects=np.array(told))

    # labels first: a session file without its labels is worth less than the other way round
    replace_files([labels_path(path)], fill)
    record.write(path)
    return path


def read(path: Path, scan: Volume | None = None) -> Kept:
    """Read a session with its objects and labels.

    Args:
        path: of the session file.
        scan: the 3D scan that it has to be of; None checks nothing.

    Raises:
        SpadError: it is none, damaged, or of another scan.
    """
    import json

    record = read_record(path)
    if scan is not None:
        check_scan(record, scan)
    try:
        with np.load(labels_path(path), allow_pickle=False) as found:
            labels = found["labels"]
            told = json.loads(str(found["objects"]))
        objects = {name: Object.from_json(name, one) for name, one in told.items()}
    except FileNotFoundError:
        return Kept(path, record, {}, None)
    except (OSError, ValueError, KeyError) as error:
        raise SpadError(
            f"{labels_path(path)} cannot be read ({error}); expected the labels of the session; "
            f"'spad replay {path.name} --out LABELS' makes them again."
        ) from error
    return Kept(path, record, objects, labels)


def labels_path(path: Path) -> Path:
    """Give the file of labels beside a session file."""
    name = path.name
    stem = name[: -len(SUFFIX)] if name.endswith(SUFFIX) else path.stem
    return path.with_name(stem + _LABELS)


def _has_steps(record: Record) -> bool:
    """Whether anything was done; what was there at first is no step of a person's."""
    return any(step["step"] != "start" for step in record.steps)


def _file_of(entry: zoo.Entry) -> dict[str, str]:
    return {
        "name": entry.name,
        "sha256": hashlib.sha256(entry.path.read_bytes()).hexdigest(),
    }


def _segmenter_of(entry: zoo.Entry) -> dict[str, str] | None:
    if entry.card.segmenter is None:
        return None
    try:
        return _file_of(zoo.find(entry.card.segmenter))
    except SpadError:
        return None
