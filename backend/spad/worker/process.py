"""One life of the worker process, seen from the client: start it, speak with it, end it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

import spad
from spad.errors import SpadError
from spad.worker.arrays import ArrayFolder

RESULT_PREFIX = "out"
START_SECONDS = 120.0


class WorkerDied(SpadError):
    """The worker process ended in the middle of a job; the next job starts another one.

    Attributes:
        log: the last lines that it wrote.
    """

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log


class WorkerProcess:
    """A running worker.

    Args:
        folder: where arrays cross; also holds the worker's log and socket.
        check: called while the worker starts; an error it raises ends the start.

    Raises:
        WorkerDied: it did not come up.
    """

    def __init__(self, folder: ArrayFolder, check: Callable[[], None]) -> None:
        self._folder = folder
        self._log = folder.disk / "worker.log"
        self._address = folder.disk / "address"
        self._tidy()
        self.connection: Connection[Any, Any] | None = None
        key = secrets.token_bytes(32)
        with self._log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "spad.worker.server"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(),
                # Ctrl-C in the terminal of napari is not meant for the worker
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        try:
            self._tell(key)
            self.connection = self._connect(key, check)
        except BaseException:
            self.end()
            raise

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def died(self, doing: str) -> WorkerDied:
        """Say in one sentence how the worker ended, once it has ended.

        Args:
            doing: what it was doing, such as "segmenting a scan".

        Returns:
            The error for the job that is lost.
        """
        self.end()
        log = self._log_tail()
        lines = [line.strip() for line in log.splitlines() if line.strip()]
        # faulthandler's headline says more than the stacks that follow it
        fatal = [line for line in lines if line.startswith("Fatal Python error")]
        last = f"; its last words were '{(fatal or lines)[-1][:200]}'" if lines else ""
        return WorkerDied(
            f"The worker process ended ({_reason(self._process.returncode)}) while it was {doing}"
            f"{last}; nothing in the viewer is lost: start the job again and a new worker does it.",
            log,
        )

    def end(self) -> None:
        """End the process, wait for it and remove what it leaves."""
        self._process.kill()
        if self.connection is not None:
            self.connection.close()
        if self._process.stdin is not None:
            with suppress(OSError):  # it died before it read its key
                self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):  # it ends when its driver lets go of it
            self._process.wait(timeout=10)
        self._tidy()

    def _tidy(self) -> None:
        """Remove what a worker that is gone has left: answers that nobody reads, its socket."""
        for prefix in (RESULT_PREFIX, "address", "socket"):
            self._folder.remove_files(prefix)

    def _tell(self, key: bytes) -> None:
        settings = {
            "key": key.hex(),
            "folders": [str(path) for path in self._folder.paths],
            "address": str(self._address),
        }
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(settings).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self.died("starting") from error

    def _connect(self, key: bytes, check: Callable[[], None]) -> Connection[Any, Any]:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            check()
            if self._process.poll() is not None:
                break
            if self._address.exists():
                address = json.loads(self._address.read_text(encoding="utf-8"))
                where = address if isinstance(address, str) else tuple(address)
                try:
                    return Client(where, authkey=key)
                except (OSError, EOFError, AuthenticationError):
                    break
            time.sleep(0.01)
        raise self.died("starting")

    def _log_tail(self) -> str:
        try:
            with self._log.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, size - 8192))
                text = log.read().decode("utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-40:])


def _environment() -> dict[str, str]:
    """The client's environment, in which `spad` is found as it was found here."""
    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    root = Path(spad.__file__).parents[1]
    if root.name not in ("site-packages", "dist-packages"):
        known = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([known, str(root)] if known else [str(root)])
    return environment


def _reason(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}, often for want of memory" if name == "SIGKILL" else name
