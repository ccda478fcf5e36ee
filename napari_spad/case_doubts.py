"""How unsure the model is of the cases of a queue, found while a person looks at one of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_spad import jobs
from napari_spad.case_queue import OPEN, Case, CaseQueue
from napari_spad.case_rating import rating
from napari_spad.widgets import threads
from spad.errors import SpadError
from spad.worker.messages import Rate

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

    from spad.volumes.volume import Volume

Look = tuple[Case, "Volume | None"]
"""A case, and its scan if it is open."""


class CaseDoubts(QObject):
    """Has the worker look at cases, one at a time and after all that a person starts.

    Whatever it looks at, it looks at the open case just before: the worker holds two scans, and
    the open one is to stay among them, so that a click finds it ready.

    Args:
        dock: whose work it is.
        here: gives the open case and its scan, None while there is none.
        read: reads the scan of a case, off the main thread.
    """

    changed = Signal()
    """A figure is known, or why there is none."""
    said = Signal(str)
    """How far the rating is."""
    ended = Signal()
    """All cases are rated that can be."""

    def __init__(
        self,
        dock: QWidget,
        here: Callable[[], Look | None],
        read: Callable[[Case], Volume],
    ) -> None:
        super().__init__(dock)
        self._dock, self._here, self._read = dock, here, read
        self.reasons: dict[str, str] = {}
        self._queue: CaseQueue | None = None
        self._ahead: Case | None = None
        self._looks: list[Callable[[], Look | None]] = []
        self._rated: list[Callable[[], Look | None]] = []
        self._left: list[str] = []
        self._total = 0
        self._at: Case | None = None
        self._job: jobs.RunningJob | None = None
        turns = self._turns = threads.Turns()
        dock.destroyed.connect(lambda: turns.next())

    @property
    def rating(self) -> bool:
        """Whether all cases are being rated."""
        return self._total > 0

    def begin(self, queue: CaseQueue) -> None:
        """Work on another queue from now on."""
        if self._job is not None:
            self._job.overtake()
        self._turns.next()
        self._queue, self._ahead, self._at, self._job = queue, None, None, None
        self._looks, self._rated, self._left, self._total, self.reasons = [], [], [], 0, {}

    def look_ahead(self, ahead: Case | None) -> None:
        """Look at the open case and then at the next, if there is one, so that both are ready."""
        self._ahead = ahead
        self._looks = [self._here, lambda: None if ahead is None else (ahead, None)]
        self._go_on()

    def rate(self) -> None:
        """Rate all open cases whose figure is unknown, those that could not be before included."""
        if self._queue is None:
            return
        self.reasons = {}
        cases = [case for case in self._queue.cases if case.state == OPEN]
        self._left = [case.name for case in cases if case.uncertainty is None]
        self._total = len(self._left)
        self._go_on()

    def stop(self) -> None:
        """Rate no more; what is known stays."""
        self._left, self._rated, self._total = [], [], 0
        here = self._here()
        wanted = (self._ahead, None if here is None else here[0])
        names = [case.name for case in wanted if case is not None]
        if self._at is None or self._at.name in names:
            return
        if self._job is not None:
            self._job.overtake()
        else:
            # its file is being read
            self._turns.next()
            self._at = None

    # one look after the other

    def _go_on(self) -> None:
        if self._at is not None:
            return
        look = self._next()
        if look is None:
            if self.rating:
                self._total = 0
                self.ended.emit()
            return
        self._at, volume = look
        case, turn, here = self._at, self._turns.now, self._here()
        modality = None if here is None or here[1] is None else here[1].modality

        def come(found: tuple[Rate, str]) -> None:
            if turn == self._turns.now:
                self._ask(case, *found)

        def refuse(sentence: str) -> None:
            if turn == self._turns.now:
                self._done(case, sentence)

        if volume is None:
            read = self._read
            threads.run(lambda: rating(read(case), modality), come, refuse)
            return
        try:
            come(rating(volume, modality))
        except SpadError as error:
            refuse(str(error))

    def _next(self) -> Look | None:
        while self._looks or self._rated or self._left:
            if not self._looks and not self._rated:
                self._rated = [self._here, partial(self._unrated, self._left.pop(0))]
            look = (self._looks or self._rated).pop(0)()
            if look is not None:
                return look
        return None

    def _unrated(self, name: str) -> Look | None:
        assert self._queue is not None
        case = self._queue[name]
        if not self.rating or case.state != OPEN or case.uncertainty is not None:
            return None
        number = self._total - len(self._left)
        self.said.emit(f"Rating {number} of {self._total}: {name} ... 'By name' stops this.")
        return case, None

    def _ask(self, case: Case, request: Rate, rater: str) -> None:
        job, turn = jobs.run(self._dock, request, ""), self._turns.now

        def end(reason: Callable[[], str]) -> None:
            if turn == self._turns.now:
                self._done(case, reason())

        job.succeeded.connect(lambda report: end(lambda: self._note(case, report, rater)))
        job.failed.connect(lambda sentence: end(lambda: sentence))
        job.died.connect(lambda sentence: end(lambda: sentence))
        job.cancelled.connect(lambda: end(str))
        self._job = job
        job.start()

    def _note(self, case: Case, report: dict[str, Any], rater: str) -> str:
        """Note a figure down; give the reason where there is none."""
        assert self._queue is not None
        figure = report["uncertainty"]
        if figure is None:
            which = "finds no organ in" if report["windows"] else "does not take"
            return f"The model {rater.split()[0]} {which} this scan, so it has no uncertainty."
        try:
            if self._queue[case.name].uncertainty != figure:
                self._queue.set_uncertainty(case.name, figure, rater)
        except SpadError as error:
            return str(error)
        return ""

    def _done(self, case: Case, reason: str) -> None:
        self._at = self._job = None
        self.reasons.pop(case.name, None)
        if reason:
            self.reasons[case.name] = reason
        self.changed.emit()
        self._go_on()
