"""The sessions of a viewer's clicks: gone on with, begun, brought back from files, and kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_spad import click_files, notify
from napari_spad.click_organs import lacking
from napari_spad.click_session import ClickSession
from napari_spad.naming import name_label
from napari_spad.organ_layers import itself
from spad.errors import SpadError
from spad.prompts.session_file import read_record
from spad.volumes.axes import to_canonical

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

    from spad.checkpoints.zoo import Entry
    from spad.volumes.volume import Volume


class ClickSessions:
    """One session for each scan, time of it and labels; all but the current one rest.

    Args:
        dock: the widget whose window the worker lives with.
        begun: called with a session that begins.
        hashed: called with a session, once its scan's hash is known, and that hash.
    """

    def __init__(
        self,
        dock: QWidget,
        begun: Callable[[ClickSession], None],
        hashed: Callable[[ClickSession, str], None],
    ) -> None:
        self._dock, self._begun, self._hashed = dock, begun, hashed
        self._saves: dict[ClickSession, click_files.Autosave] = {}

    def saving(self, session: ClickSession | None) -> click_files.Autosave | None:
        """Give what keeps a session in a file."""
        return None if session is None else self._saves.get(session)

    def labels_of(self, scan: Any, phase: int) -> Any:
        """Give the labels on which the objects of a scan's time were found last, or None."""
        found = [
            one.layer for one in self._saves if one.scan is itself(scan) and one.phase == phase
        ]
        return found[-1] if found else None

    def is_of_other_time(self, labels: Any, scan: Any, phase: int) -> bool:
        """Whether 3D labels hold the objects of another time of a scan, which are to stay there."""
        return itself(labels).ndim == 3 and any(
            one.layer is itself(labels) and one.scan is itself(scan) and one.phase != phase
            for one in self._saves
        )

    def open(
        self,
        scan: Any,
        labels: Any,
        entry: Entry | None,
        phase: int,
        kept: click_files.Kept | None = None,
    ) -> ClickSession:
        """Go on with the session of a scan and labels, or begin one.

        3D labels have one session at a time: that of another scan or time ends.

        Args:
            scan: the layer of the scan.
            labels: a layer on the same grid.
            entry: the clicker.
            phase: which time of a series.
            kept: an earlier session, whose labels the layer holds.

        Raises:
            SpadError: there is no clicker, or its segmenter is not here.
        """
        if entry is None:
            raise SpadError("There is no model for clicks on such scans; train or import one.")
        if why := lacking(entry):
            raise SpadError(why)
        # labels of a series have room for a session at each time
        own, series = itself(labels), labels.ndim > 3
        others = [one for one in self._saves if one.layer is own]
        found = next((one for one in others if not series or one.phase == phase), None)
        # one that has begun on the labels of a kept session knows nothing of its prompts
        if found is not None and (
            kept is not None
            or found.scan is not itself(scan)
            or found.phase != phase
            or not _is_current(found)
        ):
            self.drop(found)
            found = None
        return found or self._begin(scan, labels, entry, phase, kept)

    def refill(self, session: ClickSession | None, kept: click_files.Kept, labels: Volume) -> Any:
        """Put the labels of a kept session into the layer of one in which nothing was done.

        Args:
            session: that ends; None if there is none.
            kept: what is brought back ...
            labels: ... and its labels.

        Returns:
            The layer; None, with all as it was, where something was done in it.
        """
        if session is None or session.log:
            return None
        self.drop(session)
        session.layer.data = np.array(to_canonical(labels, depth_first=False)[0])
        for one in kept.objects.values():
            name_label(session.layer, one.label, one.name)
        return session.layer

    def earlier(self, session: ClickSession, sha256: str) -> tuple[Path, int] | None:
        """Find what may be gone on with in place of a session in which nothing was done.

        Returns:
            The session of the same scan that was written last, and its number of steps.
        """
        if click_files.by_person(session.log):
            return None
        path = click_files.latest(sha256, self._paths())
        if path is None:
            return None
        try:
            count = len(read_record(path).steps)
        except SpadError:
            return None
        return (path, count) if count else None

    def drop(self, session: ClickSession) -> None:
        """End a session; its labels and its file stay."""
        saving = self._saves.pop(session, None)
        if saving is not None:
            saving.close()
        session.close()

    def drop_of(self, layer: Any) -> list[ClickSession]:
        """End the sessions of a layer that was removed, a scan or labels, and give them."""
        found = [one for one in self._saves if itself(layer) in (one.layer, one.scan)]
        for one in found:
            self.drop(one)
        return found

    def close(self) -> None:
        """End all of them."""
        for one in list(self._saves):
            self.drop(one)

    def _paths(self) -> set[Path]:
        """Give the files of all sessions."""
        return {one.path for one in self._saves.values() if one.path is not None}

    def _begin(
        self, scan: Any, labels: Any, entry: Entry, phase: int, kept: click_files.Kept | None
    ) -> ClickSession:
        path, going_on = None, None
        if kept is not None:
            # one that lies elsewhere is a person's, and one of another session is that one's
            own = kept.path.parent == click_files.folder() and kept.path not in self._paths()
            path = kept.path if own else None
            going_on = (kept.objects, kept.record.steps)
        session = ClickSession(self._dock, scan, labels, entry, phase, going_on)
        saving = click_files.Autosave(session, path, self._paths)
        self._saves[session] = saving
        saving.ready.connect(lambda sha256: self._hashed(session, sha256))
        saving.refused.connect(notify.error)
        self._begun(session)
        if kept is not None:
            session.go_on_with(str(kept.record.settings.get("active") or ""))
        return session


def _is_current(session: ClickSession) -> bool:
    try:
        session.check_scan()
    except SpadError:
        return False
    return True
