"""A small job in the worker that is done again whenever what it is about has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtWidgets import QWidget

from napari_spad import jobs, notify
from spad.worker.messages import Request

_QUIET_MS = 800

Work = tuple[Request, str, Any]
"""The request, what napari's activity dock calls it, and what it is about."""


class QuietJob(QObject):
    """Waits until nothing has changed for a moment, then does the job; one at a time.

    Args:
        dock: whose job it is.
        work: gives what to do now, None for nothing.
    """

    done = Signal(object, object)
    """(answer, what it is about)"""
    failed = Signal()

    def __init__(self, dock: QWidget, work: Callable[[], Work | None]) -> None:
        super().__init__(dock)
        self._dock, self._work = dock, work
        self._job: jobs.RunningJob | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._start)

    @property
    def pending(self) -> bool:
        """Whether an answer is still to come."""
        return self._job is not None or self._timer.isActive()

    def soon(self, milliseconds: int = _QUIET_MS) -> None:
        """Do it when nothing has asked for it any more for so long."""
        self._timer.start(milliseconds)

    def _start(self) -> None:
        if self._job is not None:
            self.soon()
            return
        work = self._work()
        if work is None:
            return
        request, title, subject = work
        job = jobs.run(self._dock, request, title)
        job.succeeded.connect(lambda answer: self._succeeded(answer, subject))
        job.failed.connect(self._failed)
        job.died.connect(self._failed)
        job.cancelled.connect(lambda: self._failed(""))
        self._job = job
        job.start()

    def _succeeded(self, answer: Any, subject: Any) -> None:
        self._job = None
        self.done.emit(answer, subject)

    def _failed(self, sentence: str) -> None:
        self._job = None
        self.failed.emit()
        if sentence:
            notify.error(sentence)
