"""Sessions of clicks from files and into files, as the Click part offers that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from napari_spad import click_files, layers, notify, places
from napari_spad.widgets import threads
from spad.data.channels import one_phase
from spad.errors import SpadError
from spad.volumes.volume import Volume

if TYPE_CHECKING:
    from napari_spad.click_session import ClickSession
    from napari_spad.widgets.click_part import ClickPart

Bring = Callable[[click_files.Kept, Volume], None]
"""Bring what was kept back on a scan; may raise `SpadError`."""


class SessionOpening:
    """Opens and saves the sessions of a Click part, and offers the last one of a scan.

    Args:
        part: whose sessions, buttons and status they are.
        bring: brings what was read back.
        refuse: called with a sentence.
    """

    def __init__(self, part: ClickPart, bring: Bring, refuse: Callable[[str], None]) -> None:
        self._part, self._bring, self._refuse = part, bring, refuse
        self._offered: Path | None = None
        self._turns = threads.Turns()
        part.save_button.clicked.connect(self._ask_to_save)
        part.open_button.clicked.connect(self._ask_to_open)
        part.go_on_button.clicked.connect(self._go_on)

    def stop(self) -> None:
        """Drop what is being read, for the scan or the dock is another, or gone."""
        self._turns.next()

    def open(self, path: Path) -> None:
        """Read a session, and have it brought back unless another scan or time is shown then."""
        part = self._part
        layer = part.scan
        scan = None if layer is None else layers.scan_volume(layer)
        if scan is None:
            notify.error("Open the session's scan first, and choose it above.")
            return
        phase, turn = places.time_shown(part.viewer, layer), self._turns.next()
        part.status.setText(f"Opening {path.name} ...")

        def read() -> click_files.Kept:
            return click_files.read(path, one_phase(scan, phase))

        def come(kept: click_files.Kept) -> None:
            if turn != self._turns.now:
                return
            if places.time_shown(part.viewer, layer) != phase:
                one, _ = places.words_of_time(scan)
                self._refuse(
                    f"Another {one} is shown than {one} {phase}, on which {path.name} was to be "
                    f"opened; go back to that {one} and open it again."
                )
                return
            try:
                self._bring(kept, scan)
            except SpadError as error:
                self._refuse(str(error))

        def refuse(sentence: str) -> None:
            if turn == self._turns.now:
                self._refuse(sentence)

        threads.run(read, come, refuse)

    def offer(self, session: ClickSession, sha256: str) -> None:
        """Offer to go on with what was done on this scan before."""
        part = self._part
        found = part.sessions.earlier(session, sha256) if session is part.session else None
        if found is not None:
            self._offered, count = found
            date = click_files.date_of(self._offered)
            part.go_on_button.setText(f"Go on with the session of {date} ({count} steps)")
            part.go_on_button.show()

    def hide_offer(self) -> None:
        """Offer nothing any more."""
        self._offered = None
        self._part.go_on_button.hide()

    def _go_on(self) -> None:
        # it stays on offer until it is there
        if self._offered is not None:
            self.open(self._offered)

    def _ask_to_save(self) -> None:
        saving = self._part.saving
        path = None if saving is None else self._part.ask_where_to_save()
        if saving is None or path is None:
            return
        try:
            saving.save_to(path)
        except SpadError as error:
            self._refuse(str(error))
            return
        notify.info(f"Saved {path}; 'spad replay' makes its labels again.")

    def _ask_to_open(self) -> None:
        path = self._part.ask_what_to_open()
        if path is not None:
            self.open(path)
