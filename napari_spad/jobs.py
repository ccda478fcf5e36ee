"""Jobs in the worker: one client for all docks, answers on the Qt thread, shown in napari."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import QMainWindow, QWidget

from spad.errors import Cancelled, SpadError

if TYPE_CHECKING:
    from spad.worker.client import Job, WorkerClient
    from spad.worker.messages import Request

_STEPS = 1000
_OVERTAKEN_SECONDS = 30.0
_GUESS_SECONDS, _GUESS_FRACTION = 1.0, 0.05


@dataclass
class _State:
    """The client, the windows whose docks use it, and the jobs under way."""

    client: WorkerClient | None = None
    windows: set[int] = field(default_factory=set)
    running: set[RunningJob] = field(default_factory=set)


def client() -> WorkerClient:
    """Give the one client of this process; its worker starts with the first job."""
    if _shared.client is None:
        from spad.worker.client import WorkerClient

        _shared.client = WorkerClient()
    return _shared.client


def close_client() -> None:
    """End the worker, which frees its memory and its device; the next job starts another."""
    for job in list(_shared.running):
        job.leave()
    if _shared.client is not None:
        _shared.client.close()
        _shared.client = None


class RunningJob(QObject):
    """A job under way: its signals come on the Qt thread, exactly one of the last four.

    `first` brings an answer that a better one follows. `died` says that the worker ended in the
    middle of it, through no fault of the job's, so that it may be tried again. Also shown in
    napari's activity dock, where it can be cancelled too.
    """

    progressed = Signal(float, str)
    first = Signal(object)
    succeeded = Signal(object)
    failed = Signal(str)
    died = Signal(str)
    cancelled = Signal()
    _reported = Signal(float, str)
    _began_to_answer = Signal(object)
    _ended = Signal(object, object)

    def __init__(self, request: Request, title: str) -> None:
        super().__init__()
        self._job: Job | None = None
        self._activity: Any = None
        self._title = title
        self._request = request
        self._began = 0.0
        self.seconds = 0.0
        self.memory_mb = 0.0
        """What the worker held when the job was done."""
        queued = Qt.ConnectionType.QueuedConnection
        self._reported.connect(self._show, queued)
        self._began_to_answer.connect(self.first.emit, queued)
        self._ended.connect(self._finish, queued)

    def start(self) -> None:
        """Send the request to the worker."""
        self._activity = _activity(self._title, self.cancel) if self._title else None
        self._began = time.monotonic()
        _shared.running.add(self)
        self._job = client().submit(
            self._request,
            on_progress=self._reported.emit,
            on_result=lambda value: self._ended.emit(value, None),
            on_error=lambda error: self._ended.emit(None, error),
            on_first=self._began_to_answer.emit,
        )

    def cancel(self) -> None:
        """Stop it; `cancelled` follows within 0.5 s."""
        if self._job is not None:
            self._job.cancel()

    def overtake(self) -> None:
        """Stop it for another that follows at once, without killing the worker."""
        if self._job is not None:
            self._job.cancel(_OVERTAKEN_SECONDS)

    def leave(self) -> None:
        """Stop it and tell nobody any more: the dock is gone."""
        self.blockSignals(True)
        self.overtake()
        self._close()

    def _show(self, fraction: float, text: str) -> None:
        left = time_left(fraction, time.monotonic() - self._began)
        text = f"{text}, {left}" if text and left else text
        self.progressed.emit(fraction, text)
        activity = self._activity
        if activity is None:
            return
        activity.set_description(f"{self._title}: {text}" if text else self._title)
        # napari handles waiting events there, among them perhaps the end of this job
        if self._activity is activity:
            activity.update(max(0, round(fraction * _STEPS) - activity.n))

    def _finish(self, value: Any, error: SpadError | None) -> None:
        from spad.worker.client import WorkerDied

        self.seconds = time.monotonic() - self._began
        if self._job is not None:
            self.memory_mb = self._job.memory_mb
        # they hold each other, and with them the scan, until Python looks
        self._job = None
        self._close()
        if error is None:
            self.succeeded.emit(value)
        elif isinstance(error, Cancelled):
            self.cancelled.emit()
        elif isinstance(error, WorkerDied):
            self.died.emit(str(error))
        else:
            self.failed.emit(str(error))

    def _close(self) -> None:
        _shared.running.discard(self)
        if self._activity is not None:
            self._activity.close()
            self._activity = None


def time_left(fraction: float, seconds: float) -> str:
    """Say how long a job will still take, if it goes on as it did; "" while that is a guess.

    Args:
        fraction: what is done of it, 0 to 1.
        seconds: how long that took.
    """
    if seconds < _GUESS_SECONDS or not _GUESS_FRACTION < fraction < 1:
        return ""
    return left_words(seconds * (1 - fraction) / fraction)


def left_words(left: float) -> str:
    """Write seconds that are left as "about 30 s left"."""
    if left < 1:
        return "about 1 s left"
    return f"about {left:.0f} s left" if left < 90 else f"about {left / 60:.0f} min left"


_shared = _State()


def run(dock: QWidget, request: Request, title: str) -> RunningJob:
    """Make a job for a dock; connect its signals, then `start` it.

    When the dock is closed for good, the job ends, and with its window the worker.

    Args:
        dock: whose job it is.
        request: the work.
        title: what napari's activity dock calls it; "" keeps it out of there (a slider's work).
    """
    _watch(dock)
    job = RunningJob(request, title)
    dock.destroyed.connect(job.leave)
    return job


def _watch(dock: QWidget) -> None:
    window = dock
    while not isinstance(window, QMainWindow) and (parent := window.parentWidget()) is not None:
        window = parent
    key = id(window)
    if key not in _shared.windows:
        _shared.windows.add(key)
        window.destroyed.connect(lambda: _window_gone(key))


def _window_gone(key: int) -> None:
    _shared.windows.discard(key)
    if not _shared.windows:
        close_client()


def _activity(title: str, cancel: Callable[[], None]) -> Any:
    from napari.utils.progress import cancelable_progress

    class Activity(cancelable_progress):
        """A bar whose Cancel button acts at once, for work that is no loop of ours."""

        def cancel(self) -> None:
            super().cancel()
            cancel()

    return Activity(total=_STEPS, desc=title)
