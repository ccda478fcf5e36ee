"""What looks odd about an object, and a button that repairs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QPushButton, QWidget

from napari_spad import plausible
from napari_spad.keys import with_click_key
from napari_spad.widgets import threads
from napari_spad.widgets.forms import column, text
from spad.errors import SpadError
from spad.volumes.colors import readable

if TYPE_CHECKING:
    from napari_spad.click_session import ClickSession

_JUDGE_MS = 300


class OddRow(QWidget):
    """Judges the active object of a session once nothing has changed for a moment.

    It is shown if something looks odd.
    """

    refused = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._session: ClickSession | None = None
        self._findings: list[plausible.Finding] = []
        self._judged: tuple[ClickSession, str, int] | None = None
        self._turns = threads.Turns()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._judge)
        self.words = text()
        self.repair_button = QPushButton("Repair")
        layout = column(self, bare=True)
        layout.setSpacing(4)
        layout.addWidget(self.words)
        layout.addWidget(self.repair_button)
        self.repair_button.clicked.connect(self._repair)
        turns = self._turns
        self.destroyed.connect(lambda: turns.next())
        self.hide()

    def look_soon(self, session: ClickSession | None) -> None:
        """Judge the active object of a session anew; None shows nothing.

        Until then nothing can be repaired: what was found may be true no more.
        """
        self._session = session
        if session is None:
            # a session that has ended is not to be kept by this
            self._judged, self._findings = None, []
        if self._judged != self._now():
            self.repair_button.setEnabled(False)
        self._timer.start(_JUDGE_MS)

    def _now(self) -> tuple[ClickSession, str, int] | None:
        """What there is to judge: the session, its active object and the version of its labels."""
        session = self._session
        return None if session is None else (session, session.active, session.history.version)

    def _judge(self) -> None:
        session, now = self._session, self._now()
        if session is None or session.active not in session.objects:
            self._show("", [])
            return
        name = session.active
        part = session.session.part(name)
        turn = self._turns.next()
        if part is None:
            self._show(name, [])
            return
        box = session.turned.region(part.region)
        mask = np.array(session.turned.box(part.mask))
        shape = tuple(session.turned.shape[axis] for axis in session.turned.order)
        lead = (session.phase,) if session.scan.ndim > 3 else ()
        plane = np.asarray(session.scan.data[(*lead, (box[0].start + box[0].stop) // 2)])
        ml = float(np.prod(session.volume.spacing)) / 1000

        def work() -> list[plausible.Finding]:
            middle = plausible.middle_of_body(plane)
            return plausible.judge(name, mask, box, shape, ml, middle)

        def done(found: list[plausible.Finding]) -> None:
            if turn == self._turns.now:
                self._box, self._judged = box, now
                self._show(name, found)

        def refused(sentence: str) -> None:
            if turn == self._turns.now:
                self.refused.emit(sentence)

        threads.run(work, done, refused)

    def _show(self, name: str, found: list[plausible.Finding]) -> None:
        self._findings = found
        words = "; ".join(one.words for one in found)
        self.words.setText(f"{readable(name)}: {words}." if words else "")
        first = next((one for one in found if one.repair), None)
        self.repair_button.setVisible(first is not None)
        if first is not None:
            self.repair_button.setText(with_click_key(first.repair, "repair"))
            self.repair_button.setEnabled(self._judged == self._now())
        self.setVisible(bool(words))

    def _repair(self) -> None:
        session = self._session
        finding = next((one for one in self._findings if one.repair), None)
        if session is None or finding is None or self._judged != self._now():
            return
        name = session.active
        if finding.mask is not None:
            label = session.objects[name].label
            if name in session.locked:
                self.refused.emit(
                    f"{readable(name)} is locked; unlock it in the list to change it."
                )
                return
            session.edit(f"{finding.repair} of {readable(name)}", label, self._box, finding.mask)
            return
        try:
            session.swap(name, finding.other)
            session.choose(finding.other)
        except SpadError as error:
            self.refused.emit(str(error))
