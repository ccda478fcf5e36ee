"""The plugin's side of the worker: jobs go out, answers come back, torch is never imported."""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from spad.errors import Cancelled, SpadError
from spad.progress import Progress, silent
from spad.worker import messages
from spad.worker.arrays import ArrayFolder, SentArrays, discard_file, take_array
from spad.worker.process import WorkerDied, WorkerProcess

__all__ = ["Job", "OurFault", "WorkerClient", "WorkerDied"]

PATIENCE_SECONDS = 0.4
"""How long a cancelled job has to answer before its worker is killed."""

_log = logging.getLogger(__name__)
_open_clients: weakref.WeakSet[WorkerClient] = weakref.WeakSet()

OnResult = Callable[[Any], None]
OnError = Callable[[SpadError], None]


class OurFault(SpadError):
    """The program failed, not its input; the traceback is in the worker's log."""


class Job:
    """A request in the worker's queue; made by `WorkerClient.submit`.

    Attributes:
        id: its number, counting from 1.
        request: what was asked.
        memory_mb: what the worker held when it was done, 0 before.
    """

    def __init__(
        self,
        number: int,
        request: messages.Request,
        callbacks: tuple[Progress, OnResult, OnError, OnResult],
        wake: Callable[[], None],
    ) -> None:
        self.id = number
        self.request = request
        self._on_progress, self._on_result, self._on_error, self._on_first = callbacks
        self._wake = wake
        self.memory_mb = 0.0
        self._future: Future[Any] = Future()
        self._cancelled_at: float | None = None
        self._patience_seconds = PATIENCE_SECONDS
        self._on_top_since = 0.0
        self._is_begun = False
        self._is_second_try = False

    @property
    def done(self) -> bool:
        """Whether it has ended, in whichever way."""
        return self._future.done()

    @property
    def rank(self) -> int:
        """Its request's priority: a job of higher rank overtakes those that wait or run."""
        return self.request.priority

    @property
    def cancel_requested(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled_at is not None

    def cancel(self, patience: float = PATIENCE_SECONDS) -> None:
        """Stop the job, running or waiting; it ends with `Cancelled`.

        Args:
            patience: seconds that the worker has to notice, before it is killed.
        """
        if self._cancelled_at is None:
            self._patience_seconds = patience
            self._cancelled_at = time.monotonic()
            self._wake()

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the answer.

        Args:
            timeout: seconds to wait, None for ever.

        Returns:
            The answer that the request's docstring names.

        Raises:
            SpadError: the job failed (`Cancelled`, `WorkerDied` and `OurFault` are kinds of it).
            TimeoutError: it has not ended in time.
        """
        return self._future.result(timeout)

    def _check(self) -> None:
        if self._cancelled_at is not None:
            raise Cancelled(f"Stopped {self.request.doing}.")

    def _progress(self, fraction: float, text: str) -> None:
        if not self.cancel_requested:
            _call(self._on_progress, fraction, text)

    def _patience(self) -> float:
        """Seconds that it has left to notice that it was cancelled; it can only while on top."""
        assert self._cancelled_at is not None
        since = max(self._cancelled_at, self._on_top_since)
        return since + self._patience_seconds - time.monotonic()

    def _first(self, value: Any) -> None:
        _call(self._on_first, value)

    def _succeed(self, value: Any) -> None:
        self._future.set_result(value)
        _call(self._on_result, value)

    def _fail(self, error: SpadError) -> None:
        if not self.done:
            self._future.set_exception(error)
            _call(self._on_error, error)


class WorkerClient:
    """Runs requests one at a time in a process of its own, which starts with the first of them.

    A request of higher priority overtakes those that wait, and the one under way too: that stands
    still at its next progress report until the other is done.

    Callbacks are called on a thread of the client's. A worker that dies ends its jobs with
    `WorkerDied`, and the next job starts another; scans that were sent stay sent.

    Args:
        parents: folders in which the private folders for arrays are made; by default shared
            memory and the temporary folder.
    """

    def __init__(self, parents: Sequence[Path] | None = None) -> None:
        self._parents = parents
        self._owner_pid = os.getpid()
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._waiting: list[Job] = []
        self._running: list[Job] = []
        """Those that the worker has; the last is under way and the others stand still for it."""
        self._process: WorkerProcess | None = None
        self._folder: ArrayFolder | None = None
        self._sent: SentArrays | None = None
        self._warmed: messages.Warm | None = None
        self._closing = False
        self._thread: threading.Thread | None = None
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        _open_clients.add(self)

    def submit(
        self,
        request: messages.Request,
        on_progress: Progress | None = None,
        on_result: OnResult | None = None,
        on_error: OnError | None = None,
        on_first: OnResult | None = None,
    ) -> Job:
        """Queue a request.

        Args:
            request: one of `spad.worker.messages`; its arrays must stay as they are until it ends.
            on_progress: called with the fraction done and a text.
            on_result: called with the answer.
            on_first: called with a first answer, where a request gives one before its answer.
            on_error: called with the `SpadError` by which it ended, `Cancelled` included.

        Returns:
            The job. All callbacks come on the client's thread, and exactly one of
            `on_result` and `on_error`.

        Raises:
            SpadError: the client was closed.
        """
        callbacks = (
            *(on_progress or silent, on_result or _ignore, on_error or _ignore),
            on_first or _ignore,
        )
        with self._lock:
            if self._closing:
                raise SpadError("The worker was closed with its viewer; open the plugin again.")
            job = Job(next(self._numbers), request, callbacks, self._wake)
            self._waiting.append(job)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._serve, name="spad-worker-client", daemon=True
                )
                self._thread.start()
        self._wake()
        return job

    def warm(self, models: Sequence[str] = (), device: str = "auto") -> Job:
        """Start the worker and load torch and the named models, so that the first click is quick.

        Args:
            models: names or files of models.
            device: "auto", "cpu" or "cuda".

        Returns:
            A job; its answer says which device it is and how long it took.
        """
        return self.submit(messages.Warm(tuple(models), device))

    @property
    def pid(self) -> int | None:
        """The worker's process id; None while there is no worker."""
        process = self._process
        return None if process is None else process.pid

    @property
    def folders(self) -> tuple[Path, ...]:
        """The private folders; none before the first job."""
        return () if self._folder is None else self._folder.paths

    def close(self) -> None:
        """End the worker, which frees its device, and remove what lies in shared memory.

        Jobs that have not ended end with `Cancelled`. Also called when Python exits.
        """
        if os.getpid() != self._owner_pid:
            return  # a forked child has neither the thread nor a right to the worker
        with self._lock:
            self._closing = True
            thread = self._thread
        self._wake()
        if thread is None:
            self._shut()
        elif thread is not threading.current_thread():
            thread.join(timeout=10)

    def __enter__(self) -> WorkerClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wake(self) -> None:
        try:
            self._wake_out.send(b"!")
        except OSError:
            return  # full (it will wake anyway) or closed (there is nobody to wake)

    # What follows runs on the client's thread.

    def _serve(self) -> None:
        try:
            while not self._closing:
                try:
                    self._step()
                except Exception as error:
                    _log.exception("the worker's client failed")
                    words = f"The worker's client failed ({type(error).__name__}: {error})."
                    self._end_all(OurFault(words))
                    self._end_process()
        finally:
            self._shut()

    def _step(self) -> None:
        self._drop_cancelled()
        self._tell_forgotten()
        if self._begin():
            return
        timeout = None
        job = self._running[-1] if self._running else None
        if job is not None and job.cancel_requested:
            timeout = job._patience()
            if timeout <= 0:
                self._kill_for(job)
                return
        connection = None if self._process is None else self._process.connection
        sources: list[Any] = [self._wake_in] if connection is None else [self._wake_in, connection]
        del job  # while this waits, nothing here may keep a scan alive
        for source in wait(sources, timeout):
            if source is connection:
                self._receive()
            else:
                self._hear_wake()

    def _hear_wake(self) -> None:
        with suppress(BlockingIOError):
            self._wake_in.recv(4096)
        for job in self._running:
            if job.cancel_requested:
                self._post(messages.Cancel(job.id))

    def _drop_cancelled(self) -> None:
        """End what was cancelled before its turn, and what stands still and so cannot answer."""
        with self._lock:
            dropped = [job for job in self._waiting if job.cancel_requested]
            for job in dropped:
                self._waiting.remove(job)
        for job in dropped:
            job._fail(Cancelled(f"Stopped before {job.request.doing}."))
        for job in self._running[:-1]:
            if job.cancel_requested:
                job._fail(Cancelled(f"Stopped {job.request.doing}."))

    def _next(self) -> Job | None:
        """Take the job that is to be sent now out of the queue, if there is one."""
        with self._lock:
            if not self._waiting:
                return None
            job = max(self._waiting, key=lambda job: job.rank)  # the first of equals
            if self._running:
                top = self._running[-1]
                if top.cancel_requested or job.rank <= top.rank:
                    return None
            self._waiting.remove(job)
            return job

    def _begin(self) -> bool:
        """Send the next job; False where there is none."""
        job = self._next()
        if job is None:
            return False
        self._running.append(job)
        job._on_top_since = time.monotonic()

        def check() -> None:
            job._check()
            if self._closing:
                raise Cancelled(f"Stopped {job.request.doing}: the worker is being closed.")

        try:
            self._ready(check)
            assert self._sent is not None
            sent = self._sent
            packed = messages.pack(job.request, lambda array: sent.send(array, check))
            check()
            self._post(messages.Start(job.id, packed))
        except SpadError as error:
            self._end(job, error)
        except OSError as error:
            words = f"The worker cannot be reached ({error}); free some space and try again."
            self._end(job, SpadError(words))
        return True

    def _ready(self, check: Callable[[], None]) -> None:
        if self._folder is None:
            self._folder = ArrayFolder.create(self._parents)
            self._sent = SentArrays(self._folder, self._wake)
        if self._process is None:
            self._process = WorkerProcess(self._folder, check)

    def _post(self, message: Any) -> None:
        """Send a message; a worker that is gone is noticed when it is next listened to."""
        if self._process is not None and self._process.connection is not None:
            try:
                self._process.connection.send(message)
            except (BrokenPipeError, ConnectionResetError):
                return

    def _receive(self) -> None:
        assert self._process is not None
        connection = self._process.connection
        assert connection is not None
        try:
            message = connection.recv()
        except (EOFError, OSError):
            self._mourn()
            return
        job = next((one for one in self._running if one.id == message.job), None)
        if job is None:
            return
        job._is_begun = True
        match message:
            case messages.Progress():
                job._progress(message.fraction, message.text)
            case messages.Partial():
                self._deliver_first(job, message.value)
            case messages.Result():
                job.memory_mb = message.memory_mb
                self._deliver(job, message.value)
            case messages.Failed():
                kind = OurFault if message.is_ours else SpadError
                self._end(job, kind(message.message))
            case messages.Stopped():
                self._end(job, Cancelled(f"Stopped {job.request.doing}."))

    def _deliver(self, job: Job, packed: Any) -> None:
        if job.cancel_requested:
            for file in messages.files_of(packed):
                discard_file(file)
            self._end(job, Cancelled(f"Stopped {job.request.doing}."))
            return
        value = messages.unpack(packed, take_array, messages.sources_of(job.request))
        if isinstance(job.request, messages.Warm):
            self._warmed = job.request
        elif self._warmed is None and not isinstance(job.request, messages.Describe):
            self._warmed = messages.Warm()
        self._leave(job)
        job._succeed(value)

    def _deliver_first(self, job: Job, packed: Any) -> None:
        if job.cancel_requested:
            for file in messages.files_of(packed):
                discard_file(file)
            return
        job._first(messages.unpack(packed, take_array, messages.sources_of(job.request)))

    def _mourn(self) -> None:
        """Notice that the worker is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        process.end()
        for job in reversed(list(self._running)):
            if job._is_begun or job._is_second_try:
                self._end(job, process.died(job.request.doing))
            else:
                # it died while it idled, but that was seen only after the job had gone out
                job._is_second_try = True
                self._return(job)

    def _kill_for(self, job: Job) -> None:
        """End a job that does not listen, with its worker; have the next one as warm as it was.

        Jobs that stood still for it begin again.
        """
        self._end(job, Cancelled(f"Stopped {job.request.doing}."))
        self._end_process()
        for other in reversed(list(self._running)):
            self._return(other)
        with self._lock:
            if self._warmed is not None and not self._waiting and not self._closing:
                callbacks = (silent, _ignore, _ignore, _ignore)
                job = Job(next(self._numbers), self._warmed, callbacks, self._wake)
                self._waiting.append(job)

    def _return(self, job: Job) -> None:
        """Put a job back at the head of the queue."""
        self._leave(job)
        job._is_begun = False
        if not job.done:
            with self._lock:
                self._waiting.insert(0, job)

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end()

    def _end(self, job: Job, error: SpadError) -> None:
        self._leave(job)
        job._fail(error)

    def _end_all(self, error: SpadError) -> None:
        for job in reversed(list(self._running)):
            self._end(job, error)

    def _leave(self, job: Job) -> None:
        self._running.remove(job)
        if self._running:
            self._running[-1]._on_top_since = time.monotonic()
        elif self._sent is not None:
            self._sent.release()

    def _tell_forgotten(self) -> None:
        files = () if self._sent is None else self._sent.collect()
        if files:
            self._post(messages.Forget(files))

    def _shut(self) -> None:
        self._end_process()
        self._end_all(Cancelled("Stopped: the worker was closed."))
        with self._lock:
            left, self._waiting = self._waiting, []
        for job in left:
            job._fail(Cancelled("Stopped: the worker was closed."))
        if self._folder is not None:
            self._folder.remove()
        self._wake_in.close()
        self._wake_out.close()


def _call(callback: Callable[..., None], *values: Any) -> None:
    try:
        callback(*values)
    except Exception:
        _log.exception("a callback of a job failed")


def _ignore(_: Any) -> None:
    pass


@atexit.register
def _close_all() -> None:
    for client in list(_open_clients):
        client.close()
