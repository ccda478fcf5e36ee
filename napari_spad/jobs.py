"""Jobs in the worker: one client for all docks, answers on the Qt thread, shown in napari."""

from __future__ import annotations

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
    """A job under way: its signals come on the Qt thread, exactly one of the last three.

    Also shown in napari's activity dock, where it can be cancelled too.
    """

    progressed = Signal(float, str)
    succeeded = Signal(object)
    failed = Signal(str)
    cancelled = Signal()
    _ended = Signal(object, object)

    def __init__(self, request: Request, title: str) -> None:
        super().__init__()
        self._job: Job | None = None
        self._activity: Any = None
        self._title = title
        self._request = request
        queued = Qt.ConnectionType.QueuedConnection
        self.progressed.connect(self._show, queued)
        self._ended.connect(self._finish, queued)

    def start(self) -> None:
        """Send the request to the worker."""
        self._activity = _activity(self._title, self.cancel)
        _shared.running.add(self)
        self._job = client().submit(
            self._request,
            on_progress=self.progressed.emit,
            on_result=lambda value: self._ended.emit(value, None),
            on_error=lambda error: self._ended.emit(None, error),
        )

    def cancel(self) -> None:
        """Stop it; `cancelled` follows within 0.5 s."""
        if self._job is not None:
            self._job.cancel()

    def leave(self) -> None:
        """Stop it and tell nobody any more: the window is gone."""
        self.blockSignals(True)
        self.cancel()
        self._close()

    def _show(self, fraction: float, text: str) -> None:
        activity = self._activity
        if activity is None:
            return
        activity.set_description(f"{self._title}: {text}" if text else self._title)
        # napari handles waiting events there, among them perhaps the end of this job
        if self._activity is activity:
            activity.update(max(0, round(fraction * _STEPS) - activity.n))

    def _finish(self, value: Any, error: SpadError | None) -> None:
        self._close()
        if error is None:
            self.succeeded.emit(value)
        elif isinstance(error, Cancelled):
            self.cancelled.emit()
        else:
            self.failed.emit(str(error))

    def _close(self) -> None:
        _shared.running.discard(self)
        if self._activity is not None:
            self._activity.close()
            self._activity = None


_shared = _State()


def run(dock: QWidget, request: Request, title: str) -> RunningJob:
    """Make a job for a dock; connect its signals, then `start` it.

    When the dock's window is closed for good, the worker ends.
    """
    _watch(dock)
    return RunningJob(request, title)


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
